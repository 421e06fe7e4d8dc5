"""HTTP/1 requests and responses: RFC 9112, semantics of RFC 9110; the HTTP/2 preface of RFC 9113 section 3.4.

In: bytes of a TCP stream at a message boundary. Out: a Layer "http" with the start line's and a few headers' facts. The
body is skipped as far as the payload holds it; `http.body_left` says what is still to come, so that nobody looks for a
message inside a body. RTSP, SIP and ICY start lines are somebody else's.
"""

from __future__ import annotations

import re
from typing import Final

from appid.wire import Fact, Layer

METHODS: Final = frozenset(
    b"GET HEAD POST PUT DELETE CONNECT OPTIONS TRACE PATCH "  # RFC 9110 section 9, RFC 5789
    b"PROPFIND PROPPATCH MKCOL COPY MOVE LOCK UNLOCK SEARCH REPORT MKCALENDAR ACL BIND "  # WebDAV: RFC 4918, 3253, 4791
    b"SUBSCRIBE UNSUBSCRIBE NOTIFY POLL BPROPPATCH RPC_IN_DATA RPC_OUT_DATA BITS_POST CCM_POST".split()
)
FIRST: Final = frozenset(range(0x41, 0x5B)) | frozenset(range(0x61, 0x7B)) | {0}
"""Letters; 0 opens the SETTINGS frame that a HTTP/2 server sends first."""

LINE_LIMIT: Final = 8192
HEAD_LIMIT: Final = 32768
HEADERS: Final = 128

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_METHOD: Final = re.compile(rb"[A-Za-z][A-Za-z_-]{1,23}")
_VERSION: Final = re.compile(rb"HTTP/(\d\.\d)")
_STATUS: Final = re.compile(rb"HTTP/(\d\.\d) ([1-5]\d\d)(?: |$)")
_TARGET: Final = re.compile(rb"/|https?://|\*|[\w.\[\]:-]+:\d{1,5}$", re.IGNORECASE)
_AUTHORITY: Final = re.compile(r"(?:https?://)?([\w.\[\]:-]{1,255})", re.IGNORECASE)
"""The host of an absolute-form or authority-form target, RFC 9112 section 3.2."""
UNTIL_CLOSE: Final = 2**62
"""`http.body_left` of a body that only the end of the connection ends, or of a chunk that is not all there."""
_WANTED: Final = {
    b"host": "http.host",
    b"user-agent": "http.user_agent",
    b"server": "http.server",
    b"content-type": "http.content_type",
    b"upgrade": "http.upgrade",
}
_LOWER: Final = frozenset({b"host", b"upgrade"})
_REPEATED: Final = frozenset({b"host"})
"""Said twice it says nothing: such a request must be refused (RFC 9112 section 3.2)."""


def decode_response(payload: memoryview) -> Layer | None:
    """A response only, where a segment of a stream begins that was joined in its middle."""
    return decode(payload) if bytes(payload[:7]) == b"HTTP/1." else None


def decode(payload: memoryview) -> Layer | None:
    """One message. consumed 0: its head has not ended yet; the lines that have come are told."""
    if not payload:
        return None
    if payload[0] == 0:
        return _settings(payload)
    head = bytes(payload[:HEAD_LIMIT])
    line, newline, rest = head.partition(b"\n")
    line = line.rstrip(b"\r")
    if not newline:
        return _unfinished(line)
    if len(line) > LINE_LIMIT:
        return None
    if head.startswith(PREFACE):
        return Layer("http", (Fact("http.method", "PRI"), Fact("http.version", "2.0")), len(PREFACE))
    start = _start_line(line)
    if start is None:
        return None
    headers, size = _headers(rest)
    hosts = sum(name == b"host" for name, _ in headers)
    wanted = _WANTED.keys() if hosts < 2 else _WANTED.keys() - _REPEATED
    facts = (*start, *(Fact(_WANTED[name], _value(name, value)) for name, value in headers if name in wanted))
    if size is None:  # a head without an end: all of it is this message's
        return Layer("http", facts, len(payload) if len(payload) >= HEAD_LIMIT else 0)
    fields = dict(headers)
    if b"host" not in fields and len(start) == 3 and (authority := _AUTHORITY.match(str(start[1].value))):
        facts += (Fact("http.host", authority[1].lower()),)
    end = _end(payload, len(head) - len(rest) + size, start, fields)
    left = end - len(payload) if end < UNTIL_CLOSE else UNTIL_CLOSE
    if left > 0:
        facts += (Fact("http.body_left", left),)
    return Layer("http", facts, min(end, len(payload)))


