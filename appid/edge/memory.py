"""What a worker takes of the host's memory, and when it must let go of some.

In: a bound in bytes; a look each second and each LOOK packets. Out: whether undecided flows must give way now, and
memory given back. It begins a margin below the bound, so that what comes between two looks does not go beyond it.
"""

from __future__ import annotations

import ctypes
import logging
import os
from pathlib import Path

LOOK = 256
"""Packets between two looks; each may begin a flow, of some 4 kB."""
MARGIN = 6
"""One part in so many of the bound is kept free."""
LEAST = 128
"""MiB: the smallest bound. An idle worker takes some 60 of them; below, nothing would be left for flows."""
STEP = 2 << 20
"""Bytes by which it must have grown since flows gave way, before more do: what they held serves new ones, even where
the allocator could not give it back."""

_LIBC = ctypes.CDLL(None)
_PAGE = os.sysconf("SC_PAGESIZE")

log = logging.getLogger(__name__)


def resident(place: Path = Path("/proc/self/statm")) -> int:
    """Bytes of memory that this process takes just now."""
    return int(place.read_text().split()[1]) * _PAGE


class Memory:
    """`bound` in bytes; 0: none."""

    def __init__(self, bound: int) -> None:
        self.bound = bound
        self._most = bound - bound // MARGIN
        self._gave_at = 0
        self._looked = 0
        self._told = False

    def tick(self) -> bool | None:
        """The look of each second: whether flows must give way; None: there is room again."""
        self._told = False
        if not self.bound or resident() <= self._most:
            self._gave_at = 0
            return None
        return self._short()

    def look(self, packets: int) -> bool:
        """The look in between, where `packets` have been seen since the start."""
        if not self.bound or packets - self._looked < LOOK:
            return False
        self._looked = packets
        return self._short()

    def _short(self) -> bool:
        return resident() > max(self._most, self._gave_at + STEP)

    def gave_way(self) -> None:
        """Flows have given way: their memory goes back, or what was freed would count for ever."""
        _LIBC.malloc_trim(0)
        self._gave_at = resident()
        if not self._told:
            self._told = True
            log.warning("close to %d MiB in use: undecided flows give way", self.bound >> 20)
