"""QUIC against RFC 9001 appendix A, RFC 9369 appendix A, and hostile bytes."""

from __future__ import annotations

from itertools import permutations

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from appid.decode import quic, tls
from appid.wire import DecodeError, Fact, FactValue, Layer

DCID = bytes.fromhex("8394c8f03e515708")
# RFC 9001 appendix A.2: the CRYPTO frame of the client's Initial
CRYPTO = bytes.fromhex(
    "060040f1010000ed0303ebf8fa56f12939b9584a3896472ec40bb863cfd3e86804fe3a47f06a2b69484c00000413011302010000c0000000"
    "10000e00000b6578616d706c652e636f6dff01000100000a00080006001d0017001800100007000504616c706e000500050100000000003300"
    "260024001d00209370b2c9caa47fbabaf4559fedba753de171fa71f50f1ce15d43e994ec74d748002b0003020304000d0010000e0403050306"
    "030203080408050806002d00020101001c00024001003900320408ffffffffffffffff05048000ffff07048000ffff08011001048000753009"
    "01100f088394c8f03e51570806048000ffff"
)
HELLO = CRYPTO[4:]
# the appendices' client keys: key, iv, hp; the unprotected header; first and last 32 bytes of the protected packet
V1 = (
    "1f369613dd76d5467730efcbe3b1a22d fa044b2f42a3fd3b46fb255c 9f50449e04a0e810283a1e9933adedd2",
    "c300000001088394c8f03e5157080000449e00000002",
    "c000000001088394c8f03e5157080000449e7b9aec34d1b1c98dd7689fb8ec11",
    "7e78bfe706ca4cf5e9c5453e9f7cfd2b8b4c8d169a44e55c88d4a9a7f9474241e221af44860018ab0856972e194cd934",
)
V2 = (
    "8b1a0bc121284290a29e0971b5cd045d 91f73e2351d8fa91660e909f 45b95e15235d6f45a6b19cbcb0294ba9",
    "d36b3343cf088394c8f03e5157080000449e00000002",
    "d76b3343cf088394c8f03e5157080000449ea0c95e82ffe67b6abcdb4298b485",
    "6f4c4938ae79324dc402894b44faf8afbab35282ab659d13c93f70412e85cb199a37ddec600545473cfb5a05e08d0b209973b2172b4d21fb"
    "69745a262ccde96ba18b2faa745b6fe189cf772a9f84cbfc",
)
# RFC 9001 appendix A.3: the server's answer
SERVER = bytes.fromhex(
    "cf000000010008f067a5502a4262b5004075c0d95a482cd0991cd25b0aac406a5816b6394100f37a1c69797554780bb38cc5a99f5ede4cf73c"
    "3ec2493a1839b3dbcba3f6ea46c5b7684df3548e7ddeb9c3bf9c73cc3f3bded74b562bfb19fb84022f8ef4cdd93795d77d06edbb7aaf2f588"
    "91850abbdca3d20398c276456cbc42158407dd074ee"
)


def protect(keys: str, header: str, frames: bytes, size: int = 1162) -> bytes:
    """A packet as RFC 9001 section 5 makes it, with the keys that the RFC prints."""
    key, iv, hp = map(bytes.fromhex, keys.split())
    head = bytes.fromhex(header)
    number = int.from_bytes(head[-4:], "big")
    nonce = (int.from_bytes(iv, "big") ^ number).to_bytes(12, "big")
    sealed = AESGCM(key).encrypt(nonce, frames.ljust(size, b"\0"), head)
    mask = Cipher(algorithms.AES(hp), modes.ECB()).encryptor().update(sealed[:16])
    hidden = bytes(a ^ b for a, b in zip(head[-4:], mask[1:5], strict=True))
    return bytes([head[0] ^ mask[0] & 0x0F]) + head[1:-4] + hidden + sealed


def read(payload: bytes) -> Layer:
    layer = quic.decode(memoryview(payload))
    assert layer is not None
    return layer


def values(layer: Layer, name: str) -> list[FactValue]:
    return [fact.value for fact in layer.facts if fact.name == name]


@pytest.mark.parametrize(("vector", "version"), [(V1, 1), (V2, 0x6B3343CF)])
def test_client_initial_of_the_rfc(vector: tuple[str, str, str, str], version: int) -> None:
    packet = protect(vector[0], vector[1], CRYPTO)
    assert packet.startswith(bytes.fromhex(vector[2]))
    assert packet.endswith(bytes.fromhex(vector[3]))
    layer = read(packet)
    assert layer.facts == (
        Fact("quic.version", version),
        Fact("quic.dcid_length", 8),
        Fact("quic.scid_length", 0),
        Fact("quic.packet_type", "initial"),
        Fact("quic.token_length", 0),
    )
    assert layer.inner is not None
    assert bytes(layer.inner) == HELLO
    assert layer.consumed == 1200


def test_hello_inside_is_read_as_tls_over_quic() -> None:
    layer = read(protect(V1[0], V1[1], CRYPTO))
    assert layer.inner is not None
    hello = tls.decode_quic(layer.inner)
    assert hello is not None
    assert values(hello, "tls.sni") == ["example.com"]
    assert values(hello, "tls.alpn") == ["alpn"]
    assert str(values(hello, "tls.ja4")[0]).startswith("q13d0211an_")


def test_server_initial_needs_the_clients_connection_id() -> None:
    blind = read(SERVER)
    assert values(blind, "quic.packet_type") == ["initial"]
    assert blind.inner is None
    layer = quic.decode_with(memoryview(SERVER), DCID)
    assert layer is not None
    assert layer.inner is not None
    hello = tls.decode_quic(layer.inner)
    assert hello is not None
    assert values(hello, "tls.handshake") == ["server_hello"]
    assert values(hello, "tls.version") == [0x0304]


