"""Numbers of flows, calls and pinholes: counted from 1; of several engines each takes every so-manieth one."""

from __future__ import annotations


class Numbers:
    """first, first + step, ... `last` is the one taken last (0: none yet)."""

    def __init__(self, first: int = 1, step: int = 1) -> None:
        self._next = first
        self._step = step
        self.last = 0

    def take(self) -> int:
        self.last = self._next
        self._next += self._step
        return self.last

    def beyond(self, number: int) -> None:
        """From now on only numbers that are larger than this one."""
        if number >= self._next:
            self._next += ((number - self._next) // self._step + 1) * self._step
