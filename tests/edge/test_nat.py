"""Bindings, with nft's own listing as the second opinion. Traffic through them is in tests/netns."""

from __future__ import annotations

import re
import time
from dataclasses import replace

import pytest

from appid.dataplane.command import BindNat, UnbindNat
from appid.dataplane.render import nat_text
from appid.edge.conntrack import Conntrack
from appid.edge.nat import Bindings, Nft
from appid.edge.netlink import KernelError
from appid.flow.key import FlowKey
from appid.wire import UDP, packed
from tests.netns.net import Namespace

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(60)]
INSIDE, PUBLIC, PEER = packed("10.1.1.2"), packed("71.15.163.132"), packed("71.230.89.52")
BIND = BindNat(UDP, INSIDE, 16402, PUBLIC, 16404, PEER, 60)
UNBIND = UnbindNat(UDP, INSIDE, 16402, PUBLIC, 16404, PEER)
BIND6 = BindNat(UDP, packed("fd00::2"), 16402, packed("2001:db8::1"), 16404, packed("2001:db8:9::9"), 60)


@pytest.fixture
def maps(space: Namespace) -> Namespace:
    space.run("nft", "-f", "-", text=nat_text())
    return space


def bindings(space: Namespace) -> Bindings:
    return space.call(lambda: Bindings(Conntrack()))


def listed(space: Namespace, name: str) -> list[str]:
    text = space.run("nft", "list", "map", "inet", "appid-nat", name)
    found = re.search(r"elements = \{(.*?)\}", text, re.S)
    elements = found[1].split(",") if found else []
    return [re.sub(r"(timeout|expires) \S+ ", "", " ".join(each.split())).strip() for each in elements]


def test_a_binding_is_both_ways(maps: Namespace) -> None:
    bindings(maps).bind(BIND)
    assert listed(maps, "dnat4") == ["udp . 71.15.163.132 . 16404 . 71.230.89.52 : 10.1.1.2 . 16402"]
    assert listed(maps, "snat4") == ["udp . 10.1.1.2 . 16402 . 71.230.89.52 : 71.15.163.132 . 16404"]


def test_ipv6(maps: Namespace) -> None:
    bindings(maps).bind(BIND6)
    assert listed(maps, "snat6") == ["udp . fd00::2 . 16402 . 2001:db8:9::9 : 2001:db8::1 . 16404"]


def test_binding_again_refreshes_and_another_port_replaces(maps: Namespace) -> None:
    made = bindings(maps)
    made.bind(BindNat(UDP, INSIDE, 16402, PUBLIC, 16404, PEER, 2))
    made.bind(BindNat(UDP, INSIDE, 16402, PUBLIC, 16404, PEER, 2))
    made.bind(BIND)
    time.sleep(2.5)
    assert len(listed(maps, "dnat4")) == 1
    made.bind(BindNat(UDP, INSIDE, 16402, PUBLIC, 16410, PEER, 60))
    assert listed(maps, "snat4") == ["udp . 10.1.1.2 . 16402 . 71.230.89.52 : 71.15.163.132 . 16410"]


def test_a_binding_whose_elements_have_run_out_can_be_made_again(maps: Namespace) -> None:
    made = bindings(maps)
    short = BindNat(UDP, INSIDE, 16402, PUBLIC, 16404, PEER, 1)
    made.bind(short)
    time.sleep(1.5)
    made.bind(short)
    assert len(listed(maps, "dnat4")) == 1


def test_unbinding_takes_both_out_and_passes_over_what_is_gone(maps: Namespace) -> None:
    made = bindings(maps)
    other = BindNat(UDP, INSIDE, 16404, PUBLIC, 16406, PEER, 60)
    made.prepare([BIND, other])
    for binding in (BIND, other):
        made.bind(binding)
    assert len(listed(maps, "dnat4")) == len(listed(maps, "snat4")) == 2
    made.unbind([UNBIND])
    assert len(listed(maps, "dnat4")) == len(listed(maps, "snat4")) == 1
    made.unbind([UNBIND, UnbindNat(UDP, INSIDE, 16404, PUBLIC, 16406, PEER)])
    assert listed(maps, "dnat4") == listed(maps, "snat4") == []


def test_bindings_that_cannot_be_made_together_are_made_one_by_one(maps: Namespace) -> None:
    made = bindings(maps)
    made.bind(BindNat(UDP, INSIDE, 16404, PUBLIC, 16404, PEER, 60))
    clash, fine = BIND, BindNat(UDP, INSIDE, 16408, PUBLIC, 16408, PEER, 60)
    made.prepare([clash, fine])
    for binding in (clash, fine):
        made.bind(binding)
    assert len(listed(maps, "dnat4")) == 2


def test_refreshing_keeps_an_entry_with_the_right_mapping(maps: Namespace) -> None:
    made = bindings(maps)
    made.bind(BIND)
    flow = ("-p", "udp", "-s", "10.1.1.2", "-d", "71.230.89.52", "--sport", "16402", "--dport", "40000", "-t", "60")
    maps.run("conntrack", "-I", *flow, "--src-nat", "71.15.163.132:16404", check=False)
    conntrack = maps.call(Conntrack)
    before = list(conntrack.entries())
    assert [entry.reply.dport for entry in before] == [16404]
    made.bind(BIND)
    assert list(conntrack.entries()) == before
    made.bind(BindNat(UDP, INSIDE, 16402, PUBLIC, 16410, PEER, 60))
    assert list(conntrack.entries()) == []


def test_guarding_deletes_what_early_packets_made_and_nothing_else(maps: Namespace) -> None:
    conntrack = maps.call(Conntrack)
    early, other, through = (
        FlowKey(UDP, PEER, 40000, PUBLIC, 16402),
        FlowKey(UDP, PEER, 40000, PUBLIC, 53),
        FlowKey(UDP, PEER, 40000, INSIDE, 16402),
    )
    for key in (early, other, through):
        conntrack.set_mark(key, 0, 3, create=True)
    bindings(maps).guard(range(16384, 16403), {PUBLIC})
    assert {entry.orig for entry in conntrack.entries()} == {other, through}


def test_a_guarded_port_still_frees_its_inside_host_of_older_mappings(maps: Namespace) -> None:
    made = bindings(maps)
    made.guard(range(16384, 16403), {PUBLIC})
    conntrack = maps.call(Conntrack)
    conntrack.set_mark(FlowKey(UDP, INSIDE, 16402, PEER, 40000), 0, 3, create=True)
    conntrack.set_mark(FlowKey(UDP, INSIDE, 16403, PEER, 40000), 0, 3, create=True)
    made.bind(replace(BIND, outside_port=16402))
    assert [entry.orig.sport for entry in conntrack.entries()] == [16403]


def test_what_nft_says_is_told(space: Namespace) -> None:
    with pytest.raises(KernelError, match="No such file"):
        bindings(space).bind(BIND)
    with pytest.raises(KernelError, match="syntax error"):
        space.call(Nft).run("nonsense\n")


@pytest.mark.slow
def test_refreshing_a_binding_costs_less_than_half_a_millisecond(maps: Namespace) -> None:
    made = bindings(maps)
    made.bind(BIND)
    times = []
    for _ in range(300):
        begun = time.perf_counter()
        made.bind(BIND)
        times.append(time.perf_counter() - begun)
    assert sorted(times)[150] < 5e-4
