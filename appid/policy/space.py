"""The spaces of a policy's rules: zones, sources, destinations; which rules meet a rule's, and which hold all of it.

In: the rules, indexed. Out: masks, witnesses (places that a rule holds), and what is left of a rule's space. All of it
costs about the same for each rule, however many there are: what would cost more is given up, and the answer is None.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice

from appid.policy.box import ANYWHERE, Box, boxes, meets, subtract
from appid.policy.index import RuleIndex
from appid.policy.rule import Network, PolicyRule

PATIENCE = 256
"""Pairs of boxes that are looked at for one answer."""
MAX_PIECES = 64


class Spaces:
    """Of `rules`, whose rows are as in `index`."""

    def __init__(self, rules: Sequence[PolicyRule]) -> None:
        self.rules = rules
        self.index = RuleIndex(rules)
        zones = dict.fromkeys(zone for rule in rules for zone in (*rule.from_, *rule.to))
        self._bits = {zone: 1 << number for number, zone in enumerate(zones)}

    def boxes(self, row: int) -> Iterator[Box]:
        rule = self.rules[row]
        return boxes(rule.source, rule.destination, self._zones(rule.from_), self._zones(rule.to))

    def _zones(self, zones: Iterable[str]) -> int:
        bits = 0
        for zone in zones:
            bits |= self._bits[zone]
        return bits or ANYWHERE


class Space:
    """That of one rule, and which others have to do with it."""

    def __init__(self, spaces: Spaces, row: int) -> None:
        self.spaces = spaces
        self.row = row
        self.rule = spaces.rules[row]
        self.before = (1 << row) - 1
        self._seen: list[int] = []
        self._places = self._look()

    @cached_property
    def meeting(self) -> int:
        """The rules whose space may have something in common with this one."""
        index, row = self.spaces.index, self.row
        zones = _some(index.from_, self.rule.from_) & _some(index.to, self.rule.to)
        return zones & index.source.overlapping(row) & index.destination.overlapping(row)

    @cached_property
    def covering(self) -> int:
        """Rules whose space holds all of this one, each for itself."""
        index, row = self.spaces.index, self.row
        zones = _every(index.from_, self.rule.from_) & _every(index.to, self.rule.to)
        return zones & index.source.covering(row) & index.destination.covering(row)

    def witnesses(self) -> Iterator[int]:
        """The rules that hold at a few places of this space, for each place."""
        yield from self._seen
        for held in self._places:
            self._seen.append(held)
            yield held

    def _look(self) -> Iterator[int]:
        index, rule = self.spaces.index, self.rule
        from_, to = rule.from_ or (None,), rule.to or (None,)
        for width in (4, 16):
            sources, destinations = edges(rule.source, width), edges(rule.destination, width)
            if sources is None or destinations is None:
                continue
            for source, destination, end in ((0, 0, 0), (1, 1, -1), (2, 2, 0), (0, 1, -1), (1, 0, 0)):
                held = index.source.find(sources[source]) & index.destination.find(destinations[destination])
                yield held & index.between(from_[end], to[end])


class Remainder:
    """What other rules leave of a rule's space; `boxes` gives that of each row. `given_up`: it costs too much to say;
    then all of it may be left."""

    def __init__(self, boxes: Callable[[int], Iterator[Box]], row: int, patience: int = PATIENCE) -> None:
        self._boxes = boxes
        self.pieces = list(islice(boxes(row), MAX_PIECES + 1))
        self._patience = patience
        self.given_up = len(self.pieces) > MAX_PIECES

    def take(self, row: int) -> bool:
        """Take away what this rule holds; whether that was anything."""
        taken = False
        for box in self._boxes(row):
            if any(meets(piece, box) for piece in self.pieces):
                self.pieces = subtract(self.pieces, box)
                taken = True
            self._spend()
            if self.given_up or not self.pieces:
                break
        return taken

    def meets(self, row: int) -> bool:
        """Whether this rule holds any of it, or may."""
        for box in self._boxes(row):
            self._spend()
            if self.given_up or any(meets(piece, box) for piece in self.pieces):
                return True
        return False

    def _spend(self) -> None:
        self._patience -= len(self.pieces)
        self.given_up = self.given_up or self._patience < 0 or len(self.pieces) > MAX_PIECES


def _some(masks: Mapping[str | None, int], zones: tuple[str, ...]) -> int:
    mask = 0 if zones else -1
    for zone in zones:
        mask |= masks[zone]
    return mask


def _every(masks: Mapping[str | None, int], zones: tuple[str, ...]) -> int:
    mask = -1 if zones else masks[None]
    for zone in zones:
        mask &= masks[zone]
    return mask


def edges(networks: Sequence[Network], width: int) -> tuple[bytes, bytes, bytes] | None:
    """The first address of this width, the last, and one between; None where there is none."""
    own = [network for network in networks if len(network[0]) == width]
    if networks and not own:
        return None
    (first, _), (base, prefix) = (own[0], own[-1]) if own else ((bytes(width), 0),) * 2
    low = int.from_bytes(first, "big")
    high = int.from_bytes(base, "big") | ((1 << (8 * width - prefix)) - 1)
    return first, high.to_bytes(width, "big"), ((low + high) // 2 if len(own) < 2 else low).to_bytes(width, "big")
