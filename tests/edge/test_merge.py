"""Answers of several workers as of one engine."""

from __future__ import annotations

from appid.edge.merge import Table, merge


def test_lists_are_put_together_in_order() -> None:
    told = [[{"type": "flow", "id": 1}, {"type": "flow", "id": 5}], [], [{"type": "flow", "id": 2}]]
    assert [each["id"] for each in merge("flows", told)] == [1, 2, 5]
    assert merge("flows", []) == []


def half(caller: str, callee: str, **more: object) -> Table:
    told = {"type": "call", "id": 3, "caller": caller, "callee": callee, "answered_at": None, "ended_at": None,
            "end": "open", "flows": [], "media": [], "packets": 2, "bytes": 100}  # fmt: skip
    return {**told, **more}


def test_a_call_that_two_tell_of_is_one() -> None:
    ours = half("10.0.0.1", "192.0.2.1", flows=[1, 5], answered_at=9)
    theirs = half("192.0.2.1", "10.0.0.2", flows=[2], end="bye", ended_at=7, media=[{"kind": "audio"}])
    for told in ([[ours], [theirs]], [[theirs], [ours]]):
        (call,) = merge("calls", told, lambda address: address.startswith("10."))
        assert (call["caller"], call["callee"]) == ("10.0.0.1", "10.0.0.2"), "as each knows its own"
        assert (call["flows"], call["packets"], call["bytes"]) == ([1, 2, 5], 4, 200)
        assert (call["answered_at"], call["ended_at"], call["end"]) == (9, 7, "bye")
        assert call["media"] == [{"kind": "audio"}]


def test_counts_are_added_up() -> None:
    told = [
        [{"type": "stats", "packets": 3, "flows": 1, "reports": {"flow": 2}, "exceptions": {}}],
        [{"type": "stats", "packets": 4, "flows": 0, "reports": {"flow": 1, "call": 1}, "exceptions": {"a": 2}}],
    ]
    assert merge("stats", told) == [
        {"type": "stats", "packets": 7, "flows": 1, "reports": {"flow": 3, "call": 1}, "exceptions": {"a": 2}}
    ]
    assert merge("stats", []) == []


def test_calls_are_told_in_the_order_in_which_they_began() -> None:
    """Numbers are given out by each worker on its own; packets are numbered by all together."""
    told = [[{"type": "pinhole", "id": 1, "opened_at": 9}], [{"type": "pinhole", "id": 2, "opened_at": 4}]]
    assert [each["id"] for each in merge("pinholes", told)] == [2, 1]
