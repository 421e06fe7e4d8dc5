"""Operator's faults, as people read them."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, ValidationError

from appid.edge.errors import RuleError, RuleErrors, of_validation


class Row(BaseModel):
    model_config = ConfigDict(extra="forbid")
    ports: list[int]


class Table(BaseModel):
    row: list[Row]


def test_a_fault_is_one_line_with_its_place() -> None:
    assert str(RuleError("f.toml", "rule[2]", "action", "is missing")) == "f.toml: rule[2]: action: is missing"
    assert str(RuleError("f.toml", "", "", "not TOML")) == "f.toml: not TOML"
    both = RuleErrors([RuleError("f", "", "a", "x"), RuleError("f", "", "b", "y")])
    assert str(both).splitlines() == ["f: a: x", "f: b: y"]


def test_places_count_from_one() -> None:
    try:
        Table.model_validate({"row": [{"ports": [1]}, {"ports": [1, "x"], "colour": 1}]})
    except ValidationError as error:
        found = of_validation("f", error, "top")
    assert [(e.table, e.key) for e in found] == [("top.row[2]", "ports[2]"), ("top.row[2]", "colour")]
    assert found[1].reason == "no such key"
