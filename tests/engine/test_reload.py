"""Another policy: what userspace follows, what calls opened, and what the kernel holds is judged again."""

from __future__ import annotations

from dataclasses import replace

import hypothesis
import pytest
from hypothesis import strategies as st

from appid.dataplane.command import ClosePinhole, OpenPinhole, SetMark
from appid.dataplane.marks import Marks
from appid.engine import CallReport, DecisionReport, Engine, Kept, RulesLoaded, Settings
from appid.flow.key import FlowKey
from appid.identify.application import PortRange
from appid.policy import Action, Decision
from appid.policy.evaluate import Judge, Situation
from appid.policy.rule import Override, Policy, PolicyRule, Qos, Schedule, Zone, holds
from appid.wire import TCP, UDP, packed
from tests.corpus.writer import End
from tests.engine.play import CLIENT, PEER, ZONES, Play, applications, bodies, of, settings, udp, verdict
from tests.policy.random_policies import SMALL, policies, situations
from tests.policy.test_evaluate import naive

INSIDE, OUTSIDE = packed("172.16.42.187"), packed("198.51.100.9")
MEDIA = FlowKey(UDP, INSIDE, 16402, packed("71.230.89.52"), 16402)


def rule(name: str, action: Action, *names: str, **more: object) -> PolicyRule:
    given: dict[str, object] = {"service": "any", **more}
    return PolicyRule(name, action, applications=frozenset(names) or None, **given)  # type: ignore[arg-type]


ALL = rule("all", "allow")
NO_CALLS = rule("no calls", "deny", "facetime")


def kept(known: Settings, key: FlowKey, action: Action, name: str | None) -> Kept:
    return Kept(key, known.marks.encode(action, known.applications[name].number if name else 0))


def reload(play: Play, known: Settings, *flows: Kept, restarted: bool = False) -> list[object]:
    play.settings = known
    return list(play.engine.handle(RulesLoaded(known, flows, restarted=restarted), play.now))


def changes(commands: list[object], known: Settings) -> dict[FlowKey, str | None]:
    return {c.key: known.marks.decode(c.mark).action for c in of(commands, SetMark)}  # type: ignore[arg-type]


@pytest.mark.parametrize("action", ["deny", "drop"])
def test_what_the_kernel_holds_is_judged_by_the_name_in_its_mark(action: Action) -> None:
    old, new = settings(ALL), settings(rule("no lookups", action, "dns"), ALL)
    dns, web = FlowKey(UDP, INSIDE, 5000, OUTSIDE, 53), FlowKey(TCP, INSIDE, 5001, OUTSIDE, 80)
    flows = kept(old, dns, "allow", "dns"), kept(old, web, "allow", "web-browsing")
    done = reload(Play(old), new, *flows)
    assert changes(done, new) == {dns: action}
    (mark,) = of(done, SetMark)  # type: ignore[arg-type]
    assert new.marks.decode(mark.mark).application == new.applications["dns"].number
    assert not mark.create
    told = {r.key: (r.decision, r.changed) for r in bodies(done, DecisionReport)}  # type: ignore[arg-type]
    assert told == {dns: (Decision(action, "no lookups"), True), web: (Decision("allow", "all"), False)}
    back = Play(new)
    assert changes(reload(back, old, kept(new, dns, action, "dns")), old) == {dns: "allow"}


def test_a_flow_without_a_name_is_unknown_and_one_refused_before_it_had_one_begins_anew() -> None:
    key = FlowKey(UDP, INSIDE, 5000, OUTSIDE, 40000)
    nothing, some = settings(), settings(rule("lookups", "allow", "dns"))
    assert changes(reload(Play(nothing), some, kept(nothing, key, "deny", None)), some) == {key: None}
    assert changes(reload(Play(some), nothing, kept(some, key, "deny", None)), nothing) == {}, "it had its chance"
    unknown = settings(rule("unknown", "allow", "unknown-udp"))
    assert changes(reload(Play(unknown), nothing, kept(unknown, key, "allow", None)), nothing) == {key: "deny"}
    stun = FlowKey(UDP, INSIDE, 5001, OUTSIDE, 3478)
    calls = settings(rule("calls", "allow", "facetime"))
    assert changes(reload(Play(nothing), calls, kept(nothing, stun, "deny", "stun")), calls) == {stun: None}


