"""DTLS: records of RFC 6347 and RFC 9147, fragments of a hello, tshark on captures, and hostile bytes."""

from __future__ import annotations

import subprocess
from itertools import permutations
from pathlib import Path
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appid.decode import dtls, tls
from appid.wire import DecodeError, Fact, FactValue, Layer

CAPTURES = Path(__file__).parents[3] / "shared" / "captures"


def extension(number: int, body: bytes) -> bytes:
    return pack(">HH", number, len(body)) + body


def record(body: bytes, kind: int = 22, version: int = 0xFEFD, epoch: int = 0, sequence: int = 0) -> bytes:
    return pack(">BHH", kind, version, epoch) + sequence.to_bytes(6, "big") + pack(">H", len(body)) + body


def fragment(body: bytes, start: int, end: int, kind: int = 1) -> bytes:
    size = len(body).to_bytes(3, "big")
    return (
        bytes([kind]) + size + b"\0\0" + start.to_bytes(3, "big") + (end - start).to_bytes(3, "big") + body[start:end]
    )


EXTENSIONS = (
    extension(0, b"\0\x0e\0\0\x0bexample.com")
    + extension(16, b"\0\x07\x06webrtc")
    + extension(14, b"\0\4\0\1\0\7\0")
    + extension(10, b"\0\2\0\x1d")
    + extension(13, b"\0\2\4\3")
)
# version 1.2, random, no session, a cookie of 4 bytes, one cipher suite
BODY = b"\xfe\xfd" + bytes(32) + b"\0\4cook\0\2\xc0\x2b\1\0" + pack(">H", len(EXTENSIONS)) + EXTENSIONS
HELLO = record(fragment(BODY, 0, len(BODY)), version=0xFEFF)


def read(payload: bytes) -> Layer:
    layer = dtls.decode(memoryview(payload))
    assert layer is not None
    return layer


def values(layer: Layer, name: str) -> list[FactValue]:
    return [fact.value for fact in layer.facts if fact.name == name]


def test_client_hello() -> None:
    layer = read(HELLO)
    assert layer.facts == (Fact("dtls.content_type", "handshake"), Fact("dtls.handshake", "client_hello"))
    assert layer.consumed == len(HELLO)
    assert layer.inner is not None
    hello = tls.decode_dtls(layer.inner)
    assert hello is not None
    assert values(hello, "dtls.version") == [0xFEFD]
    assert values(hello, "dtls.sni") == ["example.com"]
    assert values(hello, "dtls.alpn") == ["webrtc"]
    assert values(hello, "dtls.srtp") == [1, 7]  # SRTP_AES128_CM_HMAC_SHA1_80, SRTP_AEAD_AES_128_GCM
    assert str(values(hello, "dtls.ja4")[0]).startswith("dd2d0105wc_")


def test_fragments_of_one_datagram_in_any_order() -> None:
    cuts = [(0, 30), (20, 60), (60, len(BODY))]
    whole = read(HELLO).inner
    assert whole is not None
    for order in permutations(cuts):
        inner = read(b"".join(record(fragment(BODY, start, end)) for start, end in order)).inner
        assert inner is not None
        assert bytes(inner) == bytes(whole)


def test_part_of_a_hello_is_named_without_its_fields() -> None:
    layer = read(record(fragment(BODY, 0, 50)))
    assert layer.inner is None
    assert values(layer, "dtls.handshake") == ["client_hello"]
    assert values(layer, "dtls.version") == [0xFEFD]


def test_encrypted_records() -> None:
    layer = read(record(b"\1", 20) + record(bytes(40), 22, epoch=1) + record(bytes(30), 23, epoch=1))
    assert values(layer, "dtls.content_type") == ["change_cipher_spec", "handshake", "application_data"]


def test_unified_header_after_a_plain_record() -> None:  # RFC 9147 section 4
    assert read(record(bytes(4), 26, 0xFEFD) + b"\x2f\0\1\0\x10" + bytes(16)).consumed == 13 + 4 + 21


@pytest.mark.parametrize(
    "payload",
    [
        HELLO[:-1],
        HELLO + b"\x80rtp",
        record(b"\1", 20, 0x0303),
        record(bytes(30), 23, epoch=0),
        record(b"\x63" + bytes(20)),
        record(b"\5\0", 21),
        b"\x16\xfe\xfd",
        b"\x2f\0\1\0\x10" + bytes(16),
    ],
)
def test_not_dtls(payload: bytes) -> None:
    assert dtls.decode(memoryview(payload)) is None


def test_fragment_that_leaves_its_message() -> None:
    bad = bytearray(record(fragment(BODY, 0, 50)))
    bad[14:17] = (40).to_bytes(3, "big")
    with pytest.raises(DecodeError, match="fragment"):
        dtls.decode(memoryview(bytes(bad)))


@given(st.binary(max_size=200), st.sampled_from([b"", HELLO, HELLO[:13], HELLO[:25], b"\x17\xfe\xfd\0\1"]))
def test_any_bytes(tail: bytes, head: bytes) -> None:
    payload = memoryview(head + tail)
    try:
        layer = dtls.decode(payload)
    except DecodeError:
        return
    assert layer is None or layer.consumed == len(payload)


@pytest.mark.parametrize("capture", ["ndpi/dtls.pcap", "ndpi/dtls2.pcap", "ndpi/stun_dtls_rtp.pcapng"])
def test_tshark_reads_the_same(capture: str) -> None:
    command = ["tshark", "-r", str(CAPTURES / capture), "-Y", "udp and not icmp", "-T", "fields", "-e", "udp.payload"]
    command += ["-E", "occurrence=l"]
    command += ["-e", "frame.protocols", "-e", "dtls.handshake.type", "-e", "dtls.handshake.ja3"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")
    rows = [line.split("\t") for line in lines if line]
    assert any("dtls" in row[1] for row in rows)
    for payload, protocols, handshakes, ja3 in rows:
        layer = dtls.decode(memoryview(bytes.fromhex(payload)))
        assert (layer is not None) == ("dtls" in protocols.split(":"))
        if layer is not None and handshakes.split(",")[0] == "1":
            assert values(layer, "dtls.handshake")[0] == "client_hello"
            hello = None if layer.inner is None else tls.decode_dtls(layer.inner)
            assert hello is not None
            assert values(hello, "dtls.ja3") == [ja3]
