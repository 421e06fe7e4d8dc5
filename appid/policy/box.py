"""Where rules hold, as boxes: pairs of addresses, between pairs of zones. Is one covered by others?

In: networks and zones as rules write them. Out: exact pieces.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from appid.policy.rule import Network

ANYWHERE = -1
"""All zones, and no zone: as bits."""
_FAMILIES = ((4, (1 << 32) - 1), (16, (1 << 128) - 1))


class Box(NamedTuple):
    """Sources [low, high] x destinations [low, high], of one family (`width` bytes), between zones (one bit each)."""

    width: int
    source_low: int
    source_high: int
    destination_low: int
    destination_high: int
    from_: int = ANYWHERE
    to: int = ANYWHERE


def boxes(
    source: Iterable[Network], destination: Iterable[Network], from_: int = ANYWHERE, to: int = ANYWHERE
) -> Iterator[Box]:
    """All that a rule's networks hold, one by one; none given means any. Families do not mix."""
    destinations = list(_intervals(destination))
    for width, low, high in _intervals(source):
        for family, first, last in destinations:
            if width == family:
                yield Box(width, low, high, first, last, from_, to)


def _intervals(networks: Iterable[Network]) -> Iterator[tuple[int, int, int]]:
    given = False
    for base, prefix in networks:
        given = True
        low = int.from_bytes(base, "big")
        yield len(base), low, low + (1 << (8 * len(base) - prefix)) - 1
    if not given:
        yield from ((width, 0, top) for width, top in _FAMILIES)


def meets(one: Box, other: Box) -> bool:
    width, low, high, first, last, from_, to = one
    return bool(
        width == other.width
        and low <= other.source_high
        and other.source_low <= high
        and first <= other.destination_high
        and other.destination_low <= last
        and from_ & other.from_
        and to & other.to
    )


def subtract(pieces: Iterable[Box], other: Box) -> list[Box]:
    """What is left of the pieces outside `other`; at most six pieces for one."""
    left: list[Box] = []
    for piece in pieces:
        if not meets(piece, other):
            left.append(piece)
            continue
        width, low, high, first, last, from_, to = piece
        if from_ & ~other.from_:
            left.append(piece._replace(from_=from_ & ~other.from_))
        from_ &= other.from_
        if to & ~other.to:
            left.append(Box(width, low, high, first, last, from_, to & ~other.to))
        to &= other.to
        if low < other.source_low:
            left.append(Box(width, low, other.source_low - 1, first, last, from_, to))
            low = other.source_low
        if other.source_high < high:
            left.append(Box(width, other.source_high + 1, high, first, last, from_, to))
            high = other.source_high
        if first < other.destination_low:
            left.append(Box(width, low, high, first, other.destination_low - 1, from_, to))
        if other.destination_high < last:
            left.append(Box(width, low, high, other.destination_high + 1, last, from_, to))
    return left
