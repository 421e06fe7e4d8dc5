"""All dialogs: whose a message is, who may join whom, and how many there may be."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from appid.alg.dialog import Dialog, Key, Signal
from appid.alg.dialogs import MAX_VIEWS, REMEMBERED, Dialogs
from appid.alg.shares import Shares
from appid.wire import packed
from tests.alg.talk import A_TAG, ALICE, ANSWER, B_TAG, BOB, CALL_ID, MALLORY, OFFER, Talk, told

CAROL, PROXY = packed("192.0.2.102"), packed("203.0.113.5")
INVITE = Signal("INVITE", None, CALL_ID, 1, "INVITE", A_TAG, "", OFFER, ALICE, PROXY, True)


@pytest.fixture(params=[False, True], ids=["alice-calls", "bob-calls"])
def talk(request: pytest.FixtureRequest) -> Talk:
    return Talk(flipped=request.param)


def said(dialogs: Dialogs, signal: Signal, now: float = 0.0) -> list[str]:
    return [told(change) for change in dialogs.handle(signal, now)]


def only(dialogs: Dialogs, **which: object) -> Dialog:
    (found,) = [d for d in dialogs.known.values() if all(getattr(d, name) == value for name, value in which.items())]
    return found


def test_an_invite_within_an_unknown_dialog_begins_none(talk: Talk) -> None:
    assert talk.say("INVITE", 2, OFFER) == []
    assert talk.say("INVITE", 1, OFFER, caller_tag="", callee_tag="") == []


# ---- who knows a Call-ID ---------------------------------------------------------------------------------------------


def test_a_strangers_invite_with_a_known_call_id_is_a_dialog_of_its_own(talk: Talk) -> None:
    """RFC 3261 section 12: a dialog is Call-ID and both tags. What the stranger does to his leaves the other alone."""
    dialog = talk.connect()
    theirs = Signal("INVITE", None, CALL_ID, 1, "INVITE", "stolen", "", OFFER, ALICE, MALLORY, False)
    assert said(talk.dialogs, theirs) == ["invited"]
    other = only(talk.dialogs, from_tag="stolen")
    assert other not in talk.dialogs.beside(dialog)
    assert dialog not in talk.dialogs.beside(other)
    refusal = Signal(None, 486, CALL_ID, 1, "INVITE", "stolen", "x", None, ALICE, MALLORY, True)
    assert said(talk.dialogs, refusal) == ["ended refused"]
    assert not dialog.ended
    assert talk.say("BYE", 2) == ["leaving"]
    assert talk.say("200 BYE", 2, by_caller=False) == ["ended bye"]


def test_who_came_first_with_a_call_id_keeps_nobody_else_from_using_it() -> None:
    dialogs = Dialogs()
    assert said(dialogs, replace(INVITE, from_tag="squat", peer=MALLORY, outward=False)) == ["invited"]
    assert said(dialogs, INVITE) == ["invited"]
    answer = Signal(None, 200, CALL_ID, 1, "INVITE", A_TAG, B_TAG, ANSWER, ALICE, PROXY, False)
    assert said(dialogs, answer) == ["answered", "media"]


def test_the_callers_tag_and_the_path_join_the_views_of_one_call() -> None:
    dialogs = Dialogs()
    called = replace(INVITE, outward=False)
    said(dialogs, called)
    first = only(dialogs, host=ALICE)
    said(dialogs, replace(called, host=CAROL))
    assert dialogs.beside(first) == [only(dialogs, host=CAROL)], "a fork by the same proxy"
    for other in (replace(called, host=BOB, from_tag="x"), replace(called, host=BOB, peer=MALLORY)):
        said(dialogs, other)
        assert first not in dialogs.beside(only(dialogs, host=BOB, from_tag=other.from_tag, peer=other.peer))
        dialogs = Dialogs()
        said(dialogs, called)
        first = only(dialogs, host=ALICE)


def test_both_ends_behind_the_gateway_and_a_spiral_are_one_call() -> None:
    """What comes back from the proxy has the caller's Call-ID and tag (RFC 3261 section 16.6), be it for another host
    or for the one that called (section 6, spiral)."""
    for host in (CAROL, ALICE):
        dialogs = Dialogs()
        said(dialogs, INVITE)
        assert said(dialogs, replace(INVITE, host=host, outward=False)) == ["invited"]
        called = only(dialogs, caller_inside=False)
        assert [view.caller_inside for view in dialogs.beside(called)] == [True]
        bye = replace(INVITE, method="BYE", to_tag=B_TAG, description=None, cseq=2)
        answer = Signal(None, 200, CALL_ID, 1, "INVITE", A_TAG, B_TAG, ANSWER, ALICE, PROXY, False)
        assert said(dialogs, answer) == ["answered", "media"]
        assert said(dialogs, replace(answer, host=host, outward=True)) == ["answered", "media"]
        assert said(dialogs, bye) == ["leaving"]
        assert called.bye_at is None, "each leg has its own BYE"
        assert said(dialogs, replace(bye, host=host, outward=False)) == ["leaving"]


def test_a_new_from_tag_after_a_challenge_stays_the_same_dialog() -> None:
    dialogs = Dialogs()
    said(dialogs, INVITE)
    said(dialogs, Signal(None, 407, CALL_ID, 1, "INVITE", A_TAG, "p", None, ALICE, PROXY, False))
    assert said(dialogs, replace(INVITE, cseq=2, from_tag="stranger", peer=MALLORY)) == ["invited"]
    assert said(dialogs, replace(INVITE, cseq=2, from_tag="again")) == []
    assert Key(CALL_ID, ALICE, A_TAG, True) not in dialogs.known
    answer = Signal(None, 200, CALL_ID, 2, "INVITE", "again", B_TAG, ANSWER, ALICE, PROXY, False)
    assert said(dialogs, answer) == ["answered", "media"]


@pytest.mark.parametrize("refused", [True, False], ids=["503", "silent"])
def test_the_next_server_is_asked_the_same(refused: bool) -> None:
    """RFC 3263 section 4.3: identical but for Via's branch, CSeq and all."""
    dialogs = Dialogs()
    said(dialogs, INVITE)
    if refused:
        said(dialogs, Signal(None, 503, CALL_ID, 1, "INVITE", A_TAG, "p", None, ALICE, PROXY, False))
    assert said(dialogs, replace(INVITE, peer=BOB)) == (["invited"] if refused else [])
    answer = Signal(None, 200, CALL_ID, 1, "INVITE", A_TAG, B_TAG, ANSWER, ALICE, BOB, False)
    assert said(dialogs, answer) == ["answered", "media"]
    assert said(dialogs, replace(INVITE, peer=MALLORY)) == []
    bye = Signal("BYE", None, CALL_ID, 2, "BYE", B_TAG, A_TAG, None, ALICE, MALLORY, False)
    assert said(dialogs, bye) == [], "once it is answered nobody else is asked"


