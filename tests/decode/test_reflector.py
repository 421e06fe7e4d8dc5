"""Messages of a reflector, as libtgvoip writes them, and what only has its ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appid.decode import peel, reflector

TAG, ONES = bytes(range(0x80, 0x90)), b"\xff" * 12


def kind(data: bytes) -> object:
    layer = reflector.decode(memoryview(data))
    return None if layer is None else layer.facts[0].value


@pytest.mark.parametrize(
    ("word", "rest", "wanted"),
    [
        ("feffffff", 8, "ping"),
        ("ffffffff", 0, None),
        ("c77215c0", 32, "self-info"),
        ("1c37d927", 16, "peer-info"),
        ("b173fc83", 40, "peer-info-ipv6"),
        ("feffffff", 9, None),
        ("fdffffff", 8, None),
    ],
)
def test_the_word_behind_the_ones_says_what_it_is(word: str, rest: int, wanted: str | None) -> None:
    data = TAG + ONES + bytes.fromhex(word) + bytes(rest)
    assert kind(data) == wanted
    names = [layer.name for layer in peel(memoryview(data), "udp").layers]
    assert (names == ["reflector"]) is (wanted is not None), "though its tag begins as RTP does"


def test_tag_and_ones_are_needed() -> None:
    ping = TAG + ONES + b"\xfe\xff\xff\xff" + bytes(8)
    assert kind(ping[1:]) is None
    assert kind(ping[:31]) is None
    assert kind(TAG + b"\xfe" + ONES[1:] + ping[28:]) is None


@given(st.binary(max_size=80))
def test_any_bytes_are_read_or_not(data: bytes) -> None:
    layer = reflector.decode(memoryview(data))
    assert layer is None or layer.consumed == len(data)
