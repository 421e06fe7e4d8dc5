"""A bounded table of flows. In: a flow's name (flow id or FlowKey), in either direction. Out: what is kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Generic, TypeVar

from appid.packet import reversed_id
from appid.wire import FlowKey

Key = bytes | FlowKey
V = TypeVar("V")


class _Slot(Generic[V]):
    __slots__ = ("key", "other", "serial", "value")

    def __init__(self, serial: int, key: Key, other: Key, value: V) -> None:
        self.serial = serial
        self.key = key
        self.other = other
        self.value = value


class Table(Generic[V]):
    """At most `limit` flows, each found under both its directions.

    When it is full, a new flow evicts the one that was put or asked for longest ago; so a flood of new flows evicts the
    flood before the flows in use. Every operation is O(1). A table holds one spelling of names: flow ids or FlowKeys.
    """

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise ValueError("a table holds at least one flow")
        self.limit = limit
        self._index: dict[Key, _Slot[V]] = {}
        self._order: OrderedDict[int, _Slot[V]] = OrderedDict()  # by serial: an int hashes faster than a FlowKey
        self._serial = 0

    def __len__(self) -> int:
        return len(self._order)

    def __contains__(self, key: Key) -> bool:
        return key in self._index

    def __iter__(self) -> Iterator[V]:
        """The values, next to be evicted first. Do not use the table meanwhile."""
        return (slot.value for slot in self._order.values())

    def get(self, key: Key) -> V | None:
        """What was put under `key` or its reverse; that is a use."""
        slot = self._index.get(key)
        if slot is None:
            return None
        self._order.move_to_end(slot.serial)
        return slot.value

    def put(self, key: Key, value: V) -> V | None:
        """Keep `value` under `key` and its reverse, instead of what was there; what was evicted for it, or None."""
        slot = self._index.get(key)
        if slot is not None:
            slot.value = value
            self._order.move_to_end(slot.serial)
            return None
        evicted = None
        if len(self._order) >= self.limit:
            oldest = next(iter(self._order.values()))
            self._forget(oldest)
            evicted = oldest.value
        other = key.reversed() if isinstance(key, FlowKey) else reversed_id(key)
        self._serial += 1
        slot = _Slot(self._serial, key, other, value)
        self._index[key] = self._index[other] = self._order[self._serial] = slot
        return evicted

    def pop(self, key: Key) -> V | None:
        """Forget the flow of `key`, in either direction, and return its value; None if there is none."""
        slot = self._index.get(key)
        if slot is None:
            return None
        self._forget(slot)
        return slot.value

    def _forget(self, slot: _Slot[V]) -> None:
        del self._order[slot.serial]
        del self._index[slot.key]
        self._index.pop(slot.other, None)  # the same name if a host talks to itself
