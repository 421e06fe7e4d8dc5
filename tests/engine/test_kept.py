"""A call that outlives its engine: what it holds is held by the next one, and its BYE ends it there."""

from __future__ import annotations

from dataclasses import replace

from appid.dataplane.command import BindNat, ClosePinhole, KeepFlow, OpenPinhole, SetVerdict, UnbindNat
from appid.engine import CallReport, Restored
from appid.engine.event import Activity
from appid.engine.kept import UNHEARD, KeptCall, kept_call
from appid.engine.paths import SOON
from appid.engine.silence import Slept
from appid.flow.key import FlowKey
from appid.policy import Decision
from appid.policy.rule import PolicyRule
from appid.wire import TCP, UDP, packed
from tests.corpus.writer import End
from tests.engine.phones import Phone
from tests.engine.play import ALL, CLIENT, PEER, PUBLIC, FaceTime, Play, bodies, of, settings, udp

ALLOW = PolicyRule("calls", "allow", ("inside",), ("outside",), applications=frozenset({"facetime"}))
NATTED = settings(ALLOW, outside=PUBLIC)


def connected(play: Play) -> FaceTime:
    call = play.call(shown=PUBLIC)
    call.connect()
    return call


def kept(play: Play) -> KeptCall:
    (number,) = play.engine.calls.calls.open
    found = kept_call(play.engine, number)
    assert found is not None
    return found


def after(play: Play, *calls: KeptCall, now: float = 1000.0) -> Play:
    """Another engine, which is given these calls."""
    made = Play(play.settings, now=now, number=play.number)
    made.commands += made.engine.handle(Restored(calls), now)
    return made


def test_what_it_holds_is_put_into_the_kernel_again() -> None:
    before = Play(NATTED)
    connected(before)
    again = after(before, kept(before))
    assert of(again.commands, OpenPinhole) == of(before.commands, OpenPinhole)
    assert of(again.commands, BindNat) == of(before.commands, BindNat)
    kinds = [type(command) for command in again.commands]
    assert kinds.index(BindNat) < kinds.index(OpenPinhole)
    assert bodies(again.commands, CallReport) == bodies(before.commands, CallReport)[-1:]


def test_its_bye_ends_it_by_the_dialogs_own_words() -> None:
    before = Play(NATTED)
    call = connected(before)
    again = after(before, kept(before))
    call.play = again
    stranger = replace(call.dialog, answerer=replace(call.dialog.answerer, tag="another"))
    again.queue(udp(PEER, CLIENT, stranger.bye(by_offerer=False)))
    assert again.engine.calls.dialogs.next_deadline() is None, "a BYE with another tag is nobody's"
    call.bye()
    ended = call.bye_answer()
    assert len(of(ended, ClosePinhole)) == len(of(ended, UnbindNat)) == 1
    assert bodies(again.commands, CallReport)[-1].end == "bye"
    assert bodies(again.commands, CallReport)[-1].call_id == "8d3c-call"
    assert not again.engine.calls.calls.open
    assert not again.engine.calls.book.open


def test_its_media_is_foreseen_and_its_signalling_keeps_its_name() -> None:
    before = Play(NATTED)
    connected(before)
    again = after(before, kept(before))
    foreseen = again.engine.glance(FlowKey(UDP, packed(PEER.host), 40000, packed(CLIENT.host), 16402), 1)
    assert foreseen is not None
    assert (foreseen.identification.application, foreseen.decision) == ("facetime", Decision("allow", "calls"))
    (record,) = again.engine.flows.values()
    assert (record.naming.name, record.watch, record.decision) == ("facetime", True, Decision("allow", "calls"))


def test_numbers_are_not_given_twice() -> None:
    before = Play(ALL)
    connected(before)
    again = after(before, kept(before))
    connected_again = again.call(CLIENT._replace(host="172.16.42.188"), call_id="another-call")
    connected_again.connect()
    calls, pinholes = again.engine.calls.calls.open, again.engine.calls.book.open
    assert sorted(calls) == [1, 2]
    assert sorted(pinholes) == [1, 2]
    assert len({record.id for record in again.engine.flows.values()}) == 2


MEDIA = FlowKey(UDP, packed(CLIENT.host), CLIENT.port, packed(PEER.host), PEER.port)


