"""The peel loop and the registry: nesting, several messages, bounds, and that decoders do not contend for a payload."""

from __future__ import annotations

import subprocess
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appid import decode
from appid.decode import dns, http, peel, quic, tls
from appid.edge.capture import CaptureError, frames
from appid.packet import parse, strip
from appid.wire import DecodeError, Fact

CAPTURES = Path(__file__).parents[3] / "shared" / "captures"
BINDING = bytes.fromhex("000100002112a442b7e7a701bc34d686fa87dfae")
SDP = b"v=0\r\no=GKVoiceChatService 0 0 IN IP4 192.0.2.1\r\ns=mobile\r\nm=audio 16402 RTP/AVP 104\r\n"


def channel(inner: bytes, number: int = 0x4001) -> bytes:
    return number.to_bytes(2, "big") + len(inner).to_bytes(2, "big") + inner


def invite(body: bytes) -> bytes:
    head = b"INVITE sip:user@192.0.2.2 SIP/2.0\r\ni: 1@a\r\nCSeq: 1 INVITE\r\nc: application/sdp\r\ne: deflate\r\n"
    return head + b"l: %d\r\n\r\n" % len(body) + body


def names(payload: bytes, carrier: str = "udp") -> list[str]:
    return [layer.name for layer in peel(memoryview(payload), carrier).layers]


def test_call_signalling_inside_a_relay() -> None:
    # facts/facetime-2015.md packet 169: SIP with a deflated body in ChannelData
    peeled = peel(memoryview(channel(invite(zlib.compress(SDP)))), "udp")
    assert [layer.name for layer in peeled.layers] == ["turn", "sip", "sdp"]
    assert Fact("sdp.origin_user", "GKVoiceChatService") in peeled.facts()
    assert Fact("sdp.media", ("audio", 16402)) in peeled.facts()
    assert names(channel(BINDING)) == ["turn", "stun"]


def test_an_error_becomes_a_fact_and_keeps_the_outer_layers() -> None:
    peeled = peel(memoryview(channel(BINDING[:2] + b"\0\x08" + BINDING[4:])), "udp")
    assert [layer.name for layer in peeled.layers] == ["turn"]
    assert peeled.facts()[-1] == Fact("stun.anomaly", "length exceeds the datagram")


def test_a_datagram_goes_on_with_the_same_decoder_only() -> None:
    assert names(BINDING + BINDING) == ["stun", "stun"]
    assert names(BINDING + channel(b"abcd")) == ["stun"]
    assert peel(memoryview(BINDING + bytes(3)), "udp").consumed == len(BINDING)
    assert names(BINDING + channel(BINDING), "tcp") == ["stun", "turn", "stun"]


def test_nesting_and_number_are_bounded() -> None:
    deep = BINDING
    for _ in range(20):
        deep = channel(deep)
    assert names(deep) == ["turn"] * decode.DEPTH
    assert len(names(BINDING * 500, "tcp")) == decode.MESSAGES


def test_nothing() -> None:
    assert peel(memoryview(b""), "udp") == peel(memoryview(b"\xff\xff"), "udp") == peel(memoryview(b"x"), "no carrier")


@given(st.binary(max_size=150), st.sampled_from(sorted(decode.TABLES)))
def test_no_payload_raises(payload: bytes, carrier: str) -> None:
    for data in (payload, channel(payload), BINDING[:2] + len(payload).to_bytes(2, "big") + BINDING[4:] + payload):
        assert peel(memoryview(data), carrier).consumed <= len(data)


def payloads_of(capture: Path) -> list[bytes]:
    """The payloads of its first frames that have one."""
    found = []
    try:
        for number, _, linktype, frame in frames(capture):
            inner = strip(linktype, frame)
            packet = parse(inner) if inner is not None else None
            if packet is not None and packet.payload:
                found.append(bytes(packet.payload))
            if number == 16:
                break
    except (CaptureError, DecodeError):
        pass
    return found


