"""The time that an engine is told: seconds since 1970 that never jump.

In: the host's two clocks, the one that is set and the one that is not. Out: what the first said at the beginning, and
as much more as has passed by the second. Where the clock was set, calls would else be silent for an hour, or their
pinholes renewed an hour late.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

STEP = 2.0
"""Seconds by which the clock must be set at once for it to count; what drifts or is slewed, drifts with us."""

log = logging.getLogger("appid")


class Clock:
    """`skew`: what is to be added to `now` for the time of day."""

    def __init__(self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic) -> None:
        self._wall, self._steady = wall, steady
        self._apart = wall() - steady()
        self.skew = 0.0

    def now(self) -> float:
        wall = self._wall()
        apart = wall - self._steady()
        step = apart - self._apart
        if abs(step) > STEP:
            self.skew += step
            log.warning("the clock was set by %+.1f s: calls go on by the time that has passed", step)
        self._apart = apart
        return wall - self.skew
