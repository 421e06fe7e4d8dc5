"""What the operator says a flow is: overrides, looked up at about the same cost however many there are.

In: a policy. Out: the application that the first matching [[override]] gives a flow; overrides that never count.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice, product

from appid.flow.key import FlowKey
from appid.policy.box import ANYWHERE, Box, boxes
from appid.policy.index import PortIndex, cover
from appid.policy.mask import lowest, mask_of, rows_of
from appid.policy.networks import NetworkIndex
from appid.policy.rule import Override, Policy
from appid.policy.space import Remainder, edges

_PATIENCE = 96
"""Pairs of boxes that are looked at for one override."""
_TRIED = 64
"""Earlier overrides with ports that are looked at, one by one, for one that holds all of another's."""


class Overrides:
    """All of them, by each thing that they match."""

    def __init__(self, policy: Policy) -> None:
        self.given = policy.overrides
        self.source = NetworkIndex([override.source for override in self.given])
        self.destination = NetworkIndex([override.destination for override in self.given])
        self.ports = PortIndex((i, override.ports) for i, override in enumerate(self.given) if override.ports)
        self.any_port = mask_of(i for i, override in enumerate(self.given) if not override.ports)

    def of(self, key: FlowKey) -> str | None:
        """`key` is the direction of the flow's first packet."""
        if not self.given:
            return None
        held = self.any_port | self.ports.at(key.proto, key.dport)
        held = held and held & self.source.find(key.src)
        held = held and held & self.destination.find(key.dst)
        return self.given[lowest(held)].application if held else None


def idle_overrides(overrides: Sequence[Override]) -> Iterator[tuple[int, tuple[int, ...]]]:
    """(an override that never counts, those before it that hold every flow that it holds; none where no flow is like
    it). Not every such: what would take too long to find out is given up."""
    idle = _Idle(overrides)
    for row in range(len(overrides)):
        found = idle.covering(row)
        if found is not None:
            yield row, found


class _Idle:
    def __init__(self, overrides: Sequence[Override]) -> None:
        self.overrides = overrides
        self.all = Overrides(Policy(overrides=tuple(overrides)))

    def covering(self, row: int) -> tuple[int, ...] | None:
        """None: something is left to it, or may be."""
        if next(self.boxes(row), None) is None:
            return ()
        before = (1 << row) - 1
        if not all(before & place for place in self._places(row)):
            return None
        alone = self._alone(row, before)
        return self._together(row, before) if alone is None else (alone,)

    def boxes(self, row: int) -> Iterator[Box]:
        """Ports are the side that boxes keep as bits, one for each stretch of ports that no override tells apart."""
        override = self.overrides[row]
        bits = 0
        for ports in override.ports:
            bits |= self.all.ports.bits(ports)
        return boxes(override.source, override.destination, bits if override.ports else ANYWHERE)

    def _places(self, row: int) -> Iterator[int]:
        """The overrides that hold at a few places of this one."""
        override, known = self.overrides[row], self.all
        ends = {(each.proto, port) for each in override.ports for port in (each.first, each.last)}
        ports = [known.any_port | known.ports.at(*end) for end in sorted(ends)] or [known.any_port]
        for width in (4, 16):
            sources, destinations = edges(override.source, width), edges(override.destination, width)
            if sources is not None and destinations is not None:
                for source, destination, held in product(sources, destinations, (ports[0], ports[-1])):
                    yield held and held & known.source.find(source) & known.destination.find(destination)

    def _alone(self, row: int, before: int) -> int | None:
        override, known = self.overrides[row], self.all
        held = before & known.source.covering(row) & known.destination.covering(row)
        some = held if override.ports else 0
        for each in override.ports:
            some &= known.ports.at(each.proto, each.first) & known.ports.at(each.proto, each.last)
        merged = known.ports.merged
        for other in islice(rows_of(held & (known.any_port | some)), _TRIED):
            if other not in merged or cover(merged[other], merged[row]):
                return other
        return None

    def _together(self, row: int, before: int) -> tuple[int, ...] | None:
        known, rest, used = self.all, Remainder(self.boxes, row, _PATIENCE), list[int]()
        meeting = before & known.source.overlapping(row) & known.destination.overlapping(row)
        if not self.overrides[row].ports:
            meeting &= known.any_port  # of protocols without ports no other says anything
        for other in islice(rows_of(meeting), _PATIENCE):
            if rest.take(other):
                used.append(other)
            if rest.given_up or not rest.pieces:
                break
        return None if rest.given_up or rest.pieces else tuple(used)
