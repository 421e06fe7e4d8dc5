"""Frames of a relay of 2023: every combination of the optional fields, by field notes A4, and what does not add up."""

from __future__ import annotations

import random
import struct
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appid.decode import peel, relayframe
from tests.corpus import facetime2023 as modern
from tests.corpus import stun_bytes as stun

RTP = struct.pack("!BBHII", 0x90, 100, 7, 480, 0x84B74CF9) + b"\x85\0\0\0" + bytes(40)
SECOND = ((0x01, b"tt"), (0x02, b"\x02aabb"), (0x04, b"12345678"), (0x08, b"\x01"), (0x20, b"c"), (0x10, b"cc"))


def read(data: bytes) -> tuple[object, bytes | None] | None:
    layer = relayframe.decode(memoryview(data))
    if layer is None:
        return None
    return layer.facts[0].value, None if layer.inner is None else bytes(layer.inner)


@pytest.mark.parametrize("chosen", list(product((False, True), repeat=len(SECOND))))
@pytest.mark.parametrize(("first", "tail"), [(0x01, b""), (0x02, b"nn"), (0x0F, bytes(12)), (0x20, b"ww")])
def test_the_rtp_packet_stands_behind_the_fields_that_are_announced(
    chosen: tuple[bool, ...], first: int, tail: bytes
) -> None:
    fields = [field for field, there in zip(SECOND, chosen, strict=True) if there]
    head = bytes([first, 0x40 | sum(bit for bit, _ in fields)]) + b"".join(value for _, value in fields) + tail
    assert read(head + RTP) == ("rtp", RTP)
    if not first & 0x06:
        assert read(head) is None, "of a frame without a field of its first byte nothing is left to tell"


def test_a_counter_and_a_report_stand_alone() -> None:
    rng = random.Random(3)
    assert read(modern.counter(b"\xe7\xa2", 5)[4:]) == ("none", None)
    assert read(modern.report(rng)[4:]) == ("none", None)
    assert read(modern.report(rng)[4:] + b"\0") is None


def test_a_control_message_is_seen_by_its_zeros_and_read_by_its_own_decoder() -> None:
    whole = modern.controlled(random.Random(4))
    assert [layer.name for layer in peel(memoryview(whole), "udp").layers] == ["turn", "relayframe", "linkcontrol"]
    damaged = bytearray(whole)
    damaged[4 + 12 + 6] = 1
    assert [layer.name for layer in peel(memoryview(damaged), "udp").layers][1:2] != ["relayframe"]


@pytest.mark.parametrize("kind", [0, 8, 96, 111])
def test_what_others_relay_keeps_its_own_name(kind: int) -> None:
    rtp = struct.pack("!BBHII", 0x80, kind, 7, 480, 9) + bytes(range(100))
    assert read(rtp) is None
    names = [layer.name for layer in peel(memoryview(stun.channel_data(0x6000, rtp)), "udp").layers]
    assert names == ["turn", "rtp"]


@given(st.binary(max_size=120))
def test_any_bytes_are_read_or_not(data: bytes) -> None:
    layer = relayframe.decode(memoryview(data))
    assert layer is None or layer.consumed == len(data)
