"""Whose flow it is: the same worker whichever side begins it, as the chains' order says (kernel.md section 6)."""

from __future__ import annotations

from itertools import pairwise

from appid.dataplane.bytecode import queue_of
from appid.dataplane.share import Share
from appid.flow.key import FlowKey
from appid.wire import UDP, packed

HOSTS = [packed(f"10.1.0.{number}") for number in range(1, 40)] + [packed(f"fd00::{number}") for number in range(1, 9)]
OUTSIDE = packed("192.0.2.7")
INSIDE = frozenset(HOSTS)


def owner(key: FlowKey, workers: int = 4) -> int:
    (index,) = (index for index in range(workers) if Share(index, workers, INSIDE.__contains__).owns(key))
    return index


def test_all_flows_of_a_host_with_the_outside_are_one_workers() -> None:
    used = set()
    for host in HOSTS:
        out = FlowKey(UDP, host, 5000, OUTSIDE, 53)
        assert owner(out) == owner(out.reversed()) == queue_of(host, 4)
        used.add(owner(out))
    assert used == {0, 1, 2, 3}


def test_between_inside_hosts_the_lower_decides_whoever_began() -> None:
    for one, other in pairwise(HOSTS):
        if len(one) == len(other):
            flow = FlowKey(UDP, one, 1, other, 2)
            assert owner(flow) == owner(flow.reversed()) == queue_of(min(one, other), 4)


def test_strangers_are_the_first_workers_and_one_worker_has_all() -> None:
    strange = FlowKey(UDP, OUTSIDE, 1, packed("192.0.2.8"), 2)
    assert owner(strange) == 0
    assert owner(strange, 1) == 0
    assert owner(FlowKey(UDP, HOSTS[3], 1, OUTSIDE, 2), 1) == 0
