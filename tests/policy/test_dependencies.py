"""What facetime needs beside itself (point 7)."""

from __future__ import annotations

from typing import Any

import pytest

from appid.edge.rule_files import load_applications
from appid.identify.application import PortRange
from appid.policy import Action
from appid.policy.dependencies import missing
from appid.policy.evaluate import IMPLICIT
from appid.policy.rule import Policy, PolicyRule, Zone
from appid.wire import UDP, packed

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
