"""Boxes of addresses, against points."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from appid.policy.box import Box, boxes, meets, subtract
from appid.wire import packed

SIDE = st.tuples(st.integers(0, 6), st.integers(0, 6)).map(sorted)
BOX = st.builds(lambda s, d: Box(4, s[0], s[1], d[0], d[1]), SIDE, SIDE)


def points(box: Box) -> set[tuple[int, int]]:
    return {
        (s, d)
        for s in range(box.source_low, box.source_high + 1)
        for d in range(box.destination_low, box.destination_high + 1)
    }


@given(BOX, st.lists(BOX, max_size=5))
def test_what_is_left_is_exactly_what_was_not_taken(whole: Box, taken: list[Box]) -> None:
    pieces = [whole]
    for box in taken:
        pieces = subtract(pieces, box)
    left = [point for piece in pieces for point in points(piece)]
    assert len(left) == len(set(left))
    assert set(left) == points(whole) - {point for box in taken for point in points(box)}


@given(BOX, BOX)
def test_what_meets_has_a_point_in_common(one: Box, other: Box) -> None:
    assert meets(one, other) is bool(points(one) & points(other))


def test_families_do_not_mix() -> None:
    v4, v6 = (packed("10.0.0.0"), 8), (packed("fd00::"), 8)
    assert list(boxes([v4], [v6])) == []
    assert [box.width for box in boxes([v4], [])] == [4]
    assert sorted(box.width for box in boxes([], [])) == [4, 16]
    assert not meets(*boxes([], []))