def test_only_the_inside_caller_says_whom_he_asks() -> None:
    dialogs = Dialogs()
    said(dialogs, INVITE)
    said(dialogs, replace(INVITE, peer=MALLORY, outward=False))
    answer = Signal(None, 200, CALL_ID, 1, "INVITE", A_TAG, B_TAG, ANSWER, ALICE, MALLORY, False)
    assert said(dialogs, answer) == []
    dialogs = Dialogs()
    said(dialogs, replace(INVITE, outward=False))
    assert said(dialogs, replace(INVITE, peer=MALLORY, outward=False)) == []
    assert said(dialogs, replace(answer, outward=True)) == []


# ---- bounds ----------------------------------------------------------------------------------------------------------


def test_a_call_between_two_inside_hosts_lives_until_both_views_end() -> None:
    dialogs = Dialogs()
    for host, peer, outward in ((ALICE, BOB, True), (BOB, ALICE, False)):
        dialogs.handle(replace(INVITE, host=host, peer=peer, outward=outward), 0.0)
    assert len(dialogs.known) == 2
    dialogs.handle(Signal(None, 486, CALL_ID, 1, "INVITE", A_TAG, B_TAG, None, BOB, ALICE, True), 1.0)
    assert dialogs.living(CALL_ID, 0)
    dialogs.handle(Signal(None, 486, CALL_ID, 1, "INVITE", A_TAG, B_TAG, None, ALICE, BOB, False), 1.0)
    assert not dialogs.living(CALL_ID, 0)


def test_a_forgotten_call_is_over(talk: Talk) -> None:
    talk.connect()
    talk.dialogs.forget(CALL_ID, 1, 5.0)
    assert talk.dialogs.living(CALL_ID, 0), "another call's"
    talk.dialogs.forget(CALL_ID, 0, 5.0)
    assert talk.say("BYE", 2) == []
    assert not talk.dialogs.living(CALL_ID, 0)


