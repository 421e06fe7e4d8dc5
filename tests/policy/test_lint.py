"""Findings: each kind, and that they are sound."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appid.edge.rule_files import load_applications
from appid.identify.application import PortRange
from appid.policy import Action
from appid.policy.evaluate import Judge, Situation
from appid.policy.lint import lint
from appid.policy.rule import Override, Policy, PolicyRule, Schedule, Zone
from appid.wire import TCP, packed
from tests.policy.random_policies import NAMES, NETWORKS, RANGES, SMALL, policies, situations

SHIPPED = load_applications()
ZONES = {"inside": Zone("inside", ("lan0",), ((packed("172.16.0.0"), 12),)), "outside": Zone("outside", ("wan0",))}


def rule(name: str, *applications: str, action: Action = "allow", **more: object) -> PolicyRule:
    given_: dict[str, object] = {"service": "any"} | more
    return PolicyRule(name, action, applications=frozenset(applications) or None, **given_)  # type: ignore[arg-type]


def findings(*rules: PolicyRule) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(f.kind, f.rule, f.others) for f in lint(Policy(rules, ZONES), SHIPPED)]


def test_a_rule_after_one_that_holds_all_of_it_is_shadowed() -> None:
    assert findings(rule("web", "ssl", "quic"), rule("ssl", "ssl", from_=("inside",))) == [
        ("shadowed", "ssl", ("web",))
    ]
    assert findings(rule("ssl", "ssl", from_=("inside",)), rule("web", "ssl", "quic")) == []


def test_several_rules_shadow_together() -> None:
    low, high = ((packed("0.0.0.0"), 1),), ((packed("128.0.0.0"), 1),)
    v4 = ((packed("0.0.0.0"), 0),)
    rules = [rule("low", "dns", source=low), rule("high", "dns", source=high), rule("v4", "dns", source=v4)]
    assert findings(*rules) == [("shadowed", "v4", ("low", "high"))]
    assert findings(rule("in", "dns", from_=("inside",)), rule("any", "dns")) == []


def test_the_other_action_is_a_contradiction() -> None:
    assert findings(rule("no", "dns", action="deny"), rule("yes", "dns")) == [("contradiction", "yes", ("no",))]


@pytest.mark.parametrize(
    ("first", "second", "shadowed"),
    [
        ("application-default", "application-default", True),
        ("application-default", "any", False),
        ("any", "application-default", True),
        ("application-default", (PortRange(TCP, 443, 443),), True),
        ("application-default", (PortRange(TCP, 444, 444),), False),
        ((PortRange(TCP, 1, 65535),), (PortRange(TCP, 443, 444),), True),
        ((PortRange(TCP, 1, 65535),), "application-default", False),  # a foreseen flow may be on any port
    ],
)
def test_services(first: object, second: object, shadowed: bool) -> None:
    found = findings(rule("first", "ssl", service=first), rule("second", "ssl", service=second))
    assert bool(found) is shadowed


def test_schedules() -> None:
    day, night = Schedule(start=0, end=720), Schedule(start=720, end=1440)
    assert findings(rule("day", "dns", schedule=day), rule("same", "dns", schedule=day))[0][1] == "same"
    assert findings(rule("day", "dns", schedule=day), rule("night", "dns", schedule=night)) == []
    assert findings(rule("always", "dns"), rule("night", "dns", schedule=night))[0][1] == "night"


def test_a_rule_whose_implicit_use_is_granted_before_it_is_shadowed_as_any() -> None:
    twice = [rule("calls", "facetime", implicit=True), rule("again", "facetime", implicit=True)]
    assert findings(*twice)[-1] == ("shadowed", "again", ("calls",))
    narrower = [rule("calls", "facetime", "sip", implicit=True), rule("here", "sip", from_=("inside",), implicit=True)]
    assert findings(*narrower)[-1] == ("shadowed", "here", ("calls",))
    wider = [rule("here", "facetime", from_=("inside",), implicit=True), rule("calls", "facetime", implicit=True)]
    assert [kind for kind, *_ in findings(*wider) if kind == "shadowed"] == []
    timed = [
        rule("calls", "facetime", implicit=True, schedule=Schedule(start=0, end=360)),
        rule("again", "facetime", implicit=True),
    ]
    assert [kind for kind, *_ in findings(*timed) if kind == "shadowed"] == []


def test_a_rule_that_still_grants_implicit_use_is_not_called_shadowed() -> None:
    rules = [rule("web", "facetime"), rule("calls", "facetime", implicit=True)]
    assert {kind for kind, _, _ in findings(*rules)} == {"dependency"}


def test_what_began_outside_is_left_to_a_later_refusal() -> None:
    needed = SHIPPED["facetime"].depends_on
    allow, deny = rule("calls", "facetime", *needed), rule("no calls", "facetime", action="drop")
    assert findings(allow, deny) == []


def test_rules_that_nothing_can_match() -> None:
    mixed = rule("mixed", "dns", source=((packed("10.0.0.0"), 8),), destination=((packed("fd00::"), 8),))
    empty = PolicyRule("empty", "allow", applications=frozenset())
    assert findings(mixed, empty) == [("unreachable", "mixed", ()), ("unreachable", "empty", ())]


NETS = st.lists(NETWORKS, max_size=2).map(tuple)
PORT_LISTS = st.lists(RANGES, max_size=2).map(tuple)
CALLS_IN: dict[str, Any] = {"from_": ("outside",), "to": ("inside",)}


def test_what_may_only_come_foreseen_is_never_allowed_in_by_a_rule() -> None:
    """Points 3 and 4: not what no call foresaw; what one did takes that call's decision."""
    assert findings(rule("in", "facetime", "rtp", **CALLS_IN)) == [("unreachable", "in", ())]
    for live in (
        rule("no", "facetime", action="deny", **CALLS_IN),  # it refuses what nothing foresaw
        rule("more", "rtp", "dns", **CALLS_IN),
        rule("out", "rtp", from_=("inside",), to=("outside",)),
        rule("round", "rtp", from_=("inside", "outside"), to=("inside",)),
        rule("anywhere", "rtp", to=("inside",)),
    ):
        assert "unreachable" not in {kind for kind, _, _ in findings(live)}


