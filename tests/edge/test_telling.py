"""Values as JSON, and Community IDs after the specification's published vectors."""

from __future__ import annotations

import json
import logging

import pytest

from appid.alg.expectation import Expectation
from appid.edge import telling
from appid.engine import CallReport, FlowReport, PinholeReport
from appid.flow.call import CallMedia
from appid.flow.key import FlowKey
from appid.identify.identification import Because, Identification
from appid.packet.ip import SCTP
from appid.policy import Decision
from appid.wire import ICMP, TCP, UDP, Endpoint, Fact, packed

RSVP = 46
CLIENT, RELAY, PEER = packed("172.16.42.187"), packed("17.173.254.35"), packed("71.230.89.52")
KEY = FlowKey(UDP, CLIENT, 16402, RELAY, 3478)
ALLOCATE = Because(60, "allocate-with-relayed-address", (Fact("stun.method", "allocate"), Fact("stun.attribute", 0x16),
                                                         Fact("stun.attribute", 0x22)))  # fmt: skip
NAMED = Identification(
    "facetime", "conclusive", (ALLOCATE,), ("stun", "turn", "facetime"), ((60, "turn"), (60, "facetime"))
)
FLOW = FlowReport(1, KEY, NAMED, 60, Decision("allow", "calls"), 1, False, 60, 1)


@pytest.mark.parametrize(
    ("src", "sport", "dst", "dport", "proto", "expected"),
    [
        # corelight/community-id-spec, baseline, seed 0
        ("128.232.110.120", 34855, "66.35.250.204", 80, TCP, "1:LQU9qZlK+B5F3KDmev6m5PMibrg="),
        ("66.35.250.204", 80, "128.232.110.120", 34855, TCP, "1:LQU9qZlK+B5F3KDmev6m5PMibrg="),
        ("192.168.1.52", 54585, "8.8.8.8", 53, UDP, "1:d/FP5EW3wiY1vCndhwleRRKHowQ="),
        ("8.8.8.8", 53, "192.168.1.52", 54585, UDP, "1:d/FP5EW3wiY1vCndhwleRRKHowQ="),
        ("192.168.170.8", 7, "192.168.170.56", 80, SCTP, "1:jQgCxbku+pNGw8WPbEc/TS/uTpQ="),
        ("192.168.170.56", 80, "192.168.170.8", 7, SCTP, "1:jQgCxbku+pNGw8WPbEc/TS/uTpQ="),
        (
            "2001:470:e5bf:dead:4957:2174:e82c:4887",
            63943,
            "2607:f8b0:400c:c03::1a",
            25,
            TCP,
            "1:/qFaeAR+gFe1KYjMzVDsMv+wgU4=",
        ),
        ("10.1.24.4", 0, "10.1.12.1", 0, RSVP, "1:/nQI4Rh/TtY3mf0R2gJFBkVlgS4="),
    ],
)
def test_community_ids_of_the_specification(
    src: str, sport: int, dst: str, dport: int, proto: int, expected: str
) -> None:
    assert telling.community_id(FlowKey(proto, packed(src), sport, packed(dst), dport)) == expected


def test_both_directions_have_one_community_id_also_over_ipv6() -> None:
    key = FlowKey(UDP, packed("2001:db8::1"), 5000, packed("fd00::2"), 53)
    assert telling.community_id(key) == telling.community_id(key.reversed())
    assert telling.community_id(key) != telling.community_id(key._replace(dport=54))


def test_the_log_is_not_told_what_is_hashed(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        telling.community_id(KEY)
    assert caplog.records == []


def test_icmp_has_none() -> None:
    assert telling.community_id(FlowKey(ICMP, CLIENT, 0, RELAY, 0)) is None


def test_an_identification_has_the_interfaces_keys() -> None:
    told = telling.identification(FLOW, "incomplete")
    assert told == {
        "application": "facetime", "confidence": "conclusive", "identified_at": 60,
        "path": ["stun", "turn", "facetime"], "shifts": [[60, "turn"], [60, "facetime"]],
        "because": [{"packet": 60, "signature": "allocate-with-relayed-address",
                     "facts": {"stun.method": "allocate", "stun.attribute": [0x16, 0x22]}}],
    }  # fmt: skip


def test_without_a_report_the_state_is_told() -> None:
    told = telling.identification(None, "incomplete")
    assert told["application"] == "incomplete"
    assert told["confidence"] is told["identified_at"] is None
    assert told["path"] == told["shifts"] == told["because"] == []


def test_values_are_json() -> None:
    facts = (
        Fact("a", b"\x01\xff"), Fact("flow.destination", RELAY), Fact("sdp.connection", packed("fd00::1")),
        Fact("b", Endpoint(PEER, 16402)), Fact("c", ((1, 4), (2, 8))), Fact("d", True), Fact("e", "x"),
    )  # fmt: skip
    (told,) = telling.because((Because(1, "s", facts),))
    assert json.loads(json.dumps(told))["facts"] == {
        "a": "01ff", "flow.destination": "17.173.254.35", "sdp.connection": "fd00::1", "b": "71.230.89.52:16402",
        "c": [[1, 4], [2, 8]], "d": True, "e": "x",
    }  # fmt: skip


def test_a_fact_that_met_two_conditions_is_told_once() -> None:
    agent = Fact("sip.user_agent", "Viceroy 1.7.0/GK")
    (told,) = telling.because((Because(1, "viceroy-gk-agent", (agent, agent)),))
    assert told["facts"] == {"sip.user_agent": "Viceroy 1.7.0/GK"}


def test_two_facts_that_are_tuples_stay_two() -> None:
    media = (Fact("sdp.media", ("audio", 16402)), Fact("sdp.media", ("video", 16402)))
    (told,) = telling.because((Because(1, "s", media),))
    assert told["facts"] == {"sdp.media": [["audio", 16402], ["video", 16402]]}


def test_a_call_has_the_interfaces_keys() -> None:
    report = CallReport(1, "facetime", "id", CLIENT, PEER, 169, 172, 5790, "bye", (1, 4),
                        (CallMedia("audio", (104, 119), ("AAC-ELD",)),))  # fmt: skip
    assert telling.call(report, [1, 4]) == {
        "type": "call", "id": 1, "application": "facetime", "call_id": "id", "caller": "172.16.42.187",
        "callee": "71.230.89.52", "started_at": 169, "answered_at": 172, "ended_at": 5790, "end": "bye",
        "flows": [1, 4], "media": [{"kind": "audio", "payload_types": [104, 119], "codecs": ["AAC-ELD"]}],
    }  # fmt: skip


def test_a_pinhole_has_the_interfaces_keys() -> None:
    wanted = Expectation(UDP, CLIENT, 16402, PEER, None, None, 16402, "facetime", 1, "sdp-answer", 172, 9.0)
    assert telling.pinhole(PinholeReport(1, wanted, 5790)) == {
        "type": "pinhole", "id": 1, "proto": "udp", "inside": "172.16.42.187", "port": 16402, "peer": "71.230.89.52",
        "peer_port": None, "reason": "sdp-answer", "opened_at": 172, "checked_at": None, "closed_at": 5790,
        "call": 1, "application": "facetime",
    }  # fmt: skip


def test_addresses_and_decisions() -> None:
    assert telling.addresses(KEY) == {
        "proto": "udp", "src": "172.16.42.187", "sport": 16402, "dst": "17.173.254.35", "dport": 3478
    }  # fmt: skip
    assert telling.protocol(50) == "50"
    assert telling.decision(Decision("deny", "defaults")) == {"action": "deny", "rule": "defaults"}
    assert telling.decision(None) is None
