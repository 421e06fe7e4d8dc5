"""Packets with another payload: lengths and checksums as a receiver verifies them."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appid.dataplane.rewrite import Numbers, checksum, replace_payload, tcp_numbers
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


def tcp4(options: bytes, payload: bytes = b"INVITE") -> bytes:
    """A segment with sequence number 1000, acknowledgement 2000, FIN and ACK."""
    header = struct.pack("!HHIIBBHHH", 5060, 5060, 1000, 2000, (20 + len(options)) // 4 << 4, 0x11, 1, 0, 0) + options
    size = 20 + len(header) + len(payload)
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, size, 7, 0x4000, 64, 6, 0, bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2)))
    return head + header + payload


SACKS = b"\x01\x01\x05\x12" + struct.pack("!IIII", 3000, 3100, 3200, 3300)
"""RFC 2018 section 3: two NOPs, then the option with two blocks."""


def test_the_numbers_of_a_segment_are_read_and_replaced() -> None:
    data = tcp4(SACKS)
    numbers = tcp_numbers(memoryview(data), memoryview(b"INVITE"))
    assert numbers == Numbers(1000, 2000, ((3000, 3100), (3200, 3300)), True)
    changed = replace_payload(data, b"more", Numbers(4000, 5000, ((6000, 6100),), False))
    assert tcp_numbers(memoryview(changed), memoryview(b"more")) == Numbers(4000, 5000, ((6000, 6100),), False)
    assert changed[40:60] == b"\x01\x01\x05\x0a" + struct.pack("!II", 6000, 6100) + b"\x01" * 8, "the rest is NOPs"
    none = replace_payload(data, b"", Numbers(1000, 2000))
    assert none[40:60] == b"\x01" * 20


def test_the_senders_clock_is_read_and_replaced() -> None:
    """RFC 7323 appendix A: two NOPs, kind 8, length 10, TSval, TSecr."""
    options = b"\x01\x01\x08\x0a" + struct.pack("!II", 70, 80)
    data = tcp4(options)
    numbers = tcp_numbers(memoryview(data), memoryview(b"INVITE"))
    assert numbers.clock == 70
    changed = replace_payload(data, b"INVITE", numbers._replace(clock=71))
    assert changed[40:52] == b"\x01\x01\x08\x0a" + struct.pack("!II", 71, 80)


@pytest.mark.parametrize(
    "options", [b"\x05\x00\x00\x00", b"\x05\xff\x00\x00", b"\x08\x0a" + bytes(10), b"\x00\x05\x0a\x01"]
)
def test_options_that_are_odd_or_others_stay(options: bytes) -> None:
    data = tcp4(options)
    numbers = tcp_numbers(memoryview(data), memoryview(b"INVITE"))
    assert numbers.sacks == ()
    assert replace_payload(data, b"INVITE", numbers)[40 : 40 + len(options)] == options


def test_a_datagram_that_grows_may_be_split_on_its_way() -> None:
    """Its sender forbade it for the length that it had; RFC 6864: from then on its identification counts."""
    data = bytearray(udp4(bytes(1400)))
    data[4:8] = b"\0\0\x40\0"
    grown = replace_payload(bytes(data), bytes(1480))
    assert grown[6] & 0x40 == 0
    assert grown[4:6] != b"\0\0"
    assert replace_payload(bytes(data), bytes(1300))[6] & 0x40
