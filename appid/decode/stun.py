"""STUN (RFC 8489), its TURN methods (RFC 8656) and attributes, and RFC 3489 framing without the magic cookie.

In: a datagram, or a stream at a message boundary. Out: layer "stun" with every attribute raw and in order in
`Message`; `inner` is the DATA attribute of a Send or Data indication (RFC 8656 section 11). Attribute numbers, not
names, are facts: 0x8001-0x8009 meant other things to vendors before IANA assigned some of them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from struct import Struct
from typing import Final, NamedTuple

from appid.wire import Buffer, DecodeError, Endpoint, Fact, Layer

FIRST: Final = frozenset(range(0x40))  # RFC 8489 section 5: the top two bits of a message are zero
HEADER: Final = 20
COOKIE: Final = 0x2112A442
MAX_ATTRIBUTES: Final = 256
_COOKIE: Final = COOKIE.to_bytes(4, "big")

METHODS: Final = {
    0x001: "binding",
    0x003: "allocate",
    0x004: "refresh",
    0x006: "send",
    0x007: "data",
    0x008: "create-permission",
    0x009: "channel-bind",
    0x00A: "connect",  # RFC 6062
    0x00B: "connection-bind",
    0x00C: "connection-attempt",
}
CLASSES: Final = ("request", "indication", "success", "error")
CLASSIC_METHODS: Final = frozenset({*METHODS, 0x002})
"""Methods believed without the cookie; 2 was SHARED-SECRET (RFC 3489 section 11.1)."""

UUIDS: Final = 73
"""Two UUIDs (RFC 9562 section 4) and a colon, bytes."""
_UUID: Final = rb"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
_UUIDS: Final = re.compile(_UUID + rb":" + _UUID)
_header: Final[Callable[[memoryview], tuple[int, int, int]]] = Struct(">HHI").unpack_from
_two: Final[Callable[[Buffer, int], tuple[int, int]]] = Struct(">HH").unpack_from


@dataclass(frozen=True, slots=True)
class Message:
    """A STUN message. `transaction` is 12 bytes, 16 where `cookie` is False; attribute values have no padding."""

    type: int
    method: str
    cls: str
    transaction: bytes
    cookie: bool
    attributes: tuple[tuple[int, bytes], ...]


Unpack = Callable[[bytes, bytes], tuple[Fact, ...]]
"""(value, the 16 header bytes that XOR-* values are XORed with) -> facts; none where the value has another shape."""


def _address(name: str, xor: bool) -> Unpack:
    """RFC 8489 sections 14.1 and 14.2."""

    def unpack(value: bytes, key: bytes) -> tuple[Fact, ...]:
        if len(value) < 8 or (value[1], len(value)) not in {(1, 8), (2, 20)}:
            return ()
        port, address = int.from_bytes(value[2:4], "big"), value[4:]
        if xor:
            size = len(address)
            port ^= int.from_bytes(key[:2], "big")
            address = (int.from_bytes(address, "big") ^ int.from_bytes(key[:size], "big")).to_bytes(size, "big")
        return (Fact(name, Endpoint(address, port)),)

    return unpack


def _number(name: str, size: int, shift: int = 0) -> Unpack:
    def unpack(value: bytes, _: bytes) -> tuple[Fact, ...]:
        return (Fact(name, int.from_bytes(value, "big") >> shift),) if len(value) == size else ()

    return unpack


def _constant(name: str, fixed: bool | str) -> Unpack:
    facts = (Fact(name, fixed),)
    return lambda _, __: facts


def _text(name: str) -> Unpack:
    def unpack(value: bytes, _: bytes) -> tuple[Fact, ...]:
        return (Fact(name, value.decode("utf-8", "replace")),)

    return unpack


def _username(value: bytes, _: bytes) -> tuple[Fact, ...]:
    colon = b":" in value  # RFC 8445 section 7.2.2: ufrag:ufrag
    told = Fact("stun.username", value), Fact("stun.username_length", len(value)), Fact("stun.username_colon", colon)
    if len(value) == UUIDS and _UUIDS.fullmatch(value):
        return (*told, Fact("stun.username_uuids", True))
    return told


def _error(value: bytes, _: bytes) -> tuple[Fact, ...]:
    """RFC 8489 section 14.8: hundreds in 3 bits, then 0-99."""
    return (Fact("stun.error_code", (value[2] & 7) * 100 + value[3]),) if len(value) >= 4 else ()


def _bytes(name: str, size: int) -> Unpack:
    def unpack(value: bytes, _: bytes) -> tuple[Fact, ...]:
        return (Fact(name, value),) if len(value) == size else ()

    return unpack


class Attribute(NamedTuple):
    """A row of IANA's STUN attribute registry; `unpack` is None where its presence says all that is asked."""

    number: int
    name: str
    unpack: Unpack | None


