"""What is kept of a flow: which side is inside, what it is called when it ends unnamed."""

from __future__ import annotations

import pytest

from appid.engine.record import DEFAULT_INSIDE, FlowRecord, Settings, Topology
from appid.flow.key import FlowKey
from appid.identify.naming import Lineage
from appid.wire import ICMP, TCP, UDP, packed

HOST, REMOTE = packed("172.16.42.187"), packed("17.173.254.35")


def record(proto: int = UDP, host_first: bool = True) -> FlowRecord:
    key = FlowKey(proto, HOST, 16402, REMOTE, 3478)
    return FlowRecord(1, key if host_first else key.reversed(), host_first, 60, None)


@pytest.mark.parametrize(
    ("address", "inside"),
    [
        ("10.1.2.3", True), ("172.16.0.1", True), ("172.31.255.255", True), ("192.168.1.1", True),
        ("100.64.0.1", True), ("169.254.1.1", True), ("fd00::1", True), ("fe80::1", True),
        ("172.32.0.1", False), ("100.128.0.1", False), ("17.0.0.1", False), ("2001:db8::1", False), ("fec0::1", False),
    ],
)  # fmt: skip
def test_the_private_ranges_are_inside_where_nobody_says_otherwise(address: str, inside: bool) -> None:
    assert Topology(DEFAULT_INSIDE).inside(packed(address)) is inside
    assert Settings({}).inside == DEFAULT_INSIDE


@pytest.mark.parametrize("host_first", [True, False])
def test_the_inside_host_is_the_same_whoever_began(host_first: bool) -> None:
    flow = record(host_first=host_first)
    assert (flow.host, flow.remote, flow.host_port) == (HOST, REMOTE, 16402)


@pytest.mark.parametrize(
    ("proto", "payloads", "ended", "given_up"),
    [
        (TCP, 0, "incomplete", "unknown-tcp"),
        (TCP, 1, "insufficient-data", "unknown-tcp"),
        (UDP, 0, "insufficient-data", "unknown-udp"),
        (ICMP, 1, "unknown-ip", "unknown-ip"),
    ],
)
def test_states(proto: int, payloads: int, ended: str, given_up: str) -> None:
    over, exhausted = record(proto), record(proto)
    over.payload_packets = exhausted.payload_packets = payloads
    over.ended()
    exhausted.give_up()
    exhausted.ended()
    assert over.identification().application == ended
    assert exhausted.identification().application == given_up
    assert exhausted.identification().confidence is None


def test_a_name_survives_the_end() -> None:
    flow = record()
    flow.naming.take("facetime", "conclusive", (), 60)
    flow.ended()
    assert flow.identification().application == "facetime"


def test_nothing_is_possible_once_given_up() -> None:
    flow, lineage = record(), Lineage({})
    assert flow.possible(lineage) is None
    flow.give_up()
    assert flow.possible(lineage) == frozenset()
