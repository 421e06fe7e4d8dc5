"""Addresses of interfaces, in a namespace of the test's own."""

from __future__ import annotations

import pytest

from appid.edge.links import addresses
from appid.wire import packed
from tests.netns.net import Namespace

pytestmark = pytest.mark.kernel


def test_the_outside_addresses_are_those_of_the_interfaces_without_link_local(space: Namespace) -> None:
    space.run("ip", "link", "add", "wan0", "type", "veth", "peer", "name", "lan0")
    for name in ("wan0", "lan0"):
        space.run("ip", "link", "set", name, "up")
    space.run("ip", "address", "add", "71.15.163.132/24", "dev", "wan0")
    space.run("ip", "address", "add", "2001:db8::7/64", "dev", "wan0", "nodad")
    space.run("ip", "address", "add", "10.0.0.1/24", "dev", "lan0")
    both = {packed("71.15.163.132"), packed("2001:db8::7")}
    assert space.call(lambda: addresses(["wan0", "gone0"])) == both
    assert space.call(lambda: addresses([])) == frozenset()
