"""A packet with another transport payload. In: a whole IP packet, the new payload, for TCP the numbers that go with it.
Out: the packet, lengths and checksums right.

IPv4 RFC 791, UDP RFC 768, TCP RFC 9293, SACK RFC 2018, timestamps RFC 7323, their checksum RFC 1071.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple

from appid.packet import FIN, parse
from appid.wire import TCP, UDP, DecodeError

_MAX = 65535
_SMALL = 1280
"""No path splits less (RFC 8200 section 5)."""
_DF, _NOP, _SACK, _STAMP = 0x40, 1, 5, 8

_tcp = Struct(">4xIIxB").unpack_from
Block = tuple[int, int]


class Numbers(NamedTuple):
    """A TCP segment's numbers: its own, its acknowledgement, SACK blocks, whether it carries a FIN, and its sender's
    clock (TSval; None where it tells none)."""

    sequence: int
    acknowledgement: int
    sacks: tuple[Block, ...] = ()
    fin: bool = False
    clock: int | None = None


def checksum(data: bytes) -> int:
    """RFC 1071: the one's complement of the one's complement sum of 16-bit words; odd data is padded with a zero."""
    total = int.from_bytes(data + b"\0" * (len(data) & 1), "big")
    # Modulo 0xffff is that sum, except that a sum of 0xffff comes out as 0.
    rest = total % 0xFFFF
    return 0xFFFF - (rest or (0xFFFF if total else 0))


def tcp_numbers(data: memoryview, payload: memoryview) -> Numbers:
    """The numbers of a whole TCP packet, whose payload is `payload`."""
    start = _tcp_start(data, len(data) - len(payload)) if data[0] >> 4 == 6 else (data[0] & 15) * 4
    sequence, acknowledgement, flags = _tcp(data, start)
    blocks: tuple[Block, ...] = ()
    for at, size in _options(data, start, _SACK):
        blocks += tuple(_block(data, at + i) for i in range(2, size - 7, 8))
    clock = next((_block(data, at + 2)[0] for at, _ in _options(data, start, _STAMP)), None)
    return Numbers(sequence, acknowledgement, blocks, bool(flags & FIN), clock)


def replace_payload(data: bytes, payload: bytes, numbers: Numbers | None = None) -> bytes:
    """ValueError where `data` is no whole, unfragmented UDP or TCP packet, or the result would not fit one."""
    try:
        seen = parse(memoryview(data))
    except DecodeError as error:
        raise ValueError(str(error)) from error
    if seen is None or seen.fragment or seen.key.proto not in (UDP, TCP) or seen.length > len(data):
        raise ValueError("not a whole UDP or TCP packet")
    key = seen.key
    v4 = len(key.src) == 4
    start = seen.length - len(seen.payload)
    packet = bytearray(data[:start]) + payload
    size = len(packet)
    if size > (_MAX if v4 else _MAX + 40):
        raise ValueError("payload too long")
    transport = (packet[0] & 15) * 4 if v4 else start - 8 if key.proto == UDP else _tcp_start(data, start)
    if key.proto == UDP:
        if start - transport != 8:
            raise ValueError("bytes between the UDP header and the end of the packet")
        packet[transport + 4 : transport + 6] = (size - transport).to_bytes(2, "big")
    elif numbers is not None:
        _number(packet, transport, numbers)
    field = transport + (6 if key.proto == UDP else 16)
    packet[field : field + 2] = b"\0\0"
    pseudo = key.src + key.dst + (size - transport).to_bytes(4, "big") + key.proto.to_bytes(4, "big")
    value = checksum(pseudo + bytes(packet[transport:]))
    packet[field : field + 2] = (value or (0xFFFF if key.proto == UDP else 0)).to_bytes(2, "big")  # RFC 768: 0 is none
    if v4:
        _finish(packet, size > max(len(data), _SMALL))
    else:
        packet[4:6] = (size - 40).to_bytes(2, "big")
    return bytes(packet)


def _finish(packet: bytearray, grown: bool) -> None:
    """IPv4's length and checksum. What has `grown` may be fragmented on its way, whatever its sender said: he measured
    the path for another length. RFC 6864 section 4.1: then its identification counts."""
    packet[2:4] = len(packet).to_bytes(2, "big")
    if grown and packet[6] & _DF:
        packet[6] &= ~_DF
        packet[4:6] = checksum(bytes(packet[20:])).to_bytes(2, "big")
    size = (packet[0] & 15) * 4
    packet[10:12] = b"\0\0"
    packet[10:12] = checksum(bytes(packet[:size])).to_bytes(2, "big")


def _number(packet: bytearray, start: int, numbers: Numbers) -> None:
    packet[start + 4 : start + 8] = numbers.sequence.to_bytes(4, "big")
    packet[start + 8 : start + 12] = numbers.acknowledgement.to_bytes(4, "big")
    if not numbers.fin:
        packet[start + 13] &= ~FIN
    blocks = b"".join(left.to_bytes(4, "big") + right.to_bytes(4, "big") for left, right in numbers.sacks)
    if numbers.clock is not None:
        for at, _ in _options(packet, start, _STAMP):
            packet[at + 2 : at + 6] = numbers.clock.to_bytes(4, "big")
    for at, size in list(_options(packet, start, _SACK)):
        room = (size - 2) // 8 * 8
        mine, blocks = blocks[:room], blocks[room:]
        option = bytes((_SACK, 2 + len(mine))) + mine if mine else b""
        packet[at : at + size] = option.ljust(size, bytes((_NOP,)))


def _options(data: memoryview | bytearray, start: int, kind: int) -> Iterator[tuple[int, int]]:
    """Where the options of this kind, ten bytes at least, are in the TCP header at `start`: offset and length."""
    at, end = start + 20, start + (data[start + 12] >> 4) * 4
    while at + 1 < end and data[at] != 0:
        size = 1 if data[at] == _NOP else data[at + 1]
        if size < 1 or at + size > end or (size < 2 and data[at] != _NOP):
            return
        if data[at] == kind and size >= 10:
            yield at, size
        at += size


def _block(data: memoryview, at: int) -> Block:
    return int.from_bytes(data[at : at + 4], "big"), int.from_bytes(data[at + 4 : at + 8], "big")


def _tcp_start(data: bytes | memoryview, end: int) -> int:
    """Where the TCP header of an IPv6 packet starts, its payload starting at `end`: after the extension headers."""
    proto, at = data[6], 40
    while proto != TCP:
        if at + 2 > end:
            raise ValueError("no TCP header")
        proto, at = data[at], at + 8 + data[at + 1] * 8
    return at
