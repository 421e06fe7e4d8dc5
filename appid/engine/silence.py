"""Dialogs of calls that were lost by silence alone.

In: calls that fell silent, and what their dialogs hear. Out: those whose time is over. Nothing is open for
them, but a 200 after a long ring or a re-INVITE after a long hold is not too late: it opens again what it describes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import inf
from typing import NamedTuple

from appid.alg.dialogs import Dialogs
from appid.dataplane.command import Command
from appid.engine.due import Due
from appid.engine.nat import NatKeeper

LIFETIME = 14400.0
"""Seconds after which an expectation goes, whatever its call says, and the dialog of a call that is on hold."""
RINGING = 180.0
"""Seconds for which the dialog of a lost call is kept that nobody has answered: it may still ring (RFC 3261 section
16.6, timer C; by section 13.3.1.1 it is told again but once a minute)."""
MAX_ASLEEP = 1024
"""Of all hosts; beyond it the one whose time is over first gives way."""
AT_ONCE = 64
"""Forgotten by one tick."""


class Slept(NamedTuple):
    """A lost call's Call-ID and number."""

    call_id: str
    call: int


class Asleep:
    """The calls whose dialogs sleep, each with its time."""

    def __init__(self, dialogs: Dialogs, nat: NatKeeper) -> None:
        self._dialogs, self._nat = dialogs, nat
        self._due: Due[Slept] = Due()

    def __contains__(self, slept: Slept) -> bool:
        return slept in self._due

    def __len__(self) -> int:
        return len(self._due)

    def put(self, slept: Slept, now: float) -> None:
        """Nothing more was heard of its call; or, again, something that does not wake it."""
        views = self._dialogs.living(*slept)
        answered = any(view.answered for view in views)
        self._due.put(slept, now + (LIFETIME if answered else RINGING) if views else now)
        for view in views:
            view.asleep = True

    def wake(self, slept: Slept) -> None:
        self._due.drop(slept)
        for view in self._dialogs.living(*slept):
            view.asleep = False

    def forget(self, slept: Slept, now: float, hosts: Iterable[bytes] = ()) -> Iterator[Command]:
        """Its dialogs are over, of these hosts and all others; ports that were named in them are free again."""
        self._due.drop(slept)
        places = {*hosts, *(view.host for view in self._dialogs.living(*slept))}
        self._dialogs.forget(*slept, now)
        for host in sorted(places):
            yield from self.release(slept.call_id, host)

    def release(self, call_id: str, host: bytes) -> Iterator[Command]:
        """What this host has named by that Call-ID is free, unless a dialog of it goes on there."""
        if not self._dialogs.at(call_id, host):
            yield from self._nat.release((call_id, host))

    def tick(self, now: float) -> Iterator[Command]:
        for slept in self._due.take(inf if len(self) > MAX_ASLEEP else now, AT_ONCE):
            yield from self.forget(slept, now)

    def next(self) -> float | None:
        return self._due.next() if len(self) <= MAX_ASLEEP else 0.0
