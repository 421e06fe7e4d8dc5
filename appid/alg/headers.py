"""Addresses in SIP's start line and headers, translated. In: a message's head as sent, Names. Out: the head.

Request-URI, Via with `received` and `rport` (RFC 3261 section 20.42, RFC 3581), Contact, Route, Record-Route, Path
(RFC 3327), Content-Length. From, To and others that name people go along, both ways alike, so that a dialog's ends stay
what they are to each side; a port that such a URI leaves out stays out, for it is nobody's to call. Bytes that name no
address of ours stay as they were sent: case, spaces, folds, order.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from appid.alg.names import Names
from appid.decode.sip import COMPACT
from appid.wire import Endpoint, packed, text

DEFAULT_PORT = 5060
_WITH_URIS = frozenset({"contact", "route", "record-route", "path", "service-route"})
_PEOPLE = frozenset(
    {
        "from",
        "to",
        "reply-to",
        "refer-to",
        "referred-by",
        "p-asserted-identity",
        "p-preferred-identity",
        "p-called-party-id",
    }
)

_HOST = rb"(\[[0-9A-Fa-f:.]{2,45}\]|\d{1,3}(?:\.\d{1,3}){3})"


def _pattern(scheme_and_user: bytes) -> re.Pattern[bytes]:
    return re.compile(
        rb'"(?:[^"\\]|\\.){0,256}+"'  # a display name, whatever it says
        rb"|(?i:(" + scheme_and_user + rb"))" + _HOST + rb"(?::(\d{1,5}))?(?![\w.\[])"
        rb"|(?i:(;\s*maddr\s*=\s*))" + _HOST
    )


# A user may be long and hold commas (RFC 3261 section 25.1) where no comma ends the URI: within <>, and in the start
# line. Each try there ends at the next < or space, so that all of them look at a line once; elsewhere it is bounded.
_USER = rb"sips?:(?:[^@\s<>\"]*+@)?"
_URI = _pattern(rb"(?<=<)" + _USER + rb"|sips?:(?:[^@\s<>,\"]{0,256}@)?")
_START = _pattern(rb"(?<=\s)" + _USER)
_SENT_BY = re.compile(rb"(\s*SIP\s*/\s*2\.0\s*/\s*[\w-]{1,16}\s+)" + _HOST + rb"(?:\s*:\s*(\d{1,5}))?(?![\w.\[])", re.I)
_PARAMETER = re.compile(rb"(;\s*(received|maddr)\s*=\s*)(\[?[0-9A-Fa-f:.]{2,45}\]?)|(;\s*rport\s*=\s*)(\d{1,5})", re.I)
_LINE = re.compile(rb"[^\n]*\n|[^\n]+")
_LENGTH = re.compile(rb"^(\s*(?:content-length|l)\s*:\s*)\d+", re.I)


def translate_head(head: bytes, names: Names, length: int | None = None) -> bytes:
    """The head with the addresses of the other side; `length` is the body's new length, None where it did not change.
    A head without Content-Length gets none (RFC 3261 section 20.14: a datagram ends by itself)."""
    lines = _logical(head)
    lines[0] = _uris(lines[0], names, _START)
    for index, line in enumerate(lines[1:], 1):
        name = line.partition(b":")[0].strip().lower().decode("ascii", "replace")
        name = COMPACT.get(name, name)
        if name == "via":
            head_name, colon, values = line.partition(b":")
            lines[index] = head_name + colon + b",".join(_via(each, names) for each in values.split(b","))
        elif name in _WITH_URIS or name in _PEOPLE:
            lines[index] = _uris(line, names, people=name in _PEOPLE)
        elif name == "content-length" and length is not None:
            lines[index] = _LENGTH.sub(rb"\g<1>%d" % length, line)
    return b"".join(lines)


def endpoint(host: bytes, port: bytes | None) -> Endpoint | None:
    """What a host and port of the text name; None where the host is no address."""
    try:
        address = packed(host.strip(b"[]").decode("ascii"))
    except ValueError:
        return None
    number = int(port) if port else DEFAULT_PORT
    return Endpoint(address, number) if 0 < number <= 0xFFFF else None


def _logical(head: bytes) -> list[bytes]:
    """Lines with their ends, a folded header as one (RFC 3261 section 7.3.1)."""
    lines: list[bytes] = []
    for line in _LINE.findall(head):
        if lines and line[:1] in b" \t" and line.strip():
            lines[-1] += line
        else:
            lines.append(line)
    return lines


def _write(named: Endpoint, port: bytes | None) -> bytes:
    host = text(named.address)
    host = f"[{host}]" if len(named.address) == 16 else host
    return (host if port is None and named.port == DEFAULT_PORT else f"{host}:{named.port}").encode()


def _uris(line: bytes, names: Names, uris: re.Pattern[bytes] = _URI, people: bool = False) -> bytes:
    def replaced(found: re.Match[bytes]) -> bytes:
        scheme, host, port, maddr, other = found.groups()
        if scheme is not None and people and port is None:
            return scheme + _bare(host, names.host)
        if scheme is not None:
            here = endpoint(host, port)
            there = names.signalling(here) if here is not None else None
            return found[0] if there is None else scheme + _write(there, port)
        if maddr is not None:
            return maddr + _bare(other, names.host)
        return found[0]

    return uris.sub(replaced, line)


def _via(value: bytes, names: Names) -> bytes:
    """One hop. It is read back by who wrote it: those of others stay as they are, though they share an address with
    ours; so `received` and `rport` go along only where they, or sent-by, name our own."""
    sent, received, rport = _SENT_BY.match(value), None, None
    for parameter in _PARAMETER.finditer(value):
        if parameter[2] is not None and parameter[2].lower() == b"received":
            received = parameter[3]
        rport = parameter[5] or rport
    host, port = (sent[2], sent[3]) if sent is not None else (None, None)
    seen = _asked(names, received or host, rport or port)
    there = _asked(names, host, port)
    if there is None and seen is None:
        return value
    if sent is not None and there is not None:
        value = sent[1] + _write(there, port) + value[sent.end() :]

    def replaced(parameter: re.Match[bytes]) -> bytes:
        if parameter[3] is not None:
            return parameter[1] + _bare(parameter[3], names.seen)
        return parameter[0] if seen is None else parameter[4] + str(seen.port).encode()

    return _PARAMETER.sub(replaced, value)


def _asked(names: Names, host: bytes | None, port: bytes | None) -> Endpoint | None:
    here = endpoint(host, port) if host is not None else None
    return names.via(here) if here is not None else None


def _bare(host: bytes, ask: Callable[[bytes], bytes | None]) -> bytes:
    """An address that stands without a port."""
    here = endpoint(host, None)
    there = ask(here.address) if here is not None else None
    if there is None:
        return host
    return (f"[{text(there)}]" if host.startswith(b"[") else text(there)).encode()
