"""Rules as bits."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from appid.identify.application import PortRange
from appid.policy.index import NetworkIndex, PortIndex, lowest, mask_of, rows_of
from appid.policy.rule import Network, holds
from appid.wire import TCP, UDP, packed

ADDRESSES = [packed(a) for a in ("10.0.0.1", "10.0.0.255", "10.1.0.0", "192.0.2.1", "fd00::1", "fd00:1::", "::")]
NETWORKS: list[Network] = [
    (packed(a), n)
    for a, n in (("10.0.0.0", 8), ("10.0.0.0", 24), ("10.0.0.1", 32), ("0.0.0.0", 0), ("fd00::", 16), ("::", 0))
]


@given(st.lists(st.lists(st.sampled_from(NETWORKS), max_size=3), max_size=30), st.sampled_from(ADDRESSES))
def test_networks(rules: list[list[Network]], address: bytes) -> None:
    expected = [i for i, networks in enumerate(rules) if not networks or any(holds(n, address) for n in networks)]
    assert list(rows_of(NetworkIndex(rules).find(address))) == expected


@given(st.lists(st.lists(st.sampled_from(NETWORKS), max_size=3), max_size=12), st.sampled_from(NETWORKS))
def test_overlap_misses_no_rule(rules: list[list[Network]], network: Network) -> None:
    found = set(rows_of(NetworkIndex(rules).overlapping([network])))
    for i, networks in enumerate(rules):
        overlap = not networks or any(
            len(other[0]) == len(network[0]) and (holds(other, network[0]) or holds(network, other[0]))
            for other in networks
        )
        assert (i in found) == overlap


def test_many_rules_of_one_network() -> None:
    index = NetworkIndex([[NETWORKS[0]]] * 100)
    assert list(rows_of(index.find(ADDRESSES[0]))) == list(range(100))


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


@given(st.sets(st.integers(0, 500), min_size=1))
def test_masks(rows: set[int]) -> None:
    assert mask_of(rows) == sum(1 << row for row in rows)
    assert lowest(mask_of(rows)) == min(rows)
    assert list(rows_of(mask_of(rows))) == sorted(rows)
