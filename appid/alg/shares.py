"""How many dialogs there may be, of all, of an inside host and of an outside address; and who gives way.

In: dialogs as they begin, are answered, end. Out: the one that gives way: what is over first, then what only rings, the
oldest first. What was answered and goes on gives way to nobody. Nothing is searched for.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Literal, NamedTuple

from appid.alg.dialog import Dialog, Key
from appid.wire import text

MAX_DIALOGS = 8192
PER_HOST = 2048
PER_REMOTE = 512
"""Dialogs of all, of an inside host, and those that one address outside has begun."""


class Holder(NamedTuple):
    what: Literal["gateway", "host", "remote"]
    address: bytes = b""

    def __str__(self) -> str:
        return f"{self.what} {text(self.address)}" if self.address else f"the {self.what}"


def holders(dialog: Dialog) -> Iterator[Holder]:
    """In whose share it counts. Who has one address of IPv6 has its whole /64."""
    if not dialog.caller_inside:
        yield Holder("remote", dialog.peer if len(dialog.peer) == 4 else dialog.peer[:8].ljust(16, b"\0"))
    yield Holder("host", dialog.host)
    yield Holder("gateway")


class _Share:
    """`waiting`: what has ended or rings, in the order in which it gives way; `standing`: what does not."""

    __slots__ = ("standing", "waiting")

    def __init__(self) -> None:
        self.waiting: OrderedDict[Key, Dialog] = OrderedDict()
        self.standing: set[Key] = set()

    def __len__(self) -> int:
        return len(self.waiting) + len(self.standing)

    def drop(self, key: Key) -> None:
        self.waiting.pop(key, None)
        self.standing.discard(key)


class Shares:
    """All shares. Each change is told of: `add`, `moved`, `drop`."""

    def __init__(self, remote: int = PER_REMOTE, host: int = PER_HOST, gateway: int = MAX_DIALOGS) -> None:
        self._most = {"remote": remote, "host": host, "gateway": gateway}
        self._held: dict[Holder, _Share] = {}

    def add(self, dialog: Dialog) -> None:
        for holder in holders(dialog):
            self._held.setdefault(holder, _Share()).waiting[dialog.key] = dialog
        self.moved(dialog)

    def moved(self, dialog: Dialog) -> None:
        """It may have been answered, or have ended: then its turn is never, or next."""
        if not dialog.answered and not dialog.ended:
            return
        for share in (self._held[holder] for holder in holders(dialog)):
            share.drop(dialog.key)
            if dialog.ended:
                share.waiting[dialog.key] = dialog
                share.waiting.move_to_end(dialog.key, last=False)
            else:
                share.standing.add(dialog.key)

    def drop(self, dialog: Dialog) -> None:
        for holder in holders(dialog):
            share = self._held[holder]
            share.drop(dialog.key)
            if not share:
                del self._held[holder]

    def full(self, dialog: Dialog) -> Holder | None:
        """Whose share this one would exceed."""
        found = (holder for holder in holders(dialog) if len(self._held.get(holder, ())) >= self._most[holder.what])
        return next(found, None)

    def first(self, holder: Holder) -> Dialog | None:
        """Who gives way in this share; None: nobody does."""
        share = self._held.get(holder)
        return next(iter(share.waiting.values()), None) if share is not None else None
