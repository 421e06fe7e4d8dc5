"""appid/flow/table.py: bounded, found from both directions, flows in use survive a flood."""

from __future__ import annotations

from appid.flow.key import FlowKey
from appid.flow.table import Table
from appid.packet import id_of
from appid.wire import TCP, UDP, packed


def flow(port: int, address: str = "192.0.2.1") -> FlowKey:
    return FlowKey(UDP, packed(address), port, packed("198.51.100.2"), 53)


def test_a_flow_is_found_from_both_directions_under_either_spelling() -> None:
    by_key, by_id = Table[str](10), Table[str](10)
    by_key.put(flow(1000), "a")
    assert by_key.get(flow(1000).reversed()) == "a"
    assert by_key.get(flow(1001)) is None
    by_id.put(id_of(flow(1000)), "a")
    assert by_id.get(id_of(flow(1000).reversed())) == "a"
    six = FlowKey(TCP, packed("2001:db8::1"), 5, packed("2001:db8::2"), 6)
    by_id.put(id_of(six), "b")
    assert by_id.get(id_of(six.reversed())) == "b"
    assert len(by_id) == 2


def test_putting_again_in_either_direction_replaces() -> None:
    table = Table[str](10)
    table.put(flow(1), "a")
    table.put(flow(1).reversed(), "b")
    assert len(table) == 1
    assert table.get(flow(1)) == "b"
    assert list(table) == ["b"]


def test_pop_forgets_both_directions() -> None:
    table = Table[str](10)
    table.put(flow(1), "a")
    assert table.pop(flow(1).reversed()) == "a"
    assert table.pop(flow(1)) is None
    assert flow(1) not in table
    assert len(table) == 0


def test_a_flow_to_itself() -> None:
    table = Table[str](1)
    own = FlowKey(UDP, packed("127.0.0.1"), 9, packed("127.0.0.1"), 9)
    table.put(own, "a")
    assert table.put(flow(1), "b") == "a"
    assert table.get(own) is None


def test_the_flow_used_longest_ago_goes_first_and_is_handed_back() -> None:
    table = Table[int](3)
    for port in (1, 2, 3):
        assert table.put(flow(port), port) is None
    table.get(flow(1).reversed())
    assert table.put(flow(4), 4) == 2
    assert table.get(flow(1)) == 1
    assert table.get(flow(2).reversed()) is None


def test_a_flood_does_not_evict_the_flows_in_use() -> None:
    table = Table[int](100)
    for port in range(10):
        table.put(flow(port), port)
    for port in range(1000, 11_000):
        table.put(flow(port), port)
        for used in range(10):
            table.get(flow(used))
    assert len(table) == 100
    assert [table.get(flow(port)) for port in range(10)] == list(range(10))
    assert len(table._index) == 200
