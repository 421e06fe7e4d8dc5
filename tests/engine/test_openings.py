"""What is open for calls when the operator switches it off, and at which ports nothing opens."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import pytest

from appid.dataplane.command import ClosePinhole, OpenPinhole, UnbindNat
from appid.engine import CallReport, PinholeReport, Restored, RulesLoaded
from appid.engine.event import Activity
from appid.engine.kept import kept_calls
from appid.engine.silence import LIFETIME
from appid.flow.key import FlowKey
from appid.identify.application import AlgFunction
from appid.policy.rule import PolicyRule
from appid.wire import UDP, packed
from tests.corpus.writer import End
from tests.engine.phones import PROVIDER, SIP, Phone, body, gateway
from tests.engine.play import Play, bodies, of, settings, udp

ALICE = End("172.16.42.187", 5060)


def called(play: Play) -> Phone:
    phone = Phone(play, ALICE)
    phone.invite()
    phone.respond("200 OK")
    return phone


def switched(off: str, play: Play) -> None:
    """One of the three places where the ALG is switched off changes, and the rules are loaded."""
    known, before = dict(play.settings.applications), play.settings
    rule = replace(SIP, alg=frozenset[AlgFunction]()) if off == "rule" else SIP
    settings = gateway(rule).settings
    if off == "gateway":
        settings = replace(settings, alg=frozenset[AlgFunction]())
    elif off == "application":
        known["sip"] = replace(known["sip"], alg=frozenset[AlgFunction]())
        settings = replace(settings, applications=known)
    assert before.judge is not None
    play.commands += play.engine.handle(RulesLoaded(settings), play.now)


@pytest.mark.parametrize("off", ["rule", "gateway", "application"])
def test_what_is_open_is_shut_when_it_is_switched_off_and_the_call_goes_on(off: str) -> None:
    play = gateway()
    phone = called(play)
    opened = of(play.commands, OpenPinhole)
    assert len(opened) == 2
    switched(off, play)
    assert [each.id for each in of(play.commands, ClosePinhole)] == [each.id for each in opened]
    assert len(of(play.commands, UnbindNat)) >= 2, "and their bindings with them"
    assert [bool(report.closed_at) for report in bodies(play.commands, PinholeReport)] == [False, False, True, True]
    assert bodies(play.commands, CallReport)[-1].end == "open"
    before = len(of(play.commands, OpenPinhole))
    phone.invite(cseq=2, to_tag=";tag=314159")
    phone.respond("200 OK", "2 INVITE", port=30002)
    assert len(of(play.commands, OpenPinhole)) == before
    assert not play.engine.calls.book.open


def test_switched_off_and_on_again_the_next_agreement_opens() -> None:
    play = gateway()
    phone = called(play)
    switched("rule", play)
    play.commands += play.engine.handle(RulesLoaded(gateway().settings), play.now)
    phone.invite("a=sendrecv", cseq=2, to_tag=";tag=314159")
    phone.respond("200 OK", "2 INVITE", port=30002)
    assert sorted(e.port for e in play.engine.calls.book.open.values()) == [16402, 16403]


def test_a_reload_that_switches_nothing_off_shuts_nothing() -> None:
    play = gateway()
    called(play)
    settings = gateway(PolicyRule("other", "deny", applications=frozenset({"dns"}), service="any"), SIP).settings
    play.commands += play.engine.handle(RulesLoaded(settings), play.now)
    assert of(play.commands, ClosePinhole) == []
    assert len(play.engine.calls.book.open) == 2


# ---- time ------------------------------------------------------------------------------------------------------------


def test_a_call_that_is_refreshed_outlives_the_hard_limit() -> None:
    """RFC 4028: a re-INVITE with the description of before, each quarter of an hour."""
    play = gateway()
    phone = called(play)
    media = FlowKey(UDP, packed(PROVIDER.host), 30000, packed(ALICE.host), 16402)
    for cseq in count(2):
        for second in range(0, 900, 50):
            play.tick(play.now + 50, Activity(media, play.now + 50))
            assert len(play.engine.calls.book.open) == 2, (play.now, second)
        if play.now > LIFETIME + 1800:
            break
        phone.invite(cseq=cseq, to_tag=";tag=314159")
        phone.respond("200 OK", f"{cseq} INVITE")
    assert of(play.commands, ClosePinhole) == []


def test_what_the_hard_limit_has_shut_opens_with_the_next_refresh() -> None:
    play = gateway()
    phone = called(play)
    media = FlowKey(UDP, packed(PROVIDER.host), 30000, packed(ALICE.host), 16402)
    while play.now < LIFETIME + 50:
        play.tick(play.now + 50, Activity(media, play.now + 50))
    assert not play.engine.calls.book.open
    phone.invite(cseq=2, to_tag=";tag=314159")
    phone.respond("200 OK", "2 INVITE")
    assert len(play.engine.calls.book.open) == 2


# ---- one port, two calls ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nat", [True, False], ids=["nat", "routed"])
def test_the_second_call_at_a_port_has_it_when_the_first_ends(nat: bool) -> None:
    """An attended transfer, call waiting: one provider, a phone with one media port. Media is not interrupted."""
    play = gateway() if nat else Play(settings(SIP))
    first, second = (Phone(play, ALICE, call_id=name) for name in ("first", "second"))
    for each in (first, second):
        each.invite()
        each.back(each.head("SIP/2.0 200 OK", "1 INVITE", ";tag=314159", body(PROVIDER.host, 30000)))
    opened = of(play.commands, OpenPinhole)
    assert len(opened) == 2, "one element of the kernel's set is enough for both"
    for hung_up, left in ((first, 2), (second, 0)):
        hung_up.out(hung_up.head("BYE sip:bob SIP/2.0", "2 BYE", ";tag=314159", b""))
        before = len(play.commands)
        hung_up.back(hung_up.head("SIP/2.0 200 OK", "2 BYE", ";tag=314159", b""))
        assert len(play.engine.calls.book.open) == left
        assert len(of(play.commands[before:], ClosePinhole)) == 2 - left
        assert bool(of(play.commands[before:], UnbindNat)) == (nat and not left)
    reports = bodies(play.commands, PinholeReport)
    assert [report.expectation.call for report in reports if report.closed_at is None] == [1, 1, 2, 2]
    assert [report.expectation.call for report in reports if report.closed_at is not None] == [1, 1, 2, 2]


def two_at_one_port(play: Play) -> tuple[Phone, Phone]:
    first, second = (Phone(play, ALICE, call_id=name) for name in ("first", "second"))
    for each in (first, second):
        each.invite()
        each.back(each.head("SIP/2.0 200 OK", "1 INVITE", ";tag=314159", body(PROVIDER.host, 30000)))
    return first, second


def hangs_up(phone: Phone) -> None:
    phone.out(phone.head("BYE sip:bob SIP/2.0", "2 BYE", ";tag=314159", b""))
    phone.back(phone.head("SIP/2.0 200 OK", "2 BYE", ";tag=314159", b""))


@pytest.mark.parametrize("seen", [False, True], ids=["kernel", "followed"])
@pytest.mark.parametrize("nat", [True, False], ids=["nat", "routed"])
def test_the_second_call_at_a_port_lives_as_long_as_something_moves_there(nat: bool, seen: bool) -> None:
    """Whose media it is nobody can tell; for longer than a silent call is kept, and over a doubt, it is both's."""
    play = gateway() if nat else Play(settings(SIP))
    first, second = two_at_one_port(play)
    if seen:
        play.queue(udp(PROVIDER._replace(port=30000), End(ALICE.host, 16402), b"\x80\x00" + bytes(170)))
    media = FlowKey(UDP, packed(PROVIDER.host), 30000, packed(ALICE.host), 16402)
    signalling = FlowKey(UDP, packed(ALICE.host), 5060, packed(PROVIDER.host), 5060)
    for now in range(5, 105, 5):
        play.tick(float(now), Activity(media, float(now), 0, 250))
    play.tick(105.0, unheard=(signalling,))
    for now in range(106, 111):
        play.tick(float(now), Activity(media, float(now), 0, 50))
    assert [report.end for report in bodies(play.commands, CallReport) if report.end != "open"] == []
    hangs_up(first)
    assert [(e.port, e.call) for e in play.engine.calls.book.open.values()] == [(16402, 2), (16403, 2)]
    assert of(play.commands, ClosePinhole) == []
    hangs_up(second)
    assert not play.engine.calls.book.open


