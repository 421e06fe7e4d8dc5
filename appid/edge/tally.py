"""What a worker has seen of its queue, in memory that it shares with the supervisor and that outlives it.

In: a packet's number in the queue. Out: counts that only grow, whatever becomes of the process that wrote them.
"""

from __future__ import annotations

import mmap
import struct

_FIELDS = struct.Struct("=QQ")


class Tally:
    """Made in the supervisor, before it forks.

    seen     packets that the worker was handed
    missed   packets between them that the kernel could not hand over: their numbers are missing
    """

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, _FIELDS.size)
        self._last = 0

    def took(self, number: int) -> None:
        """The worker has packet `number` of its queue in hand (the kernel counts from 1)."""
        seen, missed = _FIELDS.unpack_from(self._shared)
        if number:
            missed += max(0, number - self._last - 1)
            self._last = number
        _FIELDS.pack_into(self._shared, 0, seen + 1, missed)

    @property
    def seen(self) -> int:
        return int(_FIELDS.unpack_from(self._shared)[0])

    @property
    def missed(self) -> int:
        return int(_FIELDS.unpack_from(self._shared)[1])
