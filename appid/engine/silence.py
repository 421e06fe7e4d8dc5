"""Dialogs of calls that were lost by silence alone.

In: Call-IDs whose call fell silent, and what their dialogs hear. Out: those whose time is over. Nothing is open for
them, but a 200 after a long ring or a re-INVITE after a long hold is not too late: it opens again what it describes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import inf

from appid.alg.dialog import Dialogs
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


class Asleep:
    """Their Call-IDs, each with its time."""

    def __init__(self, dialogs: Dialogs, nat: NatKeeper) -> None:
        self._dialogs, self._nat = dialogs, nat
        self._due: Due[str] = Due()

    def __contains__(self, call_id: str) -> bool:
        return call_id in self._due

    def __len__(self) -> int:
        return len(self._due)

    def put(self, call_id: str, now: float) -> None:
        """Nothing more was heard of its call; or, again, something that does not wake it."""
        views = [view for view in self._dialogs.views(call_id) if not view.ended]
        answered = any(view.answered for view in views)
        self._due.put(call_id, now + (LIFETIME if answered else RINGING) if views else now)
        for view in views:
            view.asleep = True

    def wake(self, call_id: str) -> None:
        self._due.drop(call_id)
        for view in self._dialogs.views(call_id):
            view.asleep = False

    def forget(self, call_id: str, now: float, hosts: Iterable[bytes] = ()) -> Iterator[Command]:
        """Its dialogs are over, of these hosts and all others; ports that were named in them are free again."""
        self._due.drop(call_id)
        for host in sorted({*hosts, *(view.host for view in self._dialogs.views(call_id))}):
            yield from self._nat.release((call_id, host))
        self._dialogs.forget(call_id, now)

    def tick(self, now: float) -> Iterator[Command]:
        for call_id in self._due.take(inf if len(self) > MAX_ASLEEP else now, AT_ONCE):
            yield from self.forget(call_id, now)

    def next(self) -> float | None:
        return self._due.next() if len(self) <= MAX_ASLEEP else 0.0