def test_hello_over_two_datagrams_is_joined_from_its_pieces() -> None:
    head = b"\x06\x00\x40\x64" + HELLO[:100]
    tail = b"\x06\x40\x64\x40" + bytes([len(HELLO) - 100]) + HELLO[100:]
    first, second = (read(protect(V1[0], V1[1], b"\x01" + frame)) for frame in (head, tail))
    assert first.inner is None
    assert second.inner is None
    pieces = [*values(first, "quic.crypto"), *values(second, "quic.crypto")]
    assert pieces == [(0, HELLO[:100]), (100, HELLO[100:])]
    for order in permutations([(0, HELLO[:100]), (100, HELLO[100:]), (50, HELLO[50:120])]):
        assert quic.join(order) == HELLO


def test_frames_in_any_order_after_an_acknowledgement() -> None:
    ack = bytes.fromhex("02 05 00 01 02 00 01")
    tail = b"\x06\x40\x64\x40" + bytes([len(HELLO) - 100]) + HELLO[100:]
    frames = ack + tail + b"\0\0\1" + b"\x06\x00\x40\x64" + HELLO[:100]
    inner = read(protect(V1[0], V1[1], frames)).inner
    assert inner is not None
    assert bytes(inner) == HELLO


def test_join_is_bounded() -> None:
    assert quic.join([(0, b"\1\xff\xff\xff" + b"x" * 100)]) is None
    assert quic.join([(4, b"rest")]) is None


def test_coalesced_packets_are_all_named() -> None:
    handshake = bytes.fromhex("e000000001 08 0102030405060708 00 18".replace(" ", "")) + b"h" * 24
    layer = read(protect(V1[0], V1[1], CRYPTO) + handshake)
    assert values(layer, "quic.packet_type") == ["initial", "handshake"]


def test_retry() -> None:  # RFC 9001 appendix A.4
    packet = bytes.fromhex("ff000000010008f067a5502a4262b5746f6b656e04a265ba2eff4d829058fb3f0f2496ba")
    assert values(read(packet), "quic.packet_type") == ["retry"]


def test_version_negotiation() -> None:
    layer = read(bytes.fromhex("80 00000000 08 0102030405060708 08 1112131415161718 00000001 6b3343cf 1a2a3a4a"))
    assert values(layer, "quic.packet_type") == ["version-negotiation"]
    assert values(layer, "quic.version") == [0]


@pytest.mark.parametrize(
    "payload",
    [
        "40" + "8394c8f03e515708" + "00" * 40,  # a short header could be anything
        "c0 00000002 08 0102030405060708 00 00 4030" + "00" * 48,  # version 2 is not assigned
        "c0 00000001 15" + "00" * 60,  # a connection id of 21 bytes
        "c0 00000001 08 0102030405060708 00 00 449e" + "00" * 100,  # length leaves the datagram
        "deadbeefcafe0002" + "00" * 28,  # FaceTime's 0xDEADBEEFCAFE datagram (field.md A4)
        "80 00000000 08 0102030405060708 00 12345678",  # negotiation without a version that anybody speaks
        "80680001000000000000000100000000000000000000",  # RTP
    ],
)
def test_not_quic(payload: str) -> None:
    assert quic.decode(memoryview(bytes.fromhex(payload))) is None


def test_tampered_initial_keeps_its_header_facts() -> None:
    packet = bytearray(protect(V1[0], V1[1], CRYPTO))
    packet[600] ^= 1
    layer = read(bytes(packet))
    assert layer.inner is None
    assert values(layer, "quic.packet_type") == ["initial"]


@given(
    st.binary(max_size=200),
    st.sampled_from([b"", b"\xc0\0\0\0\1", b"\xd0\x6b\x33\x43\xcf", b"\x80\0\0\0\0", b"\x09cccccccc"]),
)
def test_any_bytes(tail: bytes, head: bytes) -> None:
    payload = memoryview(head + tail)
    try:
        layer = quic.decode(payload)
        quic.decode_with(payload, DCID)
    except DecodeError:
        return
    assert layer is None or layer.consumed == len(payload)


@given(st.binary(max_size=300))
def test_any_frames(frames: bytes) -> None:
    assert read(protect(V1[0], V1[1], frames)).consumed == 1200


def test_a_short_header_shows_its_first_byte_and_what_may_be_the_connection_id() -> None:
    """RFC 9000 section 17.3.1. Nothing is claimed by it: there is no quic.version."""
    layer = quic.decode_short(memoryview(b"\x53" + bytes(range(1, 21)) + bytes(20)))
    assert layer is not None
    assert [tuple(fact) for fact in layer.facts] == [("quic.short_header", b"\x53" + bytes(range(1, 9)))]
    assert quic.decode_short(memoryview(b"\x53" + bytes(20))) is None, "too short for a protected packet"


def test_a_tag_of_googles_hello_that_ends_before_it_begins_is_no_name() -> None:
    tags = b"".join(tag + end.to_bytes(4, "little") for tag, end in ((b"PAD\0", 40), (b"SNI\0", 8)))
    hello = b"\r" + bytes(8) + b"Q043" + bytes(16) + b"CHLO" + (2).to_bytes(4, "little") + tags + bytes(60)
    layer = quic.decode(memoryview(hello))
    assert layer is not None
    assert "quic.sni" not in [fact.name for fact in layer.facts]
