"""Media that overtakes its own announcement: what is refused only because another worker has not heard it yet.

Two inside hosts that speak by way of a proxy outside belong to two workers: each hears the dialog of its own host. What
a host says goes through one queue, the media that it sends right behind through the other's, and may be first there.
In: a refused first datagram between two inside hosts of which one is in a call. Out: how long it waits, in the kernel's
hands, to be put to the chains again, where it meets the pinhole if there is one by then. Bounded: in time, in datagrams
of a flow, in flows, in datagrams that wait at once; the last two have a share per sending host, so that none takes the
others' room.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from heapq import heappop, heappush
from typing import Final

from appid.flow.key import FlowKey

STEPS: Final = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64)
"""Seconds after a flow's first datagram at which those that wait are put to the chains again; then refusals stand."""
DATAGRAMS: Final = 64
"""How often datagrams of one flow may wait."""
MAX_FLOWS: Final = 256
FLOWS_PER_HOST: Final = 16
MAX_HELD: Final = 1024
"""Datagrams that wait at once: an eighth of the kernel's queue as configured by default, which they share with all."""
HELD_PER_HOST: Final = 128
FORGOTTEN: Final = 5.0
"""Seconds after which the same 5-tuple may be another flow's."""


class Waiting:
    """By 5-tuple: when its first datagram came, and how often one of it has waited. By sending host: how many flows,
    and how many datagrams wait now, each until when."""

    def __init__(self) -> None:
        self._flows: OrderedDict[FlowKey, tuple[float, int]] = OrderedDict()
        self._flows_of: Counter[bytes] = Counter()
        self._held: list[tuple[float, bytes]] = []
        self._held_of: Counter[bytes] = Counter()

    def patience(self, key: FlowKey, now: float) -> float | None:
        """Seconds for which this datagram waits; None: its refusal stands."""
        self._expire(now)
        host = key.src
        first, count = self._flows.get(key, (now, 0))
        step = next((step for step in STEPS if first + step > now), None)
        if step is None or count >= DATAGRAMS or len(self._held) >= MAX_HELD or self._held_of[host] >= HELD_PER_HOST:
            return None
        if not count:
            if len(self._flows) >= MAX_FLOWS or self._flows_of[host] >= FLOWS_PER_HOST:
                return None
            self._flows_of[host] += 1
        self._flows[key] = first, count + 1
        heappush(self._held, (first + step, host))
        self._held_of[host] += 1
        return first + step - now

    def _expire(self, now: float) -> None:
        while self._flows and now - next(iter(self._flows.values()))[0] >= FORGOTTEN:
            _less(self._flows_of, self._flows.popitem(last=False)[0].src)
        while self._held and self._held[0][0] <= now:
            _less(self._held_of, heappop(self._held)[1])


def _less(counts: Counter[bytes], host: bytes) -> None:
    counts[host] -= 1
    if not counts[host]:
        del counts[host]
