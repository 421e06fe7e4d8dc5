"""QUIC long headers: RFC 9000 section 17.2, RFC 9001 (v1), RFC 9369 (v2), their drafts, and Google's QUIC.

In: one UDP payload. Out: a Layer "quic" for the datagram. A client's Initial is decrypted with the public salt of its
version (RFC 9001 section 5.2), its ClientHello is `inner` once whole. One short header proves nothing, so that none is
claimed by itself (`decode_short`).
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from appid.wire import DecodeError, Fact, Layer, Reader

FIRST: Final = frozenset(range(0x80, 0x100)) | frozenset(range(0x09, 0x40))
"""Long headers (RFC 8999 section 5.1), and Google's public headers with a version and a connection id."""

V1: Final = 0x00000001
V2: Final = 0x6B3343CF
CRYPTO_LIMIT: Final = 2**16
"""Longest handshake message that is joined, bytes."""
PACKETS: Final = 16
"""Packets of one datagram that are looked at."""

_SALT_17 = bytes.fromhex("ef4fb0abb47470c41befcf8031334fae485e09a0")
_SALT_21 = bytes.fromhex("7fbcdb0e7c66bbe9193a96cd21519ebd7a02644a")
_SALT_23 = bytes.fromhex("c3eef712c72ebb5a11a7d2432bb46365bef9f502")
_SALT_29 = bytes.fromhex("afbfec289993d24c9e9786f19c6111e04390a899")
_SALT_V1 = bytes.fromhex("38762cf7f55934b34d179ae6a4c80cadccbb7f0a")  # RFC 9001 section 5.2
_SALT_V2 = bytes.fromhex("0dede3def700a6db819381be6e269dcbf9bd2ed9")  # RFC 9369 section 3.3.1
_SALTS: Final = {
    V1: _SALT_V1,
    V2: _SALT_V2,
    0xFACEB001: _SALT_21,  # mvfst
    0xFACEB002: _SALT_23,
    0xFACEB00E: _SALT_23,
    0x51303530: bytes.fromhex("504574efd066fe2f9d945cfcdbd3a7f0d3b56b45"),  # Q050
    0x54303530: bytes.fromhex("7ff579e5acd072915580304c43a2367c60488310"),  # T050
    0x54303531: bytes.fromhex("7a4edef4e7ccee5fa4506c19124fc8ccda6e033d"),  # T051
}
_TYPES: Final = ("initial", "0-rtt", "handshake", "retry")  # RFC 9000 table 5
_TYPES_V2: Final = ("retry", "initial", "0-rtt", "handshake")  # RFC 9369 section 3.2
_GOOGLE: Final = re.compile(rb"Q0[0-4]\d")
_PADDING: Final = re.compile(rb"[\0\1]*")


SHORT: Final = frozenset(range(0x40, 0x80))
"""First bytes of a short header (RFC 9000 section 17.3.1)."""


class Keys(NamedTuple):
    """Initial protection of one side: AEAD key (16), IV (12), header protection key (16)."""

    key: bytes
    iv: bytes
    hp: bytes


class _Packet(NamedTuple):
    kind: str
    version: int
    dcid: bytes
    scid: int
    token: int
    start: int
    number: int
    """Offset of the packet number in the datagram; `start` and `end` are offsets too."""
    end: int


def decode(payload: memoryview) -> Layer | None:
    """One datagram. `quic.crypto` (offset, bytes) is given for each CRYPTO frame of a hello that is not whole yet."""
    return _datagram(payload, None, False)


def decode_short(payload: memoryview) -> Layer | None:
    """What may be a short header: its first byte and the eight that may be a connection ID, for a run of them to tell
    (RFC 9000 section 17.3.1: the ID stays, the five protected bits of the first byte do not)."""
    if len(payload) < 25:  # first byte, ID, packet number, and the 16 bytes of the AEAD's tag
        return None
    return Layer("quic", (Fact("quic.short_header", bytes(payload[:9])),), len(payload))


def decode_with(payload: memoryview, dcid: bytes, server: bool = True) -> Layer | None:
    """Like `decode`, with the Destination Connection ID of the client's first Initial: reads a server's Initials."""
    return _datagram(payload, dcid, server)


def join(pieces: Iterable[tuple[int, bytes]]) -> bytes | None:
    """CRYPTO pieces of one side's Initials, in any order -> the first handshake message if it is whole, else None."""
    joined = bytearray()
    for offset, data in sorted(pieces):
        if offset > len(joined):
            return None
        joined += data[len(joined) - offset :]
        if len(joined) >= 4:
            size = 4 + int.from_bytes(joined[1:4], "big")
            if size > CRYPTO_LIMIT:
                return None
            if len(joined) >= size:
                return bytes(joined[:size])
    return None


def initial_keys(version: int, dcid: bytes, server: bool = False) -> Keys | None:
    """RFC 9001 section 5.2; None for a version whose salt is not known."""
    salt = _salt(version)
    if salt is None:
        return None
    secret = hmac.digest(salt, dcid, "sha256")
    side = _expand(secret, b"server in" if server else b"client in", 32)
    prefix = b"quicv2 " if version == V2 else b"quic "
    return Keys(
        _expand(side, prefix + b"key", 16), _expand(side, prefix + b"iv", 12), _expand(side, prefix + b"hp", 16)
    )


