"""Sets of rules as ints: rule i is bit i, "and" is `&`.

In: row numbers. Out: masks, and rows again. -1 is all rules, whatever their number.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)


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


def rows_of(mask: int) -> Iterator[int]:
    """The rules of a mask that is not negative, in order."""
    while mask:
        row = lowest(mask)
        yield row
        mask ^= 1 << row


def by_key(keys: Iterable[Key]) -> dict[Key, int]:
    """key -> the rules that have it."""
    rows: dict[Key, list[int]] = {}
    for i, key in enumerate(keys):
        rows.setdefault(key, []).append(i)
    return {key: mask_of(numbers) for key, numbers in rows.items()}


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
