"""What was seen of an inside host, or of a call, in the last minute: for signatures of host and call scope.

In: facts of any flow of theirs. Out: a FactSet of those that are not older than LIFETIME. Bounded: so many hosts or
calls, so many facts of each, the oldest give way. Only facts that such signatures ask for are kept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable

from appid.evidence.ledger import FactSet
from appid.wire import Fact

LIFETIME = 60.0
MAX_KEYS = 4096
MAX_FACTS = 64


class Recent:
    """Facts by host or call. `keep`: the names of facts that are asked for; none: nothing is kept."""

    def __init__(self, keep: frozenset[str]) -> None:
        self.keep = keep
        self.seen: OrderedDict[Hashable, OrderedDict[Fact, float]] = OrderedDict()

    def add(self, key: Hashable, facts: Iterable[Fact], now: float) -> FactSet:
        """Book one packet's facts at `now` (seconds); returns all that still count, these included."""
        mine = self.seen.setdefault(key, OrderedDict())
        self.seen.move_to_end(key)
        for fact in facts:
            if fact.name in self.keep:
                mine[fact] = now
                mine.move_to_end(fact)
        while mine and (len(mine) > MAX_FACTS or now - next(iter(mine.values())) > LIFETIME):
            mine.popitem(last=False)
        if not mine:
            del self.seen[key]
        if len(self.seen) > MAX_KEYS:
            self.seen.popitem(last=False)
        return FactSet(mine)
