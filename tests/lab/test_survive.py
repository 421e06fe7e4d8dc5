"""Calls that outlive the gateway's processes: a few kills here, fifty among the slow tests."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.lab.scenario import Scenario
from tests.lab.survive import survive

pytestmark = pytest.mark.kernel


@pytest.mark.timeout(200)
def test_no_media_is_lost_when_processes_are_killed_and_all_is_right_again(tmp_path: Path) -> None:
    survived = asyncio.run(survive(Scenario(), 4, 3.0, tmp_path / "survive", workers=2))
    assert len(survived.kills) == 4
    assert survived.held, "\n".join((*survived.failures, *survived.lost, *survived.wrong))
    assert survived.sent > 1000
    assert survived.direct, "or no pinhole could have been left behind"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_fifty_kills(tmp_path: Path) -> None:
    survived = asyncio.run(survive(Scenario.from_seed(11), 50, 4.0, tmp_path / "survive", workers=2))
    print(survived)
    assert len(survived.kills) == 50
    assert sum(kill.startswith("serving") for kill in survived.kills) >= 13, "half of the 25 workers"
    assert survived.direct > 25
    assert survived.stood > 15
    assert survived.held, "\n".join((*survived.failures, *survived.lost, *survived.wrong))
