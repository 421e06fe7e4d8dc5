"""Fixtures of the edge's kernel tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from appid.edge import iptables
from tests.netns.net import Namespace, Net, net
from tests.netns.playbook import TOPOLOGY


@pytest.fixture
def space() -> Iterator[Namespace]:
    """One empty namespace."""
    made = Namespace("e")
    made.run("ip", "link", "set", "lo", "up")
    yield made
    made.remove()


@pytest.fixture
def bare() -> Iterator[Net]:
    """Client, gateway, peer; no rules."""
    with net() as made:
        yield made


@pytest.fixture
def ruled(bare: Net) -> Net:
    """With the chain set applied."""
    bare.gateway.call(lambda: iptables.apply(TOPOLOGY, "nft"))
    return bare