ATTRIBUTES: Final[tuple[Attribute, ...]] = (
    Attribute(0x0001, "MAPPED-ADDRESS", _address("stun.mapped_address", xor=False)),
    Attribute(0x0002, "RESPONSE-ADDRESS", None),  # 2-5, 7, 11: RFC 3489
    Attribute(0x0003, "CHANGE-REQUEST", None),
    Attribute(0x0004, "SOURCE-ADDRESS", None),
    Attribute(0x0005, "CHANGED-ADDRESS", None),
    Attribute(0x0006, "USERNAME", _username),
    Attribute(0x0007, "PASSWORD", None),
    Attribute(0x0008, "MESSAGE-INTEGRITY", None),
    Attribute(0x0009, "ERROR-CODE", _error),
    Attribute(0x000A, "UNKNOWN-ATTRIBUTES", None),
    Attribute(0x000B, "REFLECTED-FROM", None),
    Attribute(0x000C, "CHANNEL-NUMBER", _number("stun.channel_number", 4, shift=16)),
    Attribute(0x000D, "LIFETIME", _number("stun.lifetime", 4)),
    Attribute(0x000F, "MAGIC-COOKIE", None),  # early TURN drafts
    Attribute(0x0010, "BANDWIDTH", None),
    Attribute(0x0012, "XOR-PEER-ADDRESS", _address("stun.peer_address", xor=True)),
    Attribute(0x0013, "DATA", None),
    Attribute(0x0014, "REALM", _text("stun.realm")),
    Attribute(0x0015, "NONCE", _constant("stun.nonce", True)),
    Attribute(0x0016, "XOR-RELAYED-ADDRESS", _address("stun.relayed_address", xor=True)),
    Attribute(0x0017, "REQUESTED-ADDRESS-FAMILY", None),
    Attribute(0x0018, "EVEN-PORT", None),
    Attribute(0x0019, "REQUESTED-TRANSPORT", _number("stun.requested_transport", 4, shift=24)),
    Attribute(0x001A, "DONT-FRAGMENT", None),
    Attribute(0x001B, "ACCESS-TOKEN", None),
    Attribute(0x001C, "MESSAGE-INTEGRITY-SHA256", None),
    Attribute(0x001D, "PASSWORD-ALGORITHM", None),
    Attribute(0x001E, "USERHASH", None),
    Attribute(0x0020, "XOR-MAPPED-ADDRESS", _address("stun.mapped_address", xor=True)),
    Attribute(0x0022, "RESERVATION-TOKEN", _bytes("stun.reservation_token", 8)),
    Attribute(0x0024, "PRIORITY", None),
    Attribute(0x0025, "USE-CANDIDATE", _constant("stun.use_candidate", True)),
    Attribute(0x0026, "PADDING", None),
    Attribute(0x0027, "RESPONSE-PORT", None),
    Attribute(0x002A, "CONNECTION-ID", None),
    Attribute(0x8020, "XOR-MAPPED-ADDRESS (before RFC 5389)", _address("stun.mapped_address", xor=True)),
    Attribute(0x8022, "SOFTWARE", _text("stun.software")),
    Attribute(0x8028, "FINGERPRINT", _constant("stun.fingerprint", True)),
    Attribute(0x8029, "ICE-CONTROLLED", _constant("stun.ice_role", "controlled")),
    Attribute(0x802A, "ICE-CONTROLLING", _constant("stun.ice_role", "controlling")),
)
UNPACK: Final = {row.number: row.unpack for row in ATTRIBUTES if row.unpack is not None}
KNOWN: Final = frozenset(row.number for row in ATTRIBUTES)
DATA: Final = 0x0013


def decode(data: memoryview) -> Layer | None:
    """One datagram. With the cookie: bytes after the message are left to the caller. Without it, all of this must hold:
    a known method, a length that is the datagram's, attributes that end exactly with it (RFC 3489 section 11.1)."""
    if len(data) < HEADER:
        return None
    type_, length, word = _header(data)
    if type_ & 0xC000:
        return None
    if word == COOKIE:
        if HEADER + length > len(data):
            raise DecodeError("stun", 2, "length exceeds the datagram")
        return _layer(data, type_, length, True, Fact("stun.exact", HEADER + length == len(data)))
    if HEADER + length != len(data) or not _classic(data, type_):
        return None
    return _layer(data, type_, length, False, Fact("stun.exact", True))


