"""Calls through a gateway whose processes are killed: what is lost, and is everything right again?

    python -m tests.lab.survive --kills 50 --seconds 3

In: how many kills, seconds of media. Out: a Survived. One call after the other, each of its own host and peer; in each
one process is killed with SIGKILL at a random moment between its first step and its last: in turn a worker, and the
supervisor, which is then started again. The worker is the one that serves the call, but for each fourth: another.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from appid.dataplane.bytecode import queue_of
from appid.edge.control import ask
from tests.lab.call import Actors, Call, Outcome
from tests.lab.demo import until_told
from tests.lab.gateway import Gateway, Table, only_facetime
from tests.lab.net import ROOT, Lab
from tests.lab.scenario import Scenario

RELAYED = 0.7
"""Seconds of media before the switch to the direct path."""
RIGHT_WITHIN = 5.0
"""Seconds after the restart in which all state must be right."""
KILLED = ("serving", "supervisor", "serving", "supervisor", "serving", "supervisor", "other", "supervisor")
"""In turn: the worker that serves the call, one that does not, the process that keeps them."""


@dataclass
class Survived:
    """`wrong`: what was not right within RIGHT_WITHIN seconds; `slowest`: the longest that it took; `open`: calls whose
    pinhole the kernel held while media went directly, without which its absence afterwards would show nothing; `stood`:
    answered calls that were seen to hold both again after the kill."""

    kills: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    unheard: int = 0
    relayed: int = 0
    direct: int = 0
    open: int = 0
    stood: int = 0
    sent: int = 0
    slowest: float = 0.0

    def __str__(self) -> str:
        whom = ", ".join(f"{count} {who}" for who, count in Counter(kill.split()[0] for kill in self.kills).items())
        return (
            f"{len(self.kills)} kills ({whom}), {len(self.failures)} calls failed, {self.sent} media packets, "
            f"{len(self.lost)} lost; {self.unheard} hung up unheard, "
            f"{self.relayed} answered unheard, which stayed on the relay; "
            f"pinhole seen open in {self.open} of {self.direct} direct calls, "
            f"with the binding again after {self.stood} kills in mid-call; "
            f"not right in {RIGHT_WITHIN:.0f} s: {len(self.wrong)}; slowest {self.slowest:.1f} s"
        )

    @property
    def held(self) -> bool:
        return not (self.failures or self.lost or self.wrong)


class Mortal(Gateway):
    """A gateway whose processes can be killed."""

    async def query(self, name: str) -> list[Table]:
        """Asked from here: a program of its own would take longer than what is to be seen."""
        try:
            told = await asyncio.to_thread(ask, self.control, {"ask": name})
        except OSError:
            return []
        return [answer for answer in told if answer["type"] != "error"]  # a worker that does not serve just now

    async def kill(self, who: str, host: str) -> None:
        """`who` of KILLED; `host`: the call's inside address."""
        if who == "supervisor":
            assert self.child is not None
            self.child.kill()
            self.child.wait()
            await asyncio.sleep(0.2)  # a service manager takes its time
            self.log.rename(self.log.with_suffix(f".{self.child.pid}"))
            await self.__aenter__()
        else:
            (stats,) = await self.query("stats")
            workers = stats["workers"]
            index = queue_of(socket.inet_aton(host), len(workers)) + (who == "other")
            os.kill(workers[index % len(workers)]["pid"], signal.SIGKILL)


async def kernel(lab: Lab) -> tuple[set[str], set[str]]:
    """Inside addresses that the pinhole sets, and those that the binding maps hold."""
    listed = await _told(lab, "ipset", "save", "appid-pinholes4")
    holes = {line.split()[2].split(",")[0] for line in listed.splitlines() if line.startswith("add ")}
    told = json.loads(await _told(lab, "nft", "-j", "list", "map", "inet", "appid-nat", "snat4"))
    pairs = [pair for each in told["nftables"] for pair in each.get("map", {}).get("elem", ())]
    return holes, {key.get("elem", {}).get("val", key)["concat"][1] for key, _ in pairs}


async def _told(lab: Lab, *argv: str) -> str:
    status, text = await lab.ask("gw", *argv)
    if status:
        raise RuntimeError(f"{' '.join(argv)}: exit status {status}: {text}")
    return text


async def _right(what: Any) -> float | None:
    """Seconds until it was so; None: not in time."""
    begun = time.monotonic()
    while time.monotonic() - begun < RIGHT_WITHIN:
        if await what():
            return time.monotonic() - begun
        await asyncio.sleep(0.1)
    return None


