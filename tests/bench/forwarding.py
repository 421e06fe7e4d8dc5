"""Forwarding of a decided flow against plain forwarding, alternating in one run.

In: namespaces client - gateway - server of its own, iperf3 as generator, the rule sets as dataplane renders them.
Out: one row a protocol: packets (UDP) or bytes (TCP) a second that left the gateway's outside interface, and the ratio.

Both runs have source NAT, so conntrack works in both; the plain one has no chain of ours. In the other no engine is
needed: the first packets pass as "blind", then the flow's connmark is set to "allow", as the engine would.
"""

from __future__ import annotations

import contextlib
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple

from appid.dataplane.chain import Topology
from appid.dataplane.marks import Marks
from appid.edge import iptables

CLIENT, SERVER = "10.97.1.2", "10.97.2.2"
SPACES = ("client", "gw", "server")
TOPOLOGY = Topology(outside=("wan0",), inside=("10.97.1.0/24",), blind="ACCEPT")
ALLOW = 1 << Marks().shift
GOAL = 0.95


@dataclass(frozen=True, slots=True)
class Row:
    """Rates are per second: packets for udp, bytes for tcp. All three are medians over the rounds."""

    traffic: str
    plain: float
    decided: float
    ratio: float
    spread: tuple[float, float]
    userspace: float
    """Share of the measured packets that met the queue rule: what an engine would have seen."""


class Window(NamedTuple):
    """Units a second out of wan0, and the share of its packets that met the queue rule."""

    rate: float
    queued: float


def apply() -> None:
    iptables.apply(TOPOLOGY, "nft")


def remove() -> None:
    iptables.remove()


def run(*argv: str, stdin: str | None = None, check: bool = True) -> str:
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout


