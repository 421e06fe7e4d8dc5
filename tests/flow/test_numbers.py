"""Numbers: one engine's, several engines', and those after a restart."""

from __future__ import annotations

from appid.flow.numbers import Numbers


def test_engines_share_the_numbers() -> None:
    first, second = Numbers(1, 2), Numbers(2, 2)
    assert [first.take() for _ in range(3)] == [1, 3, 5]
    assert [second.take() for _ in range(3)] == [2, 4, 6]
    assert first.last == 5


def test_what_was_given_is_not_given_again() -> None:
    numbers = Numbers(2, 3)
    for given in (1, 2, 5, 6, 7, 40):
        numbers.beyond(given)
        taken = numbers.take()
        assert taken > given
        assert taken % 3 == 2, "it keeps to its own"
    numbers.beyond(3)
    assert numbers.take() == taken + 3
