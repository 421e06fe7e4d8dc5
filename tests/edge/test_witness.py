"""A worker's memory of calls: by the gateway's numbers, and never in the way of packets."""

from __future__ import annotations

import json
import logging
import time

import pytest

from appid.dataplane.command import Report
from appid.edge.halves import Halves
from appid.edge.told import Told
from appid.edge.witness import Witness
from appid.engine import Engine, PacketQueued
from tests.corpus import sessions
from tests.corpus.variation import Variation
from tests.story import tell

ETHERNET = 14
FRAMES = (60, 82, 121, 122, 158, 160, 162, 163, 164, 165, 169, 170, 171, 172, 173)
"""Session 1, up to ACK, on the relay's flow."""


class Named(Halves):
    """The other worker's half was there first."""

    def __init__(self) -> None:
        super().__init__(None, 1)

    def name(self, call: int) -> int:
        return call + 10


class Worker:
    def __init__(self, halves: Halves) -> None:
        self.engine, self.told = Engine(tell.settings()), Told()
        self.witness = Witness(self.engine, self.told, halves)

    def play(self) -> None:
        capture = sessions.build(1, Variation.from_seed(0)).capture
        for number, frame in enumerate(FRAMES, 1):
            when, data = capture.frames[frame - 1][:2]
            event = PacketQueued(number, memoryview(data)[ETHERNET:])
            commands = self.engine.handle(event, when)
            self.witness.commands(event, when, commands, number)
            for command in commands:
                if isinstance(command, Report):
                    self.told.report(command)
            self.witness.packet(data[ETHERNET:], number)


@pytest.mark.parametrize(("halves", "number"), [(Halves(None, 0), 1), (Named(), 11)])
def test_a_call_is_told_by_the_number_that_the_gateway_has_for_it(halves: Halves, number: int) -> None:
    worker = Worker(halves)
    worker.play()
    lines = json.loads(json.dumps(list(worker.witness.lines(number))))
    steps = [line for line in lines if line["type"] == "step"]
    assert [line["packet"] for line in steps] == list(range(1, len(FRAMES) + 1))
    assert steps[10]["what"] == "SIP INVITE, SDP offer"
    assert all(abs(line["time"] - time.time()) < 60 for line in steps), "by the clock"
    assert {line["call"] for line in lines} == {number}


@pytest.mark.parametrize("call", [2, None, "1", [1], {}])
def test_of_what_is_no_call_nothing_is_told(call: object) -> None:
    worker = Worker(Halves(None, 0))
    worker.play()
    assert list(worker.witness.lines(call)) == []


def test_a_fault_of_it_ends_it_alone(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def fault(*_: object) -> None:
        raise ZeroDivisionError

    worker = Worker(Halves(None, 0))
    monkeypatch.setattr("appid.story.live.LiveTeller.packet", fault)
    with caplog.at_level(logging.ERROR):
        worker.play()
    assert worker.told.calls[1].answered_at is not None, "the engine went on"
    assert [record.message for record in caplog.records] == ["nothing is remembered for explain --live any more"]
    assert list(worker.witness.lines(1)) == []
