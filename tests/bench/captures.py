"""CPU per packet of `appid check`, NFStream and ndpiReader on the same capture; and of ten times the applications.

In: captures, and one command a program with {capture} in it. Out: microseconds of CPU (user and system, children
included) a packet, start-up subtracted: the same command on a capture of one packet. Programs alternate within a round.
"""

from __future__ import annotations

import os
import shlex
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.replicate import replicate

ROOT = Path(__file__).resolve().parent.parent.parent
SHARED = ROOT.parent / "shared" / "captures"
WORK = ROOT / "build" / "bench"
SUFFIXES = {".pcap", ".pcapng", ".cap"}
APPID = f"{sys.executable} -m appid.cli.main check --json {{capture}}"
PROGRAMS = {
    "appid check": APPID,
    "NFStream": f"{ROOT}/build/bench-venv/bin/python {ROOT}/tests/bench/nfstream_peer.py {{capture}}",
    "ndpiReader": "ndpiReader -q -i {capture}",
}
LIMIT = 900.0
"""Seconds that one run of one program may take."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Microseconds of CPU a packet: median, least and most of the rounds; start is seconds of CPU of an empty run."""

    program: str
    median: float
    least: float
    most: float
    start: float


def shared_captures() -> list[Path]:
    return sorted(path for path in SHARED.rglob("*") if path.suffix in SUFFIXES) if SHARED.is_dir() else []


def cpu_seconds(command: str, capture: Path) -> float:
    """User and system time of the command and of the children it waited for. Raises if it fails or runs too long."""
    argv = shlex.split(command.format(capture=shlex.quote(str(capture))))
    with open(os.devnull, "wb") as sink, (WORK / "stderr.log").open("w+b") as errors:
        before = os.times()
        done = subprocess.run(argv, stdout=sink, stderr=errors, cwd=ROOT, timeout=LIMIT, check=False)
        after = os.times()
        if done.returncode:
            errors.seek(0)
            reason = errors.read()[-400:].decode("utf-8", "replace").strip()
            raise RuntimeError(f"{argv[0]}: exit {done.returncode}: {reason}")
    spent = after.children_user - before.children_user + after.children_system - before.children_system
    return float(spent)


def costs(programs: Mapping[str, str], capture: Path, single: Path, packets: int, rounds: int) -> list[Cost]:
    """One row a program. A program that cannot run is left out, with a line on stderr that says why."""
    start: dict[str, float] = {}
    runs: dict[str, list[float]] = {name: [] for name in programs}

    def measure(name: str) -> None:
        try:
            if name not in start:
                start[name] = statistics.median(cpu_seconds(programs[name], single) for _ in range(min(rounds, 3)))
            runs[name].append((cpu_seconds(programs[name], capture) - start[name]) / packets * 1e6)
        except (OSError, RuntimeError, subprocess.TimeoutExpired) as reason:
            print(f"bench: {name} left out: {reason}", file=sys.stderr)
            del runs[name]

    for _ in range(rounds):
        for name in list(runs):
            measure(name)
    return [Cost(name, statistics.median(spent), min(spent), max(spent), start[name]) for name, spent in runs.items()]


def prepared(captures: Sequence[Path], packets: int) -> tuple[Path, Path, int]:
    """(the big capture, one of a single packet, packets in the big one), below build/bench."""
    WORK.mkdir(parents=True, exist_ok=True)
    big, single = WORK / "mix.pcap", WORK / "single.pcap"
    count = replicate(captures, big, packets)
    replicate(captures, single, 1)
    return big, single, count


def report(rows: Sequence[Cost], packets: int) -> str:
    """A table for people; the ratio is to NFStream where that ran."""
    base = next((row.median for row in rows if row.program == "NFStream"), None)
    lines = [f"captures, {packets} packets, CPU a packet, start-up subtracted", ""]
    lines.append(f"  {'program':<22}{'median':>10}{'least':>9}{'most':>9}{'start-up':>11}{'to NFStream':>13}")
    for row in rows:
        ratio = f"{row.median / base:.2f}" if base else "-"
        lines.append(
            f"  {row.program:<22}{row.median:>7.2f} us{row.least:>9.2f}{row.most:>9.2f}{row.start:>9.2f} s{ratio:>13}"
        )
    return "\n".join(lines)
