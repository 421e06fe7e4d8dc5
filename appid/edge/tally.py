"""What a worker has seen of its queue, in memory that it shares with the supervisor and that outlives both.

In: a packet's number in the queue. Out: counts that only grow, whatever becomes of the process that wrote them; and of
the supervisor before this one, how far it had accounted for what the chains handed over.
"""

from __future__ import annotations

import logging
import mmap
import os
import struct
from pathlib import Path
from typing import NamedTuple

from appid.edge.state import boot

_FIELDS = struct.Struct("=QQ")
_SETTLED = struct.Struct("=QqQ64s")
_NUMBER = struct.Struct("=Q")
_SIZE = _FIELDS.size + _SETTLED.size

log = logging.getLogger("appid")


class Settled(NamedTuple):
    """How far the queue is accounted for. `counter`: the chain rules' at that time; `handed`: packets handed over, as
    counted beside `Tally.seen`; `accounted`: those of them that nobody saw, all of which are told."""

    counter: int
    handed: int
    accounted: int


class Tally:
    """Made in the supervisor, before it forks.

    seen     packets that the worker was handed
    missed   packets between them that the kernel could not hand over: their numbers are missing
    before   where a supervisor before this one stood, if there was one since the host came up
    """

    def __init__(self, path: Path | None = None) -> None:
        self._shared = mmap.mmap(-1, _SIZE) if path is None else _shared(path)
        self._last = 0
        self._boot = boot().encode()
        counter, handed, accounted, when = _SETTLED.unpack_from(self._shared, _FIELDS.size)
        known = when.rstrip(b"\0") == self._boot
        self.before = Settled(counter, handed - self.seen, accounted) if known else None
        self._shared[:] = bytes(_SIZE)

    def took(self, number: int) -> None:
        """The worker has packet `number` of its queue in hand (the kernel counts from 1)."""
        seen, missed = _FIELDS.unpack_from(self._shared)
        if number:
            missed += max(0, number - self._last - 1)
            self._last = number
        _FIELDS.pack_into(self._shared, 0, seen + 1, missed)

    def settle(self, settled: Settled) -> None:
        """All that was handed over so far is seen, waits, or is accounted for."""
        _SETTLED.pack_into(self._shared, _FIELDS.size, *settled, self._boot)

    @property
    def seen(self) -> int:
        return int(_FIELDS.unpack_from(self._shared)[0])

    @property
    def missed(self) -> int:
        return int(_FIELDS.unpack_from(self._shared)[1])


class Numbers:
    """Of packets, in the order in which any of the workers had them in hand, from 1: they share the memory. Two that
    ask at once may be told the same."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, _NUMBER.size)
        self.last = 0

    def take(self) -> int:
        """The next one, which is now this process's `last`."""
        self.last = max(self.last, self._shared_last()) + 1
        _NUMBER.pack_into(self._shared, 0, self.last)
        return self.last

    def beyond(self, number: int) -> None:
        """Numbers up to this one were given before."""
        self.last = max(self.last, number)
        if self.last > self._shared_last():
            _NUMBER.pack_into(self._shared, 0, self.last)

    def _shared_last(self) -> int:
        return int(_NUMBER.unpack_from(self._shared)[0])


def _shared(path: Path) -> mmap.mmap:
    """Where the file cannot be, this supervisor's memory does: it is not accounted for after its death."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, _SIZE)
            os.posix_fallocate(descriptor, 0, _SIZE)  # on a full disk memory that is no file's kills who writes to it
            return mmap.mmap(descriptor, _SIZE)
        finally:
            os.close(descriptor)
    except OSError as error:
        log.error("%s: %s: packets that come while no supervisor runs are not counted", path, error.strerror)
        return mmap.mmap(-1, _SIZE)