def test_a_name_that_is_gone_begins_anew() -> None:
    old = settings(ALL)
    fewer = {name: each for name, each in applications().items() if name != "dns"}
    new = Settings(fewer, Judge(Policy((ALL,), ZONES), fewer), old.inside)
    key = FlowKey(UDP, INSIDE, 5000, OUTSIDE, 53)
    assert changes(reload(Play(old), new, kept(old, key, "allow", "dns")), new) == {key: None}


def test_where_the_marks_have_no_room_for_a_name_a_flow_begins_anew() -> None:
    marks = Marks(0x0000FF0F)
    ours = applications()["dns"]
    crowd = {**applications(), "own": replace(ours, name="own", number=0x9001)}
    old, new = (Settings(crowd, Judge(Policy(rules, ZONES), crowd), settings().inside, marks=marks)
                for rules in ((ALL,), (rule("own", "allow", "own"),)))  # fmt: skip
    own, dns = FlowKey(UDP, INSIDE, 5000, OUTSIDE, 40000), FlowKey(UDP, INSIDE, 5000, OUTSIDE, 53)
    flows = Kept(own, marks.encode("allow", 0x9001)), Kept(dns, marks.encode("allow", ours.number))
    assert changes(reload(Play(old), new, *flows), new) == {own: None, dns: "deny"}


def test_monitor_mode_refuses_nothing_at_a_reload_either() -> None:
    old, new = settings(ALL, monitor=True), settings(rule("no lookups", "deny", "dns"), ALL, monitor=True)
    key = FlowKey(UDP, INSIDE, 5000, OUTSIDE, 53)
    done = reload(Play(old), new, kept(old, key, "allow", "dns"))
    assert changes(done, new) == {}
    (told,) = bodies(done, DecisionReport)  # type: ignore[arg-type]
    assert told.decision == Decision("deny", "no lookups")


def test_a_call_that_is_denied_now_ends_and_its_media_stays_cut() -> None:
    old, new = settings(ALL), settings(NO_CALLS, ALL)
    play = Play(old)
    call = play.call()
    opened = of(call.connect(), OpenPinhole)
    assert opened
    done = reload(play, new, kept(old, MEDIA, "allow", "facetime"))
    closed = of(done, ClosePinhole)  # type: ignore[arg-type]
    assert [each.id for each in closed] == [each.id for each in opened]
    mine = [c for c in of(done, SetMark) if c.key == MEDIA]  # type: ignore[arg-type]
    assert [(new.marks.decode(c.mark).action, c.create) for c in mine] == [("deny", True)]
    assert done.index(mine[0]) > done.index(closed[-1]), "closing deletes the entry, so it is made afterwards"
    assert bodies(done, CallReport)[-1].end == "refused"  # type: ignore[arg-type]
    commands = call.bye()
    assert new.marks.decode(verdict(commands).mark).action == "deny"


def test_a_call_that_stays_allowed_is_not_touched() -> None:
    old, new = settings(ALL), settings(rule("no lookups", "deny", "dns"), ALL)
    play = Play(old)
    call = play.call()
    call.connect()
    done = reload(play, new, kept(old, MEDIA, "allow", "facetime"))
    assert of(done, ClosePinhole) == of(done, OpenPinhole) == []  # type: ignore[arg-type]
    assert changes(done, new) == {}
    assert old.marks.decode(verdict(call.bye()).mark).action == "allow"


def test_foreseen_media_keeps_its_calls_decision_whatever_its_port() -> None:
    """Point 4, and after a restart, when nobody knows any more what was foreseen."""
    strict = settings(rule("calls", "allow", "facetime", service="application-default"))
    odd = MEDIA._replace(dport=1024)
    flow = kept(strict, odd, "allow", "facetime")
    assert changes(reload(Play(strict), strict, flow, restarted=True), strict) == {}
    assert changes(reload(Play(strict), strict, flow), strict) == {odd: "deny"}, "no call foresees it"
    none = settings(NO_CALLS)
    assert changes(reload(Play(none), none, flow, restarted=True), none) == {odd: "deny"}


