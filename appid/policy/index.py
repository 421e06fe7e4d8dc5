"""Which rules hold for an address, a port? Rules as bits: rule i is bit i, a set of rules is one int, "and" is `&`.

In: each rule's networks and ports. Out: masks. A look-up costs a few dictionary accesses, however many rules there are.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence

from appid.identify.application import PortRange
from appid.policy.rule import Network, PolicyRule

_FEW = 8
"""Up to so many rules of one network are kept as a tuple; more become a mask, which is as long as the policy."""


class NetworkIndex:
    """Rules by the networks that they name; a rule that names none holds everywhere."""

    def __init__(self, rules: Sequence[Sequence[Network]]) -> None:
        self.anywhere = mask_of(i for i, networks in enumerate(rules) if not networks)
        members: dict[tuple[int, int], dict[int, list[int]]] = {}
        for i, networks in enumerate(rules):
            for base, prefix in networks:
                shift = 8 * len(base) - prefix
                number = int.from_bytes(base, "big") >> shift
                members.setdefault((len(base), shift), {}).setdefault(number, []).append(i)
        self._tables: dict[int, list[tuple[int, dict[int, tuple[int, ...] | int]]]] = {4: [], 16: []}
        self._starts: dict[int, list[tuple[int, int]]] = {4: [], 16: []}
        for i, networks in enumerate(rules):
            for base, _ in networks:
                self._starts[len(base)].append((int.from_bytes(base, "big"), i))
        for starts in self._starts.values():
            starts.sort()
        for (width, shift), table in sorted(members.items()):
            short = {number: tuple(rows) if len(rows) <= _FEW else mask_of(rows) for number, rows in table.items()}
            self._tables[width].append((shift, short))

    def find(self, address: bytes) -> int:
        """The mask of the rules that hold for a packed address."""
        mask = self.anywhere
        number = int.from_bytes(address, "big")
        for shift, table in self._tables[len(address)]:
            rows = table.get(number >> shift)
            if rows is None:
                continue
            if isinstance(rows, int):
                mask |= rows
            else:
                for row in rows:
                    mask |= 1 << row
        return mask

    def overlapping(self, networks: Sequence[Network]) -> int:
        """The mask of the rules that hold for any address of these networks; -1 (all rules) for none given."""
        if not networks:
            return -1
        mask = self.anywhere
        for base, prefix in networks:
            low = int.from_bytes(base, "big")
            starts = self._starts[len(base)]
            first = bisect_left(starts, (low, 0))
            last = bisect_left(starts, (low + (1 << (8 * len(base) - prefix)), 0))
            mask |= self.find(base) | mask_of(row for _, row in starts[first:last])
        return mask


class PortIndex:
    """Rules by (protocol, port). `classes` are the stretches of ports that no rule and no application tells apart."""

    def __init__(self, rules: Iterable[tuple[int, Iterable[PortRange]]], others: Iterable[PortRange] = ()) -> None:
        edges: dict[int, dict[int, int]] = {}
        for row, ranges in rules:
            for proto, first, end in _merged(ranges):
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


class RuleIndex:
    """All rules of a policy by each thing that they match."""

    def __init__(self, rules: Sequence[PolicyRule], others: Iterable[PortRange] = ()) -> None:
        self.from_ = by_name(rule.from_ or None for rule in rules)
        self.to = by_name(rule.to or None for rule in rules)
        self.named = by_name(rule.applications for rule in rules)
        self.source = NetworkIndex([rule.source for rule in rules])
        self.destination = NetworkIndex([rule.destination for rule in rules])
        self.any_service = mask_of(i for i, rule in enumerate(rules) if rule.service == "any")
        self.default_service = mask_of(i for i, rule in enumerate(rules) if rule.service == "application-default")
        explicit = [(i, rule.service) for i, rule in enumerate(rules) if not isinstance(rule.service, str)]
        self.ports = PortIndex(explicit, others)

    def between(self, from_zone: str | None, to_zone: str | None) -> int:
        """The rules for these zones; None is a side that lies in no zone."""
        return self.from_.get(from_zone, self.from_[None]) & self.to.get(to_zone, self.to[None])

    def naming(self, application: str) -> int:
        """The rules that list the application, or any."""
        return self.named.get(application, self.named[None])


def by_name(rules: Iterable[Iterable[str] | None]) -> dict[str | None, int]:
    """name -> the rules that list it or list nothing (None); None -> the rules that list nothing."""
    listed: dict[str, list[int]] = {}
    anything = []
    for i, names in enumerate(rules):
        if names is None:
            anything.append(i)
            continue
        for name in names:
            listed.setdefault(name, []).append(i)
    nothing = mask_of(anything)
    masks: dict[str | None, int] = {name: mask_of(rows) | nothing for name, rows in listed.items()}
    masks[None] = nothing
    return masks


def rows_of(mask: int) -> Iterator[int]:
    """The rules of a mask, in order."""
    while mask:
        row = lowest(mask)
        yield row
        mask ^= 1 << row


def mask_of(rows: Iterable[int]) -> int:
    """Row numbers -> one int; linear in the highest row, not in their product."""
    numbers = list(rows)
    if not numbers:
        return 0
    bits = bytearray(max(numbers) // 8 + 1)
    for number in numbers:
        bits[number >> 3] |= 1 << (number & 7)
    return int.from_bytes(bits, "little")


def lowest(mask: int) -> int:
    """The first rule of a mask that is not 0."""
    return (mask & -mask).bit_length() - 1


def _merged(ranges: Iterable[PortRange]) -> list[tuple[int, int, int]]:
    """(proto, first, end) without overlaps, so that each rule toggles its bit once on and once off."""
    merged: list[tuple[int, int, int]] = []
    for proto, first, last in sorted((r.proto, r.first, r.last) for r in ranges):
        if merged and merged[-1][0] == proto and first <= merged[-1][2]:
            merged[-1] = (proto, merged[-1][1], max(merged[-1][2], last + 1))
        else:
            merged.append((proto, first, last + 1))
    return merged
