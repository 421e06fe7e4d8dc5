"""TLS records and hellos: RFC 8446, RFC 5246, and the SSLv2-compatible hello of RFC 5246 appendix E.2.

In: bytes of a stream at a record boundary (`decode`), or one handshake message that another protocol carried
(`decode_quic`, `decode_dtls`). Out: a Layer "tls" with the record's content type and, from a ClientHello or
ServerHello, version, SNI, ALPN, JA3, JA3S and JA4. Nothing is decrypted.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from hashlib import md5, sha256
from itertools import chain
from struct import unpack_from
from typing import Final, NamedTuple

from appid.wire import DecodeError, Fact, Layer, Reader

CONTENT_TYPES: Final = {20: "change_cipher_spec", 21: "alert", 22: "handshake", 23: "application_data", 24: "heartbeat"}
FIRST: Final = frozenset(CONTENT_TYPES) | frozenset(range(0x80, 0x90))
"""First bytes of a record, and of an SSLv2 header with at most 4095 bytes."""

RECORD: Final = frozenset(CONTENT_TYPES)

HELLO: Final = frozenset({1, 2})
"""First bytes of a handshake message that another protocol carried."""

GREASE: Final = frozenset(0x0A0A + 0x1010 * step for step in range(16))  # RFC 8701 section 2
RECORD_LIMIT: Final = 2**14 + 2048  # RFC 5246 section 6.2.3; RFC 8446 section 5.2 allows less
HELLO_LIMIT: Final = 2**16
"""Longest hello that is looked at, bytes; real ones stay under 4000 even with post-quantum key shares."""

HELLOS: Final = 256
"""Fingerprints remembered: a network's clients are of few kinds."""
ORDINARY: Final = 256
"""Numbers in all lists of a hello whose fingerprint is worth remembering."""

_PLAIN_HANDSHAKE: Final = frozenset({0, 1, 2, 4, 8, 11, 12, 13, 14, 15, 16, 20, 22})  # RFC 8446 4, RFC 5246 7.4
_HOST: Final = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-:"
_JA4_VERSION: Final = {
    0x0304: "13", 0x0303: "12", 0x0302: "11", 0x0301: "10", 0x0300: "s3", 0x0002: "s2",
    0xFEFF: "d1", 0xFEFD: "d2", 0xFEFC: "d3",
}  # fmt: skip
_NOTHING: Final = "0" * 12


class ClientHello(NamedTuple):
    """A ClientHello (RFC 8446 section 4.1.2), GREASE removed from every list, all else in wire order."""

    version: int
    ciphers: list[int]
    extensions: list[int]
    groups: list[int]
    formats: bytes
    signatures: list[int]
    versions: list[int]
    alpn: list[bytes]
    sni: bytes | None
    srtp: list[int]

    @property
    def ordinary(self) -> bool:
        return len(self.ciphers) + len(self.extensions) + len(self.groups) + len(self.signatures) <= ORDINARY


def decode(payload: memoryview) -> Layer | None:
    """One hello, or one run of records of a type, from the start of `payload`.

    consumed 0: the record is not complete yet; SNI and ALPN are given as soon as they are there.
    """
    if len(payload) < 5:
        return None
    if payload[0] >= 0x80:
        return _sslv2(payload)
    if not _plausible(payload, 0):
        return None
    kind = payload[0]
    if kind == 22:
        return _handshake(payload)
    content = Fact("tls.content_type", CONTENT_TYPES[kind])
    end = 0
    while len(payload) - end >= 5 and payload[end] == kind and _plausible(payload, end):
        size: int = unpack_from(">H", payload, end + 3)[0]
        if not _body_fits(kind, bytes(payload[end + 5 : end + 6]), size):
            return None
        if len(payload) < end + 5 + size:
            break
        end += 5 + size
    if end < len(payload) and not _plausible(payload, end):
        return None
    facts = (content, Fact("tls.version", 0x0300 | payload[2])) if kind == 23 else (content,)
    return Layer("tls", facts, end)


def decode_quic(payload: memoryview) -> Layer | None:
    """The handshake message out of QUIC's CRYPTO frames (RFC 9001 section 4); its JA4 starts with q."""
    return _message(payload, "tls", "q")


