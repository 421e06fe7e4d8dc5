"""What messages change in a dialog, after the call flows of RFC 3665 (and RFC 3261, 3262, 3264 where named).

`inside` calls or is called; descriptions are short SDP texts through the decoder, so what differs is what SDP differs.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appid.alg.dialog import BYE_TIMEOUT, MAX_TAGS, Signal
from appid.alg.dialogs import REMEMBERED, Dialogs
from tests.alg.talk import A_TAG, ALICE, ANSWER, B_TAG, BOB, MALLORY, OFFER, Talk, description, told


@pytest.fixture(params=[False, True], ids=["alice-calls", "bob-calls"])
def talk(request: pytest.FixtureRequest) -> Talk:
    return Talk(flipped=request.param)


# ---- RFC 3665 section 3.1: successful session ------------------------------------------------------------------------


def test_a_call_is_invited_answered_and_ended(talk: Talk) -> None:
    assert talk.call() == ["invited"]
    assert talk.say("100 INVITE", 1, by_caller=False, callee_tag="") == []
    assert talk.say("180 INVITE", 1, by_caller=False) == []
    assert talk.say("200 INVITE", 1, ANSWER, by_caller=False) == ["answered", "media"]
    assert talk.say("ACK", 1) == []
    assert talk.session == (OFFER, ANSWER)
    assert talk.say("BYE", 1, by_caller=False) == ["leaving"]
    assert talk.say("200 BYE", 1) == ["ended bye"]
    assert talk.dialogs.next_deadline() is None


def test_the_caller_hangs_up(talk: Talk) -> None:
    talk.connect()
    assert talk.say("BYE", 2) == ["leaving"]
    assert talk.say("200 BYE", 2, by_caller=False) == ["ended bye"]


def test_a_challenged_bye_is_sent_again(talk: Talk) -> None:
    """RFC 3261 section 22: until then the dialog stands, and no longer than any unanswered BYE."""
    talk.connect()
    talk.say("BYE", 2)
    assert talk.say("407 BYE", 2, by_caller=False) == []
    assert talk.say("BYE", 3) == ["leaving"]
    assert talk.say("200 BYE", 3, by_caller=False) == ["ended bye"]


def test_retransmissions_change_nothing(talk: Talk) -> None:
    talk.call()
    assert talk.call() == []
    talk.say("200 INVITE", 1, ANSWER, by_caller=False)
    assert talk.say("200 INVITE", 1, ANSWER, by_caller=False) == []
    assert talk.call() == []
    assert talk.session == (OFFER, ANSWER)


def test_early_media_opens_before_the_answer(talk: Talk) -> None:
    """RFC 3665 section 3.9 and RFC 3960: 183 with a description."""
    talk.call()
    assert talk.say("183 INVITE", 1, ANSWER, by_caller=False) == ["media"]
    assert talk.say("200 INVITE", 1, ANSWER, by_caller=False) == ["answered"]


def test_the_200_may_have_another_answer_than_the_183(talk: Talk) -> None:
    talk.call()
    talk.say("183 INVITE", 1, ANSWER, by_caller=False)
    other = description(40000, "203.0.113.201")
    assert talk.say("200 INVITE", 1, other, by_caller=False) == ["answered", "media"]
    assert talk.session == (OFFER, other)


def test_the_offer_in_the_200_is_answered_by_the_ack(talk: Talk) -> None:
    """RFC 3665 section 3.6."""
    talk.call(None)
    assert talk.say("200 INVITE", 1, ANSWER, by_caller=False) == ["answered"]
    assert talk.say("ACK", 1, OFFER) == ["media"]
    assert talk.session == (OFFER, ANSWER)


def test_the_offer_in_a_reliable_183_is_answered_by_the_prack(talk: Talk) -> None:
    """RFC 3262 section 5; PRACK has a CSeq of its own."""
    talk.call(None)
    assert talk.say("183 INVITE", 1, ANSWER, by_caller=False) == []
    assert talk.say("PRACK", 2, OFFER) == ["media"]
    assert talk.say("200 INVITE", 1, by_caller=False) == ["answered"]


def test_an_update_changes_the_early_session(talk: Talk) -> None:
    """RFC 3311 section 5: an offer by the caller before the call is answered."""
    talk.call()
    talk.say("183 INVITE", 1, ANSWER, by_caller=False)
    moved = description(50000)
    assert talk.say("UPDATE", 2, moved) == []
    assert talk.say("200 UPDATE", 2, ANSWER, by_caller=False) == ["media"]
    assert talk.say("200 INVITE", 1, by_caller=False) == ["answered"]
    assert talk.session == (moved, ANSWER)


# ---- RFC 3665 sections 3.8, 3.10, 3.11: no answer, busy, cancelled ---------------------------------------------------


def test_a_cancelled_call(talk: Talk) -> None:
    talk.call()
    talk.say("180 INVITE", 1, by_caller=False)
    assert talk.say("CANCEL", 1, callee_tag="") == ["leaving"]
    assert talk.say("200 CANCEL", 1, by_caller=False) == []
    assert talk.say("487 INVITE", 1, by_caller=False) == ["ended cancelled"]
    assert talk.say("ACK", 1) == []


def test_a_cancel_that_comes_too_late(talk: Talk) -> None:
    talk.connect()
    talk.say("CANCEL", 1, callee_tag="")
    assert talk.say("BYE", 2) == ["leaving"]
    assert talk.say("200 BYE", 2, by_caller=False) == ["ended bye"]


@pytest.mark.parametrize("status", [302, 404, 480, 486, 488, 503, 603])
def test_a_refused_call(talk: Talk, status: int) -> None:
    talk.call()
    assert talk.say(f"{status} INVITE", 1, by_caller=False) == ["ended refused"]


def test_only_the_caller_cancels() -> None:
    talk = Talk()
    talk.call()
    talk.say("CANCEL", 1, callee_tag="", by_caller=False)
    assert talk.say("487 INVITE", 1, by_caller=False) == ["ended refused"]


# ---- challenges, redirections ----------------------------------------------------------------------------------------


def test_a_challenged_invite_may_come_with_another_from_tag(talk: Talk) -> None:
    """Not as RFC 3261 section 22.2 has it, but as some clients do; the old tag is nobody's from then on."""
    talk.call()
    assert talk.say("INVITE", 2, OFFER, callee_tag="", caller_tag="unasked") == ["invited"], "another dialog"
    talk.say("401 INVITE", 1, by_caller=False)
    assert talk.say("INVITE", 2, OFFER, callee_tag="", caller_tag="new") == []
    assert talk.say("200 INVITE", 2, ANSWER, by_caller=False) == []
    assert talk.say("200 INVITE", 2, ANSWER, by_caller=False, caller_tag="new") == ["answered", "media"]


