"""Calls in a flood of flows: a little of it here, all of it among the slow tests."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.lab.flood import MAX_FLOWS, flood
from tests.lab.scenario import Scenario

pytestmark = pytest.mark.kernel


@pytest.mark.timeout(120)
def test_calls_go_on_in_a_flood_and_memory_is_bounded(tmp_path: Path) -> None:
    flooded = asyncio.run(flood(Scenario(), 12_000, 10.0, tmp_path / "flood"))
    assert flooded.held, str(flooded)
    assert flooded.table <= MAX_FLOWS
    assert flooded.given_up > 1000, "the table was full, or this shows nothing"
    assert flooded.sent > 1000


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("table", [MAX_FLOWS, 1_000_000], ids=["bounded by flows", "bounded by memory"])
def test_two_hundred_thousand_flows(tmp_path: Path, table: int) -> None:
    flooded = asyncio.run(flood(Scenario(), 200_000, 60.0, tmp_path / "flood", table))
    print(flooded)
    assert flooded.held, str(flooded)
    assert flooded.given_up > 10_000
