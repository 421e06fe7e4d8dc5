"""Mark layouts: what is encoded comes back, others' bits are kept, masks that cannot work are refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appid.dataplane.marks import Mark, Marks

DEFAULT = Marks()


def test_the_default_layout() -> None:
    assert (DEFAULT.state, DEFAULT.watch, DEFAULT.passing, DEFAULT.application) == (0x3, 0x4, 0x8, 0x00FFFF00)
    assert DEFAULT.saved == 0x00FFFF07
    assert DEFAULT.encode("allow", 0x12, watch=True) == 0x00001205
    assert DEFAULT.encode("deny") == 2
    assert DEFAULT.encode("drop") == 3
    assert (DEFAULT.nibble, DEFAULT.settled) == (0xF, 0x4), "watch without a state"
    assert DEFAULT.encode(None, passing=True) == 8


@given(
    st.sampled_from((None, "allow", "deny", "drop")),
    st.integers(0, 0xFF),
    st.booleans(),
    st.booleans(),
    st.sampled_from((0x00FFFF0F, 0xFFFFFFFF, 0xFF00F000, 0x00000FFF, 0x0FF0000F)),
)
def test_what_is_encoded_comes_back_and_stays_within_the_mask(
    action: str | None, application: int, watch: bool, passing: bool, mask: int
) -> None:
    marks = Marks(mask)
    mark = marks.encode(action, application, watch=watch, passing=passing)  # type: ignore[arg-type]
    assert mark & ~mask == 0
    assert marks.decode(mark) == Mark(action, application, watch, passing)  # type: ignore[arg-type]


@given(st.integers(0, 0xFFFFFFFF), st.integers(0, 0xFFFFFFFF))
def test_merging_keeps_the_bits_of_others_and_never_leaves_a_packet_undecided(theirs: int, ours: int) -> None:
    merged = DEFAULT.merge(theirs, ours)
    assert merged & 0xFF0000F0 == theirs & 0xFF0000F0
    assert merged & 0x00FFFF07 == ours & 0x00FFFF07
    assert merged & 0xB, "state or PASS, or the kernel would queue it for ever"


def test_a_number_that_does_not_fit_is_left_out() -> None:
    assert Marks(0x00000FFF).encode("deny", 0x100) == 2


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        (0, "32-bit"),
        (1 << 32 | 0xFFFF, "32-bit"),
        (0x00FFFF0B, "neighbours"),
        (0x0000000F, "at least 8"),
        (0x000007FF, "at least 8"),
        (0x0F0F0F0F, "at least 8"),
        (0xFFF0FF0F, "at least 8"),
    ],
)
def test_masks_that_cannot_hold_the_layout_are_refused(mask: int, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Marks(mask)


def test_the_qos_class_has_bits_of_its_own() -> None:
    marks = Marks(qos=0x0F000000)
    mark = marks.encode("allow", 7, qos=9)
    assert mark == 0x09000701
    assert marks.decode(mark).qos == 9
    assert (marks.classes, Marks().classes) == (15, 0)
    assert (marks.mask, marks.saved) == (0x0FFFFF0F, 0x0FFFFF07)
    assert marks.merge(0xFFFFFFFF, mark) == 0xF9000701 | 0xF0
    assert Marks().encode("allow", 7, qos=9) == 0x701, "no bits, no class"


@pytest.mark.parametrize("qos", [0x00010000, 0x05000000, 0x1FF000000])
def test_a_qos_mask_is_one_run_of_bits_beside_the_mark_mask(qos: int) -> None:
    with pytest.raises(ValueError, match="QoS mask"):
        Marks(qos=qos)
