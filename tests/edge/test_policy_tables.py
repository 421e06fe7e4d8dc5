"""The tables of the policy file: the schema that is published of them."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from appid.edge.policy_tables import schema
from tests.edge.test_policy_file import EXTRAS, REFERENCE, faults, load

ROOT = Path(__file__).resolve().parents[2]


def fits(value: object, shape: dict[str, Any], defs: dict[str, Any]) -> bool:
    """JSON Schema 2020-12, as much of it as ours uses."""
    if "$ref" in shape:
        shape = defs[shape["$ref"].removeprefix("#/$defs/")]
    if "anyOf" in shape:
        return any(fits(value, one, defs) for one in shape["anyOf"])
    if "enum" in shape and value not in shape["enum"]:
        return False
    kinds: dict[str, type | tuple[type, ...]] = {
        "string": str, "integer": int, "boolean": bool, "array": list, "object": dict,
    }  # fmt: skip
    kind = shape.get("type")
    if kind and (not isinstance(value, kinds[kind]) or (kind == "integer" and isinstance(value, bool))):
        return False
    if isinstance(value, str) and "pattern" in shape and not re.search(shape["pattern"], value):
        return False
    if isinstance(value, int) and not shape.get("minimum", value) <= value <= shape.get("maximum", value):
        return False
    if isinstance(value, list):
        return len(value) >= shape.get("minItems", 0) and all(fits(one, shape.get("items", {}), defs) for one in value)
    if isinstance(value, dict):
        known, more = shape.get("properties", {}), shape.get("additionalProperties", True)
        if not set(shape.get("required", ())) <= set(value):
            return False
        return all(
            fits(one, known[key] if key in known else more if isinstance(more, dict) else {}, defs)
            for key, one in value.items()
            if key in known or more is not False
        ) and (more is not False or set(value) <= set(known))
    return True


def test_the_published_schema_is_current() -> None:
    """If not: appid policy schema > docs/reference/policy.schema.json."""
    assert json.loads((ROOT / "docs/reference/policy.schema.json").read_text()) == schema()


@pytest.mark.parametrize(
    "text",
    [
        REFERENCE,
        EXTRAS,
        '[[rule]]\nname = "a"\naction = "allow"\nmark = "0x10/0xF0"\nschedule = { from = "08:00", to = "24:00" }',
        '[[override]]\napplication = "sip"\nsource = "10.0.0.1"\nports = "any"',
        *(path.read_text() for path in sorted((ROOT / "rules/policy").glob("*.toml"))),
    ],
)
def test_what_loads_fits_the_schema(text: str, tmp_path: Path) -> None:
    load(tmp_path, text)
    made = schema()
    assert fits(tomllib.loads(text), made, made["$defs"])


@pytest.mark.parametrize(
    "text",
    [
        "colour = 1",
        '[defaults]\naction = "alow"',
        '[[rule]]\naction = "allow"',
        '[[rule]]\nname = "x"\naction = "allow"\nservice = "5060"',
        '[[rule]]\nname = "x"\naction = "allow"\ndscp = 64',
        '[[rule]]\nname = "x"\naction = "allow"\nschedule = { from = "8 o\'clock" }',
        '[[rule]]\nname = "x"\naction = "allow"\nschedule = { to = "24:30" }',
        '[[rule]]\nname = "x"\naction = "allow"\nmark = "ff"',
        '[[rule]]\nname = "x"\naction = "allow"\nsource = []',
        "[groups.addresses]\nnobody = []",
        "[zones]\ninside = { undecided_packets = -1 }",
        '[[override]]\nports = ["udp/1"]',
    ],
)
def test_what_does_not_load_does_not_fit_the_schema(text: str, tmp_path: Path) -> None:
    faults(tmp_path, text)
    made = schema()
    assert not fits(tomllib.loads(text), made, made["$defs"])
