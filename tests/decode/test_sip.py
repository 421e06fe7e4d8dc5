"""SIP: messages of RFC 3261 and 3665, FaceTime's compact and deflated ones, and Wireshark's reading of captures."""

from __future__ import annotations

import gzip
import subprocess
import zlib
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appid.decode import peel, sip
from appid.wire import DecodeError, Layer

CAPTURES = Path(__file__).parents[3] / "shared" / "captures"
INVITE = (  # RFC 3261 section 24.2, F1; the body is RFC 3665 section 3.1's
    b"INVITE sip:bob@biloxi.com SIP/2.0\r\n"
    b"Via: SIP/2.0/UDP pc33.atlanta.com;branch=z9hG4bKnashds8, SIP/2.0/UDP other;branch=z9hG4bKno\r\n"
    b"Max-Forwards: 70\r\n"
    b"To: Bob <sip:bob@biloxi.com>\r\n"
    b"From: Alice <sip:alice@atlanta.com>;tag=1928301774\r\n"
    b"Call-ID: a84b4c76e66710\r\n"
    b"CSeq: 314159 INVITE\r\n"
    b"Contact: <sip:alice@pc33.atlanta.com>\r\n"
)
SDP = (
    b"v=0\r\no=alice 2890844526 2890844526 IN IP4 client.atlanta.example.com\r\ns=-\r\n"
    b"c=IN IP4 192.0.2.101\r\nt=0 0\r\nm=audio 49172 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n"
)
RINGING = (
    b"SIP/2.0 180 Ringing\r\nVia: SIP/2.0/UDP server10.biloxi.com;branch=z9hG4bK4b43c2ff8.1;received=192.0.2.3\r\n"
    b"To: Bob <sip:bob@biloxi.com>;tag=a6c85cf\r\nFrom: Alice <sip:alice@atlanta.com>;tag=1928301774\r\n"
    b"Call-ID: a84b4c76e66710\r\nContact: <sip:bob@192.0.2.4>\r\nCSeq: 314159 INVITE\r\nContent-Length: 0\r\n\r\n"
)


def invite(body: bytes, *headers: bytes) -> bytes:
    lines = b"".join(line + b"\r\n" for line in headers)
    return INVITE + lines + b"Content-Length: %d\r\n\r\n" % len(body) + body


def read(payload: bytes) -> Layer:
    layer = sip.decode(memoryview(payload))
    assert layer is not None
    return layer


def facts(payload: bytes) -> dict[str, object]:
    return {fact.name: fact.value for fact in read(payload).facts}


def message(payload: bytes) -> sip.Message:
    found = read(payload).message
    assert isinstance(found, sip.Message)
    return found


def test_request_of_rfc3261() -> None:
    assert facts(invite(SDP, b"Content-Type: application/sdp")) == {
        "sip.method": "INVITE",
        "sip.uri": "sip:bob@biloxi.com",
        "sip.call_id": "a84b4c76e66710",
        "sip.cseq": 314159,
        "sip.cseq_method": "INVITE",
        "sip.from_tag": "1928301774",
        "sip.branch": "z9hG4bKnashds8",
        "sip.contact": "sip:alice@pc33.atlanta.com",
        "sip.content_type": "application/sdp",
    }


def test_response_of_rfc3261() -> None:
    found = facts(RINGING)
    assert found["sip.status"] == 180
    assert found["sip.to_tag"] == "a6c85cf"
    assert "sip.method" not in found
    assert message(RINGING).reason == "Ringing"


def test_compact_folded_and_bare_lf() -> None:
    text = (
        b"INVITE sip:user@192.168.20.100:16402 SIP/2.0\nv: SIP/2.0/UDP 192.168.20.198:16402\n ;branch=z9hG4bK15\n"
        b't: "10;22" <sip:user@192.168.20.100:16402;x=1>\nf: "10\\"<21" <sip:user@192.168.20.198:16402>;tag=527520767\n'
        b"i: 658685de@192-168-20-198\nCSeq: 1 INVITE\nm: <sip:user@192.168.20.198:16402>;isfocus\n"
        b"User-Agent: Viceroy 1.4.1\nc: application/sdp\nl: 5\n\nv=0\r\n"
    )
    found = facts(text)
    assert found["sip.branch"] == "z9hG4bK15"
    assert found["sip.from_tag"] == "527520767"
    assert "sip.to_tag" not in found
    assert found["sip.contact"] == "sip:user@192.168.20.198:16402"
    assert found["sip.user_agent"] == "Viceroy 1.4.1"
    assert message(text).values("call-id") == ("658685de@192-168-20-198",)
    assert message(text).head + message(text).body == text


