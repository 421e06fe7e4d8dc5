"""Rules by networks, against looking at each rule."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from appid.policy.mask import mask_of, rows_of
from appid.policy.networks import NetworkIndex
from appid.policy.rule import Network, holds
from appid.wire import packed

ADDRESSES = [packed(a) for a in ("10.0.0.1", "10.0.0.255", "10.1.0.0", "192.0.2.1", "fd00::1", "fd00:1::", "::")]
NETWORKS: list[Network] = [
    (packed(a), n)
    for a, n in (("10.0.0.0", 8), ("10.0.0.0", 24), ("10.0.0.1", 32), ("0.0.0.0", 0), ("fd00::", 16), ("::", 0))
]
LISTS = st.lists(st.lists(st.sampled_from(NETWORKS), max_size=3).map(tuple), min_size=1, max_size=30)
Rules = list[tuple[Network, ...]]


def within(one: Network, other: Network) -> bool:
    return len(one[0]) == len(other[0]) and one[1] >= other[1] and holds(other, one[0])


@given(LISTS, st.sampled_from(ADDRESSES))
def test_an_address(rules: Rules, address: bytes) -> None:
    expected = [i for i, networks in enumerate(rules) if not networks or any(holds(n, address) for n in networks)]
    assert list(rows_of(NetworkIndex(rules).find(address))) == expected


@given(LISTS, st.data())
def test_what_overlaps_and_what_covers(rules: Rules, data: st.DataObject) -> None:
    row = data.draw(st.integers(0, len(rules) - 1))
    own, index, every = rules[row], NetworkIndex(rules), mask_of(range(len(rules)))
    for _ in range(2):  # asked again, it is remembered
        meets = [i for i, other in enumerate(rules)
                 if not own or not other or any(within(a, b) or within(b, a) for a in own for b in other)]  # fmt: skip
        assert list(rows_of(index.overlapping(row) & every)) == meets
        covers = [i for i, other in enumerate(rules)
                  if not other or (own and all(any(within(a, b) for b in other) for a in own))]  # fmt: skip
        assert list(rows_of(index.covering(row) & every)) == covers


def test_many_rules_of_one_network() -> None:
    index = NetworkIndex([(NETWORKS[0],)] * 100 + [(NETWORKS[1],)])
    assert list(rows_of(index.find(ADDRESSES[0]))) == list(range(101))
    assert index.covering(100) == index.overlapping(100) == mask_of(range(101))
    assert index.covering(0) == mask_of(range(100))
