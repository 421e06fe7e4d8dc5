"""Addresses of interfaces, in a namespace of the test's own."""

from __future__ import annotations

import pickle

import pytest

from appid.edge.links import addresses, read_routes
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


def test_the_interface_behind_which_an_address_lies(space: Namespace) -> None:
    space.run("ip", "link", "add", "wan0", "type", "veth", "peer", "name", "lan0")
    for name, v4, v6 in (("wan0", "71.15.163.132/24", "2001:db8::7/64"), ("lan0", "10.0.0.1/24", "fd00:42::1/64")):
        space.run("ip", "address", "add", v4, "dev", name)
        space.run("ip", "address", "add", v6, "dev", name, "nodad")
        space.run("ip", "link", "set", name, "up")
    space.run("ip", "route", "add", "default", "via", "71.15.163.1")
    space.run("ip", "route", "add", "10.9.0.0/16", "via", "10.0.0.9")

    space.run("ip", "route", "add", "10.9.0.0/24", "dev", "wan0", "metric", "9")

    routes = space.call(read_routes)
    interface_of = routes.finder()
    asked = ("10.0.0.44", "10.9.1.1", "17.173.254.35", "fd00:42::9", "2001:db8::1", "2620:149::1")
    assert [interface_of(packed(one)) for one in asked] == ["lan0", "lan0", "wan0", "lan0", "wan0", ""]
    assert routes.uplinks == {"wan0"}
    assert set(routes.behind(["lan0"])) == {
        (packed("10.0.0.0"), 24), (packed("10.9.0.0"), 16), (packed("fd00:42::"), 64),
    }  # fmt: skip
    assert pickle.loads(pickle.dumps(routes)) == routes


def test_the_uplinks_of_both_families_and_of_several_paths(space: Namespace) -> None:
    space.run("ip", "link", "add", "wan0", "type", "veth", "peer", "name", "wan1")
    for name, v4, v6 in (("wan0", "192.0.2.2/24", "2001:db8::7/64"), ("wan1", "198.51.100.2/24", "2001:db8:1::1/64")):
        space.run("ip", "address", "add", v4, "dev", name)
        space.run("ip", "address", "add", v6, "dev", name, "nodad")
        space.run("ip", "link", "set", name, "up")
    assert space.call(read_routes).uplinks == frozenset()
    space.run("ip", "-6", "route", "add", "default", "via", "2001:db8:1::9")
    assert space.call(read_routes).uplinks == {"wan1"}
    paths = ("nexthop", "via", "192.0.2.1", "nexthop", "via", "198.51.100.1")
    space.run("ip", "route", "add", "default", *paths)
    assert space.call(read_routes).uplinks == {"wan0", "wan1"}
