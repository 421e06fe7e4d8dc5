"""Overrides against looking at each: the one that counts for a flow, and those that never do."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from appid.flow.key import FlowKey
from appid.identify.application import PortRange
from appid.policy.overrides import Overrides, idle_overrides
from appid.policy.rule import Network, Override, Policy, holds
from appid.wire import ICMP, TCP, UDP, packed
from tests.policy.random_policies import NETWORKS, PORTS, RANGES, V4, V6

OVERRIDES = st.builds(
    Override,
    st.sampled_from(["x", "y"]),
    st.lists(NETWORKS, max_size=2).map(tuple),
    st.lists(NETWORKS, max_size=2).map(tuple),
    st.lists(RANGES, max_size=2).map(tuple),
)


@given(st.lists(OVERRIDES, max_size=6), st.sampled_from([UDP, TCP, ICMP]), st.sampled_from([V4, V6]), PORTS, st.data())
def test_overrides_equal_looking_at_each(
    overrides: list[Override], proto: int, family: st.SearchStrategy[bytes], port: int, data: st.DataObject
) -> None:
    source, destination = data.draw(family), data.draw(family)
    expected = None
    for each in reversed(overrides):
        if (
            (not each.ports or any(p.proto == proto and p.first <= port <= p.last for p in each.ports))
            and (not each.source or any(holds(network, source) for network in each.source))
            and (not each.destination or any(holds(network, destination) for network in each.destination))
        ):
            expected = each.application
    found = Overrides(Policy(overrides=tuple(overrides))).of(FlowKey(proto, source, 9, destination, port))
    assert found == expected


def matches(one: Override, proto: int, port: int, source: bytes, destination: bytes) -> bool:
    return (
        (not one.ports or any(p.proto == proto and p.first <= port <= p.last for p in one.ports))
        and (not one.source or any(holds(network, source) for network in one.source))
        and (not one.destination or any(holds(network, destination) for network in one.destination))
    )


def corners(networks: list[Network], width: int) -> set[bytes]:
    """An address of each part that no network tells apart: where they begin, and just behind their ends."""
    top = 1 << 8 * width
    found = {0}
    for base, prefix in networks:
        if len(base) == width:
            low = int.from_bytes(base, "big")
            found |= {low, (low + (1 << 8 * width - prefix)) % top}
    return {number.to_bytes(width, "big") for number in found}


@settings(max_examples=150, deadline=None)
@given(st.lists(OVERRIDES, max_size=5))
def test_those_that_never_count_are_found_and_no_other(overrides: list[Override]) -> None:
    """Exact on few: each place where anything changes is looked at."""
    ports = {(proto, port) for proto in (UDP, TCP) for each in overrides for p in each.ports if p.proto == proto
             for port in (p.first, p.last + 1)} | {(ICMP, 0)}  # fmt: skip
    counting = set()
    for width in (4, 16):
        sources = corners([n for each in overrides for n in each.source], width)
        destinations = corners([n for each in overrides for n in each.destination], width)
        for proto, port in ports:
            for source in sources:
                for destination in destinations:
                    rows = (i for i, each in enumerate(overrides) if matches(each, proto, port, source, destination))
                    counting |= {next(rows, None)}
    found = dict(idle_overrides(overrides))
    assert set(found) == set(range(len(overrides))) - counting
    for row, others in found.items():  # and those that are told would do it alone
        kept = [overrides[other] for other in others] + [overrides[row]]
        assert len(others) in dict(idle_overrides(kept))


def test_several_together_leave_nothing() -> None:
    halves = [((packed(base), 1),) for base in ("0.0.0.0", "128.0.0.0")]
    low, high = (PortRange(UDP, *ends) for ends in ((1, 5059), (5060, 9000)))
    given_ = [
        Override("sip", destination=halves[0], ports=(low, high)),
        Override("dns", destination=halves[1], ports=(low,)),
        Override("sip", destination=halves[1], ports=(high,)),
    ]
    whole = Override("sip", destination=((packed("0.0.0.0"), 0),), ports=(PortRange(UDP, 1, 9000),))
    assert dict(idle_overrides([*given_, whole])) == {3: (0, 1, 2)}
    wider = Override("sip", destination=whole.destination, ports=(PortRange(UDP, 1, 9001),))
    assert dict(idle_overrides([*given_, wider])) == {}
    mixed = Override("sip", source=((packed("10.0.0.0"), 8),), destination=((packed("fd00::"), 8),))
    assert dict(idle_overrides([mixed])) == {0: ()}
