"""`appid explain --live` beside `appid explain` of what went through the same gateway: the same call, told alike.

The gateway counts packets by itself, so numbers of packets differ; names, reasons, pinholes and counters do not.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.lab.call import Actors, Call
from tests.lab.capture import Capture
from tests.lab.gateway import Gateway, only_facetime, parse_json
from tests.lab.net import Lab
from tests.lab.scenario import Scenario

pytestmark = [pytest.mark.kernel, pytest.mark.xdist_group("explain")]
Line = dict[str, Any]


@dataclass
class Told:
    live: list[Line]
    page: str
    text: str
    capture: list[Line]

    def of(self, lines: list[Line], kind: str) -> list[Line]:
        return [line for line in lines if line["type"] == kind]


async def _call(directory: Path) -> Told:
    scenario, seen, page = Scenario(), directory / "lan0.pcap", directory / "live.html"
    with Lab(scenario) as lab:
        async with Actors(lab, [scenario]), Gateway(lab, directory, only_facetime(scenario, implicit=True)) as gateway:
            async with Capture(lab, "gw", "lan0", seen):
                outcome = await Call(lab, scenario).run(seconds=2)
                await asyncio.sleep(1.5)  # tcpdump hands over its last block
            assert outcome.failure is None
            answers = [await lab.ask("gw", *gateway.command("explain", "--live", *more))
                       for more in (["--json"], ["--html", str(page)], ["--call", "1"])]  # fmt: skip
            assert [status for status, _ in answers] == [0, 0, 0], answers
            command = (sys.executable, "-m", "appid.cli.main", "explain", "--json", "--policy", str(gateway.policy))
            status, told = await lab.ask("gw", *command, str(seen))
            assert status == 0, told
            return Told(parse_json(answers[0][1]), page.read_text(), answers[2][1], parse_json(told))


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    return asyncio.run(_call(tmp_path_factory.mktemp("explain")))


def test_the_same_call(told: Told) -> None:
    (live,), (seen,) = told.of(told.live, "call"), told.of(told.capture, "call")
    for key in ("application", "call_id", "caller", "callee", "end", "media"):
        assert live[key] == seen[key], key


def test_the_same_flows_for_the_same_reasons_and_as_many_packets(told: Told) -> None:
    ends = ("proto", "src", "sport", "dst", "dport")
    live = {tuple(f[e] for e in ends): f for f in told.of(told.live, "flow") if f["call"] is not None}
    seen = {tuple(f[e] for e in ends): f for f in told.of(told.capture, "flow") if f["call"] is not None}
    assert live.keys() == seen.keys()
    for key, flow in seen.items():
        for name in ("application", "path", "packets", "bytes"):
            assert live[key][name] == flow[name], (key, name)
        assert [r["signature"] for r in live[key]["because"]] == [r["signature"] for r in flow["because"]]


def test_what_changed_is_told_in_the_same_words(told: Told) -> None:
    """The messages that gave the call's flows their names, and what opened its pinhole."""

    def named(lines: list[Line]) -> set[tuple[str, str]]:
        (call,) = told.of(lines, "call")
        return {
            (step["what"].partition(",")[0], effect["text"].partition(" (")[0])
            for step in told.of(lines, "step")
            if step["flow"] in call["flows"]
            for effect in step["effects"]
            if effect["kind"] == "named" and "foreseen" not in json.dumps(effect)
        }

    def opened(lines: list[Line]) -> list[str]:
        """Without the grounds: of a pinhole that lives on the gateway knows the last ones."""
        texts = [e["text"] for s in told.of(lines, "step") for e in s["effects"] if e["kind"] == "pinhole"]
        return [text.partition(" (")[0] for text in texts if " held on" not in text]

    assert ("TURN Allocate request", "facetime, conclusive") in named(told.live)
    assert named(told.live) == named(told.capture)
    assert opened(told.live) == opened(told.capture) != []


def test_each_message_that_userspace_saw_with_its_time(told: Told) -> None:
    """Beside what tcpdump caught: the same words, a moment apart; media nobody read, and it is counted."""

    def steps(lines: list[Line]) -> list[Line]:
        return [s for s in told.of(lines, "step") if s["protocol"] in ("stun", "sip", "http") and s["from"]]

    def marked(step: Line) -> tuple[Any, ...]:
        return step["what"], step["from"], step["to"], step["through"], step["bytes"]

    live, seen = steps(told.live), steps(told.capture)
    assert len(live) > 20
    assert {"SIP INVITE, SDP offer", "SIP 200 OK, SDP answer", "SIP BYE"} <= {step["what"] for step in live}
    times: dict[tuple[Any, ...], list[float]] = {}
    for step in seen:
        times.setdefault(marked(step), []).append(step["time"])
    late = [s for s in live if min((abs(s["time"] - t) for t in times.get(marked(s), ())), default=9.0) > 0.5]
    assert late == []
    assert [step["time"] for step in live] == sorted(step["time"] for step in live)
    texts = [[line["text"] for line in told.of(lines, "description")] for lines in (told.live, told.capture)]
    assert texts[0] == texts[1]
    assert len(texts[0]) == 2
    (untold,) = told.of(told.live, "untold")
    (call,) = told.of(told.live, "call")
    flows = [flow for flow in told.of(told.live, "flow") if flow["call"] == call["id"]]
    assert untold["unseen"] == sum(max(flow["packets"] - flow["userspace_packets"], 0) for flow in flows) > 100


def test_flows_calls_and_pinholes_say_when(told: Told) -> None:
    (call,) = told.of(told.live, "call")
    seen = {step["packet"]: step["time"] for step in told.of(told.live, "step")}
    when = dict(call["times"])
    assert set(when) == {call["started_at"], call["answered_at"], call["ended_at"]}
    for packet, moment in when.items():
        assert abs(moment - seen[packet]) < 0.5


def test_a_ladder_and_a_page(told: Told) -> None:
    assert "│──────" in told.text
    assert "TURN Allocate request" in told.text
    assert "pinhole 1 opened" in told.text
    assert "running gateway" in told.page
    assert "default-src &#x27;none&#x27;" in told.page
