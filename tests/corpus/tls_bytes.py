"""Enough of TLS 1.2 for a capture: ClientHello with SNI and ALPN, a resuming ServerHello, opaque records.

RFC 5246, 6066, 7301.
"""

from __future__ import annotations

import random
import struct

CIPHERS = (
    0xC02C,
    0xC02B,
    0xC024,
    0xC023,
    0xC00A,
    0xC009,
    0xC030,
    0xC02F,
    0xC028,
    0xC027,
    0xC014,
    0xC013,
    0x009D,
    0x009C,
)


def record(kind: int, body: bytes, version: int = 0x0303) -> bytes:
    return struct.pack("!BHH", kind, version, len(body)) + body


def application_data(rng: random.Random, size: int) -> bytes:
    return record(23, rng.randbytes(size))


def client_hello(rng: random.Random, sni: str | None, alpn: tuple[str, ...] = ()) -> bytes:
    """One handshake record (22) with a ClientHello (1)."""
    extensions = b""
    if sni is not None:
        name = struct.pack("!BH", 0, len(sni)) + sni.encode()
        extensions += extension(0, struct.pack("!H", len(name)) + name)
    extensions += extension(10, bytes.fromhex("0006001700180019")) + extension(11, b"\x01\x00")
    extensions += extension(13, bytes.fromhex("000a0401020105010601 0403".replace(" ", "")))
    if alpn:
        names = b"".join(bytes([len(n)]) + n.encode() for n in alpn)
        extensions += extension(16, struct.pack("!H", len(names)) + names)
    ciphers = b"".join(struct.pack("!H", c) for c in CIPHERS)
    session = rng.randbytes(32)
    body = b"\x03\x03" + rng.randbytes(32) + bytes([len(session)]) + session
    body += struct.pack("!H", len(ciphers)) + ciphers + b"\x01\x00"
    body += struct.pack("!H", len(extensions)) + extensions
    return record(22, handshake(1, body), 0x0301)


def server_hello(rng: random.Random) -> bytes:
    """ServerHello that resumes a session, ChangeCipherSpec, encrypted Finished: no certificate is needed."""
    body = b"\x03\x03" + rng.randbytes(32) + b"\x20" + rng.randbytes(32) + struct.pack("!HB", 0xC02B, 0)
    return record(22, handshake(2, body)) + record(20, b"\x01") + record(22, rng.randbytes(40))


def client_finished(rng: random.Random) -> bytes:
    return record(20, b"\x01") + record(22, rng.randbytes(40))


def handshake(kind: int, body: bytes) -> bytes:
    return bytes([kind]) + len(body).to_bytes(3, "big") + body


def extension(number: int, body: bytes) -> bytes:
    return struct.pack("!HH", number, len(body)) + body
