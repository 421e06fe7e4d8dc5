"""The tables of the policy file: the schema that is published of them."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appid.edge.policy_file import Loader
from appid.edge.policy_tables import schema
from appid.edge.rule_files import load_applications
from tests.edge.test_policy_file import EXTRAS, REFERENCE, faults, load

ROOT = Path(__file__).resolve().parents[2]
MADE = schema()
SHIPPED = load_applications()


def fits(value: object, shape: dict[str, Any], defs: dict[str, Any]) -> bool:
    """JSON Schema 2020-12, as much of it as ours uses."""
    if "$ref" in shape:
        shape = defs[shape["$ref"].removeprefix("#/$defs/")]
    if "anyOf" in shape and not any(fits(value, one, defs) for one in shape["anyOf"]):
        return False
    if "if" in shape and fits(value, shape["if"], defs) and not fits(value, shape["then"], defs):
        return False
    if value not in shape.get("enum", [value]) or value != shape.get("const", value):
        return False
    kinds: dict[str, type | tuple[type, ...]] = {
        "string": str, "integer": int, "boolean": bool, "array": list, "object": dict,
    }  # fmt: skip
    kind = shape.get("type")
    if kind and (not isinstance(value, kinds[kind]) or (kind == "integer" and isinstance(value, bool))):
        return False
    if isinstance(value, str):
        pattern = shape.get("pattern", "").replace("$", r"\Z")  # ECMA-262: not before a newline
        return len(value) <= shape.get("maxLength", len(value)) and re.search(pattern, value) is not None
    if isinstance(value, int) and not shape.get("minimum", value) <= value <= shape.get("maximum", value):
        return False
    if isinstance(value, list):
        return len(value) >= shape.get("minItems", 0) and all(fits(one, shape.get("items", {}), defs) for one in value)
    if isinstance(value, dict):
        known, more = shape.get("properties", {}), shape.get("additionalProperties", True)
        if not set(shape.get("required", ())) <= set(value) or len(value) < shape.get("minProperties", 0):
            return False
        return all(
            fits(key, shape.get("propertyNames", {}), defs)
            and fits(one, known[key] if key in known else more if isinstance(more, dict) else {}, defs)
            for key, one in value.items()
            if key in known or more is not False
        ) and (more is not False or set(value) <= set(known))
    return True


def documents(shape: dict[str, Any], defs: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values that fit, of as much of JSON Schema as ours uses; addresses are sound ones."""
    if "$ref" in shape:
        shape = defs[shape["$ref"].removeprefix("#/$defs/")]
    if "anyOf" in shape and "type" not in shape:
        return st.one_of([documents(one, defs) for one in shape["anyOf"]])
    if "enum" in shape:
        return st.sampled_from(shape["enum"])
    kind, pattern = shape.get("type"), shape.get("pattern", "").replace("$", r"\Z")
    if kind == "boolean":
        return st.booleans()
    if kind == "integer":
        return st.integers(shape.get("minimum"), shape.get("maximum"))
    if kind == "string" and "{3}" in pattern:
        return st.sampled_from(["10.0.0.0/8", "192.0.2.1", "fd00::/64", "::"])
    if kind == "string":
        return st.from_regex(pattern).filter(lambda text: len(text) <= shape.get("maxLength", len(text)))
    if kind == "array":
        return st.lists(documents(shape["items"], defs), min_size=shape.get("minItems", 0), max_size=3)
    if "propertyNames" in shape:
        names = st.from_regex(shape["propertyNames"]["pattern"].replace("$", r"\Z"))
        return st.dictionaries(names, documents(shape["additionalProperties"], defs), max_size=3)
    required = shape.get("required", ())
    made = {key: documents(one, defs) for key, one in shape["properties"].items()}
    return st.fixed_dictionaries(
        {key: made[key] for key in required}, optional={key: one for key, one in made.items() if key not in required}
    ).filter(lambda value: fits(value, shape, defs))


ACROSS = re.compile(
    r"no zone |no application|no address group|is in zone .* already|'s name already|is no time zone"
    r"|is the name of |needs a source, a destination or ports|goes with action"  # of `any`, which is no name
    r"|is no port range: ports run|is no mark|is the time of `from`"  # one number beside another
)
"""What only the loader can say: of names of other tables and of the host, and of one number beside another."""


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(documents(MADE, MADE["$defs"]))
def test_what_fits_the_schema_is_refused_for_what_only_the_loader_knows(document: dict[str, Any]) -> None:
    assert fits(document, MADE, MADE["$defs"])
    loader = Loader("policy.toml", SHIPPED, None)
    loader.policy(document)
    assert [str(fault) for fault in loader.errors if not ACROSS.search(fault.reason)] == []


@settings(max_examples=300, deadline=None)
@given(
    st.text(max_size=4) | st.sampled_from(["defaults", "implicit: x", "any", "a" * 101, "\u202eevil", "a\n", ".", "-x"])
)
def test_names_fit_the_schema_as_they_load(name: str) -> None:
    rule = {"name": name, "action": "allow"}
    document: dict[str, Any]
    for document in ({"rule": [rule]}, {"zones": {name: {}}}, {"zones": {"a": {"interfaces": [name]}}},
                     {"groups": {"applications": {name: []}}}):  # fmt: skip
        loader = Loader("policy.toml", {}, None)
        loader.policy(document)
        assert fits(document, MADE, MADE["$defs"]) is (not loader.errors), document


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
    assert fits(tomllib.loads(text), MADE, MADE["$defs"])


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
    assert not fits(tomllib.loads(text), MADE, MADE["$defs"])
