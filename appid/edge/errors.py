"""Whose fault it is: the operator's (RuleError, at load time only, all of them at once).

Out: RuleErrors, which carries every fault found in the files that were read; nothing of them takes effect.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


@dataclass(frozen=True, slots=True)
class RuleError:
    """One fault: in which file, which table of it (`rule[2]`, counted from 1; "" at the top), which key, and why."""

    file: str
    table: str
    key: str
    reason: str

    def __str__(self) -> str:
        place = ": ".join(part for part in (self.file, self.table, self.key) if part)
        return f"{place}: {self.reason}"


class RuleErrors(Exception):  # noqa: N818 - it is a list of them
    """All the faults of a load, in the order of the files."""

    def __init__(self, errors: Iterable[RuleError]) -> None:
        self.errors = tuple(errors)
        super().__init__("\n".join(str(error) for error in self.errors))


def of_validation(file: str, error: ValidationError, place: str = "") -> list[RuleError]:
    """pydantic's findings -> ours: lists count from 1 and join their name, the last name is the key. `place` is the
    table that was validated."""
    found = []
    for item in error.errors(include_url=False, include_context=False):
        *tables, key = _place(item["loc"]) or [""]
        table = ".".join([place, *tables] if place else tables)
        fault = RuleError(file, table, key, _reason(item["type"], item["msg"]))
        if fault not in found:
            found.append(fault)
    return found


def _reason(kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        return "no such key"
    if kind == "missing":
        return "is missing"
    if kind in ("model_type", "dict_type", "model_attributes_type"):
        return "should be a table"
    if kind in ("too_short", "string_too_short"):
        return "is empty"
    message = message.removeprefix("Value error, ").replace("Input should be", "should be")
    return message[:1].lower() + message[1:]


def _place(location: tuple[int | str, ...]) -> list[str]:
    parts: list[str] = []
    for step in location:
        if isinstance(step, int) and parts:
            parts[-1] += f"[{step + 1}]"
        else:
            parts.append(str(step))
    return parts
