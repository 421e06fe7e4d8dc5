"""Calls whose signalling may have said something that nobody heard: the engine was down, or its queue full.

In: such calls, and what moves of them. Out: those of which nothing does. A BYE may have been among what passed; if so,
media has stopped. If not, the call goes to sleep all the same (silence.py): what its dialog says next wakes it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from appid.engine.due import Due
from appid.engine.record import FlowRecord
from appid.flow.call import Call, Calls
from appid.flow.key import FlowKey

PATIENCE = 3.0
"""Seconds in which media of the call must move."""
GRACE = 1.0
"""The first of them do not count: what was on its way at a BYE still comes."""
DENSE = 8
"""Packets between two looks, a second apart, by which a flow that also signals is known to carry media."""


class Doubt:
    """Their numbers, each with its time."""

    def __init__(self, calls: Calls, records: Mapping[int, Mapping[int, FlowRecord]]) -> None:
        """`records`: by call, the flows that are followed."""
        self._calls, self._records = calls, records
        self._due: Due[int] = Due()
        self._since: dict[int, float] = {}

    def unheard(self, keys: Collection[FlowKey], now: float) -> None:
        """Something passed in these flows. What rings has no media that could tell; of what nobody was heard to ask
        for, all may have passed."""
        if not keys:
            return
        for number, records in self._records.items():
            call = self._calls.open.get(number)
            if call is None or (call.answered_at is None and call.call_id is not None):
                continue
            if any(record.key in keys or record.key.reversed() in keys for record in records.values()):
                self._since[number] = now
                self._due.put(number, now + PATIENCE)

    def moved(self, call: int, now: float) -> None:
        """Its media goes on."""
        if now - self._since.get(call, now) > GRACE:
            self.drop(call)

    def drop(self, call: int) -> None:
        """Its dialog was heard."""
        self._since.pop(call, None)
        self._due.drop(call)

    def take(self, now: float, limit: int) -> list[Call]:
        """Those of which nothing has moved in time."""
        taken = self._due.take(now, limit)
        for number in taken:
            del self._since[number]
        return [self._calls.open[number] for number in taken if number in self._calls.open]

    def next(self) -> float | None:
        """When the next of them has had its time."""
        return self._due.next()
