"""A dialog's own words: when it is given up, and with whom it is of one call."""

from __future__ import annotations

from dataclasses import replace

import pytest

from appid.alg.dialog import BYE_TIMEOUT, Dialog
from appid.wire import packed

HOST, OTHER, PROXY, MALLORY = (packed(f"192.0.2.{number}") for number in (1, 2, 3, 4))


def called(host: bytes = HOST, peer: bytes = PROXY, tag: str = "a", out: bool = False, call_id: str = "one") -> Dialog:
    return Dialog(call_id, host, peer, out, tag, {("INVITE", out): 1})


@pytest.mark.parametrize(
    ("other", "one"),
    [
        (called(OTHER), True),
        (called(OTHER, tag="b"), False),
        (called(OTHER, call_id="two"), False),
        (called(OTHER, peer=MALLORY), False),
        (called(OTHER, peer=MALLORY, out=True), True),
        (called(out=True), True),
    ],
    ids=["fork", "other tag", "other call", "other path", "caller behind", "spiral"],
)
def test_one_call(other: Dialog, one: bool) -> None:
    mine = called()
    assert mine.shares(other) == other.shares(mine) == one


def test_a_bye_counts_from_the_first_and_before_a_cancel() -> None:
    dialog = called()
    assert dialog.gives_up is None
    dialog.cancelled, dialog.cancel_at = True, 1.0
    assert dialog.gives_up == 1.0 + BYE_TIMEOUT
    assert replace(dialog, bye_at=5.0).gives_up == 5.0 + BYE_TIMEOUT
    assert replace(dialog, cancelled=False).gives_up is None
    dialog.end(7.0)
    assert dialog.gives_up is None
