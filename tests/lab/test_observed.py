"""What Prometheus scrapes, what the gateway shows and what was on the wire are the same numbers."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.lab.observed import observe
from tests.lab.scenario import Scenario

pytestmark = pytest.mark.kernel


def _held(calls: int, directory: Path, workers: int = 1) -> None:
    figures = asyncio.run(observe(Scenario(), calls, 5, 2.0, directory, workers))
    print(*figures, sep="\n")
    assert len(figures) > 15
    assert all(figure.held for figure in figures), "\n".join(map(str, figures))


@pytest.mark.timeout(120)
def test_three_calls_over_two_workers(tmp_path: Path) -> None:
    _held(3, tmp_path / "observed", workers=2)


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.parametrize("workers", [1, 3])
def test_ten_calls(tmp_path: Path, workers: int) -> None:
    _held(10, tmp_path / "observed", workers)
