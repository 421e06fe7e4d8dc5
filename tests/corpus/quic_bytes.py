"""A client's QUIC version 1 Initial with a ClientHello in it, protected as RFC 9001 section 5 says.

Written against RFC 9001 alone, so that the decoder is not tested with itself.
"""

from __future__ import annotations

import random
import struct

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from tests.corpus.tls_bytes import extension, handshake

SALT = bytes.fromhex("38762cf7f55934b34d179ae6a4c80cadccbb7f0a")
GREASE = 0x8A8A
SIGNATURES = "0403080404010503020308050805050108060601" + "0201"
"""The algorithms that Apple's systems offer, 0x0805 twice."""


def client_hello(rng: random.Random, sni: str | None = None, resumes: bool = True, alpn: str = "h3") -> bytes:
    """The ClientHello of Apple's QUIC; `resumes`: with a pre_shared_key, which must be the last (RFC 8446 4.2.11)."""
    groups = struct.pack("!6H", 10, GREASE, 29, 23, 24, 25)
    key = struct.pack("!HHB", GREASE, 1, 0) + struct.pack("!HH", 29, 32) + rng.randbytes(32)
    parameters = b"\x04\x04\x81\x00\x00\x00" + b"\x05\x04\x80\x20\x00\x00" + b"\x0e\x02\x40\x40" + b"\x0f\x00"
    extensions = [extension(GREASE, b""), extension(10, groups)]
    if sni is not None:
        name = struct.pack("!BH", 0, len(sni)) + sni.encode()
        extensions.insert(1, extension(0, struct.pack("!H", len(name)) + name))
    extensions += [
        extension(16, struct.pack("!HB", len(alpn) + 1, len(alpn)) + alpn.encode()),
        extension(5, b"\x01\0\0\0\0"),
        extension(13, struct.pack("!H", 22) + bytes.fromhex(SIGNATURES)),
        extension(18, b""),
        extension(51, struct.pack("!H", len(key)) + key),
        extension(45, b"\x01\x01"),
        extension(43, struct.pack("!BHH", 4, GREASE, 0x0304)),
        extension(57, parameters),
        extension(27, b"\x02\x00\x01"),
        extension(GREASE ^ 0x1010, b"\0"),
    ]
    if resumes:
        ticket = rng.randbytes(133)
        identity = struct.pack("!H", len(ticket)) + ticket + rng.randbytes(4)
        binder = b"\x20" + rng.randbytes(32)
        psk = struct.pack("!H", len(identity)) + identity + struct.pack("!H", len(binder)) + binder
        extensions.append(extension(41, psk))
    joined = b"".join(extensions)
    ciphers = struct.pack("!5H", 8, GREASE, 0x1301, 0x1302, 0x1303)
    body = b"\x03\x03" + rng.randbytes(32) + b"\0" + ciphers + b"\x01\0" + struct.pack("!H", len(joined)) + joined
    return handshake(1, body)


def expand(secret: bytes, label: str, size: int) -> bytes:
    """HKDF-Expand-Label of RFC 8446 section 7.1 with an empty context."""
    text = b"tls13 " + label.encode()
    info = struct.pack("!HB", size, len(text)) + text + b"\0"
    return HKDFExpand(SHA256(), size, info).derive(secret)


def initial(hello: bytes, dcid: bytes, scid: bytes = b"", size: int = 1200, version: int = 1) -> bytes:
    """One datagram of `size` bytes: long header, CRYPTO frame, PADDING (RFC 9000 sections 14.1, 17.2.2, 19.6)."""
    extract = HMAC(SALT, SHA256())
    extract.update(dcid)
    secret = expand(extract.finalize(), "client in", 32)
    key, iv, mask_key = expand(secret, "quic key", 16), expand(secret, "quic iv", 12), expand(secret, "quic hp", 16)
    head = struct.pack("!BI", 0xC1, version) + bytes([len(dcid)]) + dcid + bytes([len(scid)]) + scid + b"\0"
    number = b"\0\0"  # packet number 0 in two bytes
    left = size - len(head) - 2
    head += struct.pack("!H", 0x4000 | left) + number
    crypto = b"\x06\0" + struct.pack("!H", 0x4000 | len(hello)) + hello
    plain = crypto + bytes(left - len(number) - 16 - len(crypto))
    sealed = AESGCM(key).encrypt(iv, plain, head)
    cipher = Cipher(algorithms.AES(mask_key), modes.ECB()).encryptor()
    sample = sealed[4 - len(number) :][:16]
    mask = cipher.update(sample)
    protected = bytes([head[0] ^ mask[0] & 0x0F]) + head[1 : -len(number)]
    return protected + bytes(a ^ b for a, b in zip(number, mask[1:3], strict=True)) + sealed