@pytest.mark.parametrize("status", [401, 407])
def test_a_challenged_invite_is_sent_again(talk: Talk, status: int) -> None:
    """RFC 3665 section 3.3: 407, then the INVITE with CSeq 2, the same Call-ID and From tag, and a description."""
    talk.call()
    assert talk.say(f"{status} INVITE", 1, by_caller=False, callee_tag="proxy") == []
    talk.say("ACK", 1, callee_tag="proxy")
    moved = description(49174)
    assert talk.call(moved, cseq=2) == []
    assert talk.say("200 INVITE", 2, ANSWER, by_caller=False) == ["answered", "media"]
    assert talk.session == (moved, ANSWER)


def test_a_challenged_caller_may_give_up(talk: Talk) -> None:
    talk.call()
    talk.say("407 INVITE", 1, by_caller=False)
    talk.call(cseq=2)
    assert talk.say("486 INVITE", 2, by_caller=False) == ["ended refused"]


def test_a_redirected_call_may_use_its_words_again(talk: Talk) -> None:
    """RFC 3261 section 8.1.3.4: the redirected INVITE may have the same Call-ID and tag, and a CSeq one higher."""
    talk.call()
    talk.say("302 INVITE", 1, by_caller=False)
    assert talk.call(cseq=2) == ["invited"]
    assert talk.say("200 INVITE", 2, ANSWER, by_caller=False) == ["answered", "media"]


# ---- re-INVITE -------------------------------------------------------------------------------------------------------


