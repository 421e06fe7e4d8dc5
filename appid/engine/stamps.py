"""Stamps: the marks of flows just decided, for packets that were queued before the kernel knew.

Several first packets of one flow may wait together, and the first one released owns the conntrack entry. In: a flow's
key, its mark, the time. Out: the mark for further queued packets of the same life of the flow, for SECONDS at most.
It is gone when the flow ends or begins anew, and counts no longer once the pinhole that allowed it is shut.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container, Iterator

from appid.flow.key import FlowKey

SECONDS = 5.0
MAX_STAMPS = 16384


class Stamps:
    """By 5-tuple, either direction; the oldest give way."""

    def __init__(self) -> None:
        self._marks: OrderedDict[FlowKey, tuple[int, float, int | None]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._marks)

    def __iter__(self) -> Iterator[tuple[FlowKey, int]]:
        return ((key, mark) for key, (mark, _, _) in self._marks.items())

    def put(self, key: FlowKey, mark: int, now: float, pinhole: int | None = None) -> None:
        """`pinhole`: the number of the expectation that the flow was foreseen by."""
        self._marks[key] = (mark, now, pinhole)
        self._marks.move_to_end(key)
        while len(self._marks) > MAX_STAMPS:
            self._marks.popitem(last=False)

    def find(self, key: FlowKey, now: float, open_pinholes: Container[int]) -> int | None:
        """The mark, if the flow was decided a moment ago and nothing has changed since."""
        if not self._marks:
            return None
        found = self._marks.get(key) or self._marks.get(key.reversed())
        if found is None or now - found[1] >= SECONDS:
            return None
        if found[2] is not None and found[2] not in open_pinholes:
            return None
        return found[0]

    def drop(self, key: FlowKey) -> None:
        if self._marks:
            self._marks.pop(key, None)
            self._marks.pop(key.reversed(), None)

    def clear(self) -> None:
        self._marks.clear()

    def expire(self, now: float) -> None:
        while self._marks:
            key, (_, time, _) = next(iter(self._marks.items()))
            if now - time < SECONDS:
                return
            del self._marks[key]
