"""ChannelData: RFC 8656 section 12.4 shapes, and the neighbours that look like it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from appid.decode import peel, turn
from appid.wire import Fact

RTP = bytes.fromhex("80680001000001e0deadbeef00")


def facts(payload: bytes) -> dict[str, object]:
    layer = turn.decode(memoryview(payload))
    assert layer is not None
    return {fact.name: fact.value for fact in layer.facts}


def test_exact_datagram() -> None:
    layer = turn.decode(memoryview(bytes.fromhex("40010003616263")))
    assert layer is not None
    assert layer.inner is not None
    assert bytes(layer.inner) == b"abc"
    assert layer.consumed == 7
    assert layer.facts == (Fact("turn.channel", 0x4001), Fact("turn.length", 3), Fact("turn.exact", True))


def test_padded_datagram() -> None:
    assert facts(bytes.fromhex("4001000361626300")) == {"turn.channel": 0x4001, "turn.length": 3, "turn.exact": False}
    layer = turn.decode(memoryview(bytes.fromhex("4001000361626300")))
    assert layer is not None
    assert layer.consumed == 8


def test_facetime_of_2023_uses_channel_6000() -> None:
    # facts/field.md A4: 02 41 <token> <counter>, 10 bytes in all
    assert facts(bytes.fromhex("60000006024112340001"))["turn.channel"] == 0x6000


def test_length_that_does_not_fit_is_not_ours() -> None:
    for text in ("400100046162", "40010003616263000000", "4001000361626364ff", "3fff0000", "80000000", "4001"):
        assert turn.decode(memoryview(bytes.fromhex(text))) is None


def test_stream_is_padded_and_waits() -> None:
    layer = turn.decode_stream(memoryview(bytes.fromhex("4001000d") + RTP + bytes(3) + bytes.fromhex("40020000")))
    assert layer is not None
    assert layer.consumed == 20
    assert layer.inner is not None
    assert bytes(layer.inner) == RTP
    waiting = turn.decode_stream(memoryview(bytes.fromhex("4001000d") + RTP[:-1]))
    assert waiting is not None
    assert waiting.consumed == 0
    assert turn.decode_stream(memoryview(b"GET / HTTP/1.1\r\n")) is None


def test_two_messages_of_a_stream() -> None:
    stream = b"".join(bytes.fromhex(head) + RTP + bytes(3) for head in ("4001000d", "4002000d"))
    peeled = peel(memoryview(stream), "tcp")
    assert [fact.value for fact in peeled.facts() if fact.name == "turn.channel"] == [0x4001, 0x4002]
    assert [layer.name for layer in peeled.layers] == ["turn", "rtp", "turn", "rtp"]
    assert peeled.consumed == 40


def test_greetings_of_other_protocols_are_no_stream_of_channels() -> None:
    # MySQL (length, sequence 0, protocol 10), IEC 60870-5-104, PostgreSQL, HiSLIP: first bytes of real connections
    for text in ("5b0000000a352e352e33352d6c6f67", "680e0000000001010f010001", "520000000800000000530000",
                 "485301000100000100000000", "400000018da6030000000001"):  # fmt: skip
        assert turn.decode_stream(memoryview(bytes.fromhex(text))) is None


def test_text_in_the_channel_range_is_no_channel() -> None:
    assert turn.decode(memoryview(b"INVITE sip:user@example.com SIP/2.0\r\n\r\n")) is None


def test_gtpv2_is_no_channel() -> None:
    # 3GPP TS 29.274 section 5.1: flags 48, type 32 (create session request), length, TEID, sequence, spare; recovery IE
    assert turn.decode(memoryview(bytes.fromhex("4820000d 00000000 00000100 03000100 05".replace(" ", "")))) is None
    # echo request, no TEID
    assert turn.decode(memoryview(bytes.fromhex("40010009 00000100 03000100 05".replace(" ", "")))) is None


def test_kerberos_is_no_channel() -> None:
    # RFC 4120 section 5.4.1: [APPLICATION 12] (TGS-REQ) in DER with two length bytes
    body = b"\x30\x82\x01\x00" + bytes(256)
    assert turn.decode(memoryview(b"\x6c\x82" + len(body).to_bytes(2, "big") + body)) is None


def test_teredo_is_no_channel() -> None:
    # RFC 4380: an IPv6 packet whose flow label happens to read as a fitting length
    packet = bytes.fromhex("6000002400003b15") + bytes.fromhex("20010000") + bytes(12) + bytes(16)
    assert turn.decode(memoryview(packet)) is None


@given(st.binary(max_size=80), st.sampled_from((turn.decode, turn.decode_stream)))
def test_any_bytes(payload: bytes, decode: object) -> None:
    assert callable(decode)
    layer = decode(memoryview(payload))
    assert layer is None or 0 <= layer.consumed <= len(payload)
