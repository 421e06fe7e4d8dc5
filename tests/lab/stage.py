"""One run's surroundings: network, actors, captures, the gateway if there is a policy; and a call watched at each step.

In: Options. Out: a Stage to work in; files of the run in its directory.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from tests.lab.call import Actors, Call, Outcome
from tests.lab.capture import Capture
from tests.lab.gateway import Gateway
from tests.lab.live import watch
from tests.lab.net import Lab
from tests.lab.others import World
from tests.lab.probes import EVERYBODY, STRANGER, Witness, probe
from tests.lab.scenario import Scenario
from tests.lab.snapshot import snapshot

RING = 1.0
"""Seconds until the peer picks up: time to look at the kernel."""


@dataclass(frozen=True)
class Options:
    """`seconds` of media a call; `directory` gets one folder a run."""

    scenario: Scenario
    seconds: float
    directory: Path
    console: Console
    variant: str = "nft"

    @property
    def relayed(self) -> float:
        """Seconds of media before the peer tries the direct path."""
        return min(3.0, self.seconds / 3)


@dataclass
class Stage:
    options: Options
    name: str
    directory: Path
    lab: Lab
    world: World
    witness: Witness
    gateway: Gateway | None = None

    @property
    def lan(self) -> Path:
        return self.directory / "lan0.pcap"

    @property
    def wan(self) -> Path:
        return self.directory / "wan0.pcap"


@contextlib.asynccontextmanager
async def stage(options: Options, name: str, policy: str | None) -> AsyncIterator[Stage]:
    """Everything stands inside the `with`. The gateway leaves first, the captures after it, the network last."""
    directory = options.directory / name
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    with Lab(options.scenario) as lab:
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(Actors(lab, [options.scenario]))
            world = await stack.enter_async_context(World(lab))
            witness = stack.enter_context(Witness(lab))
            made = Stage(options, name, directory, lab, world, witness)
            for device, path in (("lan0", made.lan), ("wan0", made.wan)):
                await stack.enter_async_context(Capture(lab, "gw", device, path))
            if policy is not None:
                gateway = Gateway(lab, directory, policy, options.variant)
                made.gateway = await stack.enter_async_context(gateway)
            yield made


async def watched_call(on: Stage, probing: bool) -> Outcome:
    """A call with the kernel's state saved at each step, probes before, during and after, and the live table."""
    lab, options = on.lab, on.options
    call = Call(lab, options.scenario)

    async def at(step: str, name: str, *who: str) -> None:
        await call.journal.reached(step)
        await asyncio.sleep(0.3)
        await snapshot(lab, on.directory, name)
        if probing and who:
            await probe(lab, name, who, call.peer)

    await snapshot(lab, on.directory, "before")
    if probing:
        await probe(lab, "before")
    duties: list[Coroutine[Any, Any, None]] = [
        at("ringing", "ringing"),
        at("relayed", "relayed", STRANGER),
        at("direct", "direct", *EVERYBODY),
    ]
    if on.gateway is not None:
        duties.append(watch(on.gateway, options.console, on.name))
    async with _beside(duties):
        return await call.run(options.seconds, RING, options.relayed)


async def afterwards(on: Stage, probing: bool) -> None:
    """A pinhole may outlive a BYE by 5 s; then the probes again."""
    if probing:
        await asyncio.sleep(5.5 if on.gateway is not None else 0.5)
        await probe(on.lab, "after")
    await snapshot(on.lab, on.directory, "after")


@contextlib.asynccontextmanager
async def _beside(duties: list[Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Runs them beside the body; those that still wait for a step at its end are called off; errors are raised."""
    tasks = [asyncio.create_task(duty) for duty in duties]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result
