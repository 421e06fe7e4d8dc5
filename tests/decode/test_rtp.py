"""RTP: RFC 3550 section 5.1 headers, what is told apart, and Wireshark's reading of a SIP call's media."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appid.decode import rtp

CAPTURES = Path(__file__).parents[3] / "shared" / "captures"


def facts(payload: bytes) -> dict[str, object] | None:
    layer = rtp.decode(memoryview(payload))
    return None if layer is None else {fact.name: fact.value for fact in layer.facts}


def header(first: int, second: int, tail: bytes = b"", sequence: int = 51593) -> bytes:
    return bytes((first, second)) + sequence.to_bytes(2, "big") + bytes.fromhex("0001e240deadbeef") + tail


def test_fixed_header() -> None:
    assert facts(header(0x80, 0xE8, bytes(100))) == {
        "rtp.payload_type": 104,
        "rtp.ssrc": 0xDEADBEEF,
        "rtp.sequence": 51593,
        "rtp.timestamp": 123456,
        "rtp.marker": True,
    }


def test_what_must_fit() -> None:
    assert facts(header(0x82, 0, bytes(8))) is not None  # two CSRCs
    assert facts(header(0x82, 0, bytes(7))) is None
    assert facts(header(0x90, 0, bytes.fromhex("bede0001") + bytes(4))) is not None  # one-byte extensions, RFC 8285
    assert facts(header(0x90, 0, bytes.fromhex("bede0002") + bytes(4))) is None
    assert facts(header(0xA0, 0, bytes.fromhex("00000004"))) is not None  # padding counts itself
    assert facts(header(0xA0, 0, bytes.fromhex("00000005"))) is None
    assert facts(header(0xA0, 0, bytes.fromhex("00000000"))) is None
    assert facts(header(0x80, 0)[:-1]) is None


@pytest.mark.parametrize("second", [200, 201, 207, 72, 192])
def test_rtcp_is_not_rtp(second: int) -> None:
    # RFC 5761 section 4: 64-95 with or without the marker
    assert facts(header(0x80, second, bytes(20))) is None


def test_other_versions() -> None:
    assert facts(header(0x40, 0, bytes(8))) is None
    assert facts(header(0xC0, 0, bytes(8))) is None


def test_others_that_say_what_they_are() -> None:
    dns = bytes.fromhex("9a3e 0100 0001 0000 0000 0000 076578616d706c6503636f6d00 0001 0001")
    ike = bytes.fromhex("8e4f2b1a9c7d6e5f 0000000000000000 2120 2208 00000000 0000001c")
    bacnet = bytes.fromhex("810a0011 0120ffff00ff10080a0c1e0c20")
    assert [facts(payload) for payload in (dns, ike, bacnet)] == [None, None, None]


@given(st.binary(max_size=80))
def test_any_bytes(payload: bytes) -> None:
    layer = rtp.decode(memoryview(payload))
    assert layer is None or layer.consumed == len(payload) >= 12


def test_as_wireshark_reads() -> None:
    fields = ("udp.payload", "rtp.p_type", "rtp.seq", "rtp.timestamp", "rtp.ssrc")
    command = ["tshark", "-r", str(CAPTURES / "ndpi/sip.pcap"), "-Y", "rtp && !icmp", "-T", "fields"]
    rows = subprocess.run(
        [*command, *(word for field in fields for word in ("-e", field))], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert rows
    for row in rows:
        payload, kind, sequence, timestamp, ssrc = row.split("\t")
        found = facts(bytes.fromhex(payload))
        assert found is not None
        assert [found[f"rtp.{name}"] for name in ("payload_type", "sequence", "timestamp", "ssrc")] == [
            int(kind), int(sequence), int(timestamp), int(ssrc, 16)
        ]  # fmt: skip