def with_override(*rules: PolicyRule) -> Settings:
    known = applications()
    override = Override("jabber", destination=((OUTSIDE, 32),), ports=(PortRange(UDP, 9000, 9010),))
    policy = Policy(rules, ZONES, overrides=(override,))
    return Settings(known, Judge(policy, known), settings().inside)


def test_an_override_names_a_flow_at_its_first_packet_and_at_a_reload() -> None:
    known = with_override(rule("chat", "allow", "jabber"))
    play = Play(known)
    inside, outside = End("172.16.42.187", 5000), End("198.51.100.9", 9001)
    answer = known.marks.decode(
        verdict(play.queue(udp(inside, outside, b"\0\1\0\0 what it shows is of no matter"))).mark
    )
    assert (answer.action, answer.application) == ("allow", known.applications["jabber"].number)
    beside = known.marks.decode(verdict(play.queue(udp(inside, End("198.51.100.9", 9011), b"x"))).mark)
    assert beside.application != known.applications["jabber"].number
    key = FlowKey(UDP, INSIDE, 5001, OUTSIDE, 9000)
    old = settings(ALL)
    (mark,) = of(reload(Play(old), known, kept(old, key, "allow", None)), SetMark)  # type: ignore[arg-type]
    assert known.marks.decode(mark.mark).application == known.applications["jabber"].number


def test_what_an_override_named_begins_anew_when_the_override_is_gone() -> None:
    known, without = with_override(ALL), settings(ALL)
    inside_range, beside = FlowKey(UDP, INSIDE, 5001, OUTSIDE, 9000), FlowKey(UDP, INSIDE, 5001, OUTSIDE, 9011)
    named, real = kept(known, inside_range, "allow", "jabber"), kept(known, beside, "allow", "jabber")
    shown = kept(known, FlowKey(UDP, INSIDE, 5002, OUTSIDE, 9001), "allow", "dns")
    assert changes(reload(Play(known), without, named, real, shown), without) == {inside_range: None}
    assert changes(reload(Play(known), with_override(ALL), named), known) == {}, "it is still there"


def test_an_override_takes_effect_on_a_flow_that_has_no_name_yet() -> None:
    play, known = Play(settings(ALL)), with_override(rule("chat", "allow", "jabber"))
    hello = udp(End("172.16.42.187", 5000), End("198.51.100.9", 9001), b"\xff" * 20)
    play.queue(hello)
    reload(play, known)
    mark = known.marks.decode(verdict(play.queue(hello)).mark)
    assert (mark.action, mark.application) == ("allow", known.applications["jabber"].number)


def begun_inside() -> Play:
    """A connected call under a rule for what begins inside; then the peer signals on a flow of its own, foreseen."""
    made = Play(settings(PolicyRule("out", "allow", ("inside",), ("outside",), applications=frozenset({"facetime"}))))
    call = made.call()
    call.connect()
    made.queue(udp(PEER._replace(port=40000), CLIENT, call.dialog.response(200, "OK", answer=True)))
    assert len(made.engine.calls.book.open) == 1
    return made


def test_a_call_is_judged_by_the_flow_that_announced_it() -> None:
    """The last one on which it signals may have begun at the other end: no rule lets that in by itself."""
    made = begun_inside()
    assert any(record.foreseen for record in made.engine.flows.values())
    done = reload(made, made.settings)
    assert of(done, ClosePinhole) == []  # type: ignore[arg-type]
    assert len(made.engine.calls.calls.open) == 1


def test_a_call_is_judged_by_its_last_name() -> None:
    """It began as plain SIP; then the flow was known for what it is."""
    made = begun_inside()
    (call,) = made.engine.calls.calls.open.values()
    call.application = "sip"
    done = reload(made, made.settings)
    assert of(done, ClosePinhole) == [], "nothing allows sip"  # type: ignore[arg-type]


def test_alg_off_opens_nothing() -> None:
    call = Play(settings(rule("calls, no pinholes", "allow", alg=frozenset()))).call()
    assert of(call.connect(), OpenPinhole) == []
    assert of(Play(settings(rule("calls", "allow"))).call().connect(), OpenPinhole) != []


