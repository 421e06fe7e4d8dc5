"""STUN by the vectors of RFC 5769, RFC 3489 framing, TURN's messages, and Wireshark's reading of captures."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appid.decode import peel, stun
from appid.wire import DecodeError, Endpoint, Fact, FactValue, Layer, packed

CAPTURES = Path(__file__).parents[3] / "shared" / "captures"
TRANSACTION = bytes.fromhex("b7e7a701bc34d686fa87dfae")
REQUEST = bytes.fromhex(  # RFC 5769 section 2.1
    "000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420636c69656e74002400046e0001ff"
    "80290008932ff9b151263b36000600096576746a3a68367659202020000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2"
    "80280004e57a3bcf"
)
RESPONSE_V4 = bytes.fromhex(  # section 2.2
    "0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000080001a147e112a643"
    "000800142b91f599fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96"
)
RESPONSE_V6 = bytes.fromhex(  # section 2.3
    "010100482112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220"
    "002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d900080014a382954e4be67bf11784c97c8292c275bfe3ed4180280004c8fb0b4c"
)


def named(facts: Iterable[Fact]) -> dict[str, FactValue]:
    return {fact.name: fact.value for fact in facts}


def message(type_: int, *attributes: tuple[int, bytes], cookie: str = "2112a442") -> bytes:
    body = b""
    for number, value in attributes:
        body += number.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value + bytes(-len(value) % 4)
    return type_.to_bytes(2, "big") + len(body).to_bytes(2, "big") + bytes.fromhex(cookie) + TRANSACTION + body


def read(payload: bytes) -> Layer:
    layer = stun.decode(memoryview(payload))
    assert layer is not None
    return layer


def facts(payload: bytes) -> dict[str, object]:
    return {fact.name: fact.value for fact in read(payload).facts}


@pytest.mark.parametrize("vector", [REQUEST, RESPONSE_V4, RESPONSE_V6])
def test_vectors_are_typed_in_right(vector: bytes) -> None:
    assert crc32(vector[:-8]) ^ 0x5354554E == int.from_bytes(vector[-4:], "big")  # RFC 8489 section 14.7


def test_what_follows_a_datagrams_message_and_what_occurs_twice_is_told() -> None:
    """RFC 8489 sections 5 and 14. In a stream another message may follow."""
    assert facts(REQUEST)["stun.exact"] is True
    assert facts(REQUEST + bytes(4))["stun.exact"] is False
    assert "stun.repeated" not in facts(REQUEST)
    layer = stun.decode_stream(memoryview(REQUEST + bytes(4)))
    assert layer is not None
    assert "stun.exact" not in {fact.name for fact in layer.facts}
    twice = bytes.fromhex("0008 0018 2112a442") + TRANSACTION + 2 * bytes.fromhex("0012 0008 0001 1234 01020304")
    assert facts(twice)["stun.repeated"] == 0x0012


def test_rfc5769_request() -> None:
    found = facts(REQUEST)
    assert found["stun.method"] == "binding"
    assert found["stun.class"] == "request"
    assert found["stun.length"] == 108
    assert found["stun.cookie"] is True
    assert found["stun.transaction"] == TRANSACTION
    assert found["stun.software"] == "STUN test client"
    assert found["stun.username"] == b"evtj:h6vY"
    assert found["stun.username_length"] == 9
    assert found["stun.username_colon"] is True
    assert found["stun.ice_role"] == "controlled"
    assert found["stun.fingerprint"] is True
    assert found["stun.shape"] == ((0x8022, 16), (0x24, 4), (0x8029, 8), (6, 9), (8, 20), (0x8028, 4))


@pytest.mark.parametrize(
    ("vector", "address"), [(RESPONSE_V4, "192.0.2.1"), (RESPONSE_V6, "2001:db8:1234:5678:11:2233:4455:6677")]
)
def test_rfc5769_responses(vector: bytes, address: str) -> None:
    found = facts(vector)
    assert found["stun.class"] == "success"
    assert found["stun.mapped_address"] == Endpoint(packed(address), 32853)
    assert found["stun.software"] == "test vector"


def test_allocate_of_facetime_2015() -> None:
    # facts/facetime-2015.md packet 60: XOR-RELAYED-ADDRESS and RESERVATION-TOKEN in the request, LIFETIME 60
    relayed = (
        bytes.fromhex("0001")
        + (3489 ^ 0x2112).to_bytes(2, "big")
        + bytes(a ^ b for a, b in zip(packed("17.1.2.3"), bytes.fromhex("2112a442"), strict=True))
    )
    payload = message(0x0003, (0x0016, relayed), (0x0022, b"token567"), (0x000D, (60).to_bytes(4, "big")))
    found = facts(payload)
    assert found["stun.method"] == "allocate"
    assert found["stun.relayed_address"] == Endpoint(packed("17.1.2.3"), 3489)
    assert found["stun.reservation_token"] == b"token567"
    assert found["stun.lifetime"] == 60
    assert "stun.username" not in found
    # RFC 3489 framing of the same: the message is believed by its length and attributes
    classic = facts(message(0x0003, (0x0022, b"token567"), (0x000D, bytes(4)), cookie="01020304"))
    assert classic["stun.cookie"] is False
    assert classic["stun.transaction"] == bytes.fromhex("01020304") + TRANSACTION


def test_unknown_attributes_stay_raw_and_in_order() -> None:
    check = message(0x0001, (6, bytes(range(20))), (0x8001, b"a"), (0x8009, b""), (0x802A, bytes(8)), (0x8001, b"bc"))
    layer = read(check)
    assert isinstance(layer.message, stun.Message)
    assert layer.message.attributes == (
        (6, bytes(range(20))), (0x8001, b"a"), (0x8009, b""), (0x802A, bytes(8)), (0x8001, b"bc")
    )  # fmt: skip
    assert [f.value for f in layer.facts if f.name == "stun.attribute"] == [6, 0x8001, 0x8009, 0x802A, 0x8001]
    assert ("stun.username_colon", False) in [(f.name, f.value) for f in layer.facts]


def test_error_and_channel_number() -> None:
    # field.md A4: type 0x0813, channel 0x6000, error 601
    found = facts(message(0x0813, (0x000C, bytes.fromhex("60000000")), (0x0009, b"\0\0\x06\x01gone")))
    assert found["stun.method"] == "0x203"
    assert found["stun.class"] == "indication"
    assert found["stun.channel_number"] == 0x6000
    assert found["stun.error_code"] == 601


def test_methods_and_classes() -> None:
    # RFC 8656 section 17: 0x109 ChannelBind success, 0x118 CreatePermission error, 0x016 Send indication
    assert [(facts(message(t))["stun.method"], facts(message(t))["stun.class"]) for t in (0x109, 0x118, 0x16)] == [
        ("channel-bind", "success"), ("create-permission", "error"), ("send", "indication")
    ]  # fmt: skip


def test_data_indication_is_peeled() -> None:
    wrapped = message(0x0017, (0x0012, bytes.fromhex("0001a147e112a643")), (0x0013, REQUEST))
    peeled = peel(memoryview(wrapped), "udp")
    assert [layer.name for layer in peeled.layers] == ["stun", "stun"]
    assert named(peeled.layers[1].facts)["stun.username"] == b"evtj:h6vY"
    assert named(peeled.layers[0].facts)["stun.peer_address"] == Endpoint(packed("192.0.2.1"), 32853)


def test_stream_is_framed_by_the_length() -> None:
    peeled = peel(memoryview(REQUEST + RESPONSE_V4 + RESPONSE_V6[:30]), "tcp")
    assert [layer.consumed for layer in peeled.layers] == [108, 80, 0]
    assert peeled.consumed == 188


def test_malformed() -> None:
    for payload in (REQUEST[:-1], message(1, (6, b""))[:-2] + b"\xff\xff", message(1, *[(0x8000, b"")] * 257)):
        with pytest.raises(DecodeError):
            stun.decode(memoryview(payload))
    # without the cookie nothing is certain enough to be called malformed
    assert stun.decode(memoryview(message(1, (6, b"abcd"), cookie="00000000")[:-1])) is None
    assert stun.decode(memoryview(message(5, cookie="00000000"))) is None


@given(st.binary(max_size=120), st.sampled_from(("", "2112a442")), st.sampled_from((stun.decode, stun.decode_stream)))
def test_any_bytes(tail: bytes, cookie: str, decode: object) -> None:
    assert callable(decode)
    payload = tail[:4] + bytes.fromhex(cookie) + tail[4:]
    try:
        layer = decode(memoryview(payload))
    except DecodeError:
        return
    assert layer is None or 0 <= layer.consumed <= len(payload)


@pytest.mark.parametrize(
    "name", ["ndpi-history/stun_old.pcap", "ndpi/zoom.pcap", "arkime/stun.pcap", "ndpi/stun_signal.pcapng"]
)
def test_as_wireshark_counts(name: str) -> None:
    columns = ["-e", "udp.payload", "-e", "stun.type", "-e", "classicstun.type", "-e", "stun.channel"]
    columns += ["-E", "occurrence=f"]
    command = ["tshark", "-r", str(CAPTURES / name), "-Y", "udp && !icmp", "-T", "fields", *columns]
    rows = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    theirs: Counter[object] = Counter()
    ours: Counter[object] = Counter()
    for row in rows:
        payload, type_, classic, channel = row.split("\t")
        theirs.update(["channel"] if channel else [int(t, 16) for t in (type_ or classic,) if t])
        peeled = peel(memoryview(bytes.fromhex(payload)), "udp")
        found = named(peeled.layers[0].facts) if peeled.layers else {}
        if "stun.type" in found or "turn.channel" in found:
            ours[found.get("stun.type", "channel")] += 1
    assert ours == theirs
    assert sum(ours.values()) > 0


@pytest.mark.parametrize("message", [REQUEST, RESPONSE_V4, RESPONSE_V6], ids=["request", "v4", "v6"])
def test_ice_on_tcp_puts_two_bytes_of_length_before_a_message(message: bytes) -> None:
    """RFC 6544 section 3, RFC 4571 section 2; with and without what follows in the stream."""
    framed = len(message).to_bytes(2, "big") + message
    plain = stun.decode_stream(memoryview(message))
    assert plain is not None
    for stream in (framed, framed + framed[:7]):
        layer = stun.decode_stream(memoryview(stream))
        assert layer is not None
        assert (layer.facts, layer.consumed) == (plain.facts, len(framed))
    partial = stun.decode_stream(memoryview(framed[:-1]))
    assert partial is not None
    assert partial.consumed == 0


def test_a_frame_whose_length_is_not_the_message_s_is_no_frame() -> None:
    framed = (len(REQUEST) + 4).to_bytes(2, "big") + REQUEST
    assert stun.decode_stream(memoryview(framed)) is None


def test_two_answers_of_modbus_are_no_binding_request() -> None:
    """arkime/modbus.pcap: transaction 1, protocol 0, length 4, twice: twenty bytes, type 1, no attributes."""
    answers = bytes.fromhex("0001000000040a010100") * 2
    assert stun.decode(memoryview(answers)) is not None, "on UDP it may be one: RFC 3489 section 11.1"
    assert stun.decode_stream(memoryview(answers)) is None
