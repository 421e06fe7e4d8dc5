"""One poll over descriptors, and a timer.

In: descriptors with callbacks. Out: calls; what they raise is logged, counted, and ends nothing.
"""

from __future__ import annotations

import contextlib
import heapq
import logging
import os
import selectors
import time
from collections import deque
from collections.abc import Callable
from typing import Any

log = logging.getLogger("appid")


class Loop:
    """`run` returns after `stop`, which may be called from a signal handler, also before `run`. `on_tick` is called
    each `tick` seconds; `after` runs each time round."""

    def __init__(self, on_tick: Callable[[], None], tick: float = 1.0, after: Callable[[], None] | None = None) -> None:
        self.errors = 0
        self._on_tick, self._tick, self._after = on_tick, tick, after
        self._running = True
        self._soon: deque[Callable[[], None]] = deque()
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._asked = 0
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.register(self._wake_read, self._woken)

    @property
    def wakeup_fd(self) -> int:
        """For signal.set_wakeup_fd: any byte written to it makes the loop go round."""
        return self._wake_write

    def register(self, source: Any, callback: Callable[[], None], events: int = selectors.EVENT_READ) -> None:
        """Call `callback` when `source` (a descriptor, or what has fileno()) is ready."""
        self._selector.register(source, events, callback)

    def unregister(self, source: Any) -> None:
        self._selector.unregister(source)

    def run(self) -> None:
        next_tick = time.monotonic() + self._tick
        while self._running:
            self.once(max(0.0, next_tick - time.monotonic()))
            if time.monotonic() >= next_tick:
                self.guard(self._on_tick)
                next_tick = time.monotonic() + self._tick

    def once(self, patience: float) -> None:
        """Wait at most `patience` seconds, then serve what is ready."""
        if self._later:
            patience = min(patience, max(0.0, self._later[0][0] - time.monotonic()))
        for key, _ in self._selector.select(patience):
            if self._selector.get_map().get(key.fd) is key:  # a callback before it may have let go of this one
                self.guard(key.data)
        for _ in range(len(self._soon)):
            self.guard(self._soon.popleft())
        while self._later and self._later[0][0] <= time.monotonic():
            self.guard(heapq.heappop(self._later)[2])
        if self._after is not None:
            self._after()

    def soon(self, callback: Callable[[], None]) -> None:
        """Call it once, the next time round; any thread may ask."""
        self._soon.append(callback)
        self.wake()

    def later(self, seconds: float, callback: Callable[[], None]) -> None:
        """Call it once, so much later; of the same time in the order in which they were asked for."""
        self._asked += 1
        heapq.heappush(self._later, (time.monotonic() + seconds, self._asked, callback))

    def stop(self) -> None:
        self._running = False
        self.wake()

    def wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"\0")

    def close(self) -> None:
        self._running = False
        self._selector.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def guard(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception:
            self.errors += 1
            log.exception("%s failed", getattr(step, "__name__", step))

    def _woken(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)