def _expand(secret: bytes, label: bytes, size: int) -> bytes:
    """HKDF-Expand-Label (RFC 8446 section 7.1) with an empty context, one block."""
    name = b"tls13 " + label
    return hmac.digest(secret, size.to_bytes(2, "big") + bytes([len(name)]) + name + b"\0\1", "sha256")[:size]


def _salt(version: int) -> bytes | None:
    if version >> 8 == 0xFF0000:
        draft = version & 0xFF
        for since, salt in ((33, _SALT_V1), (29, _SALT_29), (23, _SALT_23), (21, _SALT_21), (17, _SALT_17)):
            if draft >= since:
                return salt if draft <= 34 else None
    return _SALTS.get(version)


def _known(version: int) -> bool:
    """Versions that have been on the wire: 1, 2, IETF drafts, mvfst, and Google's Q05x, T05x."""
    return (
        version in _SALTS
        or 0xFF000011 <= version <= 0xFF000022
        or version >> 8 == 0xFACEB0
        or version >> 8 in (0x513035, 0x543035)
    )


def _greased(version: int) -> bool:
    return version & 0x0F0F0F0F == 0x0A0A0A0A  # RFC 9000 section 15


def _datagram(payload: memoryview, dcid: bytes | None, server: bool) -> Layer | None:
    if len(payload) < 14:
        return None
    if payload[0] < 0x80 or _GOOGLE.match(payload[1:5]):
        return _google(payload)
    version = int.from_bytes(payload[1:5], "big")
    if version == 0:
        return _negotiation(payload)
    # a reserved version forces Version Negotiation (RFC 9000 section 6.3): only a client's first datagram has it
    if not _known(version) and not (_greased(version) and len(payload) >= 1200):
        return None
    packets = _packets(payload)
    if not packets:
        return None
    first = packets[0]
    facts = [
        Fact("quic.version", version),
        Fact("quic.dcid_length", len(first.dcid)),
        Fact("quic.scid_length", first.scid),
    ]
    pieces: list[tuple[int, bytes]] = []
    for packet in packets:
        facts.append(Fact("quic.packet_type", packet.kind))
        if packet.kind == "initial":
            facts.append(Fact("quic.token_length", packet.token))
            plain = _open(payload, packet, packet.dcid if dcid is None else dcid, server)
            if plain is not None and version >> 8 == 0x513035:
                facts += _chlo(plain)
            elif plain is not None:
                pieces += _crypto(plain, 8 if version >> 8 == 0x543035 else 6)
    hello = join(pieces)
    if hello is None:
        facts += [Fact("quic.crypto", piece) for piece in pieces]
    return Layer("quic", tuple(facts), len(payload), None if hello is None else memoryview(hello))


def _packets(payload: memoryview) -> list[_Packet]:
    """The long headers of a datagram (RFC 9000 section 12.2); [] unless the first is well formed."""
    packets: list[_Packet] = []
    offset = 0
    while (
        len(packets) < PACKETS and len(payload) - offset >= 7 and payload[offset] & 0x80
    ):  # RFC 9287: 0x40 may be clear
        try:
            packet = _packet(payload, offset)
        except DecodeError:
            break
        if packet is None or (packets and packet.version != packets[0].version):
            break
        packets.append(packet)
        offset = packet.end
    return packets


def _packet(payload: memoryview, start: int) -> _Packet | None:
    reader = Reader("quic", payload, start)
    flags, version = reader.u8(), reader.u32()
    dcid_size = reader.u8()
    dcid = bytes(reader.take(dcid_size))
    scid = reader.u8()
    reader.skip(scid)
    if dcid_size > 20 or scid > 20:  # RFC 9000 section 17.2
        return None
    kind = (_TYPES_V2 if version == V2 else _TYPES)[flags >> 4 & 3]
    if kind == "retry":  # token, then a 16-byte integrity tag (section 17.2.5)
        if len(reader) < 16:
            return None
        return _Packet(kind, version, dcid, scid, len(reader) - 16, start, 0, len(payload))
    token = 0
    if kind == "initial":
        token = _varint(reader)
        reader.skip(token)
    length = _varint(reader)
    if length < 20 or length > len(reader):  # packet number, and 16 bytes of sample or tag
        return None
    return _Packet(kind, version, dcid, scid, token, start, reader.offset, reader.offset + length)


def _varint(reader: Reader) -> int:
    """RFC 9000 section 16."""
    first = reader.u8()
    value = first & 0x3F
    for _ in range((1 << (first >> 6)) - 1):
        value = value << 8 | reader.u8()
    return value


def _open(payload: memoryview, packet: _Packet, dcid: bytes, server: bool) -> bytes | None:
    """Decrypt an Initial with the keys of its version, or, of a reserved version, with v1's and the last draft's."""
    versions = (V1, 0xFF00001D) if _greased(packet.version) else (packet.version,)
    for version in versions:
        keys = initial_keys(version, dcid, server)
        plain = None if keys is None else _decrypt(payload, packet, keys)
        if plain is not None:
            return plain
    return None


