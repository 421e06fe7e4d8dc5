"""What is due: the earliest first, no more at once than asked for, each at its last time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from appid.engine.due import Due


def test_what_began_together_is_spread() -> None:
    due: Due[int] = Due()
    for number in range(10):
        due.put(number, 100.0)
    assert due.take(99.0, 3) == []
    assert due.take(100.0, 3) == [0, 1, 2]
    for number in (0, 1, 2):
        due.put(number, 200.0)
    assert due.take(101.0, 100) == [3, 4, 5, 6, 7, 8, 9]
    assert due.next() == 200.0
    assert len(due) == 3


def test_a_key_has_one_time_and_may_be_dropped() -> None:
    due: Due[str] = Due()
    due.put("a", 5.0)
    due.put("a", 50.0)
    assert (due.time("a"), due.time("b")) == (50.0, None)
    due.put("b", 7.0)
    due.drop("b")
    due.drop("nobody")
    assert due.take(10.0, 9) == []
    assert due.next() == 50.0
    due.put("a", 1.0)
    assert due.take(10.0, 9) == ["a"]
    assert due.next() is None


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 50), st.booleans())), st.integers(1, 5))
def test_as_a_table_of_times_would_have_it(moves: list[tuple[int, int, bool]], limit: int) -> None:
    due = Due[int]()
    times: dict[int, float] = {}
    for key, time, gone in moves:
        due.drop(key)
        times.pop(key, None)
        if not gone:
            due.put(key, float(time))
            times[key] = float(time)
        assert due.next() == min(times.values(), default=None)
    taken = due.take(25.0, limit)
    assert sorted(times[key] for key in taken) == sorted(time for time in times.values() if time <= 25)[:limit]