def test_a_zone_whose_side_the_routes_say_may_be_inside() -> None:
    zones = ZONES | {"guests": Zone("guests", ("lan1",))}
    assert "unreachable" not in {f.kind for f in lint(Policy((rule("in", "rtp", **CALLS_IN),), zones), SHIPPED)}


def test_zones_where_no_packet_is() -> None:
    zones = ZONES | {"outside": Zone("outside", ("wan0",), outside=True), "else": Zone("else", outside=False)}
    rules = rule("a", "dns", from_=("else",)), rule("b", "dns", to=("else",)), rule("c", "dns", to=("else", "inside"))
    found = [(f.kind, f.rule, f.others) for f in lint(Policy(rules, zones), SHIPPED)]
    assert found == [("zones", "", ("else",)), ("unreachable", "a", ()), ("unreachable", "b", ())]


@pytest.mark.parametrize(
    ("first", "second", "found"),
    [
        (("10.0.0.0", 8, 5060, 5070), ("10.1.0.0", 16, 5060, 5060), True),
        (("10.0.0.0", 8, 5060, 5070), ("10.0.0.0", 8, 5060, 5070), True),
        (("10.1.0.0", 16, 5060, 5060), ("10.0.0.0", 8, 5060, 5060), False),
        (("10.0.0.0", 8, 5060, 5060), ("10.1.0.0", 16, 5060, 5061), False),
        (("10.0.0.0", 8, 0, 65535), ("10.0.0.0", 8, None, None), False),
        (("10.0.0.0", 8, None, None), ("10.0.0.0", 8, 1, 2), True),
    ],
)
def test_overrides_that_never_count(first: tuple, second: tuple, found: bool) -> None:  # type: ignore[type-arg]
    def override(application: str, base: str, prefix: int, low: int | None, high: int | None) -> Override:
        ports = (PortRange(TCP, low, high),) if low is not None and high is not None else ()
        return Override(application, destination=((packed(base), prefix),), ports=ports)

    for application, kind in (("sip", "shadowed"), ("dns", "contradiction")):
        overrides = override("sip", *first), override(application, *second)
        told = [(f.kind, f.rule, f.others) for f in lint(Policy(overrides=overrides), SHIPPED)]
        assert told == ([(kind, "override[2]", ("override[1]",))] if found else [])


@settings(max_examples=300, deadline=None)
@given(policies(most=6), st.lists(situations(), min_size=1, max_size=6))
def test_no_packet_tells_a_policy_from_itself_without_the_rules_called_shadowed(
    policy: Policy, flows: list[Situation]
) -> None:
    useless = {f.rule for f in lint(policy, SMALL) if f.kind != "dependency"}
    for name in useless:
        kept = tuple(rule for rule in policy.rules if rule.name != name)
        without = Policy(kept, policy.zones, policy.default_action, undecided_packets=policy.undecided_packets)
        whole, less = Judge(policy, SMALL), Judge(without, SMALL)
        for at in flows:
            for one in NAMES:
                assert whole.first_match(at, one) == less.first_match(at, one)
                assert whole.first_match(at, one, True) == less.first_match(at, one, True)
            assert whole.judge(at, None, None, 1) == less.judge(at, None, None, 1)


@settings(max_examples=300, deadline=None)
@given(policies(most=4), st.lists(situations(), min_size=1, max_size=6))
def test_so_it_is_with_sides_where_what_is_foreseen_takes_its_calls_decision(
    policy: Policy, flows: list[Situation]
) -> None:
    """Points 3 and 4, and a zone where no packet is."""
    zones = {"in": Zone("in", outside=False, interfaces=("i",)), "out": Zone("out", outside=True), "dmz": Zone("dmz")}
    policy = replace(policy, zones=zones)
    whole = Judge(policy, SMALL)
    for name in {f.rule for f in lint(policy, SMALL) if f.kind == "unreachable"}:
        less = Judge(replace(policy, rules=tuple(rule for rule in policy.rules if rule.name != name)), SMALL)
        for flow in flows:
            if "dmz" in (flow.from_zone, flow.to_zone):
                continue
            at = flow._replace(begun_outside=flow.from_zone == "out" and flow.to_zone == "in", foreseen=False)
            for one in NAMES:
                for provisional in (False, True):
                    assert whole.first_match(at, one, provisional) == less.first_match(at, one, provisional)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.builds(Override, st.sampled_from(["a", "b"]), NETS, NETS, PORT_LISTS), max_size=6), situations())
def test_no_flow_tells_overrides_from_themselves_without_those_that_never_count(
    overrides: list[Override], at: Situation
) -> None:
    whole = Judge(Policy(overrides=tuple(overrides)), SMALL)
    for finding in lint(Policy(overrides=tuple(overrides)), SMALL):
        if finding.rule:
            row = int(finding.rule.removeprefix("override[").removesuffix("]")) - 1
            kept = (*overrides[:row], *overrides[row + 1 :])
            assert whole.overridden(at.key) == Judge(Policy(overrides=kept), SMALL).overridden(at.key)