def _decrypt(payload: memoryview, packet: _Packet, keys: Keys) -> bytes | None:
    """Remove header protection and decrypt (RFC 9001 sections 5.3, 5.4); None if the keys do not fit."""
    number = packet.number
    sample = bytes(payload[number + 4 : number + 20])
    mask = Cipher(algorithms.AES(keys.hp), modes.ECB()).encryptor().update(sample)  # noqa: S305 (RFC 9001 section 5.4.3)
    flags = payload[packet.start] ^ mask[0] & 0x0F
    size = (flags & 3) + 1
    counter = bytes(byte ^ mask[1 + index] for index, byte in enumerate(payload[number : number + size]))
    header = bytes([flags]) + bytes(payload[packet.start + 1 : number]) + counter
    nonce = (int.from_bytes(keys.iv, "big") ^ int.from_bytes(counter, "big")).to_bytes(12, "big")
    try:
        return AESGCM(keys.key).decrypt(nonce, bytes(payload[number + size : packet.end]), header)
    except InvalidTag:  # the other side's packet, or keyed by an earlier connection id
        return None


def _crypto(plain: bytes, crypto: int) -> list[tuple[int, bytes]]:
    """CRYPTO frames (6; 8 in Google's T05x) of an Initial, up to one not allowed there (RFC 9000 section 17.2.2)."""
    pieces: list[tuple[int, bytes]] = []
    reader = Reader("quic", plain)
    try:
        while len(reader):
            kind = reader.u8()
            if kind in (0, 1):  # PADDING, PING
                reader.offset = _padded(plain, reader.offset)
                continue
            if kind == crypto:  # section 19.6
                offset, size = _varint(reader), _varint(reader)
                if offset > CRYPTO_LIMIT:
                    break
                pieces.append((offset, bytes(reader.take(size))))
            elif kind in (2, 3):  # ACK, section 19.3
                _skip_ack(reader, kind)
            else:
                break
    except DecodeError:
        pass
    return pieces


def _padded(plain: bytes, offset: int) -> int:
    padding = _PADDING.match(plain, offset)
    return padding.end() if padding else offset


def _skip_ack(reader: Reader, kind: int) -> None:
    _varint(reader)
    _varint(reader)
    ranges = _varint(reader)
    for _ in range(min(1 + 2 * ranges + (3 if kind == 3 else 0), len(reader) + 1)):
        _varint(reader)


def _negotiation(payload: memoryview) -> Layer | None:
    """Version Negotiation (RFC 9000 section 17.2.1): version 0, connection ids, versions of which one is known."""
    reader = Reader("quic", payload, 5)
    try:
        dcid = reader.u8()
        reader.skip(dcid)
        scid = reader.u8()
        reader.skip(scid)
    except DecodeError:
        return None
    count, odd = divmod(len(reader), 4)
    if odd or not 1 <= count <= 32 or not dcid | scid or max(dcid, scid) > 20:
        return None
    versions = [reader.u32() for _ in range(count)]
    if not any(_known(version) for version in versions):
        return None
    return Layer("quic", _shape(0, "version-negotiation", dcid, scid), len(payload))


def _shape(version: int, kind: str, dcid: int, scid: int) -> tuple[Fact, ...]:
    return (
        Fact("quic.version", version),
        Fact("quic.dcid_length", dcid),
        Fact("quic.scid_length", scid),
        Fact("quic.packet_type", kind),
    )


def _google(payload: memoryview) -> Layer | None:
    """Google QUIC up to Q049, in the clear: public header (flags, 8-byte id, version), or long header from Q044 on."""
    flags = payload[0]
    if flags & 0x80:
        start, dcid = 1, 8 if len(payload) > 5 and payload[5] >> 4 == 5 else 0
    elif flags & 0x89 == 0x09:  # version and connection id present, top bit unused
        start, dcid = 9, 8
    else:
        return None
    name = bytes(payload[start : start + 4])
    if not _GOOGLE.fullmatch(name):
        return None
    facts = _shape(int.from_bytes(name, "big"), "google", dcid, 0)
    return Layer("quic", (*facts, *_chlo(bytes(payload[:1500]))), len(payload))


def _chlo(plain: bytes) -> list[Fact]:
    """SNI out of a CHLO message: tag, count (little endian), pad, then (tag, end offset) each, then the values."""
    start = plain.find(b"CHLO", 0, 128)
    count = int.from_bytes(plain[start + 4 : start + 6], "little")
    if start < 0 or not 0 < count <= 128:
        return []
    values = start + 8 + 8 * count
    begin = 0
    for entry in range(start + 8, values, 8):
        end = int.from_bytes(plain[entry + 4 : entry + 8], "little")
        if plain[entry : entry + 4] == b"SNI\0":
            name = plain[values + begin : values + end] if begin < end else b""
            host = 0 < len(name) <= 255 and name.isascii() and name.decode().isprintable()
            return [Fact("quic.sni", name.decode().lower())] if host else []
        begin = end
    return []
