"""The answers of several workers -> one, as of one engine. In: JSON objects by worker. Out: JSON objects."""

from __future__ import annotations

from typing import Any

Table = dict[str, Any]


def merge(asked: str, told: list[list[Table]]) -> list[Table]:
    """Lists are put together, by number; of stats there is one, in which counts are added up."""
    if asked == "stats":
        return [_added([each for answers in told for each in answers])] if any(told) else []
    return sorted((each for answers in told for each in answers), key=lambda each: int(each.get("id", 0)))


def _added(tables: list[Table]) -> Table:
    """Numbers are added, tables of numbers likewise; of the rest the first counts."""
    whole: Table = {}
    for table in tables:
        for name, value in table.items():
            known = whole.get(name)
            if isinstance(value, dict):
                whole[name] = _added([known or {}, value])
            elif known is not None and isinstance(value, int | float) and not isinstance(value, bool):
                whole[name] = known + value
            else:
                whole.setdefault(name, value)
    return whole
