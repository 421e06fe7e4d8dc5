"""Packets with another payload: lengths and checksums as a receiver verifies them."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appid.dataplane.rewrite import checksum, replace_payload
from appid.packet import parse
from appid.wire import packed


def ones(data: bytes) -> int:
    """RFC 1071 section 4.1, word by word."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def udp4(payload: bytes, options: bytes = b"") -> bytes:
    size = 28 + len(options) + len(payload)
    header = struct.pack("!BBHHHBBH", 0x45 + len(options) // 4, 0, size, 7, 0x4000, 64, 17, 0)
    udp = struct.pack("!HHHH", 16402, 3478, 8 + len(payload), 0)
    return header + packed("172.16.42.187") + packed("17.173.254.35") + options + udp + payload


def tcp6(payload: bytes, extension: bytes = b"") -> bytes:
    tcp = struct.pack("!HHIIBBHHH", 5060, 5060, 1, 2, 0x50, 0x18, 1000, 0, 0)
    body = extension + tcp + payload
    head = struct.pack("!IHBB", 6 << 28, len(body), 0 if extension else 6, 64)
    return head + packed("fd00::1") + packed("fd00::2") + body


def test_the_example_of_rfc_1071() -> None:
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xFFFF - 0xDDF2


@given(st.binary(max_size=64))
def test_the_checksum_is_the_one_of_rfc_1071(data: bytes) -> None:
    assert checksum(data) == 0xFFFF - ones(data)


@pytest.mark.parametrize("options", [b"", b"\x94\x04\0\0"])
@given(old=st.binary(max_size=20), new=st.binary(max_size=300))
def test_udp_over_ipv4(options: bytes, old: bytes, new: bytes) -> None:
    data = replace_payload(udp4(old, options), new)
    seen = parse(memoryview(data))
    assert seen is not None
    assert bytes(seen.payload) == new
    assert seen.length == len(data)
    start = 20 + len(options)
    assert ones(data[:start]) == 0xFFFF
    assert ones(data[12:20] + struct.pack("!HH", 17, len(data) - start) + data[start:]) == 0xFFFF
    assert data[start + 6 : start + 8] != b"\0\0"


@pytest.mark.parametrize("extension", [b"", b"\x06\0\1\4\0\0\0\0"])
@given(new=st.binary(max_size=300))
def test_tcp_over_ipv6(extension: bytes, new: bytes) -> None:
    data = replace_payload(tcp6(b"REGISTER", extension), new)
    seen = parse(memoryview(data))
    assert seen is not None
    assert bytes(seen.payload) == new
    start = 40 + len(extension)
    assert ones(data[8:40] + struct.pack("!II", len(data) - start, 6) + data[start:]) == 0xFFFF


@pytest.mark.parametrize(
    "data", [b"", b"\x45" + bytes(30), udp4(b"x")[:-1], udp4(b"x")[:6] + b"\x20\0" + udp4(b"x")[8:]]
)
def test_what_is_no_whole_packet_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        replace_payload(data, b"new")


def test_what_would_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="too long"):
        replace_payload(udp4(b"x"), bytes(65530))