@pytest.mark.parametrize("first_of_all", [0, 1], ids=["holder", "heir"])
@pytest.mark.parametrize("nat", [True, False], ids=["nat", "routed"])
def test_who_waits_for_a_place_does_so_over_a_restart(nat: bool, first_of_all: int) -> None:
    """In whichever order the calls were written down; and what it has inherited is written down at once."""
    before = gateway() if nat else Play(settings(SIP))
    first, second = two_at_one_port(before)
    again = gateway() if nat else Play(settings(SIP))
    again.now, again.number = 100.0, before.number
    kept = kept_calls(before.engine)
    again.commands += again.engine.handle(Restored((kept[first_of_all], kept[1 - first_of_all])), 100.0)
    assert len(of(again.commands, OpenPinhole)) == 2
    first.play = second.play = again
    media = FlowKey(UDP, packed(PROVIDER.host), 30000, packed(ALICE.host), 16402)
    for now in range(105, 205, 5):
        again.tick(float(now), Activity(media, float(now), 0, 250))
    again.engine.calls.touched.clear()
    hangs_up(first)
    assert [(e.port, e.call) for e in again.engine.calls.book.open.values()] == [(16402, 2), (16403, 2)]
    assert of(again.commands, ClosePinhole) == []
    assert 2 in again.engine.calls.touched
    hangs_up(second)
    assert len(of(again.commands, ClosePinhole)) == 2
    assert bool(of(again.commands, UnbindNat)) == nat


