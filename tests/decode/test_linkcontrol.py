"""Control messages of a link, made by the plan of facetime_wifi_2023_caller frame 2037, and what falls short of it."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appid.decode import linkcontrol
from tests.corpus.facetime2023 import command

KEEPALIVE = command(random.Random(1), 3, (0x0001, b"\0\1"))


def facts(data: bytes) -> dict[str, object] | None:
    layer = linkcontrol.decode(memoryview(data))
    return None if layer is None else {fact.name: fact.value for fact in layer.facts}


def test_a_command_and_its_acknowledgement() -> None:
    assert len(KEEPALIVE) == 50  # as a Data indication holds it
    assert facts(KEEPALIVE) == {"linkcontrol.command": 3, "linkcontrol.acknowledges": False}
    answer = command(random.Random(2), 0x8006, (0x0001, b"\0\1"), (0x000C, b"\0\1"))
    assert facts(answer) == {"linkcontrol.command": 6, "linkcontrol.acknowledges": True}


@pytest.mark.parametrize("at", [0, 2, 4, 11, 19, 26, 29])
def test_command_length_zeros_and_the_codes_head_are_needed(at: int) -> None:
    changed = bytearray(KEEPALIVE)
    changed[at] ^= 0x40
    assert facts(bytes(changed)) is None


def test_a_length_that_counts_the_head_is_no_fault() -> None:
    assert facts(KEEPALIVE[:2] + len(KEEPALIVE).to_bytes(2, "big") + KEEPALIVE[4:]) is not None


def test_cut_short_it_is_nothing() -> None:
    assert [size for size in range(len(KEEPALIVE)) if facts(KEEPALIVE[:size]) is not None] == []


@given(st.binary(max_size=120))
def test_any_bytes_are_read_or_not(data: bytes) -> None:
    layer = linkcontrol.decode(memoryview(data))
    assert layer is None or layer.consumed == len(data)
