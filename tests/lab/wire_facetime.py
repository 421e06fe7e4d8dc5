"""Bytes of session 1: STUN, TURN and ChannelData as the report describes them (RFC 8489 section 5, RFC 8656 12.4).

The lab's own encoders and a small reader, so that the program under test is not checked against itself.
In: plain values; endpoints are (text address, port). Out: datagrams.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from socket import inet_aton

COOKIE = 0x2112A442
Address = tuple[str, int]

BINDING, ALLOCATE, REFRESH, CHANNEL_BIND = 0x0001, 0x0003, 0x0004, 0x0009
SUCCESS, ERROR = 0x0100, 0x0110

MAPPED_ADDRESS, USERNAME, ERROR_CODE, CHANNEL_NUMBER, LIFETIME = 0x0001, 0x0006, 0x0009, 0x000C, 0x000D
XOR_PEER_ADDRESS, XOR_RELAYED_ADDRESS, XOR_MAPPED_ADDRESS = 0x0012, 0x0016, 0x0020
RESERVATION_TOKEN, USE_CANDIDATE, PRIORITY = 0x0022, 0x0025, 0x0024
ICE_CONTROLLED, ICE_CONTROLLING = 0x8029, 0x802A
Attribute = tuple[int, bytes]


@dataclass(frozen=True)
class Stun:
    """A STUN message as read: method|class in `type`, attributes in order, unknown ones raw."""

    type: int
    transaction: bytes
    attributes: tuple[Attribute, ...]

    def get(self, number: int) -> bytes | None:
        return next((value for kind, value in self.attributes if kind == number), None)

    def number(self, attribute: int) -> int:
        return int.from_bytes(self.get(attribute) or b"", "big")

    def address(self, attribute: int) -> Address | None:
        """An XOR-*-ADDRESS (RFC 8489, 14.2)."""
        value = self.get(attribute)
        if value is None:
            return None
        host = _mixed(value[4:], self.transaction)
        return str(ip_address(host)), int.from_bytes(value[2:4], "big") ^ (COOKIE >> 16)


def stun(kind: int, transaction: bytes, *attributes: Attribute) -> bytes:
    """Header of 20 bytes, then type-length-value, each padded to 4 (RFC 8489, 5 and 14)."""
    body = b"".join(
        struct.pack(">HH", number, len(value)) + value + bytes(-len(value) % 4) for number, value in attributes
    )
    return struct.pack(">HHI", kind, len(body), COOKIE) + transaction + body


def read_stun(data: bytes) -> Stun | None:
    """None for what is no STUN message of exactly this datagram's length."""
    if len(data) < 20 or data[0] > 3 or struct.unpack_from(">HHI", data)[1:] != (len(data) - 20, COOKIE):
        return None
    return Stun(int.from_bytes(data[:2], "big"), data[8:20], tuple(_attributes(data)))


def _attributes(data: bytes) -> Iterator[Attribute]:
    offset = 20
    while offset + 4 <= len(data):
        number, size = struct.unpack_from(">HH", data, offset)
        yield number, data[offset + 4 : offset + 4 + size]
        offset += 4 + size + (-size % 4)


def plain(address: Address) -> bytes:
    host = ip_address(address[0])
    return struct.pack(">BBH", 0, 1 if host.version == 4 else 2, address[1]) + host.packed


def xored(address: Address, transaction: bytes) -> bytes:
    """IPv6 is mixed with the transaction id as well (RFC 8489, 14.2)."""
    host = ip_address(address[0])
    family = 1 if host.version == 4 else 2
    return struct.pack(">BBH", 0, family, address[1] ^ (COOKIE >> 16)) + _mixed(host.packed, transaction)


def _mixed(host: bytes, transaction: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(host, struct.pack(">I", COOKIE) + transaction, strict=False))


def u32(value: int) -> bytes:
    return struct.pack(">I", value)


# -- TURN as the report's relay speaks it


def allocate(transaction: bytes, relayed: Address, token: bytes) -> bytes:
    """Packet 60: both are in the *request*; no USERNAME, no challenge to answer."""
    return stun(
        ALLOCATE, transaction,
        (LIFETIME, u32(60)), (XOR_RELAYED_ADDRESS, xored(relayed, transaction)), (RESERVATION_TOKEN, token),
    )  # fmt: skip


def allocated(transaction: bytes, relayed: Address, mapped: Address) -> bytes:
    return stun(
        ALLOCATE | SUCCESS, transaction,
        (XOR_RELAYED_ADDRESS, xored(relayed, transaction)), (XOR_MAPPED_ADDRESS, xored(mapped, transaction)),
        (LIFETIME, u32(60)),
    )  # fmt: skip


def channel_bind(transaction: bytes, channel: int, peer: Address) -> bytes:
    """Packet 121."""
    number = struct.pack(">HH", channel, 0)
    return stun(CHANNEL_BIND, transaction, (CHANNEL_NUMBER, number), (XOR_PEER_ADDRESS, xored(peer, transaction)))


def refresh(transaction: bytes, lifetime: int) -> bytes:
    return stun(REFRESH, transaction, (LIFETIME, u32(lifetime)))


def channel_data(channel: int, payload: bytes) -> bytes:
    """RFC 8656 12.4; over UDP without padding."""
    return struct.pack(">HH", channel, len(payload)) + payload


def read_channel_data(data: bytes) -> tuple[int, bytes] | None:
    if len(data) < 4 or not 0x40 <= data[0] <= 0x4F:
        return None
    channel, size = struct.unpack_from(">HH", data)
    return (channel, data[4:]) if size == len(data) - 4 else None


# -- connectivity checks, of an ICE older than RFC 5245


def check(
    transaction: bytes, username: bytes, *, controlling: bool, tie_breaker: bytes, use_candidate: bool = False
) -> bytes:
    """Packets 122, 161-164: USERNAME of 20 binary bytes, the private attributes, the role."""
    attributes: list[Attribute] = [
        (USERNAME, username),
        (0x8001, b"\0\0\0\1"),
        (0x8002, b"\0\1\0\0"),  # today's tools read PASSWORD-ALGORITHMS here, so: a well-formed one
        (0x8003, b"\0\0\0\4"),
        (0x8009, b"\0\0\0\0"),
    ]
    if use_candidate:
        attributes.append((USE_CANDIDATE, b""))
    attributes.append((ICE_CONTROLLING if controlling else ICE_CONTROLLED, tie_breaker))
    return stun(BINDING, transaction, *attributes)


def checked(transaction: bytes, username: bytes, mapped: Address) -> bytes:
    """Packet 160: USERNAME turned round; MAPPED-ADDRESS is where the check was seen to come from."""
    return stun(
        BINDING | SUCCESS, transaction,
        (USERNAME, username), (MAPPED_ADDRESS, plain(mapped)), (0x8001, b"\0\0\0\1"), (0x8003, b"\0\0\0\4"),
        (0x8004, b"\0\0\0\0"), (0x8005, transaction[4:8]), (0x8009, b"\0\0\0\0"),
    )  # fmt: skip


# -- the 16-byte probe on port 16403 (field.md A5)


def snatmap_request(nonce: int, local: Address) -> bytes:
    return struct.pack(">II4sHH", 1, nonce, inet_aton(local[0]), local[1], 0xFFFF)


def snatmap_reply(request: bytes, seen: Address) -> bytes:
    """The mapped address, bit-inverted."""
    raw = bytes(b ^ 0xFF for b in inet_aton(seen[0]) + struct.pack(">H", seen[1]))
    return struct.pack(">I", 2) + request[4:8] + raw + b"\xff\xff"
