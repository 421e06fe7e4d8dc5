"""What is to be done at which time. In: keys, each with a time. Out: those whose time has come, the earliest first.

So many at once as are asked for: what began together is spread, and comes back spread.
"""

from __future__ import annotations

from collections.abc import Hashable
from heapq import heappop, heappush
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


class Due(Generic[Key]):
    """A key has one time; to put it again moves it."""

    def __init__(self) -> None:
        self._times: dict[Key, float] = {}
        self._heap: list[tuple[float, int, Key]] = []
        self._count = 0

    def __len__(self) -> int:
        return len(self._times)

    def __contains__(self, key: Key) -> bool:
        return key in self._times

    def put(self, key: Key, time: float) -> None:
        self._times[key] = time
        self._count += 1
        heappush(self._heap, (time, self._count, key))

    def drop(self, key: Key) -> None:
        self._times.pop(key, None)

    def time(self, key: Key) -> float | None:
        return self._times.get(key)

    def next(self) -> float | None:
        """The earliest time; None where nothing waits."""
        while self._heap:
            time, _, key = self._heap[0]
            if self._times.get(key) == time:
                return time
            heappop(self._heap)
        return None

    def take(self, now: float, limit: int) -> list[Key]:
        """At most `limit` keys whose time has come; they wait no more."""
        taken: list[Key] = []
        while len(taken) < limit and (time := self.next()) is not None and time <= now:
            key = heappop(self._heap)[2]
            del self._times[key]
            taken.append(key)
        return taken
