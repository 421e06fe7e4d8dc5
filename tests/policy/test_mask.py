"""Rules as bits."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from appid.policy.mask import by_key, by_name, lowest, mask_of, rows_of


@given(st.sets(st.integers(0, 500), min_size=1))
def test_masks(rows: set[int]) -> None:
    assert mask_of(rows) == sum(1 << row for row in rows)
    assert lowest(mask_of(rows)) == min(rows)
    assert list(rows_of(mask_of(rows))) == sorted(rows)


def test_by_key_and_by_name() -> None:
    assert by_key(["a", "b", "a", None]) == {"a": 0b101, "b": 0b10, None: 0b1000}
    assert by_name([["a"], None, ["a", "b"], []]) == {"a": 0b111, "b": 0b110, None: 0b10}