class Road:
    """client -- lan0 [gw] wan0 -- server. A context manager; nothing of it is left after."""

    def __init__(self) -> None:
        self.prefix = f"appid-bench-{os.getpid()}"

    def __enter__(self) -> Road:
        try:
            self._build()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def space(self, place: str) -> str:
        return f"{self.prefix}-{place}"

    def exec(self, place: str, *argv: str, stdin: str | None = None, check: bool = True) -> str:
        return run("ip", "netns", "exec", self.space(place), *argv, stdin=stdin, check=check)

    def _build(self) -> None:
        for place in SPACES:
            run("ip", "netns", "add", self.space(place))
            self.exec(place, "ip", "link", "set", "lo", "up")
        self._wire("client", "eth0", "gw", "lan0", "10.97.1")
        self._wire("server", "eth0", "gw", "wan0", "10.97.2")
        self.exec("gw", "sysctl", "-qw", "net.ipv4.ip_forward=1")
        self.exec("gw", "iptables", "-t", "nat", "-A", "POSTROUTING", "-o", "wan0", "-j", "MASQUERADE")

    def _wire(self, end: str, device: str, router: str, port: str, network: str) -> None:
        run(
            "ip", "link", "add", device, "netns", self.space(end), "type", "veth",
            "peer", "name", port, "netns", self.space(router),
        )  # fmt: skip
        self.exec(end, "ip", "addr", "add", f"{network}.2/24", "dev", device)
        self.exec(router, "ip", "addr", "add", f"{network}.1/24", "dev", port)
        self.exec(end, "ip", "link", "set", device, "up")
        self.exec(router, "ip", "link", "set", port, "up")
        self.exec(end, "ip", "route", "add", "default", "via", f"{network}.1")

    def _spawn(self, place: str, *argv: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            ("ip", "netns", "exec", self.space(place), *argv), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def _remove(self) -> None:
        for place in SPACES:
            run("ip", "netns", "del", self.space(place), check=False)

    @contextlib.contextmanager
    def chains(self) -> Iterator[None]:
        """Our rule sets of both families, in the gateway, for the length of the `with`."""
        self._change("apply")
        try:
            yield
        finally:
            self._change("remove")

    def _change(self, what: str) -> None:
        self.exec("gw", sys.executable, "-c", f"from tests.bench import forwarding; forwarding.{what}()")

    @contextlib.contextmanager
    def stream(self, traffic: str) -> Iterator[None]:
        """iperf3 at full speed from client to server for the length of the `with`, its flow decided: allow."""
        kind = ("-u", "-b", "0", "-l", "200") if traffic == "udp" else ()
        port = {"udp": "5201", "tcp": "5202"}[traffic]
        command = ("iperf3", "-c", SERVER, "-p", port, "-t", "600", *kind)
        server = self._spawn("server", "iperf3", "-s", "-p", port)
        sender = self._spawn("client", *command)
        try:
            deadline = time.monotonic() + 15
            while not self._allow(2 if traffic == "tcp" else 1, traffic, port):
                if time.monotonic() > deadline:
                    raise RuntimeError(f"iperf3 sent no {traffic}")
                if sender.poll() is not None:  # the server was not ready
                    sender = self._spawn("client", *command)
                time.sleep(0.2)
            yield
        finally:
            for child in (sender, server):
                child.terminate()
                child.wait()

    def _allow(self, flows: int, traffic: str, port: str) -> bool:
        """Give the stream's conntrack entries the connmark of allow; False while there are fewer than `flows`."""
        match = ("-p", traffic, "-s", CLIENT, "--dport", port)
        if len(self.exec("gw", "conntrack", "-L", *match, check=False).splitlines()) < flows:
            return False
        self.exec("gw", "conntrack", "-U", *match, "--mark", f"{ALLOW:#x}")
        return True

    def rate(self, traffic: str, seconds: float, with_chains: bool) -> Window:
        """One window of a running stream."""
        with self.chains() if with_chains else contextlib.nullcontext():
            time.sleep(0.1)
            before = self._queued() if with_chains else 0
            packets, units, elapsed = self._count("packets" if traffic == "udp" else "bytes", seconds)
            queued = self._queued() - before if with_chains else 0
        if not packets:
            raise RuntimeError(f"{traffic}: nothing was forwarded")
        return Window(units / elapsed, queued / packets)

    def _count(self, unit: str, seconds: float) -> tuple[int, int, float]:
        """(packets, units, seconds) that wan0 sent while a shell in the gateway slept."""
        files = " ".join(f"/sys/class/net/wan0/statistics/tx_{name}" for name in ("packets", unit))
        look = f"cat {files}; date +%s.%N"
        text = self.exec("gw", "sh", "-c", f"{look}; sleep {seconds}; {look}").split()
        return int(text[3]) - int(text[0]), int(text[4]) - int(text[1]), float(text[5]) - float(text[2])

    def _queued(self) -> int:
        listing = self.exec("gw", "iptables", "-t", "mangle", "-vnxL", "APPID-QUEUE")
        return sum(int(count) for count in re.findall(r"^\s*(\d+)\s+\d+\s+NFQUEUE", listing, re.MULTILINE))


def measure(rounds: int = 5, seconds: float = 1.0) -> list[Row]:
    """Needs root and iperf3. A round is four windows of one stream: plain, decided, decided, plain (drift cancels)."""
    with Road() as road:
        return [_traffic(road, traffic, rounds, seconds) for traffic in ("udp", "tcp")]


def _traffic(road: Road, traffic: str, rounds: int, seconds: float) -> Row:
    plain: list[float] = []
    decided: list[float] = []
    shares: list[float] = []
    with road.stream(traffic):
        for _ in range(rounds):
            first, second, third, last = (road.rate(traffic, seconds, ours) for ours in (False, True, True, False))
            plain.append((first.rate + last.rate) / 2)
            decided.append((second.rate + third.rate) / 2)
            shares += [second.queued, third.queued]
    ratios = [ours / bare for ours, bare in zip(decided, plain, strict=True)]
    middle = statistics.median
    return Row(traffic, middle(plain), middle(decided), middle(ratios), (min(ratios), max(ratios)), max(shares))


def report(rows: list[Row]) -> str:
    """A table for people."""
    lines = ["forwarding, client - gateway - server in namespaces, source NAT in both, medians", ""]
    lines.append(f"  {'traffic':<22}{'plain':>14}{'decided':>14}{'ratio':>8}{'range':>14}   goal {GOAL}")
    for row in rows:
        udp = row.traffic == "udp"
        what = "UDP, 200 bytes" if udp else "TCP stream"
        scale, unit = (1e3, "kpps") if udp else (1.25e8, "Gbit/s")
        low, high = row.spread
        lines.append(
            f"  {what:<22}{row.plain / scale:>8.1f} {unit:<6}{row.decided / scale:>7.1f} {unit:<6}{row.ratio:>7.3f}"
            f"{f'{low:.2f}-{high:.2f}':>14}   {'held' if row.ratio >= GOAL else 'missed'}"
            f"{f', {row.userspace:.1%} QUEUED' if row.userspace > 0.01 else ''}"
        )
    return "\n".join(lines)