def decode_dtls(payload: memoryview) -> Layer | None:
    """A joined DTLS handshake message under a 4-byte header (type, length): facts are dtls.*, JA4 starts with d."""
    return _message(payload, "dtls", "d")


def _plausible(payload: memoryview, start: int) -> bool:
    """Whether as much of a record header as is there can be one (RFC 8446 section 5.1)."""
    header = bytes(payload[start : start + 5])
    if header[0] not in CONTENT_TYPES or header[1:2] not in (b"\3", b"") or header[2:3] > b"\4":
        return False
    return len(header) < 5 or 0 < int.from_bytes(header[3:], "big") <= RECORD_LIMIT


def _body_fits(kind: int, body: bytes, size: int) -> bool:
    if kind == 20:
        return size == 1 and body[:1] in (b"\1", b"")
    if kind == 21:  # two bytes in the clear: level and description; else encrypted
        return body[:1] in (b"\1", b"\2", b"") if size == 2 else 16 <= size <= 512
    return kind == 23 or size >= 3


def _handshake(payload: memoryview) -> Layer | None:
    content = Fact("tls.content_type", "handshake")
    first = 5 + int.from_bytes(payload[3:5], "big")
    if _opens_hello(bytes(payload[5 : min(first, 10)])):
        body, end = _join_records(payload)
        size = 4 + int.from_bytes(body[1:4], "big") if len(body) >= 4 else 4
        if size > HELLO_LIMIT:
            raise DecodeError("tls", 6, "hello too long")
        complete = 4 < size <= len(body)
        return Layer("tls", (content, *_hello(memoryview(body)[:size], complete, "tls", "t")), end if complete else 0)
    if len(payload) < first:  # only what is in the clear can be told by its first byte
        return Layer("tls", (content,), 0) if len(payload) > 5 and payload[5] in _PLAIN_HANDSHAKE else None
    if len(payload) > first and not _plausible(payload, first):
        return None
    return Layer("tls", (content,), first)


def _opens_hello(start: bytes) -> bool:
    """Type 1 or 2, a 24-bit length below 2**16, and a version 3.x (or a TLS 1.3 draft's), as far as they are there."""
    return start[:1] in (b"\1", b"\2") and start[1:2] in (b"\0", b"") and start[4:5] in (b"\3", b"\x7f", b"")


def _join_records(payload: memoryview) -> tuple[bytes, int]:
    """The first handshake message over as many records as it takes (RFC 8446 section 5.1), and where the last ends."""
    joined = bytearray()
    wanted, offset = 4, 0
    while len(joined) < wanted and len(payload) - offset >= 5:
        if payload[offset] != 22 or not _plausible(payload, offset):
            raise DecodeError("tls", offset, "another record inside a hello")
        size: int = unpack_from(">H", payload, offset + 3)[0]
        joined += payload[offset + 5 : offset + 5 + size]
        offset += 5 + size
        if wanted == 4 and len(joined) >= 4:
            wanted = 4 + int.from_bytes(joined[1:4], "big")
    return bytes(joined), min(offset, len(payload))


def _message(payload: memoryview, prefix: str, transport: str) -> Layer | None:
    if len(payload) < 6 or payload[0] not in (1, 2):
        return None
    size = 4 + int.from_bytes(payload[1:4], "big")
    complete = len(payload) >= size
    facts = _hello(payload[:size], complete, prefix, transport)
    return Layer("tls", tuple(facts), size if complete else 0)


def _hello(message: memoryview, complete: bool, prefix: str, transport: str) -> list[Fact]:
    if not message:
        return []
    if message[0] == 2:
        facts = [Fact(f"{prefix}.handshake", "server_hello")]
        return facts + _server_hello(message, prefix) if complete else facts
    facts = [Fact(f"{prefix}.handshake", "client_hello")]
    try:
        hello = parse_client_hello(message, complete, transport == "d")
    except DecodeError:
        if complete:
            raise
        return facts
    if complete:
        facts.append(Fact(f"{prefix}.version", newest(hello.versions) or hello.version))
    if hello.sni and not hello.sni.translate(None, _HOST):  # anything else is no DNS name (RFC 6066 section 3)
        facts.append(Fact(f"{prefix}.sni", hello.sni.decode().lower().rstrip(".")))
    facts += [Fact(f"{prefix}.alpn", name.decode("ascii", "backslashreplace")) for name in hello.alpn]
    facts += [Fact(f"{prefix}.srtp", profile) for profile in hello.srtp]
    if complete:
        facts += [Fact(f"{prefix}.ja3", ja3(hello)), Fact(f"{prefix}.ja4", ja4(hello, transport))]
    return facts