@pytest.mark.parametrize(("agent", "parts"), [
    ("Viceroy 1.4.1", ("Viceroy", "1.4.1", "")),
    ("Viceroy 1.7.0/GK", ("Viceroy", "1.7.0", "GK")),
    ("Example 10.20", ("Example", "10.20", "")),
    *((one, ()) for one in (
        "Example 1", "Example 1.", "Example 1.x", "Example 1.2 softphone", "Example 1.2-3", "Example/1.2",
        "Example 1.2/", "Example 1.2/a/b", "An Example 1.2", "Example \u0661.2", "Example  1.2",
    )),
])  # fmt: skip
def test_an_agent_that_is_a_name_and_a_version_number_is_told_apart(agent: str, parts: tuple[str, ...]) -> None:
    found = facts(f"BYE sip:b@h SIP/2.0\r\nUser-Agent: {agent}\r\n\r\n".encode())
    names = ("sip.agent_name", "sip.agent_version", "sip.agent_edition")
    assert tuple(found[name] for name in names if name in found) == parts


def deflated(text: bytes, wbits: int) -> bytes:
    engine = zlib.compressobj(wbits=wbits)
    return engine.compress(text) + engine.flush()


@pytest.mark.parametrize("wbits", [15, -15, 31])
@pytest.mark.parametrize("headers", [(b"e: deflate", b"c: application/sdp"), (b"c: application/sdp",), (b"e: gzip",)])
def test_encoded_bodies(wbits: int, headers: tuple[bytes, ...]) -> None:
    peeled = peel(memoryview(invite(deflated(SDP, wbits), *headers)), "udp")
    assert [layer.name for layer in peeled.layers] == ["sip", "sdp"]
    found = peeled.layers[0].message
    assert isinstance(found, sip.Message)
    assert found.inflated == SDP
    assert found.encoding == {15: "zlib", -15: "raw", 31: "gzip"}[wbits]
    assert found.body == deflated(SDP, wbits)


def test_gzip_with_name_and_a_plain_body_called_deflate() -> None:
    assert message(invite(gzip.compress(SDP), b"Content-Encoding: gzip")).inflated == SDP
    assert message(invite(SDP, b"Content-Encoding: deflate")).inflated == SDP


def test_a_bomb_is_an_error_and_rubbish_an_anomaly() -> None:
    with pytest.raises(DecodeError):
        read(invite(zlib.compress(b"v=0\r\n" + bytes(1 << 20)), b"e: deflate"))
    found = facts(invite(b"\xff\xfe\xfd\xfc", b"e: deflate"))
    assert found["sip.anomaly"] == "body is not deflate"
    assert found["sip.method"] == "INVITE"


def test_sdp_in_a_multipart() -> None:
    part = b"--gap\r\nContent-Type: text/plain\r\n\r\nhi\r\n--gap\r\nContent-Type: application/sdp\r\n\r\n" + SDP
    kind = b'Content-Type: multipart/mixed; boundary="gap"'
    peeled = peel(memoryview(invite(part + b"\r\n--gap--\r\n", kind)), "udp")
    assert ("audio", 49172) in [fact.value for fact in peeled.facts() if fact.name == "sdp.media"]


def test_several_messages_of_a_stream() -> None:
    first = invite(SDP, b"Content-Type: application/sdp")
    stream = b"\r\n\r\n" + first + RINGING + first
    peeled = peel(memoryview(stream[:-1]), "tcp")
    assert [layer.name for layer in peeled.layers] == ["sip", "sdp", "sip", "sip"]
    assert peeled.layers[-1].consumed == 0
    assert peeled.consumed == len(stream) - len(first)
    assert sip.decode_stream(memoryview(first[:200])) == Layer("sip", (), 0)


def test_datagram_discards_what_follows_the_body() -> None:
    # RFC 3261 section 18.3
    layer = read(invite(SDP) + b"trailer")
    assert layer.consumed == len(invite(SDP)) + 7
    assert message(invite(SDP) + b"trailer").body == SDP
    assert facts(invite(SDP)[:-9])["sip.anomaly"] == "body shorter than Content-Length"


