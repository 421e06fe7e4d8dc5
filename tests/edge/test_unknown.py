"""The capture of unknown flows: which packets are in it, and how large it gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from appid.edge import unknown
from appid.edge.capture import frames
from appid.edge.unknown import UnknownFlows
from appid.engine import Engine, FlowReport, PacketQueued
from appid.policy import Decision
from tests.corpus.writer import End
from tests.engine.play import bodies, settings, udp
from tests.policy.test_evaluate import rule

INSIDE, OUTSIDE = End("172.16.42.187", 5000), End("198.51.100.9", 40000)
QUERY = bytes.fromhex("123401000001000000000000076578616d706c65036f72670000010001")


class Gateway:
    """An engine that allows everything, with a capture of what stays unknown."""

    def __init__(self, path: Path, size: int = 1 << 20, wanted: bool = True) -> None:
        self.capture = UnknownFlows(path, size)
        self.engine = Engine(settings(rule("all", service="any", from_=(), to=())))
        self.number = 0
        self.asked: list[Decision | None] = []
        self.wants = wanted

    def wanted(self, made: Decision | None) -> bool:
        self.asked.append(made)
        return self.wants

    def send(self, src: End, dst: End, payload: bytes) -> None:
        self.number += 1
        data = udp(src, dst, payload)
        for report in bodies(self.engine.handle(PacketQueued(self.number, memoryview(data)), 0.0), FlowReport):
            self.capture.report(report, self.wanted)
        self.capture.saw(data, self.number * 1_000_000_000)


def payloads(path: Path) -> list[bytes]:
    return [bytes(frame[28:]) for _, _, _, frame in frames(path)]


def test_the_first_packets_of_a_flow_that_stays_unknown(tmp_path: Path) -> None:
    path = tmp_path / "there" / "unknown.pcap"
    gateway = Gateway(path)
    for number in range(14):  # the name is given up after ten
        src, dst = (INSIDE, OUTSIDE) if number % 2 else (OUTSIDE, INSIDE)
        gateway.send(src, dst, b"\xffpacket %d" % number)
        gateway.send(INSIDE._replace(port=5001), OUTSIDE._replace(port=53), QUERY)
    assert payloads(path) == [b"\xffpacket %d" % number for number in range(11)]
    assert [nanoseconds for _, nanoseconds, _, _ in frames(path)][:2] == [1_000_000_000, 3_000_000_000]
    assert gateway.asked == [Decision("allow", "all")]


def test_a_rule_may_not_want_it(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path / "unknown.pcap", wanted=False)
    for number in range(14):
        gateway.send(INSIDE, OUTSIDE, b"\xffpacket %d" % number)
    assert not gateway.capture.path.exists()


def test_two_files_hold_the_size_at_most(tmp_path: Path) -> None:
    path = tmp_path / "unknown.pcap"
    gateway = Gateway(path, 20_000)
    for port in range(6000, 6030):
        for _ in range(12):
            gateway.send(INSIDE._replace(port=port), OUTSIDE, b"\xff" + bytes(500))
    older = tmp_path / "unknown.pcap.1"
    assert sum(each.stat().st_size for each in (path, older)) <= 20_000
    assert len(payloads(path)) + len(payloads(older)) > 20


def test_what_is_held_back_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unknown, "MAX_HELD", 5000)
    gateway = Gateway(tmp_path / "unknown.pcap")
    for port in range(6000, 6100):
        gateway.send(INSIDE._replace(port=port), OUTSIDE, b"\xff" + bytes(400))
    assert sum(len(data) for packets in gateway.capture._waiting.values() for _, data in packets) <= 5000
