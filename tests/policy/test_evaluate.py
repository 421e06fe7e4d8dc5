"""The meaning of a policy, point by point (docs/reference/policy.md), and against a naive reference."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appid.edge.rule_files import load_applications
from appid.flow.key import FlowKey
from appid.identify.application import Application, PortRange
from appid.policy import Action, Decision
from appid.policy.evaluate import Judge, Situation, first_match
from appid.policy.rule import Network, Policy, PolicyRule, Schedule, Zone
from appid.wire import ICMP, TCP, UDP, packed
from tests.policy.random_policies import NAMES, SMALL, policies, situations

SHIPPED = load_applications()
INSIDE, RELAY, PEER = packed("172.16.42.187"), packed("17.173.254.35"), packed("71.230.89.52")
ZONES = {
    "inside": Zone("inside", ("lan0",), ((packed("172.16.42.0"), 24), (packed("fd00:42::"), 64))),
    "outside": Zone("outside", ("wan0",)),
}
NONE: frozenset[str] = frozenset()


def rule(name: str, *applications: str, action: Action = "allow", **more: object) -> PolicyRule:
    given_: dict[str, object] = {"from_": ("inside",), "to": ("outside",), "service": "application-default"} | more
    return PolicyRule(name, action, applications=frozenset(applications) or None, **given_)  # type: ignore[arg-type]


def judge(*rules: PolicyRule, **more: object) -> Judge:
    return Judge(Policy(rules, ZONES, **more), SHIPPED)  # type: ignore[arg-type]


def out(port: int, proto: int = UDP, peer: bytes = RELAY, **more: object) -> Situation:
    return Situation(FlowKey(proto, INSIDE, 16402, peer, port), "inside", "outside", **more)  # type: ignore[arg-type]


def from_outside(port: int, **more: object) -> Situation:
    key = FlowKey(UDP, PEER, 16402, INSIDE, port)
    return Situation(key, "outside", "inside", begun_outside=True, **more)  # type: ignore[arg-type]


FACETIME = rule("calls", "facetime")


def test_point_1_the_first_rule_that_matches_zones_addresses_service_schedule_and_application_decides() -> None:
    night = Schedule(start=22 * 60, end=6 * 60, timezone=ZoneInfo("Europe/Berlin"))
    judged = judge(
        rule("not to that host", "stun", action="drop", destination=((RELAY, 32),), service="any"),
        rule("not at night", "stun", action="deny", schedule=night),
        rule("not from v6", "stun", action="deny", source=((packed("fd00:42::"), 64),)),
        rule("stun", "stun"),
        rule("stun elsewhere", "stun", from_=("outside",), to=("inside",), service="any"),
    )
    noon = datetime(2015, 5, 6, 12, 0, tzinfo=ZoneInfo("Europe/Berlin")).timestamp()
    midnight = noon + 12 * 3600
    assert judged.first_match(out(3478, now=noon), "stun") == Decision("drop", "not to that host")
    assert judged.first_match(out(3478, peer=PEER, now=noon), "stun") == Decision("allow", "stun")
    assert judged.first_match(out(3478, peer=PEER, now=midnight), "stun") == Decision("deny", "not at night")
    assert judged.first_match(out(9, peer=PEER, now=midnight), "stun") == Decision("deny", "defaults")
    assert judged.first_match(out(3478, peer=PEER, now=noon), "turn") == Decision("deny", "defaults")
    six = FlowKey(UDP, packed("fd00:42::1"), 1, packed("2620:149::1"), 3478)
    assert judged.first_match(Situation(six, "inside", "outside", now=noon), "stun").rule == "not from v6"
    assert judged.first_match(from_outside(9, now=noon), "stun").rule == "stun elsewhere"
    assert judge(default_action="allow").first_match(out(9), "stun") == Decision("allow", "defaults")


def test_point_2_packets_pass_while_a_name_that_is_still_possible_would_be_allowed() -> None:
    judged = judge(FACETIME)
    assert judged.judge(out(3478), "stun", frozenset({"turn", "facetime"}), 1) is None
    assert judged.judge(out(3478), "stun", frozenset({"turn"}), 1) == Decision("deny", "defaults")
    assert judged.judge(out(3478), "facetime", NONE, 1) == Decision("allow", "calls")
    # The reverse: stun allowed, facetime refused. It is cut at the packet that names it.
    reverse = judge(rule("no calls", "facetime", action="deny", service="any"), rule("stun", "stun"))
    assert reverse.judge(out(3478), "stun", frozenset({"facetime"}), 1) is None
    assert reverse.judge(out(3478), "facetime", NONE, 2) == Decision("deny", "no calls")


def test_point_2_a_name_stands_when_the_budget_of_payload_packets_is_spent() -> None:
    judged = judge(FACETIME, undecided_packets=3)
    possible = frozenset({"turn", "facetime"})
    assert [judged.judge(out(3478), "stun", possible, n) for n in (1, 2, 3)] == [None] * 3
    assert judged.judge(out(3478), "stun", possible, 4) == Decision("deny", "defaults")
    allowed = judge(FACETIME, rule("stun", "stun"), undecided_packets=3)
    assert allowed.judge(out(3478), "stun", possible, 4) == Decision("allow", "stun")
    none = judge(FACETIME, undecided_packets=0)
    assert none.judge(out(3478), "stun", possible, 1) == Decision("deny", "defaults")
    assert none.judge(out(443, TCP), None, None, 0) is None  # a bare handshake does not count


def test_point_2_before_any_name_everything_is_possible_and_a_syn_that_nothing_could_allow_is_refused_at_once() -> None:
    judged = judge(FACETIME, rule("ssl", "ssl", service=(PortRange(TCP, 8443, 8443),)))
    assert judged.judge(out(5223, TCP), None, None, 0) is None
    assert judged.judge(out(8443, TCP), None, None, 0) is None
    assert judged.judge(out(22, TCP), None, None, 0) == Decision("deny", "defaults")
    assert judged.judge(out(9999), None, None, 1) == Decision("deny", "defaults")
    silent = judge(FACETIME, rule("the rest", action="drop", service="any"))
    assert silent.judge(out(22, TCP), None, None, 0) == Decision("drop", "the rest")


def test_point_2_states_are_named_by_rules_like_applications() -> None:
    judged = judge(rule("unknown", "unknown-udp", "insufficient-data"))
    assert judged.judge(out(40000), None, None, 1) is None
    assert judged.judge(out(40000), "unknown-udp", NONE, 11) == Decision("allow", "unknown")
    assert judged.judge(out(40000), "insufficient-data", NONE, 11) == Decision("allow", "unknown")
    assert judged.judge(out(40000, TCP), "unknown-tcp", NONE, 11) == Decision("deny", "defaults")


def test_point_3_what_began_outside_unforeseen_never_matches_facetime_rtp_or_rtcp() -> None:
    media = rule("media", "facetime", "rtp", "rtcp", from_=(), to=(), service="any")
    judged = judge(media)
    for name in ("facetime", "rtp", "rtcp"):
        assert judged.judge(from_outside(16402), name, NONE, 1) == Decision("deny", "defaults")
        assert judged.judge(out(16402), name, NONE, 1) == Decision("allow", "media")
        assert judged.judge(from_outside(16402, foreseen=True), name, NONE, 1) == Decision("allow", "media")
    assert judged.judge(from_outside(16402), None, None, 1) == Decision("deny", "defaults")
    assert judged.judge(from_outside(16402), "stun", frozenset({"facetime"}), 1) == Decision("deny", "defaults")


def test_point_3_a_rule_for_any_application_does_not_let_it_in_either_the_defaults_decide() -> None:
    everything = rule("all", from_=(), to=(), service="any")
    for name in ("facetime", "rtp", "rtcp"):
        assert judge(everything).judge(from_outside(16402), name, NONE, 1) == Decision("deny", "defaults")
        assert judge(everything).judge(from_outside(16402, foreseen=True), name, NONE, 1) == Decision("allow", "all")
        assert judge(everything).judge(out(16402), name, NONE, 1) == Decision("allow", "all")
        open_ = judge(everything, default_action="allow")
        assert open_.judge(from_outside(16402), name, NONE, 1) == Decision("allow", "defaults")
    assert judge(everything).judge(from_outside(16402), "stun", frozenset({"facetime"}), 1) is None
    assert judge(everything).judge(from_outside(16402), "stun", NONE, 1) == Decision("allow", "all")


def test_point_3_refusing_it_from_outside_holds_all_the_same() -> None:
    judged = judge(
        rule("no calls", "facetime", action="drop", from_=(), to=(), service="any"),
        rule("all", from_=(), to=(), service="any"),
    )
    assert judged.judge(from_outside(16402), "facetime", NONE, 1) == Decision("drop", "no calls")
    assert judged.judge(from_outside(16402), "stun", NONE, 1) == Decision("allow", "all")


def test_point_6_what_is_refused_to_a_call_is_refused_to_the_flows_that_its_peer_begins() -> None:
    """No call foresaw them, since the call was refused; its rule is about what begins inside; the defaults allow."""
    for service in ("any", "application-default"):
        judged = judge(rule("no calls", "facetime", action="deny", service=service), default_action="allow")
        for port in (16402, 1024):
            peers = Situation(FlowKey(UDP, PEER, port, INSIDE, 16402), "outside", "inside", begun_outside=True)
            assert judged.judge(peers, "facetime", NONE, 1) == Decision("deny", "no calls")
            assert judged.judge(peers, "stun", frozenset({"facetime"}), 1) is None
            assert judged.judge(peers, "rtp", NONE, 1) == Decision("allow", "defaults")
    others = judge(
        rule("no calls", "facetime", action="deny", service="any", source=((packed("172.16.42.9"), 32),)),
        default_action="allow",
    )
    assert others.judge(from_outside(16402), "facetime", NONE, 1) == Decision("allow", "defaults")


def test_point_4_a_foreseen_flow_takes_its_calls_decision_at_the_first_packet_whichever_side_begins() -> None:
    judged = judge(FACETIME)
    allowed, denied = Decision("allow", "calls"), Decision("deny", "no calls")
    assert judged.judge(from_outside(16402, foreseen=True, call=allowed), "facetime", NONE, 1) == allowed
    assert judged.judge(from_outside(16402, foreseen=True, call=denied), None, None, 1) == denied
    # Exempt from application-default: the peer's NAT chose port 1024.
    assert judged.judge(out(1024, peer=PEER), "facetime", NONE, 1) == Decision("deny", "defaults")
    assert judged.judge(out(1024, peer=PEER, foreseen=True), "facetime", NONE, 1) == allowed


@pytest.mark.parametrize(
    ("proto", "ports", "action"),
    [
        (TCP, (80, 443, 4080, 5223), "allow"),
        (UDP, (3478, 3497, 16384, 16387, 16393, 16402), "allow"),
        (TCP, (22, 3478, 16402), "deny"),
        (UDP, (443, 3477, 3498, 16383, 16388, 16392, 16403), "deny"),
    ],
)
def test_point_5_application_default_is_the_applications_standard_ports(
    proto: int, ports: tuple[int, ...], action: str
) -> None:
    judged = judge(FACETIME)
    assert {judged.first_match(out(port, proto), "facetime").action for port in ports} == {action}


def test_point_5_what_has_no_standard_ports_cannot_be_off_them() -> None:
    judged = judge(rule("ping and unknown", "icmp", "unknown-udp"))
    assert judged.first_match(out(0, ICMP), "icmp").action == "allow"
    assert judged.first_match(out(40000), "unknown-udp").action == "allow"


def test_point_6_deny_and_drop_cut_at_the_packet_that_names_and_never_the_push_connection() -> None:
    for action in ("deny", "drop"):
        judged = judge(rule("no calls", "facetime", action=action, service="any"), rule("all", service="any"))
        assert judged.judge(out(3478), "turn", frozenset({"facetime"}), 1) is None
        assert judged.judge(out(3478), "facetime", NONE, 1) == Decision(action, "no calls")
        for name in ("apple-push", "jabber", "ssl"):
            assert judged.judge(out(5223, TCP), name, NONE, 11) == Decision("allow", "all")
        assert judged.judge(out(16403), "snatmap", NONE, 1) == Decision("allow", "all")


def test_point_6_no_name_of_a_push_connection_leads_to_facetime() -> None:
    reached: set[str] = set()
    frontier = ["ssl", "jabber", "apple-push", "snatmap"]
    while frontier:
        name = frontier.pop()
        reached.add(name)
        frontier += [after for after in SHIPPED[name].may_become if after not in reached]
    assert "facetime" not in reached


IMPLICIT = rule("calls", "facetime", implicit=True)
GRANTED = Decision("allow", "implicit: calls")
REFUSED = Decision("deny", "defaults")


def test_point_8_implicit_use_allows_what_serves_the_call_where_no_rule_matches() -> None:
    judged = judge(IMPLICIT)
    for name in ("ssl", "jabber", "apple-push"):
        assert judged.judge(out(5223, TCP), name, NONE, 11) == GRANTED
    assert judged.judge(out(443, TCP), "apple-push", NONE, 1) == GRANTED  # named on 443 by SNI or ALPN alone
    assert judged.judge(out(443, TCP), "ssl", frozenset({"apple-push"}), 1) is None
    assert judged.judge(out(443, TCP), "ssl", NONE, 2) == REFUSED
    assert judged.judge(out(3479), "dns", NONE, 1) == REFUSED
    assert judged.rule_of(GRANTED) is judged.policy.rules[0]
    assert judged.rule_of(REFUSED) is None


def test_point_8_stun_turn_and_sip_only_while_provisional() -> None:
    judged = judge(IMPLICIT)
    for name in ("stun", "turn", "sip"):
        assert judged.judge(out(40000), name, frozenset({"facetime"}), 1) is None
        assert judged.judge(out(40000), name, frozenset({"facetime"}), 11) == REFUSED
        assert judged.judge(out(40000), name, NONE, 1) == REFUSED
        # an allocation with credentials cannot become facetime any more: it serves no call
        assert judged.judge(out(3478), name, frozenset({"webrtc"}), 2) == REFUSED


def test_point_8_default_is_off_and_it_stays_within_zones_source_and_destination() -> None:
    assert judge(FACETIME).first_match(out(5223, TCP), "apple-push") == REFUSED
    elsewhere = judge(rule("calls", "facetime", implicit=True, destination=((PEER, 32),)))
    assert elsewhere.first_match(out(5223, TCP), "apple-push") == REFUSED
    inbound = Situation(FlowKey(TCP, PEER, 1, INSIDE, 5223), "outside", "inside", begun_outside=True)
    assert judge(IMPLICIT).first_match(inbound, "apple-push") == REFUSED
    anywhere = judge(rule("calls", "facetime", implicit=True, from_=(), to=()))
    assert anywhere.first_match(inbound, "apple-push") == REFUSED  # what began outside cannot serve a call


def test_point_8_an_explicit_deny_wins_and_so_does_an_explicit_allow() -> None:
    denied = judge(IMPLICIT, rule("no push", "apple-push", action="deny"))
    assert denied.first_match(out(5223, TCP), "apple-push") == Decision("deny", "no push")
    allowed = judge(IMPLICIT, rule("push", "apple-push"))
    assert allowed.first_match(out(5223, TCP), "apple-push") == Decision("allow", "push")


def test_point_9_other_protocols_are_applications_too_judged_at_once() -> None:
    judged = judge(rule("ping", "icmp"), rule("calls", "facetime", service="any"))
    assert judged.judge(out(0, ICMP), "icmp", NONE, 1) == Decision("allow", "ping")
    assert judged.judge(out(0, 47), "gre", NONE, 1) == REFUSED
    assert judged.judge(out(0, 132), None, None, 1) == REFUSED
    assert judge(rule("odd", "unknown-ip")).judge(out(0, 132), None, None, 1) == Decision("allow", "odd")


# --- against a naive reference -------------------------------------------------------------------------------------


def inside(networks: tuple[Network, ...], address: bytes) -> bool:
    def bits(value: bytes) -> str:
        return "".join(f"{byte:08b}" for byte in value)

    return not networks or any(
        len(base) == len(address) and bits(base)[:prefix] == bits(address)[:prefix] for base, prefix in networks
    )


def naive(
    policy: Policy, known: Mapping[str, Application], at: Situation, name: str, provisional: bool | frozenset[str]
) -> Decision:
    """Point 1, read aloud."""

    def on(ports: tuple[PortRange, ...]) -> bool:
        return any(p.proto == at.key.proto and p.first <= at.key.dport <= p.last for p in ports)

    def here(one: PolicyRule) -> bool:
        return (
            (not one.from_ or at.from_zone in one.from_)
            and (not one.to or at.to_zone in one.to)
            and inside(one.source, at.key.src)
            and inside(one.destination, at.key.dst)
            and (one.schedule is None or one.schedule.active(at.now))
        )

    application = known.get(name)
    unforeseen = at.begun_outside and not at.foreseen
    for one in policy.rules:
        if not here(one) or (one.applications is not None and name not in one.applications):
            continue
        if one.service == "application-default":
            standard = application.default_ports if application else ()
            if standard and not at.foreseen and not on(standard):
                continue
        elif one.service != "any" and not on(one.service):
            continue
        if unforeseen and one.action == "allow" and application is not None and application.inbound == "foreseen":
            continue
        return Decision(one.action, one.name)
    for one in policy.rules:
        if one.implicit and here(one):
            for owner in one.applications or ():
                if owner not in known or (unforeseen and known[owner].inbound == "foreseen"):
                    continue
                for entry in known[owner].implicit:
                    served = entry.application == name and (not entry.ports or on(entry.ports))
                    serving = provisional if isinstance(provisional, bool) else owner in provisional
                    if served and (serving or not entry.provisional):
                        return Decision("allow", f"implicit: {one.name}")
    if unforeseen and application is not None and application.inbound == "foreseen":
        of_call = at._replace(key=at.key.reversed(), from_zone=at.to_zone, to_zone=at.from_zone, foreseen=True)
        refused = naive(policy, known, of_call, name, provisional)
        if policy.default_action == "allow" and refused.action != "allow":
            return refused
    return Decision(policy.default_action, "defaults")


@settings(max_examples=300, deadline=None)
@given(policies(), st.lists(situations(), min_size=1, max_size=5), st.booleans())
def test_evaluation_equals_a_naive_reference(policy: Policy, flows: list[Situation], provisional: bool) -> None:
    judged = Judge(policy, SMALL)
    for at in flows:
        for name in NAMES:
            expected = naive(policy, SMALL, at, name, provisional)
            assert judged.first_match(at, name, provisional) == expected
    assert first_match(policy, SMALL, flows[0], "a") == naive(policy, SMALL, flows[0], "a", False)


@settings(max_examples=200, deadline=None)
@given(
    policies(),
    situations(),
    st.sampled_from((*NAMES, None)),
    st.none() | st.frozensets(st.sampled_from(tuple(SMALL)), max_size=3),
    st.integers(0, 5),
)
def test_provisional_judgement_equals_a_naive_reference(
    policy: Policy, at: Situation, name: str | None, possible: frozenset[str] | None, packets: int
) -> None:
    unknown = {UDP: "unknown-udp", TCP: "unknown-tcp"}.get(at.key.proto, "unknown-ip")
    judged = Judge(policy, SMALL).judge(at, name, possible, packets)
    final = possible == frozenset() or packets > 3 or (name is None and unknown == "unknown-ip")
    if final:
        assert judged == naive(policy, SMALL, at, name or unknown, False)
        return
    states = {"insufficient-data", unknown} | ({"incomplete"} if at.key.proto == TCP else set())
    candidates = ({name} if name else states) | set(SMALL if possible is None else possible)
    still = True if possible is None else possible
    passes = any(naive(policy, SMALL, at, one, still).action == "allow" for one in candidates)
    assert judged == (None if passes else naive(policy, SMALL, at, name or unknown, False))