def test_a_re_invite_moves_the_media(talk: Talk) -> None:
    """RFC 3665 section 3.7: the callee, Bob, moves; his requests count from 14."""
    talk.connect()
    moved = description(47172, "203.0.113.202")
    assert talk.say("INVITE", 14, moved, by_caller=False) == []
    assert talk.say("200 INVITE", 14, OFFER) == ["media"]
    assert talk.say("ACK", 14, by_caller=False) == []
    assert talk.session == (OFFER, moved)


def test_each_side_counts_its_own_requests(talk: Talk) -> None:
    """RFC 3261 section 12.2.1.1: CSeq belongs to the sender, so both may be at 1, or one far ahead."""
    talk.connect()
    first, second = description(47172, "203.0.113.201"), description(50000)
    talk.say("INVITE", 1, first, by_caller=False)
    assert talk.say("200 INVITE", 1, OFFER) == ["media"]
    talk.say("INVITE", 900, ANSWER, by_caller=False)
    assert talk.say("200 INVITE", 900, OFFER) == ["media"]
    talk.say("INVITE", 2, second)
    assert talk.say("200 INVITE", 2, ANSWER, by_caller=False) == ["media"]
    assert talk.session == (second, ANSWER)


@pytest.mark.parametrize("status", [488, 491, 401, 500])
@pytest.mark.parametrize("by_caller", [True, False])
def test_a_refused_re_invite_leaves_the_session(talk: Talk, status: int, by_caller: bool) -> None:
    """RFC 3261 section 14.1; and what is asked afterwards still counts."""
    talk.connect()
    talk.say("INVITE", 2, description(1234), by_caller=by_caller)
    assert talk.say(f"{status} INVITE", 2, by_caller=not by_caller) == []
    assert talk.session == (OFFER, ANSWER)
    moved = description(4444) if by_caller else description(4444, "203.0.113.201")
    talk.say("INVITE", 3, moved, by_caller=by_caller)
    assert talk.say("200 INVITE", 3, ANSWER if by_caller else OFFER, by_caller=not by_caller) == ["media"]
    assert talk.session == ((moved, ANSWER) if by_caller else (OFFER, moved))


def test_glare_ends_with_the_session_as_it_was(talk: Talk) -> None:
    """RFC 3261 section 14.1: both ask at once, both refuse with 491."""
    talk.connect()
    talk.say("INVITE", 2, description(1111))
    talk.say("INVITE", 7, description(2222, "203.0.113.201"), by_caller=False)
    talk.say("491 INVITE", 2, by_caller=False)
    talk.say("491 INVITE", 7)
    assert talk.session == (OFFER, ANSWER)
    talk.say("INVITE", 8, description(3333, "203.0.113.201"), by_caller=False)
    assert talk.say("200 INVITE", 8, OFFER) == ["media"]


def test_of_a_glare_one_may_be_accepted(talk: Talk) -> None:
    talk.connect()
    theirs = description(2222, "203.0.113.201")
    talk.say("INVITE", 2, description(1111))
    talk.say("INVITE", 7, theirs, by_caller=False)
    talk.say("491 INVITE", 2, by_caller=False)
    assert talk.say("200 INVITE", 7, OFFER) == ["media"]
    assert talk.session == (OFFER, theirs)


@pytest.mark.parametrize("by_caller", [True, False])
def test_of_a_glare_the_first_may_be_accepted(talk: Talk, by_caller: bool) -> None:
    """Each offer is its own request's: that the other side's is refused says nothing of it."""
    talk.connect()
    mine, theirs = description(1111), description(2222, "203.0.113.201")
    talk.say("INVITE", 2, mine, by_caller=by_caller)
    talk.say("INVITE", 7, theirs, by_caller=not by_caller)
    assert talk.say("491 INVITE", 7, by_caller=by_caller) == []
    assert talk.say("200 INVITE", 2, ANSWER, by_caller=not by_caller) == ["media"]
    assert talk.session == ((mine, ANSWER) if by_caller else (ANSWER, mine))


