"""SIP (RFC 3261). In: a datagram, relayed bytes, or a stream at a message boundary. Out: layer "sip" with a Message.

A message is read at offset 0 only, after CRLFs that keep a path alive (RFC 5626 section 3.5.1), never searched for: so
SIP written into other protocols' payloads (NAT slipstreaming) stays unread. Compact names (section 7.3.3), folded
headers (7.3.1) and bare LF are understood; a deflated or gzipped body (Content-Encoding, section 20.12) is inflated up
to INFLATED bytes, zlib-wrapped or raw. `inner` is the session description.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from typing import Final, NamedTuple

from appid.wire import DecodeError, Fact, Layer

MESSAGE: Final = 65_536
HEADERS: Final = 256
INFLATED: Final = 262_144
PARTS: Final = 16
PARAMETERS: Final = 64
FIRST: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz\r\n")

COMPACT: Final = {
    "a": "accept-contact",  # RFC 3841
    "b": "referred-by",  # RFC 3892
    "c": "content-type",
    "d": "request-disposition",  # RFC 3841
    "e": "content-encoding",
    "f": "from",
    "i": "call-id",
    "j": "reject-contact",  # RFC 3841
    "k": "supported",
    "l": "content-length",
    "m": "contact",
    "n": "identity-info",  # RFC 4474
    "o": "event",  # RFC 6665
    "r": "refer-to",  # RFC 3515
    "s": "subject",
    "t": "to",
    "u": "allow-events",  # RFC 6665
    "v": "via",
    "x": "session-expires",  # RFC 4028
    "y": "identity",  # RFC 8224
}
"""Compact header names: RFC 3261 section 7.3.3, and IANA's registry of header fields."""

_START: Final = re.compile(
    rb"(?:\r?\n){0,64}+"
    rb"(?:SIP/2\.0 ([1-6]\d\d)(?: ([^\r\n]{0,1024}))?"
    rb"|([A-Za-z][A-Za-z0-9.!%*_+`'~-]{0,31}) ([^ \r\n]{1,4096}) SIP/2\.0)"
    rb"[ \t]{0,8}\r?\n"
)
_BLANK: Final = re.compile(rb"\n\r?\n")
_AGENT: Final = re.compile(r"([^\s/]{1,64}) ([0-9]{1,8}(?:\.[0-9]{1,8}){1,7})(?:/([^\s/]{1,64}))?")
_FOLD: Final = re.compile(rb"\r?\n[ \t]+")


@dataclass(frozen=True, slots=True)
class Message:
    """A SIP message: `method` and `uri` of a request, or `status` and `reason` of a response.

    headers   (canonical lower-case name, value unfolded and stripped), in order; bytes outside UTF-8 as lone surrogates
    head      start line and headers as sent, up to and with the blank line
    body      as sent; `inflated` is what it is after decoding (the same where nothing was encoded)
    encoding  what `body` was found to be: "" (plain), "zlib", "raw" (deflate without zlib's frame), "gzip"
    """

    method: str | None
    uri: str | None
    status: int | None
    reason: str
    headers: tuple[tuple[str, str], ...]
    head: bytes
    body: bytes
    inflated: bytes
    encoding: str

    def header(self, name: str) -> str | None:
        """The first value of that canonical name."""
        return next((value for key, value in self.headers if key == name), None)

    def values(self, name: str) -> tuple[str, ...]:
        return tuple(value for key, value in self.headers if key == name)

    @property
    def cseq(self) -> tuple[int, str] | None:
        """Section 20.16: a number below 2**31, and the method."""
        number, _, method = (self.header("cseq") or "").partition(" ")
        method = method.strip()
        return (int(number), method) if method and _digits(number) and int(number) < 2**31 else None

    @property
    def from_tag(self) -> str | None:
        return parameters(self.header("from") or "").get("tag")

    @property
    def to_tag(self) -> str | None:
        return parameters(self.header("to") or "").get("tag")

    @property
    def branch(self) -> str | None:
        """Of the topmost Via, section 20.42."""
        return parameters((self.header("via") or "").partition(",")[0]).get("branch")

    @property
    def contact(self) -> str | None:
        """The URI of the first Contact."""
        value = self.header("contact")
        return None if value is None else address(value)


def address(value: str) -> str:
    """The URI of a name-addr or addr-spec (section 20.10)."""
    opened = value.find("<", _quoted(value))
    if opened < 0:
        return value.partition(";")[0].strip()
    return value[opened + 1 :].partition(">")[0].strip()