def decode_stream(data: memoryview) -> Layer | None:
    """A stream, framed by the length (RFC 8489 section 6.2.2), or as ICE does it by two bytes before the message
    (RFC 6544 section 3, RFC 4571 section 2); consumed is 0 while the message is incomplete."""
    end = len(data)
    if end < 8:
        return None
    type_, length, word = _header(data)
    if word != COOKIE and end >= 10 and data[6:10] == _COOKIE and type_ == HEADER + int.from_bytes(data[4:6], "big"):
        return _framed(data[2:])
    if word != COOKIE:  # no attributes: Modbus looks like that, 00 00 at the length (its specification, section 3.1.3)
        return decode(data) if length else None
    if type_ & 0xC000:
        return None
    if HEADER + length > end:
        return Layer("stun", (), 0)
    return _layer(data, type_, length, True)


def decode_relay(data: memoryview) -> Layer | None:
    """A stream that is known to be a relay's: without the cookie, too, the length alone frames a message."""
    if len(data) < HEADER:
        return None
    type_, length, word = _header(data)
    total = HEADER + length
    if type_ & 0xC000 or length & 3 or (word != COOKIE and _method(type_) not in CLASSIC_METHODS):
        return None
    if total > len(data):
        return Layer("stun", (), 0)
    if word != COOKIE and not _classic(data[:total], type_):
        return None
    return _layer(data, type_, length, word == COOKIE)


def _framed(data: memoryview) -> Layer | None:
    """The message behind RFC 4571's length, which counts in `consumed`."""
    layer = decode_stream(data)
    return layer._replace(consumed=layer.consumed + 2) if layer is not None and layer.consumed else layer


def _classic(data: memoryview, type_: int) -> bool:
    method = _method(type_)
    if method not in CLASSIC_METHODS:
        return False
    lax = method <= 2  # Zoom's Binding request carries 0x0101
    offset, end = HEADER, len(data)
    while offset + 4 <= end:
        number, size = _two(data, offset)
        if not lax and number < 0x8000 and number not in KNOWN:
            return False
        offset += 4 + size + (-size & 3)
    return offset == end


def _method(type_: int) -> int:
    """RFC 8489 section 5, figure 3: M11-M7 C1 M6-M4 C0 M3-M0."""
    return (type_ & 0x3E00) >> 2 | (type_ & 0xE0) >> 1 | type_ & 0xF


def _attributes(raw: bytes) -> tuple[tuple[int, bytes], ...]:
    """Type, length, value, padded to 4 (RFC 8489 section 14); the last one's padding may be missing."""
    found: list[tuple[int, bytes]] = []
    offset, end = HEADER, len(raw)
    while offset < end:
        if offset + 4 > end:
            raise DecodeError("stun", offset, "attribute header truncated")
        number, size = _two(raw, offset)
        offset += 4
        if offset + size > end:
            raise DecodeError("stun", offset - 2, "attribute length exceeds the message")
        if len(found) == MAX_ATTRIBUTES:
            raise DecodeError("stun", offset - 4, "too many attributes")
        found.append((number, raw[offset : offset + size]))
        offset += size + (-size & 3)
    return tuple(found)


def _layer(data: memoryview, type_: int, length: int, cookie: bool, *more: Fact) -> Layer:
    total = HEADER + length
    raw = bytes(data[:total])
    attributes = _attributes(raw)
    number = _method(type_)
    method = METHODS.get(number) or f"0x{number:03x}"
    cls = CLASSES[(type_ >> 7 & 2) | (type_ >> 4 & 1)]
    key = raw[4:HEADER]
    transaction = key[4:] if cookie else key
    facts = [
        Fact("stun.method", method),
        Fact("stun.class", cls),
        Fact("stun.type", type_),
        Fact("stun.length", total),
        Fact("stun.cookie", cookie),
        Fact("stun.transaction", transaction),
        Fact("stun.shape", tuple([(kind, len(value)) for kind, value in attributes])),
        *more,
    ]
    kinds = [kind for kind, _ in attributes]
    if len(set(kinds)) < len(kinds):
        facts.extend(Fact("stun.repeated", kind) for kind, times in Counter(kinds).items() if times > 1)
    inner: memoryview | None = None
    offset = HEADER
    for kind, value in attributes:
        facts.append(Fact("stun.attribute", kind))
        unpack = UNPACK.get(kind)
        if unpack is not None:
            facts.extend(unpack(value, key))
        elif kind == DATA and inner is None and value:
            inner = data[offset + 4 : offset + 4 + len(value)]
        offset += 4 + len(value) + (-len(value) & 3)
    message = Message(type_, method, cls, transaction, cookie, attributes)
    return Layer("stun", tuple(facts), total, inner, message)