def test_what_a_183_tried_is_taken_back_by_a_refusal(talk: Talk) -> None:
    """RFC 6141 section 3.3: as if the re-INVITE had never been sent; until then both may be used."""
    talk.connect()
    moved = description(20000)
    talk.say("INVITE", 2, moved)
    assert talk.say("183 INVITE", 2, ANSWER, by_caller=False) == ["media"]
    assert [pair.told for pair in talk.dialog.standing] == [(OFFER, ANSWER), (moved, ANSWER)]
    assert talk.say("488 INVITE", 2, by_caller=False) == ["media"]
    assert [pair.told for pair in talk.dialog.standing] == [(OFFER, ANSWER)]


def test_what_a_183_tried_stands_with_the_200(talk: Talk) -> None:
    talk.connect()
    moved = description(20000)
    talk.say("INVITE", 2, moved)
    talk.say("183 INVITE", 2, ANSWER, by_caller=False)
    assert talk.say("200 INVITE", 2, ANSWER, by_caller=False) == ["media"], "the old pair goes"
    assert [pair.told for pair in talk.dialog.standing] == [(moved, ANSWER)]
    talk.say("INVITE", 3, description(30000))
    assert talk.say("488 INVITE", 3, by_caller=False) == []
    assert talk.session == (moved, ANSWER)


def test_what_a_reliable_183_agreed_is_not_taken_back(talk: Talk) -> None:
    """RFC 6141 section 3.4: an answer that was acknowledged by PRACK is executed, whatever comes of the re-INVITE."""
    talk.connect()
    moved = description(20000)
    talk.say("INVITE", 2, moved)
    talk.say("183 INVITE", 2, ANSWER, by_caller=False)
    assert talk.say("PRACK", 3) == ["media"]
    assert talk.say("488 INVITE", 2, by_caller=False) == []
    assert [pair.told for pair in talk.dialog.standing] == [(moved, ANSWER)]


def test_an_older_answer_said_again_changes_nothing(talk: Talk) -> None:
    """RFC 3261 section 13.2.1: the 200 may repeat the answer of the 183; an UPDATE has changed that since."""
    talk.call()
    talk.say("183 INVITE", 1, ANSWER, by_caller=False)
    moved, there = description(20000), description(30002, "203.0.113.201")
    talk.say("UPDATE", 2, moved)
    assert talk.say("200 UPDATE", 2, there, by_caller=False) == ["media"]
    assert talk.say("200 INVITE", 1, ANSWER, by_caller=False) == ["answered"]
    assert talk.session == (moved, there)


def test_a_re_invite_without_an_offer_asks_for_one(talk: Talk) -> None:
    """RFC 3261 section 14.1: the 200 has the offer, the ACK the answer."""
    talk.connect()
    theirs, ours = description(5000, "203.0.113.201"), description(6000)
    talk.say("INVITE", 2, None)
    assert talk.say("200 INVITE", 2, theirs, by_caller=False) == []
    assert talk.say("ACK", 2, ours) == ["media"]
    assert talk.session == (ours, theirs)


def test_a_replayed_re_invite_changes_nothing(talk: Talk) -> None:
    talk.connect()
    moved = description(47172, "203.0.113.201")
    talk.say("INVITE", 14, moved, by_caller=False)
    talk.say("200 INVITE", 14, OFFER)
    talk.say("INVITE", 15, ANSWER, by_caller=False)
    talk.say("200 INVITE", 15, OFFER)
    talk.say("INVITE", 14, moved, by_caller=False)
    assert talk.say("200 INVITE", 14, OFFER) == []
    assert talk.session == (OFFER, ANSWER)


# ---- what does not count ---------------------------------------------------------------------------------------------


def test_an_answer_from_another_address_is_nobodys(talk: Talk) -> None:
    talk.call()
    assert talk.say("200 INVITE", 1, ANSWER, by_caller=False, peer=MALLORY) == []
    assert not talk.dialog.answered
    assert talk.session == (None, None)


@pytest.mark.parametrize("tags", [("wrong", B_TAG), (A_TAG, "wrong"), (A_TAG, ""), (B_TAG, A_TAG)])
def test_a_bye_with_wrong_tags_does_not_count(talk: Talk, tags: tuple[str, str]) -> None:
    talk.connect()
    assert talk.say("BYE", 2, caller_tag=tags[0], callee_tag=tags[1]) == []
    assert talk.say("BYE", 2, caller_tag=tags[0], callee_tag=tags[1], by_caller=False) == []
    assert talk.dialogs.next_deadline() is None


