"""Does Prometheus say what was on the wire? Calls through a gateway that a real Prometheus scrapes.

    python -m tests.lab.observed --calls 10

In: how many calls. Out: a line for each figure, Prometheus's beside what tcpdump on both sides of the gateway saw and
what the callers know; exit status 0 if they are the same.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import signal
import socket
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.lab.call import Actors, Call, Outcome
from tests.lab.demo import until_told
from tests.lab.gateway import Gateway, Table, only_facetime
from tests.lab.net import ROOT, Lab
from tests.lab.pcap import datagrams
from tests.lab.scenario import Scenario
from tests.lab.snapshot import queued_packets, snapshot

METRICS = "127.0.0.1:9466"
PROMETHEUS = "127.0.0.1:9090"
LOOKUPS, REPEATED = 7, 3
"""Flows that policy refuses, as it does the callers' probes of their NAT (snatmap), and packets of each."""
ENDS = ("net.netfilter.nf_conntrack_udp_timeout=4", "net.netfilter.nf_conntrack_udp_timeout_stream=4")
"""Flows end soon after their last packet: their bytes are counted when they end."""
CONFIG = f"""\
global: {{scrape_interval: 1s}}
scrape_configs:
  - job_name: appid
    static_configs: [{{targets: ["{METRICS}"]}}]
"""


class Figure(NamedTuple):
    """One number, as Prometheus has it and as the lab does."""

    name: str
    query: str
    lab: float
    prometheus: float

    @property
    def held(self) -> bool:
        return self.lab == self.prometheus

    def __str__(self) -> str:
        mark = "same " if self.held else "OTHER"
        return f"{mark}  {self.name:<34} lab {self.lab:>10.0f}  prometheus {self.prometheus:>10.0f}  {self.query}"


async def observe(
    scenario: Scenario, calls: int, at_once: int, seconds: float, directory: Path, workers: int = 1
) -> list[Figure]:
    """All figures, after the flows of `calls` calls have ended."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    scenarios = [scenario.numbered(index) for index in range(calls)]
    slots = asyncio.Semaphore(at_once)

    async def one(lab: Lab, own: Scenario) -> Outcome:
        async with slots:
            return await Call(lab, own, "peers").run(seconds, relayed=0.7)

    with Lab(scenario, extra_calls=calls) as lab:
        lab.exec("gw", "sysctl", "-qw", *ENDS)
        async with Actors(lab, scenarios):
            policy = only_facetime(scenario, implicit=True)
            async with (
                Gateway(lab, directory, policy, metrics=METRICS, workers=workers) as gateway,
                _prometheus(lab, directory),
            ):
                with _witness(lab, directory, "lan0"), _witness(lab, directory, "wan0"):
                    outcomes = await asyncio.gather(*(one(lab, own) for own in scenarios))
                    await _refused(lab, scenario)
                    await asyncio.sleep(6)  # flows end
                    await _ended(gateway)
                await _clean(lab)
                views = {name: await gateway.query(name) for name in ("flows", "calls", "pinholes", "stats")}
                await asyncio.sleep(2)  # and are scraped
                await snapshot(lab, directory, "after")
                wanted = [
                    *_figures(scenario, scenarios, outcomes, directory), *_shown(views, gateway.events)
                ]  # fmt: skip
                return [Figure(name, query, lab_s, await _ask(lab, query)) for name, query, lab_s in wanted]


CALLS = 'sum(appid_calls_total{application="facetime",end="bye"})'
MEDIA = 'sum(appid_media_bytes_total{application="facetime"})'
OPENED = 'sum(appid_pinholes_opened_total{application="facetime"})'
REFUSED = 'sum(appid_policy_decisions_total{action="deny"})'
STOPPED = 'sum(appid_refused_packets_total{action="deny"})'


def _shown(views: dict[str, list[Table]], events: Path) -> Iterable[tuple[str, str, float]]:
    """The same numbers where the gateway itself shows them."""
    flows, stats = views["flows"], views["stats"][0]
    media = [f for f in flows if f["application"] == "facetime" and f["proto"] == "udp"]
    yield "calls of `appid calls`", CALLS, sum(call["end"] == "bye" for call in views["calls"])
    yield "pinholes of `appid pinholes`", OPENED, len(views["pinholes"])
    yield "media bytes of `appid flows`", MEDIA, sum(f["bytes"] for f in media)
    yield "flows refused of `appid flows`", REFUSED, sum(f["decision"]["action"] == "deny" for f in flows)
    yield "packets refused of `appid stats`", STOPPED, stats["refused"]["deny"]
    yield "packets of `appid stats`", "sum(appid_packets_total)", stats["packets"]
    told = [json.loads(line) for line in events.read_text().splitlines()]
    ended = {each["call"]["id"] for each in told if each["event_type"] == "call" and each["call"]["end"] == "bye"}
    yield "calls of the events", CALLS, len(ended)
    refused = {
        each["flow_id"] for each in told
        if each["event_type"] == "flow" and (each["flow"]["decision"] or {}).get("action") == "deny"
    }  # fmt: skip
    yield "flows refused of the events", REFUSED, len(refused)


def _figures(
    scenario: Scenario, scenarios: list[Scenario], outcomes: list[Outcome], directory: Path
) -> Iterable[tuple[str, str, float]]:
    peers = {own.peer for own in scenarios}
    media = peers | {scenario.peer} | {own.relay for own in scenarios}  # a peer's private address is checked, too
    inside = datagrams(directory / "lan0.pcap")
    outside = datagrams(directory / "wan0.pcap")
    refused = {(scenario.world, 53), (scenario.snatmap, 16403)}
    asked = [d for d in inside if (d.dst, d.dport) in refused]
    left = [d for d in outside if (d.dst, d.dport) in refused]
    ended = sum(outcome.failure is None and outcome.journal.has("bye") for outcome in outcomes)
    yield "calls ended by BYE", CALLS, ended
    yield "calls that ended otherwise", 'sum(appid_calls_total{end!="bye"}) or vector(0)', len(outcomes) - ended
    yield "calls open", "sum(appid_calls)", 0
    yield (
        "media bytes", MEDIA,
        sum(28 + len(d.payload) for d in inside if d.src in media or d.dst in media),
    )  # fmt: skip
    holes = {(d.dst, d.dport, d.src) for d in inside if d.src in peers}
    yield "pinholes opened", OPENED, len(holes)
    yield "pinholes open", "sum(appid_pinholes)", 0
    yield "flows refused", REFUSED, len({(d.src, d.sport) for d in asked})
    yield "packets refused", STOPPED, len(asked) - len(left)
    yield "packets to userspace", "sum(appid_packets_total)", queued_packets(directory, "after")
    yield "packets lost in the queue", "sum(appid_queue_dropped_total)", 0
    yield "exceptions", "sum(appid_exceptions_total)", 0


async def _ended(gateway: Gateway) -> None:
    """Until the kernel has told the end of each flow: it sweeps its table now and then."""
    for _ in range(100):
        if all(flow["bytes"] is not None for flow in await gateway.query("flows")):
            return
        await asyncio.sleep(0.3)


async def _refused(lab: Lab, scenario: Scenario) -> None:
    """Lookups that the policy does not allow."""
    query = bytes.fromhex("1b5f01000001000000000000076578616d706c6503636f6d0000010001")
    for number in range(LOOKUPS):
        with lab.open_socket("client", socket.SOCK_DGRAM) as asking:
            asking.bind((scenario.client, 50_000 + number))
            for _ in range(REPEATED):
                try:
                    asking.sendto(query, (scenario.world, 53))
                except ConnectionRefusedError:  # the gateway's ICMP to the one before
                    asking.sendto(query, (scenario.world, 53))
                await asyncio.sleep(0.05)


class _prometheus:  # noqa: N801 - a context manager, used as a word
    """A Prometheus in the gateway's place, until the end of the `with`."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        self._lab, self._directory = lab, directory

    async def __aenter__(self) -> None:
        config, log = self._directory / "prometheus.yml", self._directory / "prometheus.log"
        config.write_text(CONFIG)
        self._child = self._lab.spawn(
            "gw", "prometheus", f"--config.file={config}", f"--storage.tsdb.path={self._directory / 'tsdb'}",
            f"--web.listen-address={PROMETHEUS}", log=log,
        )  # fmt: skip
        for _ in range(200):
            status, _ = await self._lab.ask("gw", "promtool", "query", "instant", f"http://{PROMETHEUS}", "vector(1)")
            if status == 0:
                return
            await asyncio.sleep(0.1)
        raise RuntimeError(log.read_text())

    async def __aexit__(self, *_: object) -> None:
        self._lab.stop(self._child)


