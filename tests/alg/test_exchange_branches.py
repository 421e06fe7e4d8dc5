"""A forked INVITE: which branch has the call (RFC 3261 sections 13.2.2.4, 15, 16.7)."""

from __future__ import annotations

import pytest

from appid.alg.dialog import MAX_TAGS
from tests.alg.talk import ANSWER, OFFER, Talk, description


@pytest.fixture(params=[False, True], ids=["alice-calls", "bob-calls"])
def talk(request: pytest.FixtureRequest) -> Talk:
    return Talk(flipped=request.param)


def test_the_branch_that_answers_first_wins(talk: Talk) -> None:
    talk.call()
    first, second = description(4000, "203.0.113.201"), description(5000, "203.0.113.201")
    talk.say("183 INVITE", 1, first, by_caller=False, callee_tag="one")
    talk.say("180 INVITE", 1, by_caller=False, callee_tag="two")
    assert talk.say("200 INVITE", 1, second, by_caller=False, callee_tag="two") == ["answered", "media"]
    assert talk.session == (OFFER, second)
    assert talk.say("200 INVITE", 1, first, by_caller=False, callee_tag="one") == []
    assert talk.session == (OFFER, second)


def test_the_losers_bye_does_not_end_the_winners_call(talk: Talk) -> None:
    talk.call()
    talk.say("180 INVITE", 1, by_caller=False, callee_tag="one")
    talk.say("180 INVITE", 1, by_caller=False, callee_tag="two")
    talk.say("200 INVITE", 1, ANSWER, by_caller=False, callee_tag="two")
    talk.say("200 INVITE", 1, description(4000), by_caller=False, callee_tag="one")
    assert talk.say("BYE", 2, callee_tag="one") == []
    assert talk.say("BYE", 2, callee_tag="two") == ["leaving"]


FIRST, SECOND = description(4000, "203.0.113.201"), description(5000, "203.0.113.201")


def test_a_bye_to_one_ringing_branch_leaves_the_others(talk: Talk) -> None:
    """RFC 3261 section 15: a BYE ends the early dialog that it names."""
    talk.call()
    talk.say("183 INVITE", 1, SECOND, by_caller=False, callee_tag="two")
    talk.say("183 INVITE", 1, FIRST, by_caller=False, callee_tag="one")
    assert talk.say("BYE", 2, callee_tag="one") == ["media"]
    assert talk.say("200 BYE", 2, by_caller=False, callee_tag="one") == []
    assert talk.say("183 INVITE", 1, FIRST, by_caller=False, callee_tag="one") == [], "it has left"
    assert talk.session == (OFFER, SECOND)
    assert talk.say("200 INVITE", 1, SECOND, by_caller=False, callee_tag="two") == ["answered"]
    assert talk.say("BYE", 3, callee_tag="two") == ["leaving"]


def test_the_answer_of_a_branch_that_had_early_media(talk: Talk) -> None:
    """Its 200 need not say over again what its reliable 183 said (RFC 3262 section 5), though another rang since."""
    talk.call()
    talk.say("183 INVITE", 1, FIRST, by_caller=False, callee_tag="one")
    talk.say("183 INVITE", 1, SECOND, by_caller=False, callee_tag="two")
    assert talk.say("200 INVITE", 1, by_caller=False, callee_tag="one") == ["answered", "media"]
    assert talk.session == (OFFER, FIRST)


def test_the_caller_may_keep_the_second_that_answered(talk: Talk) -> None:
    """RFC 3261 section 13.2.2.4: each 2xx is acknowledged, then all but one get a BYE."""
    talk.call()
    talk.say("200 INVITE", 1, FIRST, by_caller=False, callee_tag="one")
    talk.say("ACK", 1, callee_tag="one")
    assert talk.say("200 INVITE", 1, SECOND, by_caller=False, callee_tag="two") == []
    talk.say("ACK", 1, callee_tag="two")
    assert talk.session == (OFFER, FIRST)
    assert talk.say("BYE", 2, callee_tag="one") == ["media"]
    assert talk.say("200 BYE", 2, by_caller=False, callee_tag="one") == []
    assert talk.session == (OFFER, SECOND)
    assert talk.say("BYE", 2, callee_tag="two", by_caller=False) == ["leaving"]
    assert talk.say("200 BYE", 2, callee_tag="two") == ["ended bye"]


def test_a_second_answer_that_nobody_acknowledged_keeps_nothing_open(talk: Talk) -> None:
    """Else the far side could outlive the BYE by an answer that the caller never took."""
    talk.call()
    talk.say("200 INVITE", 1, FIRST, by_caller=False, callee_tag="one")
    talk.say("200 INVITE", 1, SECOND, by_caller=False, callee_tag="two")
    assert talk.say("BYE", 2, callee_tag="one") == ["leaving"]


def test_branches_are_bounded(talk: Talk) -> None:
    talk.call()
    for number in range(1000):
        talk.say("180 INVITE", 1, by_caller=False, callee_tag=f"tag-{number}")
    assert len(talk.dialog.to_tags) <= MAX_TAGS
    assert talk.say("200 INVITE", 1, ANSWER, by_caller=False, callee_tag="late") == ["answered", "media"]
    assert talk.say("BYE", 2, callee_tag="late") == ["leaving"]
