"""Ten times the applications: nine clones of each shipped file, with the same facts and other values.

In: rules/apps. Out: a folder for `appid check --rules`. A clone's signatures are tried where the shipped ones are (same
facts, same operators) and never hold, so the difference in CPU is the price of knowing more applications.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SHIPPED = Path(__file__).resolve().parent.parent.parent / "rules" / "apps"
FIRST_NUMBER = 0x8000
"""Numbers of the operator's applications start here (docs/reference/application-files.md)."""
HEAD = ("description", "category", "risk", "era", "date", "characteristics", "references", "default_ports", "watch")
OPERATORS = ("is", "in", "has", "lacks", "prefix", "suffix", "length", "within")


def clone_folder(target: Path, times: int = 10, shipped: Path = SHIPPED) -> int:
    """Fill `target` so that there are `times` as many applications as in `shipped`; returns how many were added."""
    target.mkdir(parents=True, exist_ok=True)
    for old in target.glob("*.toml"):
        old.unlink()
    number = 0
    for path in sorted(shipped.glob("*.toml")):
        tables = tomllib.loads(path.read_text())
        for clone in range(1, times):
            name = f"{path.stem}-clone-{clone}"
            (target / f"{name}.toml").write_text("\n".join(_lines(tables, name, FIRST_NUMBER + number, clone)) + "\n")
            number += "extends" not in tables
    return number


def _lines(tables: dict[str, Any], name: str, number: int, clone: int) -> Iterator[str]:
    yield f"name = {_toml(name)}"
    if "extends" in tables:  # a generation of another file's application: one of that application's clone
        yield f"extends = {_toml(tables['extends'] + f'-clone-{clone}')}"
    else:
        yield f"number = {number}"
    for key in HEAD:
        if key in tables:
            yield f"{key} = {_toml(tables[key])}"
    for signature in tables.get("signature", ()):
        yield "\n[[signature]]"
        for key, value in signature.items():
            if key != "match":
                yield f"{key} = {_toml(value)}"
        conditions = [{key: _other(key, value, clone) for key, value in row.items()} for row in signature["match"]]
        yield f"match = {_toml(_impossible(signature['match'], conditions, name))}"


def _other(key: str, value: Any, clone: int) -> Any:
    """Another value of the same kind. Networks and booleans stay: there are not many of them."""
    if key not in OPERATORS or key == "within" or isinstance(value, bool):
        return value
    match value:
        case str():
            return f"{value}.clone{clone}" if key != "suffix" else f".clone{clone}{value}"
        case int():
            return value + 1000 * clone
        case list():
            return [_other(key, item, clone) for item in value]
    return value


def _impossible(before: list[dict[str, Any]], after: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """A clone whose values all stayed (`has = true`, networks) must not hold: it wants a name that nobody sends."""
    return after if after != before else [*after, {"fact": "tls.sni", "is": f"{name}.invalid"}]


def _toml(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return json.dumps(value)
        case int() | float():
            return str(value)
        case list():
            return "[" + ", ".join(_toml(item) for item in value) + "]"
        case dict():
            return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
    raise TypeError(f"no TOML for {value!r}")