def damaged(payload: bytes, random: Random) -> bytes:
    """A few bytes changed, to their extremes above all, and the end cut off or not."""
    data = bytearray(payload)
    for _ in range(random.choice((1, 2, 8))):
        data[random.randrange(len(data))] = random.choice((0, 1, 0x7F, 0x80, 0xFF, random.randrange(256)))
    return bytes(data[: random.randrange(len(data) + 1)] if random.random() < 0.3 else data)


@pytest.mark.parametrize("part", range(4))
def test_no_damage_to_a_real_payload_raises(part: int) -> None:
    """On its own carriers and on others; in a fresh clone this meets the compiled decoders."""
    random = Random(part)
    for capture in sorted(CAPTURES.rglob("*.pcap*"))[part::12]:
        for payload in payloads_of(capture):
            for _ in range(6):
                data = memoryview(damaged(payload, random))
                for carrier in decode.TABLES:
                    assert peel(data, carrier).consumed <= len(data)


def datagrams(name: str) -> Iterator[bytes]:
    """Payloads as Wireshark cuts them out; its ICMP-quoted ones are left out."""
    command = ["tshark", "-r", str(CAPTURES / name), "-Y", "udp && !icmp", "-T", "fields", "-E", "occurrence=l"]
    for row in subprocess.run([*command, "-e", "udp.payload"], capture_output=True, text=True).stdout.splitlines():
        if row:
            yield bytes.fromhex(row)


FAMILIES = (
    "ndpi/stun.pcap", "ndpi/sip.pcap", "ndpi/stun_google_meet.pcapng", "ndpi/wa_voice.pcap", "ndpi/gtp_c.pcap",
    "ndpi/kerberos.pcap", "ndpi/teredo.pcap", "arkime/bt-udp.pcap", "arkime/IKEv2.pcap", "ndpi/dtls.pcap",
    "ndpi/gnutella.pcap", "rtc-measurement/facetime_wifi_2023_caller.pcapng", "ipfixprobe/netbios.pcap",
    "arkime/bacnet-stack-services.pcap", "arkime/dns-mx.pcap", "ndpi/false_positives.pcapng",
)  # fmt: skip


LAST = [decoder.name for decoder in decode.DECODERS].index("rtp")
CLAIMING = [[d for d in decode.DECODERS[:LAST] if d in table] for table in decode.TABLES["udp"]]


@pytest.mark.parametrize("name", [name for name in FAMILIES if (CAPTURES / name).exists()])
def test_decoders_do_not_contend(name: str) -> None:
    """At most one decoder takes a payload, but for RTP, which refuses little, and those behind, which claim nothing."""
    contended: Counter[tuple[str, ...]] = Counter()
    for payload in datagrams(name):
        data = memoryview(payload)
        takers = []
        for decoder in CLAIMING[payload[0]]:
            try:
                if decoder.decode(data) is not None:
                    takers.append(decoder.name)
            except DecodeError:
                takers.append(decoder.name)
        contended[tuple(takers)] += 1
    assert [takers for takers in contended if len(takers) > 1] == []


@pytest.mark.parametrize(
    ("name", "never"),
    [
        ("ndpi/gtp_c.pcap", "turn"),
        ("ndpi/kerberos.pcap", "turn"),
        ("ndpi/teredo.pcap", "turn"),
        ("arkime/IKEv2.pcap", "rtp"),
        ("arkime/dns-mx.pcap", "rtp"),
    ],
)
def test_look_alikes_of_the_captures(name: str, never: str) -> None:
    if not (CAPTURES / name).exists():
        pytest.fail(f"{name} is not among the captures")
    assert never not in {layer for payload in datagrams(name) for layer in names(payload)}


def test_rtp_is_tried_last_of_those_that_claim() -> None:
    assert [d.decode for d in decode.DECODERS[LAST + 1 :]] == [
        dns.decode_damaged,
        quic.decode_short,
        tls.decode,
        http.decode_response,
    ]
    assert not {"udp", "tcp"} & {carrier for d in decode.DECODERS[-2:] for carrier in d.carriers}
