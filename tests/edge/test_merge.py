"""Answers of several workers as of one engine."""

from __future__ import annotations

from appid.edge.merge import merge


def test_lists_are_put_together_in_order() -> None:
    told = [[{"type": "call", "id": 1}, {"type": "call", "id": 5}], [], [{"type": "call", "id": 2}]]
    assert [each["id"] for each in merge("calls", told)] == [1, 2, 5]
    assert merge("flows", []) == []


def test_counts_are_added_up() -> None:
    told = [
        [{"type": "stats", "packets": 3, "flows": 1, "reports": {"flow": 2}, "exceptions": {}}],
        [{"type": "stats", "packets": 4, "flows": 0, "reports": {"flow": 1, "call": 1}, "exceptions": {"a": 2}}],
    ]
    assert merge("stats", told) == [
        {"type": "stats", "packets": 7, "flows": 1, "reports": {"flow": 3, "call": 1}, "exceptions": {"a": 2}}
    ]
    assert merge("stats", []) == []