def parameters(value: str) -> dict[str, str]:
    """The parameters behind a name-addr, addr-spec or Via value; names in lower case, "" where there is no value."""
    start = _quoted(value)
    opened = value.find("<", start)
    start = value.find(">", opened) + 1 if opened >= 0 else start
    found: dict[str, str] = {}
    for part in value[start:].split(";", PARAMETERS)[1:]:
        name, _, text = part.partition("=")
        found.setdefault(name.strip().lower(), text.strip())
    return found


def _quoted(value: str) -> int:
    """Where a leading quoted display name ends; 0 without one."""
    offset = 1
    if not value.startswith('"'):
        return 0
    while offset < len(value) and value[offset] != '"':
        offset += 2 if value[offset] == "\\" else 1
    return offset


def decode(data: memoryview) -> Layer | None:
    """One datagram: what follows the Content-Length is discarded (section 18.3)."""
    start = _START.match(data)
    if start is None:
        return None
    if len(data) > MESSAGE:
        raise DecodeError("sip", MESSAGE, "message too large")
    blank = _BLANK.search(data, start.end() - 1)
    end = blank.end() if blank else len(data)
    headers, odd = _headers(bytes(data[start.end() : end]))
    try:
        length = _length(headers)
    except DecodeError as error:  # a datagram frames itself
        length = None
        odd.append(error.reason)
    body = bytes(data[end:] if length is None else data[end : end + length])
    if blank is None:
        odd.append("no blank line after the headers")
    elif length is not None and len(body) < length:
        odd.append("body shorter than Content-Length")
    return _layer(start, headers, bytes(data[start.start(1 if start[1] else 3) : end]), body, odd, len(data))


class Framing(NamedTuple):
    """A stream's message whose head is whole: bytes up to the body, and in all; `described`: its body may hold a
    session description; `odd`: its head breaks its format."""

    head: int
    size: int
    described: bool
    odd: bool


def framing(data: memoryview) -> Framing | None:
    """Of a stream at a message's start; None where its head is not whole, or it is no SIP."""
    start = _START.match(data)
    found = _framed(data, start) if start is not None else None
    if found is None:
        return None
    headers, odd, end, total = found
    kind = next((value for key, value in headers if key == "content-type"), "").strip()
    described = total > end and (_is_sdp(kind) or kind.lower().startswith("multipart/"))
    return Framing(end, total, described, bool(odd))


def _framed(
    data: memoryview, start: re.Match[bytes]
) -> tuple[tuple[tuple[str, str], ...], list[str], int, int] | None:  # fmt: skip
    """Headers, a complaint, where the head ends and where the message does."""
    blank = _BLANK.search(data, start.end() - 1)
    if blank is None:
        return None
    headers, odd = _headers(bytes(data[start.end() : blank.end()]))
    return headers, odd, blank.end(), blank.end() + (_length(headers) or 0)


def decode_stream(data: memoryview) -> Layer | None:
    """A stream: framed by Content-Length, no body without it; consumed is 0 until the message is whole."""
    start = _START.match(data)
    if start is None:
        return None
    found = _framed(data, start)
    if found is None:
        if len(data) > MESSAGE:
            raise DecodeError("sip", MESSAGE, "message too large")
        return Layer("sip", (), 0)
    headers, odd, end, total = found
    if total > MESSAGE:
        raise DecodeError("sip", MESSAGE, "message too large")
    if total > len(data):
        return Layer("sip", (), 0)
    return _layer(start, headers, bytes(data[:end]).lstrip(b"\r\n"), bytes(data[end:total]), odd, total)


