"""Sets of (source, destination) addresses as boxes: is one covered by others?

In: networks as rules write them. Out: exact pieces; whoever has more than MAX_PIECES must assume the worse.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from typing import NamedTuple

from appid.policy.rule import Network

MAX_PIECES = 256
_FAMILIES = ((4, (1 << 32) - 1), (16, (1 << 128) - 1))


class Box(NamedTuple):
    """Sources [low, high] x destinations [low, high], of one family (`width` bytes)."""

    width: int
    source_low: int
    source_high: int
    destination_low: int
    destination_high: int


def boxes(source: Iterable[Network], destination: Iterable[Network]) -> list[Box]:
    """All that a rule's networks hold; none given means any. Families do not mix."""
    sources, destinations = _intervals(source), _intervals(destination)
    return [
        Box(width, low, high, first, last)
        for (width, low, high), (family, first, last) in product(sources, destinations)
        if width == family
    ]


def _intervals(networks: Iterable[Network]) -> list[tuple[int, int, int]]:
    given = list(networks)
    if not given:
        return [(width, 0, top) for width, top in _FAMILIES]
    found = []
    for base, prefix in given:
        low = int.from_bytes(base, "big")
        found.append((len(base), low, low + (1 << (8 * len(base) - prefix)) - 1))
    return found


def intersection(one: Box, other: Box) -> Box | None:
    box = Box(
        one.width,
        max(one.source_low, other.source_low),
        min(one.source_high, other.source_high),
        max(one.destination_low, other.destination_low),
        min(one.destination_high, other.destination_high),
    )
    empty = box.source_low > box.source_high or box.destination_low > box.destination_high
    return None if empty or one.width != other.width else box


def subtract(pieces: Iterable[Box], other: Box) -> list[Box]:
    """What is left of the pieces outside `other`; at most four pieces for one."""
    left: list[Box] = []
    for piece in pieces:
        cut = intersection(piece, other)
        if cut is None:
            left.append(piece)
            continue
        width, low, high, first, last = piece
        if low < cut.source_low:
            left.append(Box(width, low, cut.source_low - 1, first, last))
        if cut.source_high < high:
            left.append(Box(width, cut.source_high + 1, high, first, last))
        if first < cut.destination_low:
            left.append(Box(width, cut.source_low, cut.source_high, first, cut.destination_low - 1))
        if cut.destination_high < last:
            left.append(Box(width, cut.source_low, cut.source_high, cut.destination_high + 1, last))
    return left
