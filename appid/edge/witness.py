"""A worker's memory of what calls said, for `appid explain --live`: the live storyteller, with the clock.

In: the engine's events with its commands, queued packets after their verdict, what was told of flows. Out: JSON lines.
A fault of it ends it; packets go on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any

from appid.dataplane.command import Command
from appid.edge.halves import Halves
from appid.edge.told import Told
from appid.engine import Engine, Event
from appid.story import plain
from appid.story.compose import tale
from appid.story.live import LiveTeller

log = logging.getLogger("appid")


class Witness:
    """Looks on at one engine."""

    def __init__(self, engine: Engine, told: Told, halves: Halves) -> None:
        self._engine = engine
        self._told = told
        self._halves = halves
        self._teller: LiveTeller | None = LiveTeller(engine)

    def commands(self, event: Event, now: float, commands: list[Command], number: int) -> None:
        """`number`: of the packet, or of the last one before."""
        if self._teller is not None:
            try:
                self._teller.commands(event, now, commands, number)
            except Exception:
                self._end()

    def packet(self, data: bytes, number: int) -> None:
        if self._teller is not None and self._teller.due:
            try:
                self._teller.seen(data, time.time_ns(), number, self._told.of)
            except Exception:
                self._end()

    def lines(self, call: object) -> Iterator[dict[str, Any]]:
        """The parties, messages, streams and descriptions of one call, by the number that the gateway tells; none where
        nothing of it is remembered."""
        for own in [number for number in self._told.calls if self._halves.name(number) == call]:
            telling = self._teller.telling(own) if self._teller is not None else None
            if telling is not None:
                yield from plain.told(tale({"type": "call", "id": call}, telling, [], []))

    def _end(self) -> None:
        log.exception("nothing is remembered for explain --live any more")
        self._teller, self._engine.on_read = None, None
