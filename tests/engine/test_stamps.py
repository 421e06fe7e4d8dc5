"""Stamps last a moment, for one life of one flow."""

from __future__ import annotations

from appid.engine import stamps
from appid.engine.stamps import SECONDS, Stamps
from appid.flow.key import FlowKey
from appid.wire import UDP, packed

KEY = FlowKey(UDP, packed("10.0.0.2"), 16402, packed("192.0.2.1"), 3478)


def test_a_stamp_is_found_from_both_sides_for_some_seconds() -> None:
    kept = Stamps()
    kept.put(KEY, 0x101, 10.0)
    assert kept.find(KEY, 10.0, ()) == kept.find(KEY.reversed(), 14.9, ()) == 0x101
    assert kept.find(KEY, 10.0 + SECONDS, ()) is None
    assert kept.find(KEY._replace(dport=1), 10.0, ()) is None


def test_a_stamp_counts_only_while_its_pinhole_is_open() -> None:
    kept = Stamps()
    kept.put(KEY, 0x105, 10.0, pinhole=7)
    assert kept.find(KEY, 11.0, {7: "open"}) == 0x105
    assert kept.find(KEY, 11.0, {8: "another"}) is None


def test_what_is_dropped_or_old_is_gone() -> None:
    kept = Stamps()
    kept.put(KEY, 1, 10.0)
    kept.drop(KEY.reversed())
    assert kept.find(KEY, 10.0, ()) is None
    kept.put(KEY, 1, 10.0)
    kept.put(KEY._replace(sport=2), 1, 12.0)
    kept.expire(15.5)
    assert [key.sport for key, _ in kept] == [2]


def test_the_oldest_give_way() -> None:
    kept = Stamps()
    for port in range(stamps.MAX_STAMPS + 5):
        kept.put(KEY._replace(sport=port), 1, 10.0)
    assert len(kept) == stamps.MAX_STAMPS
    assert kept.find(KEY._replace(sport=0), 10.0, ()) is None
