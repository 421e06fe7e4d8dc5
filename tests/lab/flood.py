"""A flood of flows through a gateway with calls in it: do the calls go on, does the memory stay within its bound?

    python -m tests.lab.flood --flows 200000

In: how many flows, seconds of media. Out: a Flooded. Each flow is one datagram that says nothing, from another inside
address and port; the calls run meanwhile, from their first step to their last.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import socket
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from appid.edge.control import ask
from tests.lab.call import Actors, Call, Outcome
from tests.lab.demo import until_told
from tests.lab.gateway import Gateway, only_facetime
from tests.lab.net import ROOT, Lab
from tests.lab.scenario import Scenario

MAX_MEMORY = 160
"""MiB for the worker."""
MAX_FLOWS = 4096
"""A small table, so that it is full all the time."""
CALLS = 4
NOISE = b"\xff\xfe\xfd\xfc"
BATCH = 200
PAUSE = 0.02
"""Seconds between two batches of datagrams: 10,000 a second, more than one engine answers."""


@dataclass
class Flooded:
    """`memory`: the largest resident size of a worker or their supervisor that was seen, in MiB."""

    flows: int = 0
    seen: int = 0
    memory: float = 0.0
    table: int = 0
    failures: list[str] = field(default_factory=list)
    lost: int = 0
    sent: int = 0
    given_up: int = 0

    def __str__(self) -> str:
        return (
            f"{self.flows} flows, {self.seen} packets in userspace, {self.given_up} given up; "
            f"table at most {self.table}, memory at most {self.memory:.0f} MiB; "
            f"{CALLS} calls, {len(self.failures)} failed; {self.sent} media packets, {self.lost} lost"
        )

    @property
    def held(self) -> bool:
        return not self.failures and not self.lost and self.memory < MAX_MEMORY


def resident(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096 / (1 << 20)


class Flood:
    def __init__(self, lab: Lab, count: int) -> None:
        self.lab, self.count = lab, count
        self.sock = lab.open_socket("client", socket.SOCK_RAW, proto=socket.IPPROTO_RAW)

    async def run(self) -> int:
        """Datagrams written by hand, each from another of 250 hosts and another port."""
        base = self.lab.scenario.client.rpartition(".")[0]
        to = socket.inet_aton(self.lab.scenario.world)
        sent = 0
        for number in range(self.count):
            source = socket.inet_aton(f"{base}.{2 + number % 250}")
            ports = (1024 + number // 250 % 60_000).to_bytes(2, "big") + (20_000 + number % 9_973).to_bytes(2, "big")
            packet = b"\x45\0\0\x20" + bytes(4) + b"\x40\x11\0\0" + source + to + ports + b"\0\x0c\0\0" + NOISE
            try:
                self.sock.sendto(packet, (self.lab.scenario.world, 0))
                sent += 1
            except BlockingIOError:
                await asyncio.sleep(PAUSE)
            if number % BATCH == BATCH - 1:
                await asyncio.sleep(PAUSE)
        self.sock.close()
        return sent


async def _watch(gateway: Gateway, flooded: Flooded) -> None:
    while True:
        (stats, *_) = await asyncio.to_thread(ask, gateway.control, {"ask": "stats"}, 30.0)
        worker: dict[str, Any] = stats["workers"][0]
        supervisor = int(Path(f"/proc/{worker['pid']}/stat").read_text().rpartition(")")[2].split()[1])
        flooded.memory = max(flooded.memory, *map(resident, (supervisor, *(each["pid"] for each in stats["workers"]))))
        flooded.table = max(flooded.table, stats["flows"])
        flooded.seen = worker["seen"]
        flooded.given_up = stats["exceptions"]["table-full"]
        await asyncio.sleep(0.1)


async def flood(scenario: Scenario, flows: int, seconds: float, directory: Path, max_flows: int = MAX_FLOWS) -> Flooded:
    """The calls begin when the flood is under way, and again as long as it lasts."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    flooded = Flooded()
    scenarios = [scenario.numbered(index) for index in range(CALLS)]
    with Lab(scenario, extra_calls=CALLS) as lab:
        async with Actors(lab, scenarios):
            gateway = Gateway(lab, directory, only_facetime(scenario, implicit=True))
            limits = f"[limits]\nmax_flows = {max_flows}\nmax_memory = {MAX_MEMORY}\n"
            gateway.config.write_text(gateway.config.read_text().replace("queued", "# queued") + limits)
            async with gateway:
                watching = asyncio.create_task(_watch(gateway, flooded))
                outcomes = [asyncio.create_task(Call(lab, own, "peers").run(seconds)) for own in scenarios]
                await asyncio.sleep(3.0)  # the calls stand
                flooded.flows = await Flood(lab, flows).run()
                for outcome in outcomes:
                    _judge(flooded, await outcome)
                await asyncio.sleep(1.0)
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
    return flooded


def _judge(flooded: Flooded, outcome: Outcome) -> None:
    if outcome.failure is not None:
        flooded.failures.append(str(outcome.failure))
    flooded.sent += len(outcome.outward.sent) + len(outcome.inward.sent)
    flooded.lost += len(outcome.lost_outward) + len(outcome.lost_inward)


async def _print(given: argparse.Namespace) -> int:
    begun = time.monotonic()
    flooded = await flood(Scenario(), given.flows, given.seconds, ROOT / "build" / "demo" / "flood", given.table)
    print(flooded, f"{time.monotonic() - begun:.0f} s", *flooded.failures, sep="\n")
    return 0 if flooded.held else 1


def main() -> int:
    parser = argparse.ArgumentParser(prog="flood", description="A flood of flows through a gateway with calls in it.")
    parser.add_argument("--flows", type=int, default=200_000)
    parser.add_argument("--table", type=int, default=MAX_FLOWS, help="max_flows")
    parser.add_argument("--seconds", type=float, default=30.0, help="of media")
    return asyncio.run(until_told(_print(parser.parse_args())))


if __name__ == "__main__":
    sys.exit(main())
