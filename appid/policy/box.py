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


def intersection(one: Box, other: Box) -> Box | None:
    box = Box(
        one.width,
        max(one.source_low, other.source_low),
        min(one.source_high, other.source_high),
        max(one.destination_low, other.destination_low),
        min(one.destination_high, other.destination_high),
        one.from_ & other.from_,
        one.to & other.to,
    )
    empty = box.source_low > box.source_high or box.destination_low > box.destination_high
    return None if empty or one.width != other.width or not box.from_ or not box.to else box


def subtract(pieces: Iterable[Box], other: Box) -> list[Box]:
    """What is left of the pieces outside `other`; at most six pieces for one."""
    left: list[Box] = []
    for piece in pieces:
        cut = intersection(piece, other)
        if cut is None:
            left.append(piece)
            continue
        width, low, high, first, last, from_, to = piece
        if from_ & ~cut.from_:
            left.append(piece._replace(from_=from_ & ~cut.from_))
        if to & ~cut.to:
            left.append(piece._replace(from_=cut.from_, to=to & ~cut.to))
        if low < cut.source_low:
            left.append(Box(width, low, cut.source_low - 1, first, last, cut.from_, cut.to))
        if cut.source_high < high:
            left.append(Box(width, cut.source_high + 1, high, first, last, cut.from_, cut.to))
        low, high = cut.source_low, cut.source_high
        if first < cut.destination_low:
            left.append(Box(width, low, high, first, cut.destination_low - 1, cut.from_, cut.to))
        if cut.destination_high < last:
            left.append(Box(width, low, high, cut.destination_high + 1, last, cut.from_, cut.to))
    return left
