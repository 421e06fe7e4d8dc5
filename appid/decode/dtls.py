"""DTLS records: RFC 9147 (1.3), RFC 6347 (1.2), RFC 4347 (1.0). The hello's own fields are tls.py's business.

In: one datagram, or the inner bytes of TURN. Out: a Layer "dtls" with a content type for each record; a ClientHello or
ServerHello whose fragments are all in this datagram is `inner`, under the 4-byte header (type, length) that TLS has.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from appid.wire import DecodeError, Fact, Layer

CONTENT_TYPES: Final = {
    20: "change_cipher_spec",
    21: "alert",
    22: "handshake",
    23: "application_data",
    24: "heartbeat",
    26: "ack",
}
FIRST: Final = frozenset(CONTENT_TYPES) | {25}
"""Inside 20-63 of RFC 7983 section 7. 25 is tls12_cid (RFC 9146); a lone unified header of RFC 9147 is not claimed."""

VERSIONS: Final = frozenset({0xFEFF, 0xFEFD, 0xFEFC, 0x0100})
"""1.0, 1.2, 1.3 and OpenSSL's 0.9.8 draft (Cisco AnyConnect)."""
RECORDS: Final = 32
HELLO_LIMIT: Final = 2**16
_HANDSHAKES: Final = frozenset({0, 1, 2, 3, 4, 8, 11, 12, 13, 14, 15, 16, 20, 21, 22, 23, 24})  # IANA TLS HandshakeType
_NAMES: Final = {1: "client_hello", 2: "server_hello", 3: "hello_verify_request"}


class _Fragment(NamedTuple):
    """A handshake fragment (RFC 6347 section 4.2.2)."""

    kind: int
    length: int
    sequence: int
    offset: int
    data: bytes


def decode(payload: memoryview) -> Layer | None:
    """All records of one datagram. None unless every record header fits; DecodeError: a fragment leaves its record."""
    facts: list[Fact] = []
    fragments: list[_Fragment] = []
    offset, version = 0, 0
    for _ in range(RECORDS):
        if len(payload) - offset < 13:
            break
        header = bytes(payload[offset : offset + 13])
        kind, version, epoch = header[0], int.from_bytes(header[1:3], "big"), int.from_bytes(header[3:5], "big")
        size = int.from_bytes(header[11:13], "big")
        if version not in VERSIONS or (kind not in CONTENT_TYPES and kind != 25):
            break
        body = payload[offset + 13 : offset + 13 + size]
        if len(body) < size or not _fits(kind, epoch, body):
            break
        facts.append(Fact("dtls.content_type", CONTENT_TYPES.get(kind, "tls12_cid")))
        if kind == 22 and epoch == 0:
            fragments += _fragments(body, offset + 13)
        offset += 13 + size
    # after 1.3's plaintext records come encrypted ones under a short header without a length to check
    if offset == 0 or (offset < len(payload) and payload[offset] & 0xE0 != 0x20):
        return None
    for kind in dict.fromkeys(fragment.kind for fragment in fragments):
        if kind in _NAMES:
            facts.append(Fact("dtls.handshake", _NAMES[kind]))
    hello = _join(fragments)
    if hello is None:
        facts.append(Fact("dtls.version", int.from_bytes(payload[1:3], "big")))
    return Layer("dtls", tuple(facts), len(payload), None if hello is None else memoryview(hello))


def _fits(kind: int, epoch: int, body: memoryview) -> bool:
    """What each content type looks like in the clear (epoch 0); encrypted, it has room for a nonce or a tag."""
    if not body or len(body) > 2**14 + 2048:
        return False
    if epoch:
        return epoch < 1024
    if kind == 20:
        return len(body) in (1, 3)  # 3: OpenSSL's draft counts its handshake messages
    if kind == 21:
        return len(body) in (2, 7) and body[0] in (1, 2)
    if kind == 22:
        return len(body) >= 12 and body[0] in _HANDSHAKES
    return kind == 26


def _fragments(body: memoryview, start: int) -> list[_Fragment]:
    """The fragments in one plaintext handshake record."""
    found: list[_Fragment] = []
    offset = 0
    while len(body) - offset >= 12:
        head = bytes(body[offset : offset + 12])
        length, sequence = int.from_bytes(head[1:4], "big"), int.from_bytes(head[4:6], "big")
        position, size = int.from_bytes(head[6:9], "big"), int.from_bytes(head[9:12], "big")
        if head[0] not in _HANDSHAKES:
            break
        data = bytes(body[offset + 12 : offset + 12 + size])
        if len(data) < size or position + size > length:
            raise DecodeError("dtls", start + offset, "fragment leaves its record")
        found.append(_Fragment(head[0], length, sequence, position, data))
        offset += 12 + size
    return found


def _join(fragments: list[_Fragment]) -> bytes | None:
    """The first ClientHello or ServerHello if all of it is here; overlaps and any order are fine (section 4.2.3)."""
    first = next((fragment for fragment in fragments if fragment.kind in (1, 2)), None)
    if first is None or first.length > HELLO_LIMIT:
        return None
    joined = bytearray()
    for fragment in sorted(fragments, key=lambda fragment: fragment.offset):
        if (fragment.kind, fragment.length, fragment.sequence) != (first.kind, first.length, first.sequence):
            continue
        if fragment.offset > len(joined):
            return None
        joined += fragment.data[len(joined) - fragment.offset :]
    if len(joined) != first.length:
        return None
    return bytes([first.kind]) + first.length.to_bytes(3, "big") + bytes(joined)
