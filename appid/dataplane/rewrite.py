"""A packet with another transport payload. In: a whole IP packet and the new payload. Out: the packet, lengths and
checksums right.

IPv4 RFC 791, UDP RFC 768, TCP RFC 9293, their checksum RFC 1071. TCP sequence numbers are the caller's concern.
"""

from __future__ import annotations

from appid.packet import parse
from appid.wire import TCP, UDP, DecodeError

_MAX = 65535


def checksum(data: bytes) -> int:
    """RFC 1071: the one's complement of the one's complement sum of 16-bit words; odd data is padded with a zero."""
    total = int.from_bytes(data + b"\0" * (len(data) & 1), "big")
    # Modulo 0xffff is that sum, except that a sum of 0xffff comes out as 0.
    rest = total % 0xFFFF
    return 0xFFFF - (rest or (0xFFFF if total else 0))


def replace_payload(data: bytes, payload: bytes) -> bytes:
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
    field = transport + (6 if key.proto == UDP else 16)
    packet[field : field + 2] = b"\0\0"
    pseudo = key.src + key.dst + (size - transport).to_bytes(4, "big") + key.proto.to_bytes(4, "big")
    value = checksum(pseudo + bytes(packet[transport:]))
    packet[field : field + 2] = (value or (0xFFFF if key.proto == UDP else 0)).to_bytes(2, "big")  # RFC 768: 0 is none
    if v4:
        packet[2:4] = size.to_bytes(2, "big")
        packet[10:12] = b"\0\0"
        packet[10:12] = checksum(bytes(packet[:transport])).to_bytes(2, "big")
    else:
        packet[4:6] = (size - 40).to_bytes(2, "big")
    return bytes(packet)


def _tcp_start(data: bytes, end: int) -> int:
    """Where the TCP header of an IPv6 packet starts, its payload starting at `end`: after the extension headers."""
    proto, at = data[6], 40
    while proto != TCP:
        if at + 2 > end:
            raise ValueError("no TCP header")
        proto, at = data[at], at + 8 + data[at + 1] * 8
    return at
