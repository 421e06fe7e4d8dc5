"""What facetime needs beside itself (point 7)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appid.edge.rule_files import load_applications
from appid.identify.application import PortRange
from appid.policy import Action
from appid.policy.dependencies import missing
from appid.policy.evaluate import IMPLICIT, Situation
from appid.policy.rule import Policy, PolicyRule, Schedule, Zone
from appid.wire import TCP, UDP, packed
from tests.policy.random_policies import NAMED_SERVICES, SMALL, policies, situations
from tests.policy.test_evaluate import naive

SHIPPED = load_applications()
ZONES = {name: Zone(name) for name in ("inside", "guests", "outside")}
NEEDED = ("sip", "stun", "ssl", "jabber", "ichat-av", "turn", "apple-push")


def rule(name: str, *applications: str, action: Action = "allow", **more: object) -> PolicyRule:
    given: dict[str, object] = {"from_": ("inside",), "to": ("outside",)} | more
    return PolicyRule(name, action, applications=frozenset(applications) or None, **given)  # type: ignore[arg-type]


def lacks(*rules: PolicyRule, default: Action = "deny") -> list[tuple[str, str, tuple[str, ...]]]:
    return [(one.rule, one.application, one.names) for one in missing(Policy(rules, ZONES, default), SHIPPED)]


CALLS = rule("calls", "facetime")


def test_point_7_a_warning_names_rule_application_and_each_missing_one() -> None:
    assert lacks(CALLS) == [("calls", "facetime", NEEDED)]
    (warning,) = missing(Policy((CALLS,), ZONES), SHIPPED)
    assert all(word in str(warning) for word in ("'calls'", "facetime", *NEEDED))


def test_point_7_what_is_allowed_for_the_same_zones_source_and_destination_is_not_missing() -> None:
    assert lacks(CALLS, rule("rest", *NEEDED)) == []
    assert lacks(rule("all of it", "facetime", *NEEDED)) == []
    assert lacks(CALLS, rule("anything")) == []
    assert lacks(CALLS, default="allow") == []
    assert lacks(CALLS, rule("rest", *NEEDED[1:]))[0] == ("calls", "facetime", ("sip",))


@pytest.mark.parametrize(
    "elsewhere",
    [
        {"from_": ("guests",)},
        {"to": ("guests",)},
        {"source": ((packed("10.0.0.0"), 8),)},
        {"destination": ((packed("17.0.0.0"), 8),)},
    ],
)
def test_point_7_allowed_elsewhere_is_missing_here(elsewhere: dict[str, Any]) -> None:
    assert lacks(CALLS, rule("rest", *NEEDED, **elsewhere))[0][2] == NEEDED


def test_two_halves_make_a_whole() -> None:
    halves = [((packed("0.0.0.0"), 1),), ((packed("128.0.0.0"), 1),), ((packed("::"), 0),)]
    rules = [rule(f"part {i}", *NEEDED, source=half) for i, half in enumerate(halves)]
    assert lacks(CALLS, *rules) == []
    assert lacks(CALLS, *rules[:2]) == [("calls", "facetime", NEEDED)]


def test_a_deny_before_the_allow_counts_and_one_after_it_does_not() -> None:
    deny = rule("no stun", "stun", action="drop", destination=((packed("17.1.2.3"), 32),), service="any")
    assert lacks(deny, CALLS, rule("rest", *NEEDED)) == [("calls", "facetime", ("stun",))]
    assert lacks(CALLS, rule("rest", *NEEDED), deny) == []


def test_explicit_ports_count_where_they_hold_the_standard_ports() -> None:
    some = rule("stun somewhere", "stun", service=(PortRange(UDP, 3478, 3478),))
    rest = rule("rest", *(name for name in NEEDED if name != "stun"))
    assert lacks(CALLS, some, rest) == [("calls", "facetime", ("stun",))]


def test_implicit_use_leaves_only_what_it_does_not_grant() -> None:
    implicit = rule("calls", "facetime", implicit=True)
    assert lacks(implicit) == [("calls", "facetime", ("ichat-av",))]
    denied = rule("no push", "apple-push", action="deny", service="any")
    assert lacks(implicit, denied) == [("calls", "facetime", ("ichat-av", "apple-push"))]
    assert IMPLICIT.startswith("implicit")


def test_point_7_a_rule_for_anything_and_the_defaults_allow_it_too() -> None:
    deny = rule("no stun", "stun", action="deny", service="any")
    anything = rule("all", service="any")
    assert ("all", "facetime", ("stun",)) in lacks(deny, anything)
    assert ("defaults", "facetime", ("stun",)) in lacks(deny, default="allow")
    assert lacks(anything, deny) == []
    one_port = rule("web ports", service=(PortRange(TCP, 443, 443),))
    assert lacks(deny, one_port) == [], "it does not hold the standard ports of facetime"
    (warning,) = (w for w in missing(Policy((deny,), ZONES, "allow"), SHIPPED) if w.application == "facetime")
    assert str(warning).startswith("the defaults allow facetime")


def test_point_7_where_it_is_refused_it_needs_nothing() -> None:
    child = ((packed("10.0.0.7"), 32),)
    anything, night = rule("all", service="any"), Schedule(start=1260, end=390)
    both = rule("not for the child", "facetime", "ichat-av", action="deny", source=child, service="any")
    assert lacks(both, anything) == []
    assert lacks(replace(both, schedule=night), anything) == []
    only_one = rule("no calls for the child", "facetime", action="deny", source=child, service="any")
    other = rule("no push for the child", "apple-push", action="deny", source=child, service="any")
    assert lacks(only_one, other, anything) == []
    assert lacks(other, anything) == [("all", "facetime", ("apple-push",))]
    assert lacks(replace(only_one, schedule=night), other, anything) == [("all", "facetime", ("apple-push",))]


DEPENDENT = SMALL | {"a": replace(SMALL["a"], depends_on=("b", "d"))}
SIMPLE = st.sampled_from(NAMED_SERVICES)


@settings(max_examples=300, deadline=None)
@given(policies(services=SIMPLE, implicit=False), st.lists(situations(), min_size=1, max_size=8))
def test_no_place_where_an_application_is_allowed_and_what_it_needs_is_not_goes_untold(
    policy: Policy, flows: list[Situation]
) -> None:
    told = {(one.rule, name) for one in missing(policy, DEPENDENT) for name in one.names}
    for at in flows:
        on = {name: at._replace(key=at.key._replace(proto=proto, dport=port), begun_outside=False, foreseen=False)
              for name, proto, port in (("a", UDP, 15), ("b", UDP, 40), ("d", TCP, 7))}  # fmt: skip
        made = naive(policy, DEPENDENT, on["a"], "a", False)
        if made.action == "allow":
            for name in ("b", "d"):
                if naive(policy, DEPENDENT, on[name], name, False).action != "allow":
                    assert (made.rule, name) in told