def _digits(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _clean(value: str) -> str:
    """For facts, which are printed: lone surrogates become U+FFFD."""
    return value if value.isascii() else value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _headers(raw: bytes) -> tuple[tuple[tuple[str, str], ...], list[str]]:
    found: list[tuple[str, str]] = []
    odd: list[str] = []
    for line in _FOLD.sub(b" ", raw).split(b"\n"):
        name, colon, value = line.partition(b":")
        if not colon:
            if line.strip():
                odd.append("header without a colon")
            continue
        if len(found) == HEADERS:
            raise DecodeError("sip", 0, "too many headers")
        key = _text(name).strip().lower()
        found.append((COMPACT.get(key, key), _text(value).strip()))
    return tuple(found), odd[:1]


def _length(headers: tuple[tuple[str, str], ...]) -> int | None:
    """Content-Length (section 20.14). Two that differ would frame one message for us and another for its reader."""
    values = {value for key, value in headers if key == "content-length"}
    if not values:
        return None
    value = values.pop()
    if values or not _digits(value):
        raise DecodeError("sip", 0, "Content-Length unreadable or ambiguous")
    return int(value)


def _layer(
    start: re.Match[bytes],
    headers: tuple[tuple[str, str], ...],
    head: bytes,
    body: bytes,
    odd: list[str],
    consumed: int,
) -> Layer:
    status, reason, method, uri = start.groups()
    kind = next((value for key, value in headers if key == "content-type"), "")
    named = next((value for key, value in headers if key == "content-encoding"), "")
    inflated, encoding, complaint = _decoded(body, named.lower(), kind)
    message = Message(
        None if method is None else _text(method),
        None if uri is None else _text(uri),
        None if status is None else int(status),
        _text(reason or b""),
        headers,
        head,
        body,
        inflated,
        encoding,
    )
    facts = _facts(message)
    facts += [Fact("sip.anomaly", text) for text in (*odd, complaint) if text]
    return Layer("sip", tuple(facts), consumed, _description(kind, inflated), message)


def _facts(message: Message) -> list[Fact]:
    cseq, agent = message.cseq, message.header("user-agent") or message.header("server")
    told = _AGENT.fullmatch(agent) if agent else None
    named: tuple[tuple[str, str | int | None], ...] = (
        ("sip.method", message.method),
        ("sip.status", message.status),
        ("sip.uri", message.uri),
        ("sip.call_id", message.header("call-id")),
        ("sip.cseq", cseq[0] if cseq else None),
        ("sip.cseq_method", cseq[1] if cseq else None),
        ("sip.from_tag", message.from_tag),
        ("sip.to_tag", message.to_tag),
        ("sip.branch", message.branch),
        ("sip.contact", message.contact),
        ("sip.user_agent", agent),
        ("sip.agent_name", told[1] if told else None),  # the whole of it is a name and a version number, apart
        ("sip.agent_version", told[2] if told else None),
        ("sip.agent_edition", (told[3] or "") if told else None),
        ("sip.content_type", message.header("content-type")),
        ("sip.content_encoding", message.header("content-encoding")),
    )
    return [
        Fact(name, _clean(value) if isinstance(value, str) else value) for name, value in named if value is not None
    ]


def _decoded(body: bytes, named: str, kind: str) -> tuple[bytes, str, str]:
    """(what the body says, the encoding found, a complaint or ""). Without a Content-Encoding, an SDP body that is
    evidently compressed is inflated too: senders leave the header out."""
    declared = named in {"deflate", "gzip", "x-gzip"}
    if not body or body.startswith(b"v=") or not (declared or (not named and _is_sdp(kind))):
        return body, "", ""
    if body[:2] == b"\x1f\x8b":
        trials = [("gzip", 31)]
    elif body[0] & 0x0F == 8 and int.from_bytes(body[:2], "big") % 31 == 0:  # RFC 1950 section 2.2
        trials = [("zlib", 15), ("raw", -15)]
    else:
        trials = [("raw", -15)]
    for encoding, wbits in trials:
        try:
            text = zlib.decompressobj(wbits).decompress(body, INFLATED + 1)
        except zlib.error:
            continue
        if not text or not (declared or text.startswith(b"v=")):
            continue
        if len(text) > INFLATED:
            raise DecodeError("sip", 0, "body inflates beyond the cap")
        return text, encoding, ""
    return body, "", f"body is not {named}" if declared else ""


def _is_sdp(kind: str) -> bool:
    return kind.partition(";")[0].strip().lower() in {"application/sdp", ""}


def _description(kind: str, body: bytes) -> memoryview | None:
    span = description(kind, body)
    return None if span is None else memoryview(body)[span[0] : span[1]]


def description(kind: str, body: bytes) -> tuple[int, int] | None:
    """Where in a body its session description is: all of it, or a part of a multipart (RFC 5621); `kind`: its type."""
    kind = kind.strip()
    if _is_sdp(kind):
        return (0, len(body)) if body and (kind or body.startswith(b"v=0")) else None
    boundary = parameters(kind).get("boundary", "").strip('"').encode("utf-8", "surrogateescape")
    if not kind.lower().startswith("multipart/") or not boundary:
        return None
    at = 0
    for part in body.split(b"--" + boundary, PARTS)[:PARTS]:
        blank = _BLANK.search(part) if at else None
        if blank is not None:
            headers, _ = _headers(part[: blank.end()])
            if any(key == "content-type" and value and _is_sdp(value) for key, value in headers):
                return at + blank.end(), at + len(part.rstrip(b"\r\n"))
        at += len(part) + 2 + len(boundary)
    return None
