"""Media that overtakes its own announcement: what is refused only because another worker has not heard it yet.

Two inside hosts that speak by way of a proxy outside belong to two workers: each hears the dialog of its own host. What
a host says goes through one queue, the media that it sends right behind through the other's, and may be first there.
In: a refused first datagram between two inside hosts of which one is in a call. Out: how long it waits, in the kernel's
hands, to be put to the chains again, where it meets the pinhole if there is one by then. Bounded: in time, in datagrams
of a flow, in flows.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from appid.flow.key import FlowKey

STEPS: Final = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64)
"""Seconds after a flow's first datagram at which those that wait are put to the chains again; then refusals stand."""
DATAGRAMS: Final = 64
"""How often datagrams of one flow may wait."""
MAX_FLOWS: Final = 256
FORGOTTEN: Final = 5.0
"""Seconds after which the same 5-tuple may be another flow's."""


class Waiting:
    """By 5-tuple: when its first datagram came, and how often one of it has waited."""

    def __init__(self) -> None:
        self._flows: OrderedDict[FlowKey, tuple[float, int]] = OrderedDict()

    def patience(self, key: FlowKey, now: float) -> float | None:
        """Seconds for which this datagram waits; None: its refusal stands."""
        while self._flows and now - next(iter(self._flows.values()))[0] >= FORGOTTEN:
            self._flows.popitem(last=False)
        first, count = self._flows.get(key, (now, 0))
        step = next((step for step in STEPS if first + step > now), None)
        if step is None or count >= DATAGRAMS or (not count and len(self._flows) >= MAX_FLOWS):
            return None
        self._flows[key] = first, count + 1
        return first + step - now
