"""A registered phone can be called after any silence: its flow is kept in the kernel until the registration ends."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from appid.dataplane.command import BindNat, Command, KeepFlow, SetVerdict
from appid.engine import Restored, RulesLoaded, Settings
from appid.engine.paths import AGAIN, AT_ONCE, KEPT, SOON
from appid.engine.registered import LEAST, KeptRegistration
from appid.flow.key import FlowKey
from appid.policy.rule import PolicyRule
from appid.wire import UDP, packed
from tests.corpus.writer import End
from tests.engine.phones import SIP, Phone, gateway
from tests.engine.play import PUBLIC, Play, of, settings, udp

ALICE, REGISTRAR = End("172.16.42.187", 5060), End("198.51.100.20", 5060)
ALICE6, REGISTRAR6 = End("fd00:42::187", 5060), End("2001:db8::20", 5060)
OUT = PolicyRule("sip", "allow", ("inside",), ("outside",), applications=frozenset({"sip"}))
ROUTED = settings(OUT)
NATTED = replace(settings(SIP, outside=PUBLIC), masqueraded=((packed("172.16.42.0"), 24),))


def way(phone: End, registrar: End = REGISTRAR) -> FlowKey:
    return FlowKey(UDP, packed(phone.host), phone.port, packed(registrar.host), registrar.port)


@dataclass
class Line:
    """A phone that registers, and its registrar."""

    play: Play
    end: End = ALICE
    registrar: End = REGISTRAR
    contact: str = ""

    def message(self, first: str, cseq: int, *more: str, method: str = "REGISTER", call: str = "reg") -> bytes:
        host, port = self.end.host, self.end.port
        own = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        lines = [first, f"Via: SIP/2.0/UDP {own};branch=z9hG4bK7;rport", "From: <sip:alice@x.example>;tag=a",
                 f"To: <sip:alice@x.example>{';tag=b' if first.startswith('SIP') else ''}", f"Call-ID: {call}",
                 f"CSeq: {cseq} {method}", f"Contact: {self.contact or f'<sip:alice@{own}>'}", *more]  # fmt: skip
        return "\r\n".join([*lines, "Content-Length: 0", "", ""]).encode()

    def register(self, seconds: int, cseq: int = 1, *, status: str = "200 OK") -> list[Command]:
        asked = self.message("REGISTER sip:x.example SIP/2.0", cseq, f"Expires: {seconds}")
        out = self.play.queue(udp(self.end, self.registrar, asked))
        answer = self.message(f"SIP/2.0 {status}", cseq, f"Expires: {seconds}")
        return out + self.play.queue(udp(self.registrar, self.end, answer))

    def called(self) -> list[Command]:
        invite = self.message("INVITE sip:alice@x SIP/2.0", 1, method="INVITE", call="call")
        return self.play.queue(udp(self.registrar, self.end, invite))


def asked(commands: list[Command]) -> list[tuple[FlowKey, int]]:
    return [(each.key, each.timeout) for each in of(commands, KeepFlow)]


@pytest.mark.parametrize("known", [ROUTED, NATTED, settings(default="none")])
def test_from_the_200_until_it_ends(known: Settings) -> None:
    line = Line(Play(known))
    line.register(600)
    deadline = line.play.engine.deadline
    assert deadline is not None
    assert deadline <= SOON
    assert asked(line.play.tick(SOON)) == [(way(ALICE), KEPT)]
    assert asked(line.play.tick(SOON + 1)) == []
    kept = [each for now in range(10, 600, 5) for each in asked(line.play.tick(float(now)))]
    assert {key for key, _ in kept} == {way(ALICE)}
    assert len(kept) >= 590 // AGAIN - 1
    assert kept[-1][1] == LEAST, "not much longer than the registration"
    assert asked(line.play.tick(630.0)) == []
    assert line.play.engine.registered.next() is None


def test_both_families() -> None:
    inside = ((packed("fd00:42::"), 64),)
    line = Line(Play(replace(settings(default="none"), inside=inside)), ALICE6, REGISTRAR6)
    line.register(600)
    assert asked(line.play.tick(SOON)) == [(way(ALICE6, REGISTRAR6), KEPT)]


def test_the_next_one_prolongs_it_and_expires_0_ends_it() -> None:
    line = Line(Play(ROUTED))
    line.register(60)
    line.play.now = 50.0
    line.register(60, 2)
    assert asked(line.play.tick(80.0)) == [(way(ALICE), LEAST)]
    line.play.now = 90.0
    line.register(0, 3)
    assert asked(line.play.tick(200.0)) == []


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden", "423 Interval Too Brief"])
def test_no_200_no_registration(status: str) -> None:
    line = Line(Play(ROUTED))
    line.register(600, status=status)
    assert asked(line.play.tick(SOON)) == []
    assert line.play.engine.deadline is None


def test_a_registrar_inside_keeps_nothing_of_who_comes_from_outside() -> None:
    """Flows begun outside are the policy's business; nobody inside waits for a call there."""
    play = Play(settings(default="none"))
    line = Line(play, End("198.51.100.66", 5060), ALICE)
    line.register(600)
    assert asked(play.tick(SOON)) == []


