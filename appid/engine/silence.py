"""Dialogs of calls that were lost by silence alone.

In: calls that fell silent, and what their dialogs hear. Out: those whose time is over. Nothing is open for
them, but a 200 after a long ring or a re-INVITE after a long hold is not too late: it opens again what it describes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from appid.alg.dialogs import Dialogs
from appid.dataplane.command import Command
from appid.engine.due import Due
from appid.engine.nat import NatKeeper
from appid.flow.holders import Holders

LIFETIME = 14400.0
"""Seconds after which an expectation goes, whatever its call says, and the dialog of a call that is on hold."""
RINGING = 180.0
"""Seconds for which the dialog of a lost call is kept that nobody has answered: it may still ring (RFC 3261 section
16.6, timer C; by section 13.3.1.1 it is told again but once a minute)."""
MAX_ASLEEP = 1024
"""Of all hosts; beyond it the oldest of the host with most of them gives way."""
AT_ONCE = 64
"""Forgotten by one tick."""


class Slept(NamedTuple):
    """A lost call's Call-ID and number."""

    call_id: str
    call: int


class Asleep:
    """The calls whose dialogs sleep, each with its time. `touched`: told of the numbers of those that changed."""

    def __init__(self, dialogs: Dialogs, nat: NatKeeper, touched: set[int]) -> None:
        self._dialogs, self._nat, self._touched = dialogs, nat, touched
        self._due: Due[Slept] = Due()
        self._held = Holders()
        self.names: dict[int, tuple[Slept, str]] = {}
        """By number: which call it is, and of which application."""

    def __contains__(self, slept: Slept) -> bool:
        return slept.call in self.names

    def __len__(self) -> int:
        return len(self.names)

    def put(self, slept: Slept, now: float, application: str = "") -> None:
        """Nothing more was heard of its call; or, again, something that does not wake it."""
        views = self._dialogs.living(*slept)
        answered = any(view.answered for view in views)
        self.keep(slept, now + (LIFETIME if answered else RINGING) if views else now, application)

    def keep(self, slept: Slept, until: float, application: str = "") -> None:
        """Until that time (seconds)."""
        self._due.put(slept, until)
        self.names.setdefault(slept.call, (slept, application))
        for view in self._dialogs.living(*slept):
            view.asleep = True
            self._held.add(view.host, slept.call)
        self._touched.add(slept.call)
        if len(self) > MAX_ASLEEP and (biggest := self._held.most()) is not None:
            gone = self.names[next(iter(self._held.of[biggest]))][0]
            self._let_go(gone)
            self._due.put(gone, 0.0)

    def wake(self, slept: Slept) -> None:
        self._due.drop(slept)
        self._let_go(slept)
        for view in self._dialogs.living(*slept):
            view.asleep = False

    def forget(self, slept: Slept, now: float, hosts: Iterable[bytes] = ()) -> Iterator[Command]:
        """Its dialogs are over, of these hosts and all others; ports that were named in them are free again."""
        self._due.drop(slept)
        self._let_go(slept)
        views = self._dialogs.views(slept.call_id)
        places = {*hosts, *(view.host for view in views if view.call == slept.call)}
        self._dialogs.forget(*slept, now)
        for host in sorted(places):
            yield from self.release(slept.call_id, host)

    def release(self, call_id: str, host: bytes) -> Iterator[Command]:
        """What this host has named by that Call-ID is free, unless a dialog of it goes on there."""
        if not self._dialogs.at(call_id, host):
            yield from self._nat.release((call_id, host))

    def tick(self, now: float) -> Iterator[Command]:
        for slept in self._due.take(now, AT_ONCE):
            yield from self.forget(slept, now)

    def next(self) -> float | None:
        return self._due.next()

    def until(self, slept: Slept) -> float | None:
        return self._due.time(slept)

    def _let_go(self, slept: Slept) -> None:
        if self.names.pop(slept.call, None) is not None:
            self._touched.add(slept.call)
            for view in self._dialogs.views(slept.call_id):
                if view.call == slept.call:
                    self._held.drop(view.host, slept.call)
