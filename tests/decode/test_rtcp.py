"""RTCP: compounds of RFC 3550 section 6, SRTCP's clear head, and Wireshark's reading of a capture."""

from __future__ import annotations

import subprocess
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from appid.decode import rtcp
from appid.wire import Fact

CAPTURES = Path(__file__).parents[3] / "shared" / "captures"
SR = bytes.fromhex("80c80006 00000309 e0c4aaaa bbbbcccc 00010000 00000064 00004000".replace(" ", ""))
SDES = bytes.fromhex("81ca0004 00000309 0108 6f77656e40706300 00000000".replace(" ", ""))[:20]
BYE = bytes.fromhex("81cb000100000309")


def types(payload: bytes) -> list[object] | None:
    layer = rtcp.decode(memoryview(payload))
    return None if layer is None else [fact.value for fact in layer.facts if fact.name == "rtcp.packet_type"]


def test_compound() -> None:
    # sections 6.4.1, 6.5, 6.6: sender report, source description, goodbye
    assert types(SR + SDES + BYE) == [200, 202, 203]
    layer = rtcp.decode(memoryview(SR))
    assert layer is not None
    assert Fact("rtcp.ssrc", 0x309) in layer.facts


def test_reduced_size() -> None:
    # RFC 5506: a lone picture loss indication, RFC 4585 section 6.3.1
    assert types(bytes.fromhex("81ce00020000030900000405")) == [206]


def test_srtcp_shows_its_first_header() -> None:
    # RFC 3711 section 3.4: the rest is encrypted, then index and tag
    assert types(SR + bytes.fromhex("5f" * 20) + bytes.fromhex("80000001") + bytes(10)) == [200]
    assert types(SR + bytes(7)) is None


def test_what_must_fit() -> None:
    assert types(SR[:-1]) is None
    assert types(bytes.fromhex("81c80006") + SR[4:]) is None  # one report block is missing
    assert types(b"\x80\xc8") is None
    assert types(bytes.fromhex("80d00001") + bytes(4)) is None  # no such packet type
    assert types(b"\x40" + SR[1:]) is None
    assert types(bytes.fromhex("80000006") + SR[4:]) is None


@given(st.binary(max_size=80), st.sampled_from(("", "80c80006", "81ca0001")))
def test_any_bytes(tail: bytes, head: str) -> None:
    payload = bytes.fromhex(head) + tail
    layer = rtcp.decode(memoryview(payload))
    assert layer is None or layer.consumed == len(payload)


def test_as_wireshark_reads() -> None:
    command = ["tshark", "-r", str(CAPTURES / "ndpi/rtcp_multiple_pkts_in_the_same_datagram.pcap"), "-Y", "rtcp"]
    command += ["-T", "fields", "-e", "udp.payload", "-e", "rtcp.pt", "--enable-heuristic", "rtcp_udp"]
    rows = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert rows
    for row in rows:
        payload, kinds = row.split("\t")
        assert types(bytes.fromhex(payload)) == [int(kind) for kind in kinds.split(",")]
