"""Many calls through one gateway: is any media packet lost at the switch to the direct path?

    python -m tests.lab.scale --calls 100 --at-once 10 --seconds 2

In: how many calls, how many at once, seconds of media. Out: a Scaled; exit status 0 if every call went direct and lost
nothing.
Each call has its own inside host, peer and secrets; ten calls share a relay address, on ten media ports.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

from tests.lab.call import Actors, Call, Outcome
from tests.lab.demo import until_told
from tests.lab.gateway import Gateway, only_facetime
from tests.lab.net import ROOT, Lab
from tests.lab.scenario import Scenario
from tests.lab.snapshot import queued_packets, snapshot

RELAYED = 0.7
"""Seconds of media before the switch."""


@dataclass(frozen=True)
class Scaled:
    """`lost_*`: (seconds after the switch, path by which it was sent) of each lost media packet."""

    calls: int
    failures: list[str]
    relayed_only: int
    sent: int
    lost_outward: list[tuple[float, str]]
    lost_inward: list[tuple[float, str]]
    queued: int
    seconds: float

    def __str__(self) -> str:
        lost = len(self.lost_outward), len(self.lost_inward)
        return (
            f"{self.calls} calls, {len(self.failures)} failed, {self.relayed_only} stayed on the relay; "
            f"{self.sent} media packets, lost {lost[0]} outward and {lost[1]} inward; "
            f"{self.queued} packets queued; {self.seconds:.0f} s"
        )

    @property
    def held(self) -> bool:
        return not (self.failures or self.relayed_only or self.lost_outward or self.lost_inward)


def _summary(outcomes: list[Outcome], queued: int, seconds: float) -> Scaled:
    done = [outcome for outcome in outcomes if outcome.failure is None]

    def since_switch(outcome: Outcome, lost: list[tuple[float, str]]) -> list[tuple[float, str]]:
        switch = outcome.journal.times.get("direct", 0.0)
        return [(round(at - switch, 3), path) for at, path in lost]

    return Scaled(
        calls=len(outcomes),
        failures=[str(outcome.failure) for outcome in outcomes if outcome.failure is not None],
        relayed_only=sum(not outcome.direct for outcome in done),
        sent=sum(len(outcome.outward.sent) + len(outcome.inward.sent) for outcome in done),
        lost_outward=[loss for outcome in done for loss in since_switch(outcome, outcome.lost_outward)],
        lost_inward=[loss for outcome in done for loss in since_switch(outcome, outcome.lost_inward)],
        queued=queued,
        seconds=seconds,
    )


def same_port(scenarios: list[Scenario], port: int) -> list[Scenario]:
    """All clients on one media port, so that a NAT must tell them apart; their peers two by two behind one address."""
    ends = [(scenarios[index - index % 2].peer, port - index % 2) for index in range(len(scenarios))]
    return [
        replace(own, media_port=port, peer=peer, peer_public=peer, peer_media_port=far)
        for own, (peer, far) in zip(scenarios, ends, strict=True)
    ]


async def scale(
    scenario: Scenario,
    calls: int,
    at_once: int,
    seconds: float,
    directory: Path,
    gateway: bool = True,
    one_port: bool = False,
) -> Scaled:
    """`gateway` False: a plain NAT router, where every call must stay on the relay. `one_port`: see `same_port`."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    scenarios = [scenario.numbered(index) for index in range(calls)]
    if one_port:
        scenarios = same_port(scenarios, scenario.media_port)
    slots = asyncio.Semaphore(at_once)
    start = time.monotonic()

    async def one(lab: Lab, own: Scenario) -> Outcome:
        async with slots:
            return await Call(lab, own, "peers").run(seconds, relayed=RELAYED)

    with Lab(scenario, extra_calls=calls) as lab:
        async with Actors(lab, scenarios):
            running = Gateway(lab, directory, only_facetime(scenario, implicit=True)) if gateway else None
            if running is not None:
                await running.__aenter__()
            tasks = [asyncio.create_task(one(lab, own)) for own in scenarios]
            try:
                outcomes = await asyncio.gather(*tasks)
                await snapshot(lab, directory, "after")
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                if running is not None:
                    await running.stop()
    return _summary(outcomes, queued_packets(directory, "after"), time.monotonic() - start)


async def _print(given: argparse.Namespace) -> int:
    scenario = Scenario() if given.seed is None else Scenario.from_seed(given.seed)
    directory = ROOT / "build" / "demo" / "scale"
    scaled = await scale(
        scenario, given.calls, given.at_once, given.seconds, directory, not given.plain, given.one_port
    )
    print(scaled)
    for line in (*scaled.failures, *map(str, scaled.lost_outward), *map(str, scaled.lost_inward)):
        print("  ", line)
    return 0 if scaled.held else 1


def main() -> int:
    parser = argparse.ArgumentParser(prog="scale", description="Many calls through one gateway.")
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--at-once", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=2.0, help="of media, each")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--one-port", action="store_true", help="all clients on one media port")
    parser.add_argument("--plain", action="store_true", help="without appid: calls stay on the relay")
    return asyncio.run(until_told(_print(parser.parse_args())))


if __name__ == "__main__":
    sys.exit(main())