def test_a_call_in_which_something_was_not_heard_must_show_that_its_media_goes_on() -> None:
    before = Play(ALL)
    connected(before)
    (flow,) = kept(before).signalling
    silent, direct, relayed, signals = (after(before, kept(before)) for _ in range(4))
    for each in (silent, direct, relayed, signals):
        each.tick(1000.1, unheard=(flow.key,))
        assert of(each.tick(1001.0, Activity(MEDIA, 1001.0, 0, 3)), ClosePinhole) == [], "what was on its way"
    direct.tick(1002.0, Activity(MEDIA, 1002.0, 0, 50))
    relayed.tick(1002.0, Activity(flow.key, 1002.0, 0, 50))
    signals.tick(1002.0, Activity(flow.key, 1002.0, 0, 2))
    for each, ends in ((silent, True), (direct, False), (relayed, False), (signals, True)):
        assert len(of(each.tick(1003.1), ClosePinhole)) == ends
        assert (bodies(each.commands, CallReport)[-1].end == "lost") == ends
    assert Slept("8d3c-call", 1) in silent.engine.calls.asleep, "should it go on, it is heard"


def test_a_call_in_which_all_was_heard_may_be_silent_and_of_a_stream_nobody_knows() -> None:
    before = Play(ALL)
    connected(before)
    call = kept(before)
    held = after(before, call)
    assert of(held.tick(1000.0 + UNHEARD), ClosePinhole) == []
    stream = replace(call.signalling[0], key=call.signalling[0].key._replace(proto=TCP), channels=None)
    quiet, lively = (after(before, replace(call, signalling=(stream,))) for _ in range(2))
    assert of(quiet.tick(1000.0 + UNHEARD - 1), ClosePinhole) == []
    assert len(of(quiet.tick(1000.0 + UNHEARD), ClosePinhole)) == 1
    lively.tick(1005.0, Activity(MEDIA, 1005.0))
    assert of(lively.tick(1000.0 + UNHEARD), ClosePinhole) == []


def test_what_cannot_be_a_call_of_this_engine_is_passed_over() -> None:
    """The file it came from may be anybody's."""
    before = Play(NATTED)
    connected(before)
    good = kept(before)
    hole = good.pinholes[0]
    outside, low = packed("198.51.100.9"), replace(hole.expectation, port=22)
    for bad in (
        replace(good, application="no such"), replace(good, number=0), replace(good, hosts=()),
        replace(good, hosts=(outside,)), replace(good, hosts=(b"abc",)), replace(good, flows=(-1,)),
        replace(good, pinholes=(replace(hole, expectation=replace(hole.expectation, inside=outside)),)),
    ):  # fmt: skip
        assert after(before, bad).commands == []
    for bad in (
        replace(good, pinholes=(replace(hole, expectation=low),)),
        replace(good, pinholes=(replace(hole, expectation=replace(hole.expectation, application="no such")),)),
        replace(good, pinholes=(replace(hole, expectation=replace(hole.expectation, call=7)),)),
        replace(good, pinholes=(replace(hole, expectation=replace(hole.expectation, expires=1.0)),)),
    ):  # fmt: skip
        assert of(after(before, bad).commands, OpenPinhole) == []
    assert len(of(after(before, good, good).commands, OpenPinhole)) == 1, "twice the same is once"


def test_a_call_that_is_over_is_not_kept() -> None:
    before = Play(ALL)
    call = connected(before)
    before.engine.calls.touched.clear()
    call.bye()
    assert before.engine.calls.touched == {1}
    call.bye_answer()
    assert kept_call(before.engine, 1) is None
    assert before.engine.calls.touched == {1}, "that is to be written down, too"
    assert before.engine.calls.records == {}
    assert of(before.commands, SetVerdict)


def test_the_way_of_its_signalling_is_kept_on() -> None:
    before = Play(NATTED)
    connected(before)
    again = after(before, kept(before))
    asked = of(again.tick(1000.0 + SOON), KeepFlow)
    assert [each.key for each in asked] == [FlowKey(UDP, packed(CLIENT.host), 16402, packed(PEER.host), 16402)]


def test_a_flow_without_a_decision_is_known_again_as_begun_inside() -> None:
    """Plain SIP may yet become something else (policy.md point 2): its call's next request comes from outside."""
    rule = PolicyRule("sip", "allow", ("inside",), ("outside",), applications=frozenset({"sip"}), service="any")
    before = Play(settings(rule))
    phone = Phone(before, End(CLIENT.host, 5060))
    phone.invite()
    assert [record.decision for record in before.engine.flows.values()] == [None]
    again = after(before, kept(before))
    bye = phone.head("BYE sip:x SIP/2.0", "1 BYE", ";tag=314159", b"")
    for play, passed in ((again, True), (Play(settings(rule)), False)):
        (verdict,) = of(play.queue(udp(phone.provider, phone.end, bye)), SetVerdict)
        decision = play.settings.marks.decode(verdict.mark).action
        assert (decision is None) == passed, decision