def test_dialogs_are_bounded_and_ended_ones_give_way_first() -> None:
    talk = Talk(dialogs=Dialogs(Shares(gateway=10)))
    talk.connect()
    talk.say("INVITE", 1, OFFER, callee_tag="", call_id="over")
    talk.say("486 INVITE", 1, by_caller=False, call_id="over")
    for number in range(8):
        talk.say("INVITE", 1, OFFER, callee_tag="", call_id=f"flood-{number}")
    assert talk.say("INVITE", 1, OFFER, callee_tag="", call_id="one more") == ["invited"]
    assert not talk.dialogs.views("over")
    for number in range(100):
        assert talk.say("INVITE", 1, OFFER, callee_tag="", call_id=f"more-{number}") == ["ended lost", "invited"]
    assert len(talk.dialogs.known) == 10
    assert not talk.dialog.ended


def flood(dialogs: Dialogs, number: int, peer: bytes = MALLORY, host: bytes = ALICE) -> list[str]:
    return said(dialogs, replace(INVITE, call_id=f"flood-{number}", peer=peer, host=host, outward=False))


def test_a_flood_takes_its_own_share_alone() -> None:
    """Neither the call that rings nor the one that was answered gives way to another address's."""
    talk = Talk(flipped=True, dialogs=Dialogs(Shares(remote=20)))
    talk.say("INVITE", 1, OFFER, callee_tag="", call_id="rings")
    talk.connect()
    assert flood(talk.dialogs, 0) == ["invited"]
    for number in range(1, 500):
        flood(talk.dialogs, number)
    assert len(talk.dialogs.known) == 22
    assert flood(talk.dialogs, 1000) == ["ended lost", "invited"]
    assert [view.ended for view in (*talk.dialogs.views("rings"), *talk.dialogs.views(CALL_ID))] == [False, False]


def test_what_was_answered_does_not_give_way_to_its_own_caller() -> None:
    dialogs = Dialogs(Shares(remote=2))
    for number in range(2):
        flood(dialogs, number)
        answer = Signal(None, 200, f"flood-{number}", 1, "INVITE", A_TAG, B_TAG, ANSWER, ALICE, MALLORY, True)
        assert said(dialogs, answer) == ["answered", "media"]
    (change,) = dialogs.handle(replace(INVITE, call_id="more", peer=MALLORY, outward=False), 0.0)
    assert (change.what, change.why) == ("crowded", "too many dialogs of remote 198.51.100.66")
    assert flood(dialogs, 3, peer=BOB) == ["invited"]


def test_a_host_has_a_share_of_its_own_and_a_64_of_ipv6_is_one_remote() -> None:
    dialogs = Dialogs(Shares(remote=3, host=5))
    mine = packed("fd00:77:1::2")
    for number in range(10):
        flood(dialogs, number, packed(f"2001:db8::{number + 1:x}"), mine)
    assert len(dialogs.known) == 3
    for number in range(10, 20):
        flood(dialogs, number, packed(f"2001:db8:{number}::1"), mine)
    assert len(dialogs.known) == 5
    assert flood(dialogs, 99, BOB, CAROL) == ["invited"]


def test_one_call_id_is_not_a_crowd() -> None:
    dialogs = Dialogs()
    for number in range(4 * MAX_VIEWS):
        said(dialogs, replace(INVITE, from_tag=f"t{number}", peer=MALLORY, outward=False))
    assert len(dialogs.views(CALL_ID)) == MAX_VIEWS


def test_room_is_made_without_looking_at_every_dialog() -> None:
    """Twenty times the dialogs may not make each new one dearer: here by four."""
    spent = []
    for most in (200, 4000):
        dialogs = Dialogs(Shares(most, most, most))
        for number in range(most):
            flood(dialogs, number)
        begun = time.process_time()
        for number in range(most, most + 1000):
            flood(dialogs, number)
        spent.append(time.process_time() - begun)
    assert spent[1] < 4 * spent[0]


def test_what_has_ended_is_remembered_until_its_time_is_over() -> None:
    dialogs = Dialogs()
    said(dialogs, INVITE)
    said(dialogs, Signal(None, 603, CALL_ID, 1, "INVITE", A_TAG, B_TAG, None, ALICE, PROXY, False), 1.0)
    assert said(dialogs, INVITE, REMEMBERED) == []
    assert said(dialogs, INVITE, REMEMBERED + 2) == ["invited"]
