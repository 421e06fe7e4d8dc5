"""SDP (RFC 8866), read leniently. In: a session description. Out: layer "sdp", `message` a Description.

Whatever does not follow the grammar is kept as an attribute or skipped ("b=AS:2000:2000", "a=FLS;..." and
"a=fmtp:AAC SamplesPerBlock 480" are in every FaceTime call of 2015); only a media line without a port is an error:
ports get opened by it. Also read: a=rtcp (RFC 3605), a=rtcp-mux (RFC 5761), a=candidate (RFC 8839 section 5.1), and
iChat's "a=RTCP:AUDIO 16402 VIDEO 16402".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from appid.wire import DecodeError, Fact, Layer, packed

FIRST: Final = frozenset(b"v")
TEXT: Final = 65_536
MEDIA: Final = 64
CANDIDATES: Final = 128
LINES: Final = 2048
FORMATS: Final = 128
PORTS: Final = 8
DIRECTIONS: Final = frozenset({"sendrecv", "sendonly", "recvonly", "inactive"})

STATIC: Final = {
    0: "PCMU",
    3: "GSM",
    4: "G723",
    8: "PCMA",
    9: "G722",
    10: "L16",
    11: "L16",
    13: "CN",
    14: "MPA",
    15: "G728",
    18: "G729",
    26: "JPEG",
    31: "H261",
    32: "MPV",
    33: "MP2T",
    34: "H263",
}
"""Payload types that need no a=rtpmap: RFC 3551 section 6."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An a=candidate line with an IP address; `proto` in lower case, `type` host | srflx | prflx | relay."""

    component: int
    proto: str
    address: bytes
    port: int
    type: str


@dataclass(frozen=True, slots=True)
class Media:
    """An m= section. `connection` is its own c=, or else the session's; `rtcp_port` None means port + 1 (RFC 3605)."""

    kind: str
    port: int
    proto: str
    formats: tuple[int | str, ...]
    connection: bytes | None
    rtcp_port: int | None
    rtcp_address: bytes | None
    rtcp_mux: bool
    direction: str
    candidates: tuple[Candidate, ...]
    codecs: tuple[tuple[int, str], ...]
    attributes: tuple[tuple[str, str], ...]
    count: int = 1
    """Ports that the medium has (m=audio 49170/2): RTP's are every other one (RFC 8866 section 5.14)."""


@dataclass(frozen=True, slots=True)
class Description:
    """A session description. Addresses are packed, None where they are names or absent; attributes raw, in order."""

    origin_user: str
    origin_address: bytes | None
    origin: str
    session_name: str
    connection: bytes | None
    media: tuple[Media, ...]
    attributes: tuple[tuple[str, str], ...]


@dataclass(slots=True)
class _Section:
    """Lines from one m= to the next; the first section is the session's."""

    kind: str = ""
    port: int = 0
    proto: str = ""
    formats: tuple[int | str, ...] = ()
    count: int = 1
    connection: bytes | None = None
    attributes: list[tuple[str, str]] = field(default_factory=list)


def decode(data: memoryview) -> Layer | None:
    if len(data) < 3 or bytes(data[:2]) != b"v=":
        return None
    if len(data) > TEXT:
        raise DecodeError("sdp", TEXT, "description too large")
    origin = name = ""
    connections: list[bytes] = []
    session = section = _Section()
    sections: list[_Section] = []
    lines = bytes(data).decode("utf-8", "replace").split("\n")
    if len(lines) > LINES:
        raise DecodeError("sdp", 0, "too many lines")
    for line in lines:
        key, value = line[:2], line[2:].strip()
        if key == "a=":
            attribute, _, text = value.partition(":")
            section.attributes.append((attribute, text))
        elif key == "m=":
            if len(sections) == MEDIA:
                raise DecodeError("sdp", 0, "too many media lines")
            section = _media_line(value)
            sections.append(section)
        elif key == "c=":
            section.connection = section.connection or _connection(value)
            if section.connection:
                connections.append(section.connection)
        elif key == "o=" and not origin:
            origin = line[2:].rstrip()  # a leading space is an empty user name, section 5.2
        elif key == "s=" and not name:
            name = value
    message = Description(
        origin.partition(" ")[0],
        _connection(" ".join(origin.split()[3:])),
        origin,
        name,
        session.connection,
        _media(sections, session),
        tuple(session.attributes),
    )
    return Layer("sdp", tuple(_facts(message, connections, [session, *sections])), len(data), None, message)