class Trial:
    """One call, one kill."""

    def __init__(self, gateway: Mortal, scenario: Scenario, who: str, at: float, survived: Survived) -> None:
        self.gateway, self.scenario, self.who, self.at = gateway, scenario, who, at
        self.survived = survived
        self.unheard = self.answered = self.held = False
        self.call = Call(gateway.lab, scenario, "peers")

    async def run(self, seconds: float) -> None:
        killing, looking = asyncio.create_task(self._kill()), asyncio.create_task(self._look())
        outcome = await self.call.run(seconds, relayed=RELAYED)
        await killing
        looking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await looking
        self._judge(outcome)
        await self._settle("over", self._over)

    async def _kill(self) -> None:
        await self.call.journal.reached("allocate")
        await asyncio.sleep(self.at)
        known = await self._calls()
        step = list(self.call.journal.times)[-1]
        self.answered = self.call.journal.has("ack")
        await self.gateway.kill(self.who, self.scenario.client)
        self.survived.kills.append(f"{self.who} {self.at:.2f} s in, after {step}")
        self.unheard = self.call.journal.has("bye") and step != "bye"
        self.survived.unheard += self.unheard

        async def again() -> bool:
            stands = not known or all(self.scenario.client in inside for inside in await kernel(self.gateway.lab))
            return (stands and known <= await self._calls()) or self.call.journal.has("bye")

        await self._settle(f"calls {known} known again, with pinhole and binding", again)
        self.survived.stood += bool(known) and not self.call.journal.has("bye")

    async def _look(self) -> None:
        """Until the kernel is seen to hold the call's pinhole and its binding."""
        await self.call.journal.reached("ack")
        while not self.held and not self.call.journal.has("bye"):
            self.held = all(self.scenario.client in inside for inside in await kernel(self.gateway.lab))
            await asyncio.sleep(0.1)

    async def _calls(self) -> set[tuple[int, str | None]]:
        calls = await self.gateway.query("calls")
        return {(call["id"], call["call_id"]) for call in calls if call["end"] == "open" and call.get("answered_at")}

    async def _over(self) -> bool:
        holes, bindings = await kernel(self.gateway.lab)
        stats = await self.gateway.query("stats")
        files = [read(path) for path in (self.gateway.lab.directory / "state").glob("calls-*.jsonl")]
        return not holes and not bindings and bool(stats) and stats[0]["calls"] == 0 and not any(files)

    async def _settle(self, what: str, condition: Any) -> None:
        took = await _right(condition)
        if took is None:
            held = await kernel(self.gateway.lab)
            calls = [(call["id"], call["end"]) for call in await self.gateway.query("calls")]
            self.survived.wrong.append(f"{self.survived.kills[-1:]}: not {what}: {held}, {calls}")
        else:
            self.survived.slowest = max(self.survived.slowest, took)

    def _judge(self, outcome: Outcome) -> None:
        where = f"{self.who} {self.at:.2f} s in"
        self.survived.sent += len(outcome.outward.sent) + len(outcome.inward.sent)
        if outcome.failure is not None:
            self.survived.failures.append(f"{where}: {outcome.failure}")
        elif not outcome.direct and self.answered:
            self.survived.failures.append(f"{where}: stayed on the relay")
        elif not outcome.direct:
            self.survived.relayed += 1
        elif not self.held:
            self.survived.failures.append(f"{where}: media went directly, and no pinhole or no binding was seen")
        self.survived.direct += outcome.direct
        self.survived.open += outcome.direct and self.held
        for name, lost in (("outward", outcome.lost_outward), ("inward", outcome.lost_inward)):
            self.survived.lost += [f"{where}: {name} by {path} {at:.3f}" for at, path in lost]


def read(path: Path) -> set[int]:
    """Numbers of the calls that live according to a state file; of one that was lost, its dialog may sleep there."""
    living: set[int] = set()
    for line in path.read_text().splitlines()[1:]:
        said = json.loads(line)
        if call := said.get("call"):
            living.discard(call["number"])
            living |= {call["number"]} if call.get("asleep") is None else set()
        living.discard(said.get("gone"))
    return living


async def survive(
    scenario: Scenario, kills: int, seconds: float, directory: Path, workers: int = 1, first: float = 0.0
) -> Survived:
    """`first`: seconds into the call before which nobody is killed."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    rng = Random(scenario.call_id)
    scenarios = [scenario.numbered(index) for index in range(kills)]
    survived = Survived()
    with Lab(scenario, extra_calls=kills) as lab:
        async with Actors(lab, scenarios):
            gateway = Mortal(lab, directory, only_facetime(scenario, implicit=True), workers=workers)
            async with gateway:
                for index, own in enumerate(scenarios):
                    who = KILLED[index % len(KILLED)]
                    await Trial(gateway, own, who, rng.uniform(first, seconds), survived).run(seconds)
    return survived


async def _print(given: argparse.Namespace) -> int:
    scenario = Scenario() if given.seed is None else Scenario.from_seed(given.seed)
    directory = ROOT / "build" / "demo" / "survive"
    survived = await survive(scenario, given.kills, given.seconds, directory, given.workers, given.first)
    print(survived)
    for line in (*survived.failures, *survived.lost, *survived.wrong):
        print("  ", line)
    return 0 if survived.held else 1


def main() -> int:
    parser = argparse.ArgumentParser(prog="survive", description="Calls through a gateway whose processes are killed.")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=2.0, help="of media, each call")
    parser.add_argument("--first", type=float, default=0.0, help="seconds into the call, the earliest kill")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int)
    return asyncio.run(until_told(_print(parser.parse_args())))


if __name__ == "__main__":
    sys.exit(main())
