"""Calls side by side lose no media at the switch: the pinhole is in the kernel by ordering, not by luck."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.lab.scale import scale
from tests.lab.scenario import Scenario

pytestmark = pytest.mark.kernel


@pytest.mark.timeout(120)
def test_twenty_calls(tmp_path: Path) -> None:
    scaled = asyncio.run(scale(Scenario(), calls=20, at_once=10, seconds=2, directory=tmp_path / "scale"))
    assert scaled.held, str(scaled)


@pytest.mark.timeout(120)
def test_clients_on_the_same_port_go_direct_and_never_hear_each_other(tmp_path: Path) -> None:
    """Two and two have one peer's address: what arrives at the gateway names them by the port alone."""
    scaled = asyncio.run(scale(Scenario(), calls=6, at_once=6, seconds=2, directory=tmp_path / "scale", one_port=True))
    assert scaled.held, str(scaled)


@pytest.mark.timeout(120)
def test_without_appid_no_call_goes_direct(tmp_path: Path) -> None:
    """A plain NAT router: what the gateway adds is the direct path."""
    scaled = asyncio.run(scale(Scenario(), 3, 3, 2, tmp_path / "scale", gateway=False))
    assert (scaled.failures, scaled.relayed_only) == ([], 3)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_hundred_calls(tmp_path: Path) -> None:
    scaled = asyncio.run(scale(Scenario(), calls=100, at_once=10, seconds=2, directory=tmp_path / "scale"))
    print(scaled)
    assert scaled.held, str(scaled)
    assert scaled.sent > 40000