def test_what_policy_refuses_from_now_on_is_not_kept() -> None:
    line = Line(Play(ROUTED))
    line.register(600)
    assert asked(line.play.tick(SOON))
    refusing = settings(PolicyRule("sip", "deny", applications=frozenset({"sip"})))
    line.play.commands += line.play.engine.handle(RulesLoaded(refusing), SOON)
    assert asked(line.play.tick(SOON + AGAIN)) == []
    assert line.play.engine.registered.living() == []


def test_switched_off_it_keeps_nothing() -> None:
    line = Line(Play(replace(ROUTED, alg=frozenset())))
    line.register(600)
    assert asked(line.play.tick(SOON)) == []


def test_many_are_spread_over_ticks() -> None:
    play = Play(replace(settings(default="none"), inside=((packed("172.16.0.0"), 12),)))
    for number in range(2 * AT_ONCE):
        Line(play, End(f"172.16.{number}.7", 5060)).register(600)
    assert [len(asked(play.tick(SOON + second))) for second in range(3)] == [AT_ONCE, AT_ONCE, 0]


def test_a_flood_of_flows_does_not_take_its_place() -> None:
    small = replace(settings(default="none"), limits=replace(ROUTED.limits, flows=8))
    line = Line(Play(small))
    line.register(600)
    for port in range(20000, 20100):
        line.play.queue(udp(End(ALICE.host, port), End("198.51.100.66", 9), b"flood"))
    assert asked(line.play.tick(SOON)) == [(way(ALICE), KEPT)]
    line.play.tick(700.0)
    for port in range(20000, 20100):
        line.play.queue(udp(End(ALICE.host, port), End("198.51.100.66", 9), b"flood"))
    assert way(ALICE) not in line.play.engine.flows, "registered no more, it is a flow like others"


# -- over a restart ------------------------------------------------------------------------------------------------


def kept(play: Play) -> list[KeptRegistration]:
    registered = play.engine.registered
    found = [registered.kept(play.engine, number) for number in registered.living()]
    return [each for each in found if each is not None]


def after(before: Play, *registrations: KeptRegistration) -> Play:
    again = Play(before.settings, before.now)
    again.commands += again.engine.handle(Restored((), (), registrations), again.now)
    return again


def test_the_next_engine_goes_on() -> None:
    before = Line(Play(ROUTED))
    before.register(600)
    (value,) = kept(before.play)
    assert before.play.engine.registered.touched == {value.flow.number}
    again = Line(after(before.play, value))
    assert asked(again.play.tick(1.0)) == [(way(ALICE), KEPT)], "at once: it may be about to run out"
    for line, passes in ((again, True), (Line(Play(ROUTED)), False)):
        (verdict,) = of(line.called(), SetVerdict)
        action = ROUTED.marks.decode(verdict.mark).action
        assert (action is None) == passes, action
    again.play.tick(700.0)
    assert kept(again.play) == []
    assert again.play.engine.registered.touched == {value.flow.number}


def test_bindings_that_its_contact_needs_are_kept_on() -> None:
    before = Phone(gateway(), End(ALICE.host, 40000))
    head = before.head("REGISTER sip:x SIP/2.0", "1 REGISTER", "", b"", contact=f"{ALICE.host}:5060")
    assert [each.port for each in of(before.out(head), BindNat)] == [40000, 5060]
    before.back(before.head("SIP/2.0 200 OK", "1 REGISTER", ";tag=x", b"", contact=f"{PUBLIC}:5060"))
    (value,) = kept(before.play)
    again = after(before.play, value)
    assert [(each.port, each.outside_port) for each in of(again.commands, BindNat)] == [(5060, 5060)]


def test_what_cannot_be_true_is_passed_over() -> None:
    before = Line(Play(ROUTED))
    before.register(600)
    (value,) = kept(before.play)
    flow = value.flow
    for odd in (
        replace(value, flow=replace(flow, key=flow.key._replace(proto=6))),
        replace(value, flow=replace(flow, key=flow.key._replace(src=packed("198.51.100.9")))),
        replace(value, flow=replace(flow, key=flow.key._replace(src=b"\0" * 5, dst=b"\0" * 5))),
        replace(value, flow=replace(flow, number=0)),
        replace(value, flow=replace(flow, application="nobody-knows")),
        replace(value, until=()),
        replace(value, until=(("sip:alice@x.example", -1.0),)),
    ):
        assert after(before.play, odd).engine.registered.living() == [], odd


def test_a_new_life_of_the_flow_has_its_own_number() -> None:
    line = Line(Play(ROUTED))
    line.register(600)
    (first,) = kept(line.play)
    del line.play.engine.flows[way(ALICE)]
    line.register(600, 2)
    (second,) = kept(line.play)
    assert second.flow.number > first.flow.number
    assert line.play.engine.registered.touched == {first.flow.number, second.flow.number}
    assert line.play.engine.registered.living() == [second.flow.number]
