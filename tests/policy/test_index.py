"""Rules by ports."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from appid.identify.application import PortRange
from appid.policy.index import PortIndex, cover, merged
from appid.policy.mask import mask_of, rows_of
from appid.wire import TCP, UDP

RANGES = st.builds(
    lambda proto, ends: PortRange(proto, min(ends), max(ends)),
    st.sampled_from([UDP, TCP]),
    st.tuples(st.integers(0, 40), st.integers(0, 40)),
)


@given(st.lists(st.lists(RANGES, max_size=4), max_size=12), st.sampled_from([UDP, TCP, 47]), st.integers(0, 50))
def test_ports(rules: list[list[PortRange]], proto: int, port: int) -> None:
    index = PortIndex(enumerate(rules))
    expected = [
        i for i, ranges in enumerate(rules) if any(r.proto == proto and r.first <= port <= r.last for r in ranges)
    ]
    assert list(rows_of(index.find(proto, index.stretch(proto, port)))) == expected


@given(st.lists(st.lists(RANGES, max_size=4), max_size=12), RANGES)
def test_ports_that_hold_some_or_all(rules: list[list[PortRange]], wanted: PortRange) -> None:
    some, every = PortIndex(enumerate(rules)).holding(wanted)
    asked = set(range(wanted.first, wanted.last + 1))
    held = [{p for r in ranges if r.proto == wanted.proto for p in range(r.first, r.last + 1)} for ranges in rules]
    assert list(rows_of(some)) == [i for i, ports in enumerate(held) if ports & asked]
    assert list(rows_of(every & mask_of(range(len(rules))))) == [i for i, ports in enumerate(held) if asked <= ports]


def test_ranges_cover_together() -> None:
    held = merged([PortRange(UDP, 5, 9), PortRange(UDP, 1, 4)])
    assert cover(held, merged([PortRange(UDP, 2, 8)]))
    assert not cover(held, merged([PortRange(UDP, 2, 10)]))
    assert not cover(held, merged([PortRange(TCP, 2, 3)]))


@given(st.lists(RANGES, max_size=5), st.lists(RANGES, max_size=3))
def test_covering_is_holding_each_port(held: list[PortRange], wanted: list[PortRange]) -> None:
    has, needs = ({(r.proto, p) for r in ranges for p in range(r.first, r.last + 1)} for ranges in (held, wanted))
    assert cover(merged(held), merged(wanted)) == (needs <= has)