def parse_client_hello(message: memoryview, complete: bool = True, cookie: bool = False) -> ClientHello:
    """A handshake message with its 4-byte header -> its fields; `cookie` for DTLS (RFC 6347 section 4.2.1).

    Without `complete` the message may stop anywhere after the cipher suites. DecodeError: fields leave the message.
    """
    reader = Reader("tls", message, 4)
    version = reader.u16()
    reader.skip(32)
    reader.skip(reader.u8())
    if cookie:
        reader.skip(reader.u8())
    ciphers = _shorts(reader, reader.take(reader.u16()))
    reader.skip(reader.u8())
    extensions: list[int] = []
    bodies: dict[int, memoryview] = {}
    if len(reader) >= 2:
        end = reader.u16()
        if complete and end != len(reader):
            raise reader.error("extensions leave the hello")
        offset, stop = reader.offset, reader.end
        while offset + 4 <= stop:
            number, size = unpack_from(">HH", message, offset)
            if offset + 4 + size > stop:
                break
            if number not in GREASE:
                extensions.append(number)
                bodies.setdefault(number, message[offset + 4 : offset + 4 + size])
            offset += 4 + size
        if complete and offset != stop:
            raise DecodeError("tls", offset, "truncated extension")
    return ClientHello(
        version,
        ciphers,
        extensions,
        _vector(bodies.get(10), 2),
        bytes(bodies[11][1:]) if 11 in bodies else b"",
        _vector(bodies.get(13), 2),
        _vector(bodies.get(43), 1),
        _names(bodies.get(16)),
        _server_name(bodies.get(0)),
        _vector(bodies.get(14), 2),
    )


def _server_hello(message: memoryview, prefix: str) -> list[Fact]:
    """Version, ALPN and JA3S of a ServerHello (RFC 8446 section 4.1.3)."""
    reader = Reader("tls", message, 4)
    legacy = version = reader.u16()
    reader.skip(32)
    draft = legacy >> 8 == 0x7F  # TLS 1.3 drafts before 22 left out session id and compression
    reader.skip(0 if draft else reader.u8())
    cipher = reader.u16()
    reader.skip(0 if draft else 1)
    extensions: list[int] = []
    alpn: list[bytes] = []
    if len(reader) >= 2:
        reader.skip(2)
    while len(reader) >= 4:
        number, body = reader.u16(), reader.take(reader.u16())
        extensions.append(number)
        if number == 43 and len(body) == 2:
            version = int.from_bytes(body, "big")
        elif number == 16:
            alpn = _names(body)
    text = f"{legacy},{cipher},{'-'.join(map(str, extensions))}"
    return [
        Fact(f"{prefix}.version", version),
        *(Fact(f"{prefix}.alpn", name.decode("ascii", "backslashreplace")) for name in alpn),
        Fact(f"{prefix}.ja3s", md5(text.encode(), usedforsecurity=False).hexdigest()),
    ]


def _shorts(reader: Reader, data: memoryview) -> list[int]:
    if len(data) % 2:
        raise reader.error("odd vector")
    return [value for value in unpack_from(f">{len(data) // 2}H", data) if value not in GREASE]


def _vector(body: memoryview | None, length_size: int) -> list[int]:
    """A length-prefixed list of 16-bit numbers, as far as the extension holds it."""
    if body is None or len(body) < length_size:
        return []
    size = min(int.from_bytes(body[:length_size], "big"), len(body) - length_size) // 2
    return [value for value in unpack_from(f">{size}H", body, length_size) if value not in GREASE]


def _names(body: memoryview | None) -> list[bytes]:
    """ALPN (RFC 7301 section 3.1): 16-bit list length, then names under an 8-bit length."""
    names: list[bytes] = []
    offset = 2
    while body is not None and offset < len(body):
        name = bytes(body[offset + 1 : offset + 1 + body[offset]])
        offset += 1 + body[offset]
        if name:
            names.append(name)
    return names


