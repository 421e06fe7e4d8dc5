"""The worked examples do what docs/how-to/worked-examples.md says of them."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from appid.edge.policy_file import load_policy
from appid.edge.rule_files import load_applications, shipped_rules
from appid.flow.key import FlowKey
from appid.policy.evaluate import Judge, Situation
from appid.policy.lint import lint
from appid.policy.places import with_sides
from appid.wire import TCP, UDP, packed

APPLICATIONS = load_applications()
PLACE = shipped_rules() / "policy"
NAMES = sorted(path.stem for path in PLACE.glob("*.toml"))
DOCUMENT = Path(__file__).resolve().parents[2] / "docs/how-to/worked-examples.md"
NONE: frozenset[str] = frozenset()


class Example:
    def __init__(self, name: str) -> None:
        self.policy = with_sides(load_policy(PLACE / f"{name}.toml", APPLICATIONS))
        self.judge = Judge(self.policy, APPLICATIONS)

    def says(self, source: str, destination: str, port: int, name: str, proto: int = UDP, at: str = "") -> str:
        """The action for a flow of this name; `at`: local time in Berlin, a school day's if only the time is given."""
        when = datetime.fromisoformat(at if "-" in at else f"2026-11-20 {at or '10:00'}")  # a Friday
        key = FlowKey(proto, packed(source), 50000, packed(destination), port)
        zones = self.judge.zone_of(key.src), self.judge.zone_of(key.dst)
        sides = [self.judge.outside(zone) for zone in zones]
        now = when.replace(tzinfo=ZoneInfo("Europe/Berlin")).timestamp()
        situation = Situation(key, *zones, begun_outside=bool(sides[0]) and not sides[1], now=now)
        decision = self.judge.judge(situation, self.judge.overridden(key) or name, NONE, 11)
        assert decision is not None
        return decision.action


@pytest.mark.parametrize("name", NAMES)
def test_each_is_clean_and_documented(name: str) -> None:
    assert lint(Example(name).policy, APPLICATIONS) == []
    text = (PLACE / f"{name}.toml").read_text()
    assert text.startswith("# "), "it says what it is for"
    document = DOCUMENT.read_text()
    assert f"rules/policy/{name}.toml" in document
    for rule in Example(name).policy.rules:
        assert f"`{rule.name}`" in document, "each of its rules is explained"


RELAY, WEB, PEER = "17.173.254.35", "203.0.113.80", "198.51.100.99"


def test_home() -> None:
    home = Example("home")
    ipad, phone = "192.168.1.40", "192.168.1.41"
    day, night = "2026-11-20 20:59", "2026-11-20 21:00"
    policy = home.policy.rules[0].schedule
    assert policy is not None
    assert (policy.start, policy.end) == (21 * 60, 6 * 60 + 30)
    for source, at, action in ((ipad, day, "allow"), (phone, night, "allow")):
        assert home.says(source, RELAY, 3478, "facetime", at=at) == action
    assert home.judge.rule_of(home.judge.first_match(
        Situation(FlowKey(UDP, packed(ipad), 1, packed(RELAY), 3478), "inside", "outside",
                  now=datetime.fromisoformat("2026-11-20 22:00").replace(tzinfo=policy.timezone).timestamp()),
        "facetime")) is home.policy.rules[0]  # fmt: skip
    assert home.says(ipad, WEB, 443, "ssl", TCP, at=night) == "allow"
    assert home.says("fd00:1::40", "2620:149:a::1", 3478, "facetime", at=day) == "allow"
    assert {rule.name for rule in home.policy.rules if (packed("fd00:1::40"), 128) in rule.source} == {
        "no calls after nine"
    }
    assert home.says(PEER, phone, 16402, "facetime") == "deny", "begun outside, foreseen by no call"
    assert home.says(PEER, phone, 443, "ssl", TCP) == "deny"


def test_firm() -> None:
    firm = Example("firm")
    staff, server, trunk = "10.1.2.3", "10.9.0.10", "198.51.100.20"
    assert firm.says(staff, RELAY, 3478, "facetime") == "allow"
    assert firm.says(server, RELAY, 3478, "facetime") == "drop"
    assert firm.says(staff, WEB, 443, "ssl", TCP) == "allow"
    assert firm.says(staff, WEB, 4444, "ssl", TCP) == "drop", "an application on another port is caught"
    assert firm.says("10.1.0.5", trunk, 5080, "unknown-udp") == "allow"
    assert firm.says(staff, trunk, 5080, "unknown-udp") == "drop"
    assert firm.says(PEER, server, 443, "ssl", TCP) == "allow"
    assert firm.says(PEER, "10.9.0.12", 443, "ssl", TCP) == "drop"
    for who, action in ((staff, "allow"), (server, "allow"), (PEER, "drop")):
        assert firm.says(who, WEB, 587, "unknown-tcp", TCP) == action
        assert firm.says(who, WEB, 123, "unknown-udp") == action
        assert firm.says(who, WEB, 25, "unknown-tcp", TCP) == "drop"
    calls = next(rule for rule in firm.policy.rules if rule.name == "staff call")
    assert calls.qos is not None
    assert calls.qos.dscp == 46  # EF, RFC 3246


def test_school() -> None:
    school = Example("school")
    teacher, pupil = "172.16.10.5", "172.16.20.5"
    for at, action in (("12:29", "deny"), ("12:30", "allow"), ("13:29", "allow"), ("13:30", "deny")):
        assert school.says(pupil, RELAY, 3478, "facetime", at=at) == action
        assert school.says(teacher, RELAY, 3478, "facetime", at=at) == "allow"
        assert school.says(pupil, "17.57.146.20", 5223, "apple-push", TCP, at=at) == "allow"
    assert school.says(pupil, RELAY, 3478, "facetime", at="2026-11-21 12:45") == "deny", "a Saturday"
    assert school.says(pupil, RELAY, 16386, "gamecenter", at="12:45") == "deny"
    assert school.says(teacher, WEB, 443, "ssl", TCP) == "allow"
    assert school.says(pupil, WEB, 123, "unknown-udp") == "allow"
    assert school.says(pupil, WEB, 124, "unknown-udp") == "deny"
    assert school.says(PEER, pupil, 16402, "facetime", at="12:45") == "deny"


def test_facetime() -> None:
    shortest = Example("facetime")
    client = "172.16.42.187"
    assert shortest.says(client, RELAY, 3478, "facetime") == "allow"
    assert shortest.says(client, "17.57.146.20", 5223, "apple-push", TCP) == "allow"
    assert shortest.says(client, WEB, 443, "ssl", TCP) == "deny"
    assert shortest.says(client, WEB, 3478, "stun") == "deny", "while it serves no call"
