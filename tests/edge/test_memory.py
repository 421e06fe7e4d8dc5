"""A process's memory: what is looked at, when it is short, and that not every look asks for more."""

from __future__ import annotations

import gc

import pytest

from appid.edge.memory import LOOK, MARGIN, STEP, Memory, resident

MIB = 1 << 20


def test_it_is_what_the_kernel_says() -> None:
    before = resident()
    held = b"\1" * (64 * MIB)
    assert resident() - before > 60 * MIB
    del held


def test_it_is_short_a_margin_before_the_bound() -> None:
    now = resident()
    assert Memory(now).tick()
    assert Memory(now).look(LOOK)
    assert Memory(now + now // (2 * MARGIN)).tick(), "nearer than the margin"
    assert Memory(2 * now).tick() is None
    assert not Memory(2 * now).look(LOOK)
    assert Memory(0).tick() is None, "no bound"


def test_between_two_seconds_it_looks_now_and_then() -> None:
    memory = Memory(MIB)
    assert not memory.look(LOOK - 1)
    assert memory.look(LOOK)
    assert not memory.look(2 * LOOK - 1)
    assert memory.look(2 * LOOK)


def test_what_gave_way_is_used_before_more_does(caplog: pytest.LogCaptureFixture) -> None:
    gc.collect()
    memory = Memory(MIB)
    memory.gave_way()
    assert not memory.look(LOOK)
    assert memory.tick() is False, "short, but no shorter"
    held = b"\1" * (8 * STEP)
    assert memory.look(2 * LOOK), "it has grown beyond what was given up"
    memory.gave_way()
    memory.gave_way()
    assert len(caplog.records) == 2, "told once a second"
    del held