def _server_name(body: memoryview | None) -> bytes | None:
    """RFC 6066 section 3: 16-bit list length, type 0 (host_name), 16-bit length, name. b"" if it is not like that."""
    if body is None:
        return None
    if len(body) < 5:
        return b""
    size = int.from_bytes(body[3:5], "big")
    return bytes(body[5 : 5 + size]) if body[2] == 0 and 5 + size <= len(body) and size <= 255 else b""


def newest(versions: list[int]) -> int:
    """The newest of the offered versions, 0 if there is none. DTLS counts downwards (RFC 9147 section 5.3)."""
    datagram = [version for version in versions if version >= 0xFE00]
    return min(datagram) if datagram else max(versions, default=0)


def ja3(hello: ClientHello) -> str:
    """JA3 (Salesforce, 2017): md5 of version, ciphers, extensions, groups and point formats, in decimal."""
    lists = tuple(hello.ciphers), tuple(hello.extensions), tuple(hello.groups), hello.formats
    return (_ja3 if hello.ordinary else _ja3.__wrapped__)(hello.version, lists)


@lru_cache(maxsize=HELLOS)
def _ja3(version: int, lists: tuple[Sequence[int], ...]) -> str:
    text = ",".join([str(version), *["-".join(map(str, numbers)) for numbers in lists]])
    return md5(text.encode(), usedforsecurity=False).hexdigest()


def ja4(hello: ClientHello, transport: str) -> str:
    """JA4 (FoxIO, technical_details/JA4.md); `transport` is t, q or d."""
    version = _JA4_VERSION.get(newest(hello.versions) or hello.version, "00")
    host = "i" if hello.sni is None else "d"
    counts = f"{min(len(hello.ciphers), 99):02}{min(len(hello.extensions), 99):02}"
    lists = _ja4_lists if hello.ordinary else _ja4_lists.__wrapped__
    offered = lists(tuple(hello.ciphers), tuple(hello.extensions), tuple(hello.signatures))
    return f"{transport}{version}{host}{counts}{_ja4_alpn(hello.alpn)}_{offered}"


@lru_cache(maxsize=HELLOS)
def _ja4_lists(ciphers: tuple[int, ...], extensions: tuple[int, ...], signatures: tuple[int, ...]) -> str:
    """The second and third part. 0000 and 0010 are already told by the first."""
    first = ",".join([f"{number:04x}" for number in sorted(ciphers)])
    second = ",".join([f"{number:04x}" for number in sorted(extensions) if number not in (0, 16)])
    if second and signatures:
        second += "_" + ",".join([f"{number:04x}" for number in signatures])
    return f"{_short(first)}_{_short(second)}"


def _ja4_alpn(names: list[bytes]) -> str:
    if not names:
        return "00"
    ends = names[0][:1] + names[0][-1:]
    if ends.isalnum():  # of bytes: ASCII letters and digits only
        return ends.decode()
    digits = names[0].hex()
    return digits[0] + digits[-1]


def _short(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:12] if text else _NOTHING


def _sslv2(payload: memoryview) -> Layer | None:
    """RFC 5246 appendix E.2: 2-byte length with the top bit set, type 1, version, three lengths, the lists."""
    if len(payload) < 11 or payload[2] != 1 or bytes(payload[3:5]) not in (b"\0\2", b"\3\0", b"\3\1", b"\3\2", b"\3\3"):
        return None
    length: int
    length, ciphers, session, challenge = chain(unpack_from(">H", payload), unpack_from(">HHH", payload, 5))
    length &= 0x7FFF
    if length != 9 + ciphers + session + challenge or ciphers == 0 or ciphers % 3 or session not in (0, 16):
        return None
    if not 16 <= challenge <= 32:
        return None
    facts = (
        Fact("tls.content_type", "handshake"),
        Fact("tls.handshake", "client_hello"),
        Fact("tls.version", int.from_bytes(payload[3:5], "big")),
    )
    return Layer("tls", facts, 2 + length if len(payload) >= 2 + length else 0)