def test_text_elsewhere_is_not_searched_for() -> None:
    # NAT slipstreaming: SIP text not at offset 0
    for payload in (
        b"POST / HTTP/1.1\r\n\r\n" + INVITE, b"\0" + INVITE, b" " + INVITE, b"x=" + INVITE, b"REGISTER sip:a SIP/2",
        b"GET / HTTP/1.1\r\n\r\n", b"OPTIONS rtsp://a RTSP/1.0\r\n\r\n", b"\r\n\r\n", b"SIP/2.0 999 no\r\n\r\n",
    ):  # fmt: skip
        assert sip.decode(memoryview(payload)) is None
        assert sip.decode_stream(memoryview(payload)) is None


def test_caps_and_ambiguity() -> None:
    start = b"OPTIONS sip:a SIP/2.0\r\n"
    twice = start + b"Content-Length: 0\r\nl: 5\r\n\r\nhello"
    for payload in (twice, start + b"l: -1\r\n\r\n", start + b"l: 70000\r\n\r\n", start + b"a: b\r\n" * 20_000):
        with pytest.raises(DecodeError):
            sip.decode_stream(memoryview(payload))
    with pytest.raises(DecodeError):
        sip.decode(memoryview(start + b"a: b\r\n" * 257 + b"\r\n"))
    assert facts(twice)["sip.anomaly"] == "Content-Length unreadable or ambiguous"


def test_bytes_outside_utf8_are_kept_and_printable() -> None:
    payload = b"OPTIONS sip:a SIP/2.0\r\nUser-Agent: caf\xe9\r\n\r\n"
    assert message(payload).header("user-agent") == "caf\udce9"
    assert facts(payload)["sip.user_agent"] == "caf\ufffd"


@given(st.binary(max_size=200), st.sampled_from((sip.decode, sip.decode_stream)))
def test_any_bytes(tail: bytes, decode: object) -> None:
    assert callable(decode)
    for payload in (tail, b"INVITE sip:a SIP/2.0\r\n" + tail, INVITE + b"e: deflate\r\n\r\n" + tail):
        try:
            layer = decode(memoryview(payload))
        except DecodeError:
            continue
        assert layer is None or 0 <= layer.consumed <= len(payload)


@given(st.text('"<>;,=\\ a:tg', max_size=60))
def test_any_header_value(value: str) -> None:
    assert isinstance(sip.address(value), str)
    assert isinstance(sip.parameters(value), dict)


@pytest.mark.parametrize("name", ["ndpi/sip.pcap", "ipfixprobe/sip.pcap", "zeek/sip__wireshark.pcap"])
def test_as_wireshark_reads(name: str) -> None:
    fields = ("udp.payload", "sip.Method", "sip.Status-Code", "sip.CSeq.seq", "sip.from.tag", "sip.to.tag")
    command = ["tshark", "-r", str(CAPTURES / name), "-Y", "sip && udp", "-T", "fields", "-E", "occurrence=f"]
    rows = subprocess.run(
        [*command, *(word for field in fields for word in ("-e", field))], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    methods: Counter[object] = Counter()
    for row in rows:
        payload, method, status, number, from_tag, to_tag = row.split("\t")
        if not method and not status:
            continue
        found = facts(bytes.fromhex(payload))
        assert str(found.get("sip.method", "")) == method
        assert str(found.get("sip.status", "")) == status
        assert str(found.get("sip.cseq", "")) == number
        assert found.get("sip.from_tag", "") == from_tag
        assert found.get("sip.to_tag", "") == to_tag
        methods[method or status] += 1
    assert sum(methods.values()) > 10


@pytest.mark.parametrize("name", ["sip-tcp-method__sip-tcp.pcap", "sip-tcp-pattern-matching__sip.pcap"])
def test_streams_as_wireshark_reads(name: str) -> None:
    command = ["tshark", "-r", str(CAPTURES / "suricata-verify" / name), "-Y", "tcp.payload", "-T", "fields"]
    command += ["-e", "tcp.srcport", "-e", "tcp.payload", "-e", "sip.Method", "-e", "sip.Status-Code"]
    streams: dict[str, bytes] = {}
    theirs: list[str] = []
    for row in subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines():
        port, payload, method, status = row.split("\t")
        streams[port] = streams.get(port, b"") + bytes.fromhex(payload)
        theirs += [text for text in (method, status) if text]
    ours = [
        str(fact.value)
        for stream in streams.values()
        for fact in peel(memoryview(stream), "tcp").facts()
        if fact.name in {"sip.method", "sip.status"}
    ]
    assert theirs
    assert sorted(ours) == sorted(theirs)
