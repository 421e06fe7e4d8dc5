"""Pinhole elements, with the ipset program as the second opinion."""

from __future__ import annotations

import time

import pytest

from appid.alg.expectation import Expectation
from appid.dataplane import state
from appid.dataplane.chain import FAMILIES, Topology, chain_set
from appid.dataplane.render import ipset_text
from appid.edge.ipset import Pinholes
from appid.edge.netlink import KernelError
from appid.wire import TCP, UDP, packed
from tests.netns.net import Namespace

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(60)]


def wanted(inside: str, peer: str, port: int = 16402, proto: int = UDP) -> Expectation:
    return Expectation(proto, packed(inside), port, packed(peer), None, None, port, "x", 1, "sdp-answer", 1, 0.0)


@pytest.fixture
def sets(space: Namespace) -> Namespace:
    for family in FAMILIES:
        space.run("ipset", "restore", text=ipset_text(chain_set(Topology(), family).sets))
    return space


@pytest.mark.parametrize(
    ("expectation", "name", "element"),
    [
        (wanted("10.1.1.2", "71.230.89.52"), "appid-pinholes4", "10.1.1.2,udp:16402,71.230.89.52"),
        (wanted("10.1.1.2", "71.230.89.52", 80, TCP), "appid-pinholes4", "10.1.1.2,tcp:80,71.230.89.52"),
        (wanted("fd00::2", "2001:db8::1"), "appid-pinholes6", "fd00::2,udp:16402,2001:db8::1"),
    ],
)
def test_an_element_is_added_refreshed_and_removed(
    sets: Namespace, expectation: Expectation, name: str, element: str
) -> None:
    pinholes = sets.call(Pinholes)
    pinholes.open(expectation, 0x701, 0xFFFF0F, 30)
    listing = sets.run("ipset", "list", name)
    assert f"{element} timeout 30 skbmark 0x701/0xffff0f" in listing or f"{element} timeout 29" in listing
    pinholes.open(expectation, 0x902, 0xFFFF0F, 500)
    assert "skbmark 0x902/0xffff0f" in sets.run("ipset", "list", name)
    assert "timeout 49" in sets.run("ipset", "list", name).replace("timeout 500", "timeout 499")
    assert sets.run("ipset", "list", name).count(element) == 1
    pinholes.shut(state.element(expectation))
    assert element not in sets.run("ipset", "list", name)
    pinholes.shut(state.element(expectation))


def test_no_pinhole_is_for_ever(sets: Namespace) -> None:
    """ipset takes timeout 0 as none, and refuses what is too large."""
    pinholes = sets.call(Pinholes)
    pinholes.open(wanted("10.1.1.2", "1.1.1.1"), 1, 0xF, 0)
    assert "timeout 1 " in sets.run("ipset", "list", "appid-pinholes4").replace("timeout 0 ", "timeout 1 ")
    pinholes.open(wanted("10.1.1.2", "1.1.1.1"), 1, 0xF, 10**9)


def test_a_missing_set_is_the_hosts_fault(space: Namespace) -> None:
    pinholes = space.call(Pinholes)
    with pytest.raises(KernelError, match="appid-pinholes4"):
        pinholes.open(wanted("10.1.1.2", "1.1.1.1"), 1, 0xF, 10)
    pinholes.shut(state.element(wanted("10.1.1.2", "1.1.1.1")))


@pytest.mark.slow
def test_an_element_costs_less_than_a_tenth_of_a_millisecond(sets: Namespace) -> None:
    pinholes = sets.call(Pinholes)
    times = []
    for number in range(1000):
        begun = time.perf_counter()
        pinholes.open(wanted("10.1.1.2", f"71.230.{number // 250}.{number % 250}"), 1, 0xF, 60)
        times.append(time.perf_counter() - begun)
    assert sorted(times)[500] < 1e-4