def _facts(message: Description, connections: list[bytes], sections: list[_Section]) -> list[Fact]:
    facts = [
        Fact("sdp.origin_user", message.origin_user),
        Fact("sdp.origin", message.origin),
        Fact("sdp.session_name", message.session_name),
    ]
    facts += [Fact("sdp.connection", address) for address in dict.fromkeys(connections)]
    facts += [Fact("sdp.media", (media.kind, media.port)) for media in message.media]
    names = dict.fromkeys(_name(name) for section in sections for name, _ in section.attributes)
    return facts + [Fact("sdp.attribute_name", name) for name in names]


def _name(attribute: str) -> str:
    """FaceTime separates with ";" as well: "a=FLS;MS:-1" is the attribute FLS."""
    return attribute.partition(";")[0]


def _number(text: str, limit: int = 0xFFFF) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= limit else None


def _address(text: str) -> bytes | None:
    try:
        return packed(text.partition("/")[0])  # c= may carry a TTL and a count, section 5.7
    except ValueError:
        return None


def _connection(value: str) -> bytes | None:
    """nettype addrtype address, section 5.7."""
    words = value.split()
    return _address(words[2]) if len(words) >= 3 else None


def _media_line(value: str) -> _Section:
    """media port[/count] proto fmt ..., section 5.14."""
    words = value.split(maxsplit=3 + FORMATS)
    first, _, several = words[1].partition("/") if len(words) >= 3 else ("", "", "")
    port = _number(first)
    if port is None:
        raise DecodeError("sdp", 0, "media line without a port")
    formats = tuple(_format(word) for word in words[3 : 3 + FORMATS])
    return _Section(words[0], port, words[2], formats, _number(several, PORTS) or 1)


def _format(word: str) -> int | str:
    number = _number(word, 127)
    return word if number is None else number


def _media(sections: list[_Section], session: _Section) -> tuple[Media, ...]:
    """What the session says holds for each section that does not say otherwise."""
    direction = next((name for name, _ in session.attributes if name in DIRECTIONS), "sendrecv")
    shared = [value for name, value in session.attributes if name.lower() == "rtcp"][:1]
    return tuple(_one(section, session.connection, direction, shared) for section in sections)


def _one(section: _Section, connection: bytes | None, direction: str, shared: list[str]) -> Media:
    rtcp = _rtcp([value for name, value in section.attributes if name.lower() == "rtcp"][:1] + shared, section.kind)
    candidates: list[Candidate] = []
    codecs: dict[int, str] = {}
    mux = False
    for name, value in section.attributes:
        if name in DIRECTIONS:
            direction = name
        elif name == "rtcp-mux":
            mux = True
        elif name == "rtpmap":
            kind, _, text = value.partition(" ")
            number = _number(kind, 127)
            if number is not None and text.strip():
                codecs.setdefault(number, text.strip().partition("/")[0])
        elif name == "candidate":
            if len(candidates) == CANDIDATES:
                raise DecodeError("sdp", 0, "too many candidates")
            candidate = _candidate(value.split())
            if candidate is not None:
                candidates.append(candidate)
    for listed in section.formats:
        if isinstance(listed, int) and listed in STATIC:
            codecs.setdefault(listed, STATIC[listed])
    return Media(
        section.kind,
        section.port,
        section.proto,
        section.formats,
        section.connection or connection,
        *rtcp,
        mux,
        direction,
        tuple(candidates),
        tuple(codecs.items()),
        tuple(section.attributes),
        section.count,
    )


def _rtcp(values: list[str], kind: str) -> tuple[int | None, bytes | None]:
    """a=rtcp:port [nettype addrtype address] (RFC 3605 section 2.1), or iChat's a=RTCP:AUDIO 16402 VIDEO 16402."""
    for value in values:
        words = value.split(maxsplit=16)
        port = _number(words[0]) if words else None
        if port is not None:
            return port, _address(words[3]) if len(words) >= 4 else None
        named = dict(zip((word.lower() for word in words[::2]), words[1::2], strict=False))
        port = _number(named.get(kind.lower(), ""))
        if port is not None:
            return port, None
    return None, None


def _candidate(words: list[str]) -> Candidate | None:
    """foundation component transport priority address port "typ" type ... (RFC 8839 section 5.1); names stay raw."""
    if len(words) < 8 or words[6] != "typ":
        return None
    component, address, port = _number(words[1]), _address(words[4]), _number(words[5])
    if component is None or address is None or port is None:
        return None
    return Candidate(component, words[2].lower(), address, port, words[7])