def _settings(payload: memoryview) -> Layer | None:
    """RFC 9113 sections 3.4 and 6.5: length, type 4, no flags, stream 0, then 6 bytes for each setting."""
    size = int.from_bytes(payload[:3], "big")
    if bytes(payload[3:9]) != b"\4\0\0\0\0\0" or size % 6 or size > 120 or len(payload) < 9 + size:
        return None
    if any(not 0 < int.from_bytes(payload[at : at + 2], "big") <= 16 for at in range(9, 9 + size, 6)):
        return None
    return Layer("http", (Fact("http.version", "2.0"),), 9 + size)


def _unfinished(line: bytes) -> Layer | None:
    """A start line still without its end: claimed once method and target look like HTTP, or at "HTTP/1."."""
    method, _, target = line.partition(b" ")
    if line.startswith(b"HTTP/1.") and len(line) < LINE_LIMIT:
        return Layer("http", (), 0)
    if method not in METHODS or not _TARGET.match(target) or len(line) >= LINE_LIMIT or b"\0" in line:
        return None
    return Layer("http", (Fact("http.method", method.decode()),), 0)


def _start_line(line: bytes) -> tuple[Fact, ...] | None:
    """RFC 9112 sections 3 and 4."""
    if status := _STATUS.match(line):
        version, code = status.groups()
        return Fact("http.status", int(code)), Fact("http.version", version.decode())
    method, _, rest = line.partition(b" ")
    target, _, protocol = rest.strip(b" ").rpartition(b" ")  # spaces inside a target: browsers send them
    version = _VERSION.fullmatch(protocol)
    if version is None or not _METHOD.fullmatch(method) or not target or b"\0" in target:
        return None
    return (
        Fact("http.method", method.decode()),
        Fact("http.path", target.rstrip(b" ").decode("latin-1")),
        Fact("http.version", version[1].decode()),
    )


def _headers(block: bytes) -> tuple[list[tuple[bytes, bytes]], int | None]:
    """Fields as (lower-case name, value), and the block's size with its empty line; None while that line is missing."""
    fields: list[tuple[bytes, bytes]] = []
    offset = 0
    while (end := block.find(b"\n", offset)) >= 0:
        line = block[offset:end].rstrip(b"\r")
        offset = end + 1
        if not line:
            return fields, offset
        if line[:1] in b" \t" and fields:  # obs-fold, RFC 9112 section 5.2
            fields[-1] = (fields[-1][0], fields[-1][1] + b" " + line.strip())
        elif len(fields) < HEADERS:
            name, colon, value = line.partition(b":")
            if colon:
                fields.append((name.strip().lower(), value.strip()))
    return fields, None


def _value(name: bytes, value: bytes) -> str:
    text = value[:1024].decode("latin-1")
    return text.lower() if name in _LOWER else text


def _end(payload: memoryview, body: int, start: tuple[Fact, ...], headers: dict[bytes, bytes]) -> int:
    """Where the message ends (RFC 9112 section 6.3), which may be past the payload's end."""
    first = start[0].value
    if first == "CONNECT" or (isinstance(first, int) and (first < 200 or first in (204, 304))):
        return body
    if b"chunked" in headers.get(b"transfer-encoding", b"").lower():
        return _chunks(payload, body)
    length = headers.get(b"content-length", b"")
    if length.isdigit():
        if isinstance(first, int) and bytes(payload[body : body + 7]) == b"HTTP/1.":  # the answer to a HEAD
            return body
        return body + int(length[:18])
    return UNTIL_CLOSE if isinstance(first, int) else body


def _chunks(payload: memoryview, offset: int) -> int:
    """The end of a chunked body (RFC 9112 section 7.1), UNTIL_CLOSE where it is not all there."""
    for _ in range(256):
        size, newline, _ = bytes(payload[offset : offset + 64]).partition(b"\r\n")
        try:
            length = int(size.split(b";")[0], 16)
        except ValueError:
            break
        offset += len(size) + 2 + length + 2
        if not newline or length < 0 or offset > len(payload):
            break
        if length == 0:
            return offset
    return UNTIL_CLOSE