def test_two_calls_at_a_port_where_nothing_moves_are_both_lost() -> None:
    play = Play(settings(SIP))
    two_at_one_port(play)
    media = FlowKey(UDP, packed(PROVIDER.host), 30000, packed(ALICE.host), 16402)
    play.tick(30.0, Activity(media, 30.0))
    play.tick(89.0)
    assert len(play.engine.calls.calls.open) == 2
    play.tick(90.0)
    assert [report.end for report in bodies(play.commands, CallReport)][-2:] == ["lost", "lost"]
    assert not play.engine.calls.book.open
    assert len(of(play.commands, ClosePinhole)) == 2


def test_who_waits_for_a_place_and_ends_first_inherits_nothing() -> None:
    play = Play(settings(SIP))
    first, second = (Phone(play, ALICE, call_id=name) for name in ("first", "second"))
    for each in (first, second):
        each.invite()
        each.back(each.head("SIP/2.0 200 OK", "1 INVITE", ";tag=314159", body(PROVIDER.host, 30000)))
    for hung_up in (second, first):
        hung_up.out(hung_up.head("BYE sip:bob SIP/2.0", "2 BYE", ";tag=314159", b""))
        hung_up.back(hung_up.head("SIP/2.0 200 OK", "2 BYE", ";tag=314159", b""))
    assert not play.engine.calls.book.open
    assert len(of(play.commands, ClosePinhole)) == 2


def test_a_description_with_a_name_is_of_who_sent_it() -> None:
    """RFC 8866 section 5.7: c= may be a domain name."""
    play = Play(settings(SIP))
    phone = Phone(play, ALICE)
    phone.invite()
    answer = body("media.example.org", 30000)
    phone.back(phone.head("SIP/2.0 200 OK", "1 INVITE", ";tag=314159", answer))
    assert [(e.port, e.peer) for e in play.engine.calls.book.open.values()] == [
        (16402, packed(PROVIDER.host)), (16403, packed(PROVIDER.host)),
    ]  # fmt: skip
