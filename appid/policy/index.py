"""Which rules hold for a port, between two zones, for an application, of one schedule? All rules of a policy by each
thing that they match.

In: the rules. Out: masks (mask.py).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence

from appid.identify.application import PortRange
from appid.policy.mask import by_key, by_name, mask_of
from appid.policy.networks import NetworkIndex
from appid.policy.rule import PolicyRule, Schedule


class PortIndex:
    """Rules by (protocol, port). `classes` are the stretches of ports that no rule and no application tells apart."""

    def __init__(self, rules: Iterable[tuple[int, Iterable[PortRange]]], others: Iterable[PortRange] = ()) -> None:
        edges: dict[int, dict[int, int]] = {}
        self.merged = {row: merged(ranges) for row, ranges in rules}
        for row, ranges in self.merged.items():
            for proto, first, end in ranges:
                toggles = edges.setdefault(proto, {})
                toggles[first] = toggles.get(first, 0) ^ 1 << row
                toggles[end] = toggles.get(end, 0) ^ 1 << row
        for other in others:
            toggles = edges.setdefault(other.proto, {})
            toggles.setdefault(other.first, 0)
            toggles.setdefault(other.last + 1, 0)
        self._starts: dict[int, list[int]] = {}
        self._masks: dict[int, list[int]] = {}
        for proto, toggles in edges.items():
            mask, masks = 0, [0]
            starts = sorted(toggles)
            for start in starts:
                mask ^= toggles[start]
                masks.append(mask)
            self._starts[proto], self._masks[proto] = starts, masks

    def stretch(self, proto: int, port: int) -> int:
        starts = self._starts.get(proto)
        return 0 if starts is None else bisect_right(starts, port)

    def find(self, proto: int, stretch: int) -> int:
        """The mask of the rules whose ports hold this stretch."""
        masks = self._masks.get(proto)
        return 0 if masks is None else masks[stretch]

    def at(self, proto: int, port: int) -> int:
        return self.find(proto, self.stretch(proto, port))

    def bits(self, ports: PortRange) -> int:
        """One bit for each stretch of these ports."""
        first, last = self.stretch(ports.proto, ports.first), self.stretch(ports.proto, ports.last)
        before = sum(len(starts) + 1 for proto, starts in self._starts.items() if proto < ports.proto)
        return (1 << before + last + 1) - (1 << before + first)

    def holding(self, ports: PortRange) -> tuple[int, int]:
        """The rules whose ports hold some of these, and those that hold all."""
        some, every = 0, -1
        for stretch in range(self.stretch(ports.proto, ports.first), self.stretch(ports.proto, ports.last) + 1):
            held = self.find(ports.proto, stretch)
            some |= held
            every &= held
        return some, every


class RuleIndex:
    """All rules of a policy by each thing that they match."""

    def __init__(self, rules: Sequence[PolicyRule], others: Iterable[PortRange] = ()) -> None:
        self.from_ = by_name(rule.from_ or None for rule in rules)
        self.to = by_name(rule.to or None for rule in rules)
        self.named = by_name(rule.applications for rule in rules)
        self.source = NetworkIndex([rule.source for rule in rules])
        self.destination = NetworkIndex([rule.destination for rule in rules])
        self.schedules: dict[Schedule | None, int] = by_key(rule.schedule for rule in rules)
        self._always: dict[Schedule | None, int] = {}
        self.allowing = mask_of(i for i, rule in enumerate(rules) if rule.action == "allow")
        self.any_service = mask_of(i for i, rule in enumerate(rules) if rule.service == "any")
        self.default_service = mask_of(i for i, rule in enumerate(rules) if rule.service == "application-default")
        self.named_service = self.any_service | self.default_service
        explicit = [(i, rule.service) for i, rule in enumerate(rules) if not isinstance(rule.service, str)]
        self.ports = PortIndex(explicit, others)

    def between(self, from_zone: str | None, to_zone: str | None) -> int:
        """The rules for these zones; None is a side that lies in no zone."""
        return self.from_.get(from_zone, self.from_[None]) & self.to.get(to_zone, self.to[None])

    def naming(self, application: str) -> int:
        """The rules that list the application, or any."""
        return self.named.get(application, self.named[None])

    def always_or(self, schedule: Schedule | None) -> int:
        """The rules that hold at every time at which this schedule does: those without one, and with the same."""
        mask = self._always.get(schedule)
        if mask is None:
            mask = self._always[schedule] = self.schedules.get(None, 0) | self.schedules.get(schedule, 0)
        return mask


Ports = tuple[tuple[int, int, int], ...]
"""(proto, first, end) in order, without overlaps and neighbours."""


def merged(ranges: Iterable[PortRange]) -> Ports:
    found: list[tuple[int, int, int]] = []
    for proto, first, last in sorted((r.proto, r.first, r.last) for r in ranges):
        if found and found[-1][0] == proto and first <= found[-1][2]:
            found[-1] = (proto, found[-1][1], max(found[-1][2], last + 1))
        else:
            found.append((proto, first, last + 1))
    return tuple(found)


def cover(held: Ports, wanted: Ports) -> bool:
    """Whether they hold every port of `wanted`."""
    for proto, first, end in wanted:
        at = bisect_right(held, (proto, first, 0x10000)) - 1
        if at < 0 or held[at][0] != proto or held[at][2] < end:
            return False
    return True
