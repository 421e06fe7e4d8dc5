"""Which rules hold for an address, for all or some of the addresses of another rule?

In: each rule's networks. Out: masks (mask.py). A look-up costs a few dictionary accesses, however many rules there are;
rules that name the same networks (a group) cost little more than one.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence

from appid.policy.mask import mask_of
from appid.policy.rule import Network

_FEW = 8
"""Up to so many rules of one network are kept as a tuple; more become a mask, which is as long as the policy."""
_MANY = 64
"""What meets more rules than this is remembered: networks nest, so few do, but those may be asked for often."""
_Rows = tuple[int, ...] | int


class NetworkIndex:
    """Rules by the networks that they name; a rule that names none holds everywhere."""

    def __init__(self, rules: Sequence[tuple[Network, ...]]) -> None:
        numbers: dict[tuple[Network, ...], int] = {}
        self._number = [numbers.setdefault(networks, len(numbers)) for networks in rules]
        """rule -> which list of networks it has"""
        self._lists = list(numbers)
        rows: list[list[int]] = [[] for _ in self._lists]
        for row, number in enumerate(self._number):
            rows[number].append(row)
        self._shared = [len(of) > 1 for of in rows]
        self.anywhere = mask_of(rows[numbers[()]]) if () in numbers else 0
        naming: dict[Network, list[int]] = {}
        for number, networks in enumerate(self._lists):
            for network in dict.fromkeys(networks):
                naming.setdefault(network, []).append(number)
        self._tables, self._starts = _tables(naming, rows)
        self._overlapping: dict[int, int] = {}
        self._covering: dict[int, int] = {}
        self._known: dict[Network, int] = {}

    def find(self, address: bytes, shortest: int = 0) -> int:
        """The mask of the rules that hold for a packed address. `shortest`: only networks with so many host bits."""
        mask = self.anywhere
        number = int.from_bytes(address, "big")
        for shift, table in self._tables[len(address)]:
            if shift >= shortest:
                rows = table.get(number >> shift)
                if rows is None:
                    continue
                if isinstance(rows, int):
                    mask |= rows
                else:
                    for row in rows:
                        mask |= 1 << row
        return mask

    def overlapping(self, row: int) -> int:
        """The rules that hold for any address of this one's; -1 (all) if it names no networks."""
        number = self._number[row]
        mask = self._overlapping.get(number)
        if mask is None:
            mask = 0 if self._lists[number] else -1
            for network in self._lists[number]:
                mask |= self._meeting(network)
            if self._shared[number]:
                self._overlapping[number] = mask
        return mask

    def covering(self, row: int) -> int:
        """The rules that hold for every address of this one's, each of its networks within one of theirs."""
        number = self._number[row]
        mask = self._covering.get(number)
        if mask is None:
            mask = -1 if self._lists[number] else self.anywhere
            for base, prefix in self._lists[number]:
                mask &= self.find(base, 8 * len(base) - prefix)
            if self._shared[number]:
                self._covering[number] = mask
        return mask

    def _meeting(self, network: Network) -> int:
        known = self._known.get(network)
        if known is not None:
            return known
        base, prefix = network
        low = int.from_bytes(base, "big")
        starts, rows = self._starts[len(base)]
        first = bisect_right(starts, low)  # what begins where it does is found by its address
        last = bisect_left(starts, low + (1 << (8 * len(base) - prefix)))
        mask = self.find(base)
        if first < last:
            mask |= _union(rows[first:last])
        if last - first > _MANY or mask.bit_count() > _MANY:
            self._known[network] = mask
        return mask


def _tables(
    naming: dict[Network, list[int]], rows: list[list[int]]
) -> tuple[dict[int, list[tuple[int, dict[int, _Rows]]]], dict[int, tuple[list[int], list[_Rows]]]]:
    """Per width: (host bits, network number -> rules), and first addresses in order, with their rules."""
    tables: dict[tuple[int, int], dict[int, _Rows]] = {}
    starts: dict[int, list[tuple[int, _Rows]]] = {4: [], 16: []}
    merged: dict[tuple[int, ...], _Rows] = {}
    for (base, prefix), lists in naming.items():
        key = tuple(lists)
        held = merged.get(key)
        if held is None:
            every = [row for number in lists for row in rows[number]]
            held = merged[key] = tuple(sorted(every)) if len(every) <= _FEW else mask_of(every)
        shift, low = 8 * len(base) - prefix, int.from_bytes(base, "big")
        tables.setdefault((len(base), shift), {})[low >> shift] = held
        starts[len(base)].append((low, held))
    by_width: dict[int, list[tuple[int, dict[int, _Rows]]]] = {4: [], 16: []}
    for (width, shift), table in sorted(tables.items(), key=lambda entry: entry[0]):
        by_width[width].append((shift, table))
    ordered = {width: sorted(entries, key=lambda entry: entry[0]) for width, entries in starts.items()}
    return by_width, {width: ([low for low, _ in one], [held for _, held in one]) for width, one in ordered.items()}


def _union(many: Iterable[_Rows]) -> int:
    """Each distinct mask is taken once: a group's networks share theirs."""
    rows: list[int] = []
    masks: dict[int, int] = {}
    for held in many:
        if isinstance(held, int):
            masks[id(held)] = held
        else:
            rows += held
    mask = mask_of(rows)
    for held in masks.values():
        mask |= held
    return mask
