"""DNS messages: RFC 1035 section 4, EDNS (RFC 6891), mDNS (RFC 6762), LLMNR (RFC 4795), NetBIOS names (RFC 1002).

In: a datagram (`decode`), or a stream at a 2-byte length (`decode_stream`). Out: a Layer "dns". A 12-byte header has
little to know it by, so all of it must hold: opcode, counts, each name, each record, the end at the payload's end.
"""

from __future__ import annotations

from struct import unpack_from
from typing import Final, NamedTuple

from appid.wire import DecodeError, Fact, Layer, Reader

QUESTIONS: Final = 32
RECORDS: Final = 512
LABELS: Final = 128
JUMPS: Final = 16
"""Compression pointers followed in one name; each must point backwards (RFC 1035 section 4.1.4)."""
SLACK: Final = 16
"""Bytes that may follow the last record."""

_OPCODES: Final = frozenset({0, 1, 2, 4, 5, 6})  # IANA: QUERY IQUERY STATUS NOTIFY UPDATE DSO
_NETBIOS_OPCODES: Final = frozenset({0, 5, 6, 7, 8, 9, 15})  # RFC 1002 section 4.2.1.1; 15 is multi-homed registration
_CLASSES: Final = frozenset({1, 2, 3, 4, 254, 255})
_PLAIN = bytes(range(0x21, 0x7F))
_HOST: Final = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-."
_HALF_ASCII: Final = b"ABCDEFGHIJKLMNOP"  # RFC 1001 section 14.1
_OPT: Final = 41
_NB: Final = 32
_NBSTAT: Final = 33


class _Head(NamedTuple):
    flags: int
    questions: int
    records: int


def decode(payload: memoryview) -> Layer | None:
    """A message that fills the datagram; records may be cut after a whole question. None: a part does not hold."""
    size = len(payload)
    if size != 12 and (size < 17 or not _begins_name(payload, 12)):  # 12: a refusal may be the header alone
        return None
    head = _head(payload)
    layer = None if head is None else _message(payload, head)
    return layer or _damaged(payload, head)


def decode_stream(payload: memoryview) -> Layer | None:
    """RFC 1035 section 4.2.2: a 2-byte length before each message. consumed 0: it holds so far, the rest is to come."""
    if len(payload) < 15 or not _begins_name(payload, 14):
        return None
    size = int.from_bytes(payload[:2], "big")
    body = payload[2 : 2 + size]
    head = _head(body) if size >= 17 else None
    if head is None or (head.questions == 0 and len(body) < size):
        return None
    layer = _message(body, head)
    if layer is None:
        return None
    return Layer("dns", layer.facts, 2 + size if len(body) == size else 0)


def decode_damaged(payload: memoryview) -> Layer | None:
    """A datagram of which the header or the question still holds, no more: proves nothing without DNS's own port."""
    if len(payload) < 17:
        return None
    flags, questions, *records = unpack_from(">5H", payload, 2)
    header = questions == 1 and not flags & 0x7840 and flags & 15 <= 11 and max(records) <= QUESTIONS
    if not header:
        if not _begins_name(payload, 12):
            return None
        try:
            name = _question(Reader("dns", payload, 12))[0]
        except DecodeError:
            return None
        if "." not in name:
            return None
    return Layer("dns", (Fact("dns.damaged", True),), len(payload))


def _begins_name(payload: memoryview, at: int) -> bool:
    """The cheap part of `_name` for a message's first name, before which no pointer can point: its first label fits and
    another label, a pointer or the end follows. Nearly all that is no DNS ends here."""
    first = payload[at]
    following = at + 1 + first
    if first == 0 or first > 63 or following >= len(payload):
        return first == 0
    return payload[following] < 64 or payload[following] >= 0xC0


def _head(payload: memoryview) -> _Head | None:
    if len(payload) < 12:
        return None
    flags, questions, answers, authorities, additional = unpack_from(">5H", payload, 2)
    records = answers + authorities + additional
    opcode, response = flags >> 11 & 15, flags & 0x8000
    refusal = response and 1 <= flags & 15 <= 5 and not flags & 0x0070 and len(payload) == 12
    if questions > QUESTIONS or records > RECORDS or not (questions + records or refusal):
        return None
    if opcode not in _OPCODES and opcode not in _NETBIOS_OPCODES:
        return None
    if flags & 15 > 11 or (flags & 15 and not response and opcode == 0):  # a query has no RCODE
        return None
    return _Head(flags, questions, records)


