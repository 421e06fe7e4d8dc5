"""STUN and TURN messages as bytes, as FaceTime of 2015 and its look-alikes send them.

RFC 8489 section 5 (header), 14 (attributes); RFC 8656 section 12 (ChannelData). Without the magic cookie the 16 bytes
after the length are one transaction ID (RFC 3489 section 11.1), and XOR addresses are masked with its first bytes.
"""

from __future__ import annotations

import struct
from ipaddress import ip_address
from typing import NamedTuple

COOKIE = bytes.fromhex("2112a442")
BINDING, ALLOCATE, REFRESH, SEND, DATA, CREATE_PERMISSION, CHANNEL_BIND = 1, 3, 4, 6, 7, 8, 9
REQUEST, INDICATION, SUCCESS, ERROR = 0x000, 0x010, 0x100, 0x110

MAPPED_ADDRESS, USERNAME, ERROR_CODE, CHANNEL_NUMBER, LIFETIME = 0x0001, 0x0006, 0x0009, 0x000C, 0x000D
XOR_PEER_ADDRESS, REALM, NONCE, XOR_RELAYED_ADDRESS = 0x0012, 0x0014, 0x0015, 0x0016
EVEN_PORT, REQUESTED_TRANSPORT, XOR_MAPPED_ADDRESS, RESERVATION_TOKEN = 0x0018, 0x0019, 0x0020, 0x0022
PRIORITY, USE_CANDIDATE, SOFTWARE, ICE_CONTROLLED, ICE_CONTROLLING = 0x0024, 0x0025, 0x8022, 0x8029, 0x802A
MESSAGE_INTEGRITY, FINGERPRINT = 0x0008, 0x8028

Attribute = tuple[int, bytes]


class Transaction(NamedTuple):
    """The 16 bytes after the length: cookie (or what stands in its place) and transaction ID."""

    cookie: bytes
    id: bytes


def message(method: int, kind: int, transaction: Transaction, attributes: list[Attribute]) -> bytes:
    body = b"".join(attribute(number, value) for number, value in attributes)
    return struct.pack("!HH", method | kind, len(body)) + transaction.cookie + transaction.id + body


def attribute(number: int, value: bytes) -> bytes:
    return struct.pack("!HH", number, len(value)) + value + bytes(-len(value) % 4)


def address(number: int, host: str, port: int) -> Attribute:
    """An address in clear (RFC 8489 14.1)."""
    raw = ip_address(host).packed
    return number, struct.pack("!BBH", 0, 1 if len(raw) == 4 else 2, port) + raw


def xor_address(number: int, host: str, port: int, transaction: Transaction) -> Attribute:
    """RFC 8489 14.2: port and address masked with cookie and transaction ID."""
    mask = transaction.cookie + transaction.id
    raw = ip_address(host).packed
    masked = bytes(a ^ b for a, b in zip(raw, mask, strict=False))
    head = struct.pack("!BBH", 0, 1 if len(raw) == 4 else 2, port ^ int.from_bytes(mask[:2], "big"))
    return number, head + masked


def u32(number: int, value: int) -> Attribute:
    return number, struct.pack("!I", value)


def error(code: int, reason: str) -> Attribute:
    return ERROR_CODE, struct.pack("!HBB", 0, code // 100, code % 100) + reason.encode()


def channel_number(channel: int) -> Attribute:
    return CHANNEL_NUMBER, struct.pack("!HH", channel, 0)


def channel_data(channel: int, payload: bytes, padded: bool = False) -> bytes:
    """RFC 8656 12.4; over UDP no padding is needed and Apple sends none."""
    return struct.pack("!HH", channel, len(payload)) + payload + (bytes(-len(payload) % 4) if padded else b"")
