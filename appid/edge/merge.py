"""The answers of several workers -> one, as of one engine. In: JSON objects by worker. Out: JSON objects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Table = dict[str, Any]


def merge(asked: str, told: list[list[Table]], inside: Callable[[str], bool] = lambda address: False) -> list[Table]:
    """Lists are put together, as one engine would have them: in the order in which they began; of stats there is one,
    in which counts are added up. A call that two tell of has two hosts that are `inside`, each of which one of them
    knows."""
    if asked == "stats":
        return [_added([each for answers in told for each in answers])] if any(told) else []
    tables = sorted((each for answers in told for each in answers), key=_begun)
    if asked != "calls":
        return tables
    whole: dict[int, Table] = {}
    for table in tables:
        known = whole.get(table["id"])
        whole[table["id"]] = table if known is None else _one_call(known, table, inside)
    return list(whole.values())


def _begun(each: Table) -> tuple[int, int]:
    """The packet, and the number."""
    first = each.get("started_at", each.get("opened_at"))
    return (first if isinstance(first, int) else 0, int(each.get("id", 0)))


def _one_call(first: Table, second: Table, inside: Callable[[str], bool]) -> Table:
    """Its halves, put together as one engine would have it (engine/calls.py, _invited)."""
    ends = {
        side: next((each[side] for each in (first, second) if each[side] and inside(each[side])), first[side])
        for side in ("caller", "callee")
    }
    answered = first["answered_at"] if first["answered_at"] is not None else second["answered_at"]
    ended = first if first["end"] != "open" else second
    return {
        **first, **ends, "answered_at": answered, "ended_at": ended["ended_at"], "end": ended["end"],
        "flows": sorted({*first["flows"], *second["flows"]}), "media": first["media"] or second["media"],
        "packets": first["packets"] + second["packets"], "bytes": first["bytes"] + second["bytes"],
    }  # fmt: skip


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