async def _clean(lab: Lab) -> None:
    """What is exposed has promtool's approval."""
    read = f"import urllib.request as r; print(r.urlopen('http://{METRICS}/metrics').read().decode(), end='')"
    _, exposed = await lab.ask("gw", sys.executable, "-c", read)
    status, output = await lab.ask("gw", "promtool", "check", "metrics", stdin=exposed)
    if status or output.strip():
        raise RuntimeError(output)


async def _ask(lab: Lab, query: str) -> float:
    """The one value of an instant query; NaN if there is none."""
    status, output = await lab.ask("gw", "promtool", "query", "instant", "-o", "json", f"http://{PROMETHEUS}", query)
    if status:
        raise RuntimeError(output)
    series = json.loads(output)
    return float(series[0]["value"][1]) if len(series) == 1 else float("nan")


@contextmanager
def _witness(lab: Lab, directory: Path, device: str) -> Iterator[None]:
    """tcpdump on a device of the gateway, until the end of the `with`."""
    log = directory / f"tcpdump-{device}.log"
    arguments = ("-i", device, "-n", "-U", "-B", "65536", "-w", str(directory / f"{device}.pcap"), "udp")
    child = lab.spawn("gw", "tcpdump", *arguments, log=log)
    try:
        while "listening on" not in log.read_text():
            if child.poll() is not None:
                raise RuntimeError(log.read_text())
        yield
    finally:
        lab.stop(child, signal.SIGINT)


async def _print(given: argparse.Namespace) -> int:
    scenario = Scenario() if given.seed is None else Scenario.from_seed(given.seed)
    directory = ROOT / "build" / "demo" / "observed"
    figures = await observe(scenario, given.calls, given.at_once, given.seconds, directory, given.workers)
    for figure in figures:
        print(figure)
    return 0 if all(figure.held for figure in figures) else 1


def main() -> int:
    parser = argparse.ArgumentParser(prog="observed", description="Prometheus beside the wire.")
    parser.add_argument("--calls", type=int, default=10)
    parser.add_argument("--at-once", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of media, each")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int)
    return asyncio.run(until_told(_print(parser.parse_args())))


if __name__ == "__main__":
    sys.exit(main())