def test_the_qos_class_of_a_rule_is_in_marks_and_pinholes() -> None:
    marks = Marks(qos=0x0F000000)
    plain = replace(settings(ALL), marks=marks)
    classed = replace(settings(rule("calls", "allow", "facetime", qos=Qos(46)), ALL), marks=marks)
    play = Play(plain)
    play.call().connect()
    done = reload(play, classed, Kept(MEDIA, marks.encode("allow", plain.applications["facetime"].number)))
    assert [marks.decode(c.mark).qos for c in of(done, OpenPinhole)] == [1]  # type: ignore[arg-type]
    assert {c.key: marks.decode(c.mark).qos for c in of(done, SetMark)}[MEDIA] == 1  # type: ignore[arg-type]


@hypothesis.settings(max_examples=150, deadline=None, suppress_health_check=[hypothesis.HealthCheck.filter_too_much])
@hypothesis.given(policies(), policies(), situations(), st.sampled_from((*SMALL, None)), st.none() | st.just(3e6))
def test_an_allowed_flow_gets_what_a_naive_reference_says_of_its_name(
    old: Policy, new: Policy, at: Situation, name: str | None, later: float | None
) -> None:
    """Whatever was before: zones by the interface that leads to an address, schedules by the time of the first packet,
    where it is known."""
    hypothesis.assume(at.key.src != at.key.dst)
    at = at._replace(from_zone=at.from_zone or "in", to_zone=at.to_zone or "out")
    zones = {each: Zone(each, (each,)) for each in ("in", "out", "dmz")}
    inside = ((packed("10.0.0.0"), 9), (packed("fd00::"), 112))
    before, known = (
        Settings(SMALL, Judge(replace(policy, zones=zones), SMALL), inside) for policy in (old, new)
    )  # fmt: skip
    leads = {at.key.src: at.from_zone or "", at.key.dst: at.to_zone or ""}
    mark = before.marks.encode("allow", SMALL[name].number if name else 0)
    flow = Kept(at.key, mark, None if later is None else at.now)
    event = RulesLoaded(known, (flow,), lambda address: leads[address])
    commands = Engine(before).handle(event, at.now + (later or 0))
    src, dst = (any(holds(network, address) for network in inside) for address in (at.key.src, at.key.dst))
    placed = at._replace(begun_outside=not src and dst, foreseen=False)
    final = name or {UDP: "unknown-udp", TCP: "unknown-tcp"}.get(at.key.proto, "unknown-ip")
    expected = naive(new, SMALL, placed, final, False)
    (told,) = bodies(commands, DecisionReport)
    assert told.decision == expected
    marks = {c.key: known.marks.decode(c.mark).action for c in of(commands, SetMark)}
    assert marks.get(at.key, "allow") == expected.action


NIGHT = Schedule(start=22 * 60, end=6 * 60)
EVENING = 23 * 3600.0
NOON = EVENING + 13 * 3600


def test_point_1_schedules_count_from_the_first_packet_at_a_reload_too() -> None:
    old, new = settings(ALL), settings(rule("not at night", "deny", "dns", schedule=NIGHT), ALL)
    late, early, unknown = (FlowKey(UDP, INSIDE, port, OUTSIDE, 53) for port in (1, 2, 3))
    flows = [kept(old, key, "allow", "dns") for key in (late, early, unknown)]
    flows[0], flows[1] = flows[0]._replace(began=EVENING), flows[1]._replace(began=NOON)
    play = Play(old)
    play.now = NOON
    assert changes(reload(play, new, *flows), new) == {late: "deny"}
    play = Play(old)
    play.now = EVENING
    assert changes(reload(play, new, *flows), new) == {late: "deny", unknown: "deny"}


@pytest.mark.parametrize(("begun", "reloaded", "end"), [(EVENING, NOON, "refused"), (NOON, NOON + 36000, None)])
def test_point_1_a_call_is_judged_by_the_time_at_which_its_flow_began(
    begun: float, reloaded: float, end: str | None
) -> None:
    old, new = settings(ALL), settings(rule("not at night", "deny", "facetime", schedule=NIGHT), ALL)
    play = Play(old)
    play.now = begun
    play.call().connect()
    play.now = reloaded
    done = reload(play, new, kept(old, MEDIA, "allow", "facetime")._replace(began=begun))
    ended = bodies(done, CallReport)  # type: ignore[arg-type]
    assert (ended[-1].end if ended else None) == end
    assert changes(done, new).get(MEDIA) == ("deny" if end else None)
