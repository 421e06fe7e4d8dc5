"""Forwarding of a decided flow against plain forwarding, alternating in one run.

In: namespaces client - gateway - server of its own, iperf3 as generator, the rule sets as dataplane renders them.
Out: one row a protocol: packets (UDP) or bytes (TCP) a second that left the gateway's outside interface, and the ratio.

Beside the rate stands what a packet costs the sender's processor, its way through the gateway included (schedstat, so
that other load on the machine does not show), and what the same tables cost without a rule.

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
from pathlib import Path
from types import TracebackType
from typing import Literal, NamedTuple

from appid.dataplane.chain import Topology
from appid.dataplane.marks import Marks
from appid.edge import iptables

CLIENT, SERVER = "10.97.1.2", "10.97.2.2"
SPACES = ("client", "gw", "server")
TOPOLOGY = Topology(outside=("wan0",), inside=("10.97.1.0/24",), blind="ACCEPT")
ALLOW = 1 << Marks().shift
GOAL = 0.95
PATIENCE = 10


@dataclass(frozen=True, slots=True)
class Row:
    """Rates are per second: packets for udp, bytes for tcp. `cost`: plain to decided, by processor time; `empty`: plain
    to empty tables. All are medians over the rounds."""

    traffic: str
    plain: float
    decided: float
    ratio: float
    spread: tuple[float, float]
    cost: float
    empty: float
    userspace: float
    """Share of the measured packets that met the queue rule: what an engine would have seen."""


class Window(NamedTuple):
    """Units a second out of wan0, the sender's processor time for each (ns), and the share of its packets that met the
    queue rule."""

    rate: float
    cost: float
    queued: float


EMPTY = """table inet appid-empty {
  chain early {
    type filter hook forward priority mangle - 1
  }
}
table ip mangle {
  chain FORWARD {
    type filter hook forward priority mangle
  }
}
table ip filter {
  chain FORWARD {
    type filter hook forward priority filter
  }
}
"""
"""The hooks that our rule sets have in the way of a forwarded packet, without a rule."""
Rules = Literal["none", "empty", "ours"]


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

    @contextlib.contextmanager
    def empty(self) -> Iterator[None]:
        self.exec("gw", "nft", "-f", "-", stdin=EMPTY)
        try:
            yield
        finally:
            for table in ("inet appid-empty", "ip mangle", "ip filter"):
                self.exec("gw", "nft", "delete", "table", *table.split())

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
            self._sender = sender.pid
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

    def rate(self, traffic: str, seconds: float, rules: Rules) -> Window:
        """One window of a running stream."""
        with self.chains() if rules == "ours" else self.empty() if rules == "empty" else contextlib.nullcontext():
            time.sleep(0.1)
            for _ in range(PATIENCE):  # a sender that the machine did not let run is no figure
                before, begun = self._queued() if rules == "ours" else 0, self._spent()
                packets, units, elapsed = self._count("packets" if traffic == "udp" else "bytes", seconds)
                spent = self._spent() - begun
                queued = self._queued() - before if rules == "ours" else 0
                if packets:
                    break
        if not packets:
            raise RuntimeError(f"{traffic}: nothing was forwarded")
        return Window(units / elapsed, spent / units, queued / packets)

    def _spent(self) -> int:
        """Nanoseconds of processor time that the sender has had: forwarding is done in it."""
        return int(Path(f"/proc/{self._sender}/schedstat").read_text().split()[0])

    def _count(self, unit: str, seconds: float) -> tuple[int, int, float]:
        """(packets, units, seconds) that wan0 sent while a shell in the gateway slept."""
        files = " ".join(f"/sys/class/net/wan0/statistics/tx_{name}" for name in ("packets", unit))
        look = f"cat {files}; date +%s.%N"
        text = self.exec("gw", "sh", "-c", f"{look}; sleep {seconds}; {look}").split()
        return int(text[3]) - int(text[0]), int(text[4]) - int(text[1]), float(text[5]) - float(text[2])

    def _queued(self) -> int:
        listing = self.exec("gw", "iptables", "-t", "mangle", "-vnxL", "APPID-QUEUE")
        return sum(int(count) for count in re.findall(r"^\s*(\d+)\s+\d+\s+NFQUEUE", listing, re.MULTILINE))


ROUND: tuple[Rules, ...] = ("none", "empty", "ours", "ours", "empty", "none")


def measure(rounds: int = 5, seconds: float = 0.7) -> list[Row]:
    """Needs root and iperf3. A round is six windows of one stream, there and back again, so that drift cancels."""
    with Road() as road:
        return [_traffic(road, traffic, rounds, seconds) for traffic in ("udp", "tcp")]


def _traffic(road: Road, traffic: str, rounds: int, seconds: float) -> Row:
    found: list[dict[Rules, Window]] = []
    with road.stream(traffic):
        for _ in range(rounds):
            windows = [road.rate(traffic, seconds, rules) for rules in ROUND]
            found.append({rules: _mean(windows[at], windows[-1 - at]) for at, rules in enumerate(ROUND[:3])})
    ratios = [each["ours"].rate / each["none"].rate for each in found]
    middle = statistics.median
    return Row(
        traffic, middle(each["none"].rate for each in found), middle(each["ours"].rate for each in found),
        middle(ratios), (min(ratios), max(ratios)),
        middle(each["none"].cost / each["ours"].cost for each in found),
        middle(each["none"].cost / each["empty"].cost for each in found), max(each["ours"].queued for each in found),
    )  # fmt: skip


def _mean(one: Window, other: Window) -> Window:
    return Window(*((here + there) / 2 for here, there in zip(one, other, strict=True)))


def report(rows: list[Row]) -> str:
    """A table for people."""
    lines = ["forwarding, client - gateway - server in namespaces, source NAT in both, medians", ""]
    lines.append(
        f"  {'traffic':<22}{'plain':>14}{'decided':>14}{'ratio':>8}{'range':>14}   goal {GOAL}   processor (empty)"
    )
    for row in rows:
        udp = row.traffic == "udp"
        what = "UDP, 200 bytes" if udp else "TCP stream"
        scale, unit = (1e3, "kpps") if udp else (1.25e8, "Gbit/s")
        low, high = row.spread
        lines.append(
            f"  {what:<22}{row.plain / scale:>8.1f} {unit:<6}{row.decided / scale:>7.1f} {unit:<6}{row.ratio:>7.3f}"
            f"{f'{low:.2f}-{high:.2f}':>14}   {'held' if row.ratio >= GOAL else 'missed':<9}"
            f"   {row.cost:.3f} ({row.empty:.3f})"
            f"{f', {row.userspace:.1%} QUEUED' if row.userspace > 0.01 else ''}"
        )
    return "\n".join(lines)
