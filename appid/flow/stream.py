"""One direction of a TCP connection. In: segments with their sequence numbers, in any order. Out: its bytes, in order.

RFC 9293 section 3.4 (sequence numbers, modulo 2**32) and 3.10.7.4 (segment arrival). Of a byte sent twice the copy that
arrived first wins. Everything is bounded, and the work for a segment does not grow with what was received before.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

_HALF: Final = 1 << 31
_MODULUS: Final = 1 << 32
MAX_HELD: Final = 128  # segments that wait for the one before them
_NONE: Final = bytearray()
_NOTHING: Final = memoryview(_NONE).toreadonly()


class Stream:
    """At most `limit` bytes that were not consumed, and as many again that wait out of order.

    midstream  the first segment seen was no SYN: `data` starts somewhere inside the connection.
    full       `limit` was reached: bytes that came after are lost, and so is the rest, unless none came.
    """

    __slots__ = (
        "_buffer", "_held", "_held_bytes", "_limit", "_lost", "_next",
        "_sequence", "_start", "_starts", "_stop", "_view", "midstream",
    )  # fmt: skip

    def __init__(self, limit: int = 65536) -> None:
        self._limit = limit
        self._buffer = _NONE  # written once from front to back; views of it stay valid
        self._view = _NOTHING
        self._start = self._stop = 0  # where the unconsumed bytes are in the buffer
        self._next = 0  # bytes of the connection received in order so far
        self._sequence = -1  # sequence number of the byte `_next`; -1: nothing seen
        self._starts: list[int] = []  # held segments: disjoint, sorted, positions counted like `_next`
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._lost = False
        self.midstream = False

    @property
    def data(self) -> memoryview:
        """The bytes in order from the start, or from where `consume` left off. Stays valid; no copy."""
        return self._view[self._start : self._stop]

    @property
    def full(self) -> bool:
        return self._lost or self._stop - self._start >= self._limit

    @property
    def waiting(self) -> int:
        """Bytes held until the ones before them come."""
        return self._held_bytes

    @property
    def awaits(self) -> int | None:
        """The sequence number of the byte that comes next; None before any was seen."""
        return self._sequence if self._sequence >= 0 else None

    def syn(self, sequence: int) -> None:
        """A SYN with this sequence number: the bytes start at the next one. Repeated or late SYNs change nothing."""
        if self._sequence < 0:
            self._sequence = (sequence + 1) % _MODULUS

    def push(self, sequence: int, payload: bytes | memoryview) -> memoryview | None:
        """A segment -> the bytes that it adds in order (with those that had waited for it), or None if it adds none."""
        if not payload or self._lost:
            return None
        if self._sequence < 0:
            self._sequence = sequence
            self.midstream = True
        ahead = (sequence - self._sequence + _HALF) % _MODULUS - _HALF
        if ahead > 0:
            self._hold(self._next + ahead, payload)
            return None
        if -ahead >= len(payload):
            return None  # a retransmission, or a keep-alive (RFC 9293 section 3.8.4)
        return self._fill(memoryview(payload)[-ahead:])

    def consume(self, size: int) -> None:
        """Drop `size` bytes (at most all there are) from the front of `data`."""
        self._start = min(self._start + max(size, 0), self._stop)

    def _fill(self, rest: memoryview) -> memoryview | None:
        """`rest` comes next; held segments were here first, so `rest` only fills what is between them."""
        first = self._next
        while self._starts and self._starts[0] - self._next <= len(rest):
            gap = self._starts.pop(0) - self._next
            segment = self._held.pop(0)
            self._held_bytes -= len(segment)
            self._append(rest[:gap])
            self._append(segment)
            rest = rest[gap + len(segment) :]
        self._append(rest)
        added = self._next - first
        return self._view[self._stop - added : self._stop] if added else None

    def _append(self, data: bytes | memoryview) -> None:
        room = self._limit - (self._stop - self._start)
        if len(data) > room:
            data = data[:room]
            self._lost = True
            self._starts, self._held, self._held_bytes = [], [], 0
        size = len(data)
        if self._stop + size > len(self._buffer):
            self._grow(size)
        self._buffer[self._stop : self._stop + size] = data
        self._stop += size
        self._next += size
        self._sequence = (self._sequence + size) % _MODULUS

    def _grow(self, size: int) -> None:
        """A new buffer with room for `size` more, and as much again: so a byte is moved a constant number of times."""
        kept = self._view[self._start : self._stop]
        buffer = bytearray(max(2 * (len(kept) + size), min(self._limit, 2048)))
        buffer[: len(kept)] = kept
        self._buffer, self._start, self._stop = buffer, 0, len(kept)
        self._view = memoryview(buffer).toreadonly()

    def _hold(self, position: int, payload: bytes | memoryview) -> None:
        """Keep those bytes of a segment that are not held yet, within the bounds."""
        if position + len(payload) - self._next > 2 * self._limit:
            return
        rest = memoryview(payload)
        at = bisect_right(self._starts, position)
        if at:
            covered = self._starts[at - 1] + len(self._held[at - 1]) - position
            if covered > 0:
                rest, position = rest[covered:], position + covered
        while rest:
            free = len(rest) if at == len(self._starts) else min(len(rest), self._starts[at] - position)
            if free:
                if len(self._starts) >= MAX_HELD or self._held_bytes + free > self._limit:
                    return
                self._starts.insert(at, position)
                self._held.insert(at, bytes(rest[:free]))
                self._held_bytes += free
                at += 1
            rest, position = rest[free:], position + free
            if rest:  # over the segment that is held there
                covered = len(self._held[at])
                rest, position, at = rest[covered:], position + covered, at + 1
