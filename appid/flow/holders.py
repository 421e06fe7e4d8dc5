"""Who holds how many calls, and who holds most. In: hosts and calls' numbers. Out: the biggest holder, at no search."""

from __future__ import annotations


class Holders:
    """Per host its calls' numbers, in the order in which they came."""

    def __init__(self) -> None:
        self.of: dict[bytes, dict[int, None]] = {}
        self._sizes: dict[int, dict[bytes, None]] = {}

    def add(self, host: bytes, number: int) -> None:
        held = self.of.setdefault(host, {})
        if number not in held:
            self._move(host, len(held), len(held) + 1)
            held[number] = None

    def drop(self, host: bytes, number: int) -> None:
        held = self.of.get(host, {})
        if number in held:
            self._move(host, len(held), len(held) - 1)
            del held[number]
            if not held:
                del self.of[host]

    def most(self) -> bytes | None:
        """The host with most of them; of several the one that has been so for longest."""
        return next(iter(self._sizes[max(self._sizes)])) if self._sizes else None

    def _move(self, host: bytes, before: int, now: int) -> None:
        if before:
            del self._sizes[before][host]
            if not self._sizes[before]:
                del self._sizes[before]
        if now:
            self._sizes.setdefault(now, {})[host] = None
