"""What is open for calls when the operator switches it off, and at which ports nothing opens."""

from __future__ import annotations

from dataclasses import replace

import pytest

from appid.dataplane.command import ClosePinhole, OpenPinhole, UnbindNat
from appid.engine import CallReport, PinholeReport, RulesLoaded
from appid.identify.application import AlgFunction
from appid.policy.rule import PolicyRule
from tests.corpus.writer import End
from tests.engine.phones import SIP, Phone, gateway
from tests.engine.play import Play, bodies, of

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