def _message(payload: memoryview, head: _Head) -> Layer | None:
    reader = Reader("dns", payload, 12)
    facts = [Fact("dns.response", bool(head.flags & 0x8000)), Fact("dns.opcode", head.flags >> 11 & 15)]
    netbios = head.records > 0
    try:
        for _ in range(head.questions):
            name, kind = _question(reader)
            netbios = _netbios(name, kind)
            facts += [Fact("dns.query", name.lower()), Fact("dns.type", kind)]
    except DecodeError:
        return None
    try:
        for _ in range(head.records):
            name, kind = _record(reader)
            netbios = netbios and (head.questions > 0 or _netbios(name, kind))
        if len(reader) > SLACK and any(reader.rest()):
            return None
    except DecodeError as error:
        if not head.questions or error.reason != "truncated":  # TC, a snapshot length, or a lost fragment
            return None
    opcode = head.flags >> 11 & 15
    if netbios:
        facts.append(Fact("dns.netbios", True))
    elif opcode not in _OPCODES:
        return None
    return Layer("dns", tuple(facts), len(payload))


def _damaged(payload: memoryview, head: _Head | None) -> Layer | None:
    """One part is wrong, the rest can be nothing else: a host's name of two labels or more, and behind it a known class
    and the end (or a pointer to that name), or four bytes of anything under a header that holds.
    """
    reader = Reader("dns", payload, 12)
    try:
        name, kind, klass = _name(reader), reader.u16(), reader.u16()
    except DecodeError:
        return None
    labels = name.encode().split(b".")
    if len(labels) < 2 or not all(labels) or name.encode().translate(None, _HOST):
        return None
    behind = bytes(reader.rest()[:2])
    whole = _known_type(kind) and klass & 0x7FFF == 1 and behind in (b"", b"\xc0\x0c")
    if not whole and (head is None or head.questions != 1 or behind):
        return None
    facts = (
        Fact("dns.response", bool(payload[2] & 0x80)),
        Fact("dns.opcode", payload[2] >> 3 & 15),
        Fact("dns.query", name.lower()),
        Fact("dns.type", kind),
        Fact("dns.anomaly", "header" if whole else "type or class"),
    )
    return Layer("dns", facts, len(payload))


def _netbios(name: str, kind: int) -> bool:
    """RFC 1001 section 14.1: 32 letters A to P. With 24 of them it is one that was damaged."""
    label = name.partition(".")[0].encode()
    letters = len(label) - len(label.translate(None, _HALF_ASCII))
    return len(label) >= 32 and letters >= (24 if kind in (_NB, _NBSTAT) else 30)


def _question(reader: Reader) -> tuple[str, int]:
    name, kind = _name(reader), reader.u16()
    if not _known_type(kind) or reader.u16() & 0x7FFF not in _CLASSES:  # top bit: mDNS asks for unicast
        raise reader.error("question of no known class")
    return name, kind


def _record(reader: Reader) -> tuple[str, int]:
    name, kind, klass = _name(reader), reader.u16(), reader.u16()
    # OPT's class is a buffer size (RFC 6891 section 6.1.2); the top bit is mDNS's cache flush
    if not _known_type(kind) or (kind != _OPT and klass & 0x7FFF not in _CLASSES) or (kind == _OPT and name):
        raise reader.error("record of no known class")
    reader.skip(4)
    reader.skip(reader.u16())
    return name, kind


def _known_type(kind: int) -> bool:
    """IANA's assigned and private ranges; TA and DLV at 32768."""
    return 0 < kind <= 264 or kind in (32768, 32769) or kind >= 65280


def _name(reader: Reader) -> str:
    """A name as text, dots between labels, no final dot; the reader stands behind it in its own record."""
    labels: list[str] = []
    length, jumps = 0, 0
    data, offset, after = reader.data, reader.offset, -1
    while len(labels) <= LABELS:
        if offset >= reader.end:
            raise DecodeError("dns", offset, "truncated")
        size = data[offset]
        if size >= 0xC0:
            if offset + 1 >= reader.end:
                raise DecodeError("dns", offset, "truncated")
            target = (size & 0x3F) << 8 | data[offset + 1]
            after = offset + 2 if after < 0 else after
            jumps += 1
            if target >= offset or target < 12 or jumps > JUMPS:
                raise DecodeError("dns", offset, "pointer not backwards")
            offset = target
            continue
        if size > 63:
            raise DecodeError("dns", offset, "label type")
        offset += 1
        if size == 0:
            reader.offset = offset if after < 0 else after
            return ".".join(labels)
        label = bytes(data[offset : offset + size])
        if len(label) < size:
            raise DecodeError("dns", offset, "truncated")
        length += size + 1
        if length > 255:
            raise DecodeError("dns", offset, "name too long")
        labels.append(label.decode() if not label.translate(None, _PLAIN) else _odd(label))
        offset += size
    raise DecodeError("dns", offset, "too many labels")


def _odd(label: bytes) -> str:
    """UTF-8 as it is (mDNS service names, RFC 6763 section 4.1.3), other bytes and control characters as \\xNN."""
    text = label.decode("utf-8", "replace")
    return (
        text
        if text.isprintable() and "\ufffd" not in text
        else label.decode("latin-1").encode("unicode_escape").decode()
    )
