"""FaceTime through the gateway in IPv4 and IPv6, with NAT and routed: direct, nothing lost, nothing left open."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.lab.scale import scale
from tests.lab.scenario import Scenario

pytestmark = pytest.mark.kernel
CALLS = 4


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("one_port", [False, True], ids=["ports", "one-port"])
@pytest.mark.parametrize("nat", [True, False], ids=["nat", "routed"])
@pytest.mark.parametrize("v6", [False, True], ids=["v4", "v6"])
def test_calls_go_direct(tmp_path: Path, v6: bool, nat: bool, one_port: bool) -> None:
    scenario = Scenario.with_v6(nat) if v6 else replace(Scenario(), nat=nat)
    folder = tmp_path / "calls"
    scaled = asyncio.run(scale(scenario, CALLS, CALLS, 2, folder, one_port=one_port))
    assert scaled.held, str(scaled)
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    pinholes = [event["pinhole"] for event in events if event["event_type"] == "pinhole"]
    opened, closed = ({p["id"] for p in pinholes if (p["closed_at"] is None) == still} for still in (True, False))
    assert len(opened) >= CALLS
    assert closed == opened
    assert {p["inside"] for p in pinholes} == {scenario.numbered(n).client for n in range(CALLS)}