def test_a_bye_from_another_address_does_not_count_unless_the_call_showed_it(talk: Talk) -> None:
    dialog = talk.connect()
    assert talk.say("BYE", 2, by_caller=False, peer=MALLORY) == []
    dialog.peers.add(MALLORY)
    assert talk.say("BYE", 2, by_caller=False, peer=MALLORY) == ["leaving"]


def test_a_bye_of_another_call_does_not_count(talk: Talk) -> None:
    talk.connect()
    assert talk.say("BYE", 2, call_id="another") == []


def test_an_answer_to_another_request_does_not_count(talk: Talk) -> None:
    talk.call()
    assert talk.say("200 INVITE", 2, ANSWER, by_caller=False) == []
    assert talk.say("200 OPTIONS", 1, ANSWER, by_caller=False) == []
    assert talk.say("200 INVITE", 1, ANSWER, by_caller=True) == []
    assert talk.session == (None, None)


@pytest.mark.parametrize("words", ["BYE", "ACK", "CANCEL", "UPDATE", "PRACK", "200 INVITE", "180 INVITE", "200 BYE"])
def test_nothing_but_an_invite_begins_a_dialog(talk: Talk, words: str) -> None:
    assert talk.say(words, 1, ANSWER) == []
    assert not talk.dialogs.known


def test_the_first_invite_replayed_after_the_end_begins_nothing(talk: Talk) -> None:
    talk.connect()
    talk.say("BYE", 2)
    talk.say("200 BYE", 2, by_caller=False)
    talk.now = REMEMBERED - 1
    assert talk.call() == []
    assert talk.say("200 INVITE", 1, ANSWER, by_caller=False) == []
    assert talk.call(cseq=9) == [], "a higher CSeq does not revive a call that was answered and ended"


def test_a_refused_invite_replayed_begins_nothing(talk: Talk) -> None:
    talk.call()
    talk.say("486 INVITE", 1, by_caller=False)
    assert talk.call() == []


# ---- time, bounds ----------------------------------------------------------------------------------------------------


def test_an_unanswered_bye_is_given_up_after_32_seconds(talk: Talk) -> None:
    """RFC 3261 section 17.1.2.2, timer F = 64*T1 = 32 s, from the first BYE."""
    assert BYE_TIMEOUT == 32.0
    talk.connect()
    talk.now = 100.0
    talk.say("BYE", 2)
    talk.now = 110.0
    talk.say("BYE", 2)
    assert talk.dialogs.next_deadline() == 132.0
    assert talk.dialogs.expired(131.9) == []
    assert [told(change) for change in talk.dialogs.expired(132.0)] == ["ended bye"]
    assert talk.dialogs.expired(133.0) == []
    assert talk.dialogs.next_deadline() is None


TAGS = st.sampled_from(["", A_TAG, B_TAG, "x"])
METHODS = ["INVITE", "ACK", "PRACK", "UPDATE", "CANCEL", "BYE", "OPTIONS", ""]
SIGNALS = st.builds(
    lambda method, status, request, *rest: Signal(method if request else None, None if request else status, *rest),
    st.sampled_from(METHODS), st.sampled_from([0, 100, 180, 183, 200, 302, 407, 486, 487, 491, 699]), st.booleans(),
    st.sampled_from(["", "one", "two"]), st.integers(-1, 3), st.sampled_from(METHODS), TAGS, TAGS,
    st.sampled_from([None, OFFER, ANSWER, description(7)]), st.sampled_from([ALICE, BOB]),
    st.sampled_from([ALICE, BOB, MALLORY]), st.booleans(),
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(SIGNALS, st.floats(0, 50)), max_size=40))
def test_no_order_of_messages_raises_or_reopens(messages: list[tuple[Signal, float]]) -> None:
    dialogs, now = Dialogs(), 0.0
    for signal, wait in messages:
        now += wait
        for change in [*dialogs.handle(signal, now), *dialogs.expired(now)]:
            assert change.what in ("invited", "answered", "media", "leaving", "ended")
            if change.what == "media":
                assert not change.dialog.ended
        deadline = dialogs.next_deadline()
        assert deadline is None or deadline > now
    assert all(not dialogs.known[key].ended for key in dialogs.leaving)
    for dialog in dialogs.known.values():
        assert max(len(dialog.pairs), len(dialog.left), len(dialog.others), len(dialog.to_tags)) <= MAX_TAGS
        assert all(dialog.cseqs.get(asked[:2], asked[2]) == asked[2] for asked, _ in dialog.offers), "old offers go"


