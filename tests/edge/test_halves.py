"""Halves of one call: one number, one count and one end among workers, over the death of any of them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from appid.dataplane.command import Report
from appid.edge import halves as room
from appid.edge.halves import DEPTH, Halves, Table
from appid.engine import CallReport
from appid.flow.call import End


@pytest.fixture
def table(tmp_path: Path) -> Iterator[Table]:
    made = Table(tmp_path / "halves")
    yield made
    made.close()


def call(number: int, call_id: str | None = "one", end: End = "open", tag: str = "a") -> CallReport:
    return CallReport(number, "sip", call_id, None, None, 1, None, None, end, (), (), tag=tag)


def test_the_second_half_has_the_firsts_number_and_the_first_worker_counts(table: Table) -> None:
    first, second = Halves(table, 1), Halves(table, 0)
    first.heard(call(2), True)
    second.heard(call(1), True)
    assert (first.name(2), second.name(1)) == (2, 2)
    assert second.named(Report("call", call(1))).body.call == 2
    assert first.counted([2]) + second.counted([1]) == 1
    assert [first.ends(call(2, end="bye")), second.ends(call(1, end="bye"))] == [True, False]
    second.heard(call(1, end="bye"), False)
    assert first.counted([2]) == 1, "the one that is left"
    first.heard(call(2, end="bye"), False)
    second.heard(call(3), True)
    assert second.name(3) == 3, "the same Call-ID in another life"
    assert second.ends(call(3, end="bye"))


def test_one_call_id_of_two_callers_is_two_calls(table: Table) -> None:
    one, other = Halves(table, 0), Halves(table, 1)
    one.heard(call(1), True)
    other.heard(call(2, tag="stranger"), True)
    assert (other.name(2), one.counted([1]) + other.counted([2])) == (2, 2)
    assert other.ends(call(2, end="refused", tag="stranger"))
    assert one.ends(call(1, end="bye"))


def test_calls_that_nobody_shares_are_their_workers(table: Table) -> None:
    one, other = Halves(table, 0), Halves(table, 1)
    one.heard(call(1, "a"), True)
    other.heard(call(2, "b"), True)
    one.heard(call(3, None), True)
    assert (one.name(1), other.name(2), one.name(3)) == (1, 2, 3)
    assert (one.counted([1, 3]), other.counted([2])) == (2, 1)
    alone = Halves(None, 0)
    alone.heard(call(1), True)
    assert (alone.name(1), alone.counted([1, 2]), alone.ends(call(1))) == (1, 2, True)


def test_what_a_killed_worker_held_is_its_successors_or_nobodys(table: Table, tmp_path: Path) -> None:
    other = Halves(table, 1)
    other.heard(call(2, "kept"), True)
    pid = os.fork()
    if not pid:
        victim = Halves(table, 0)
        for number, call_id in ((1, "kept"), (3, "gone")):
            victim.heard(call(number, call_id), True)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert other.counted([2]) == 0
    again = Table(tmp_path / "halves")  # as after the supervisor's death
    successor, other = Halves(again, 0), Halves(again, 1)
    successor.heard(call(1, "kept"), True)
    other.heard(call(2, "kept"), True)
    successor.settle()
    assert (successor.name(1), other.name(2)) == (2, 2)
    other.heard(call(4, "gone"), True)
    assert other.name(4) == 4, "nobody holds it any more"
    again.close()


def test_another_boots_table_says_nothing(table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Halves(table, 0).heard(call(7), True)
    monkeypatch.setattr(room, "boot", lambda: "another")
    other = Table(tmp_path / "halves")
    halves = Halves(other, 1)
    halves.heard(call(2), True)
    assert halves.name(2) == 2
    other.close()


def test_where_there_is_no_room_each_half_is_told_by_itself(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "BUCKETS", 1)
    one, other = Halves(table, 0), Halves(table, 1)
    for number in range(DEPTH + 1):
        one.heard(call(2 * number + 1, str(number)), True)
        other.heard(call(2 * number + 2, str(number)), True)
    assert [other.name(2 * number + 2) for number in range(DEPTH)] == [2 * number + 1 for number in range(DEPTH)]
    assert other.name(2 * DEPTH + 2) == 2 * DEPTH + 2
    assert one.ends(call(2 * DEPTH + 1, str(DEPTH), "bye"))
