"""The storyteller of a running gateway: what userspace saw of a call, in the words that the capture's story has."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from appid.dataplane.command import Command
from appid.dataplane.model import Kernel
from appid.edge.replay import Life, Replay
from appid.engine import Engine, Event, FlowReport
from appid.engine.record import DEFAULT_INSIDE, Topology
from appid.flow.key import FlowKey
from appid.story import live, plain
from appid.story.compose import tale
from appid.story.live import LiveTeller
from appid.story.step import Step
from appid.story.teller import OTHERWISE
from tests.corpus import sessions
from tests.corpus.variation import Variation
from tests.story import tell

INSIDE = Topology(DEFAULT_INSIDE).inside


class Gateway:
    """Looks on at a replay as the worker does: it has nothing of packets that no queue handed over."""

    def __init__(self, engine: Engine) -> None:
        self.teller = LiveTeller(engine)
        self.reports: dict[FlowKey, FlowReport] = {}
        self.queued = 0

    def commands(self, event: Event, now: float, commands: list[Command], number: int) -> None:
        self.teller.commands(event, now, commands, number)

    def packet(self, data: memoryview, time: int, number: int, life: Life | None) -> None:
        if life is not None and life.report is not None:
            self.reports[life.key] = self.reports[life.key.reversed()] = life.report
        self.teller.seen(bytes(data), time, number, self.reports.get)


@cache
def lived(session: int, v6: bool = False) -> Gateway:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "session.pcap"
        sessions.build(session, Variation.from_seed(0, v6=v6)).capture.save(path)
        engine = Engine(tell.settings())
        gateway = Gateway(engine)
        assert Replay(engine, Kernel(tell.settings().marks, "pass"), observer=gateway).run(path).error is None
        return gateway


def remembered(gateway: Gateway, call: int = 1) -> list[dict[str, Any]]:
    telling = gateway.teller.telling(call)
    assert telling is not None
    return list(plain.told(tale({"type": "call", "id": call}, telling, [], [])))


def test_its_messages_are_the_capture_s_with_their_times_and_effects() -> None:
    """Of session 1 all but media: that the kernel forwards alone."""
    steps = [line for line in remembered(lived(1)) if line["type"] == "step"]
    seen = {line["packet"]: line for line in tell.told(1) if line["type"] == "step"}
    assert len(steps) > 25
    assert {60, 64, 82, 121, 122, 160, 161, 162, 164, 169, 172, 173, 5786, 5790} <= {line["packet"] for line in steps}
    for line in steps:
        for key in ("time", "flow", "from", "to", "through", "what", "effects", "bytes", "src", "dst", "via"):
            if (line["packet"], key) != (281, "effects"):
                assert line[key] == seen[line["packet"]][key], (line["packet"], key)
    assert not any("RTP" in line["what"] for line in steps)
    (named,) = next(line["effects"] for line in steps if line["packet"] == 281)
    assert named["because"] == seen[280]["effects"][0]["because"], "the pinhole let 280 in, unseen"


def test_descriptions_are_remembered_inflated() -> None:
    found = {line["packet"]: line["text"] for line in remembered(lived(1)) if line["type"] == "description"}
    assert sorted(found) == [169, 172]
    assert "o=GKVoiceChatService 0 0 IN IP4 71.15.163.132" in found[169]


def test_what_is_kept_is_bounded(monkeypatch: Any) -> None:
    """Of too many calls the one that is over gives way, and what it kept is let go."""
    monkeypatch.setattr(live, "CALLS", 2)
    monkeypatch.setattr(live, "FLOWS", 4)
    teller = LiveTeller(Engine(tell.settings()))
    kept = [teller._new(number) for number in range(1, 4)]
    for number, each in enumerate(kept, 1):
        teller.calls[number] = each
        each.add(Step(number, 0, 0, None, None, None, "time", "time passed"), OTHERWISE)
    kept[1].over = True
    teller.times = dict.fromkeys(range(100), 0)
    teller._bound()
    assert list(teller.calls) == [1, 3]
    assert isinstance(kept[1], live.Kept)
    assert kept[1].begun == []
    assert len(teller.times) == 4
    assert teller.telling(2) is None


def test_of_a_long_call_the_first_and_the_last_messages_are_kept() -> None:
    kept = live.Kept(INSIDE, 1)
    for number in range(1, 1001):
        kept.add(Step(number, number, 0, None, None, None, "time", "time passed"), OTHERWISE)
    frames = [entry.frame for entry in (*kept.begun, *kept.recent) if isinstance(entry, Step)]
    assert frames == [*range(1, live.MESSAGES + 1), *range(1001 - live.RECENT, 1001)]
    assert kept.given_up == 1000 - live.MESSAGES - live.RECENT


def test_two_calls_that_are_one_are_remembered_in_order() -> None:
    one, other = live.Kept(INSIDE, 1), live.Kept(INSIDE, 2)
    for number in range(1, 11):
        (one if number % 3 else other).add(Step(number, 1, 0, None, None, None, "time", "time passed"), OTHERWISE)
    one.join(other)
    assert [entry.frame for entry in one.begun if isinstance(entry, Step)] == list(range(1, 11))
    assert other.gone