def test_a_cancelled_call_whose_end_is_lost_ends_by_itself(talk: Talk) -> None:
    """RFC 3261 section 9.1: after 64*T1 the client considers the transaction cancelled, 487 or not."""
    talk.call()
    talk.say("183 INVITE", 1, ANSWER, by_caller=False)
    talk.now = 10.0
    talk.say("CANCEL", 1, callee_tag="")
    assert talk.dialogs.next_deadline() == 10.0 + BYE_TIMEOUT
    assert talk.dialogs.expired(10.0 + BYE_TIMEOUT - 0.1) == []
    assert [(change.what, change.end) for change in talk.dialogs.expired(10.0 + BYE_TIMEOUT)] == [
        ("ended", "cancelled")
    ]
    assert talk.dialogs.next_deadline() is None


def test_an_answer_that_was_quicker_than_the_cancel_stands(talk: Talk) -> None:
    talk.call()
    talk.say("CANCEL", 1, callee_tag="")
    talk.say("200 INVITE", 1, ANSWER, by_caller=False)
    assert talk.dialogs.expired(100.0) == []
    talk.now = 101.0
    assert talk.say("BYE", 2) == ["leaving"]
    assert [change.end for change in talk.dialogs.expired(101.0 + BYE_TIMEOUT)] == ["bye"]


def test_a_callee_without_a_tag_can_be_hung_up() -> None:
    """RFC 3261 section 12.2.1.1: of RFC 2543's times, the tag is null. Nobody else's BYE gets so through."""
    talk = Talk()
    talk.call()
    assert talk.say("200 INVITE", 1, ANSWER, by_caller=False, callee_tag="") == ["answered", "media"]
    assert talk.say("BYE", 2, callee_tag="") == ["leaving"]
    assert talk.say("200 BYE", 2, by_caller=False, callee_tag="") == ["ended bye"]
    tagged = Talk()
    tagged.connect()
    assert tagged.say("BYE", 2, callee_tag="") == []


def test_a_branch_that_a_proxy_says_is_over_is_shut(talk: Talk) -> None:
    """RFC 6228: 199 of one, the other rings on; what comes of the first after it does not count."""
    talk.call()
    talk.say("183 INVITE", 1, ANSWER, by_caller=False, callee_tag="x")
    talk.say("183 INVITE", 1, description(4000, "203.0.113.201"), by_caller=False, callee_tag="y")
    assert talk.say("199 INVITE", 1, by_caller=False, callee_tag="nobody") == []
    assert talk.say("199 INVITE", 1, by_caller=False, callee_tag="y") == ["media"]
    assert talk.session[1] == ANSWER
    assert talk.say("183 INVITE", 1, ANSWER, by_caller=False, callee_tag="y") == []
    assert talk.say("199 INVITE", 1, by_caller=False, callee_tag="x") == ["media"]
    assert talk.session == (None, None)
    assert talk.say("200 INVITE", 1, ANSWER, by_caller=False, callee_tag="z") == ["answered", "media"]


def test_a_re_invite_that_is_cancelled_leaves_the_session(talk: Talk) -> None:
    """RFC 3261 section 9.1, RFC 6141 section 3.4: by either side, after its 183."""
    talk.connect()
    before = talk.session
    for by_caller in (True, False):
        talk.say("INVITE", 5, description(50000, "203.0.113.201" if by_caller == talk.flipped else "192.0.2.101"),
                 by_caller=by_caller)  # fmt: skip
        assert talk.say("183 INVITE", 5, OFFER, by_caller=not by_caller) == ["media"]
        assert talk.session != before
        talk.say("CANCEL", 5, by_caller=by_caller)
        assert talk.say("487 INVITE", 5, by_caller=not by_caller) == ["media"]
        assert talk.session == before
        assert not talk.dialog.cancelled
