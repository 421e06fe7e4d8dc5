"""Findings: each kind, and that they are sound."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appid.edge.rule_files import load_applications
from appid.identify.application import PortRange
from appid.policy import Action
from appid.policy.evaluate import Judge, Situation
from appid.policy.lint import lint
from appid.policy.rule import Policy, PolicyRule, Schedule, Zone
from appid.wire import TCP, packed
from tests.policy.random_policies import NAMES, SMALL, policies, situations

SHIPPED = load_applications()
ZONES = {name: Zone(name) for name in ("inside", "outside")}


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
