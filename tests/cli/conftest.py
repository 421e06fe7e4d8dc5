"""Fixtures of the commands that speak to a kernel."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.netns.net import Namespace, Net, net


@pytest.fixture
def space() -> Iterator[Namespace]:
    """One empty namespace."""
    made = Namespace("k")
    made.run("ip", "link", "set", "lo", "up")
    yield made
    made.remove()


@pytest.fixture
def bare() -> Iterator[Net]:
    """Client, gateway, peer; no rules."""
    with net() as made:
        yield made
