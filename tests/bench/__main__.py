"""`make bench`: forwarding, captures beside the peers, ten times the applications. `python -m tests.bench --help`."""

from __future__ import annotations

import argparse
import os
import sys
from math import inf
from pathlib import Path

import appid
from tests.bench import applications, captures, forwarding

PARTS = ("forwarding", "captures", "applications")
MANY = 1.2
"""What ten times the applications may cost."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests.bench", description="figures of appid beside those of its peers")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"quick, or some of: {', '.join(PARTS)} (all)")
    parser.add_argument("--packets", type=int, default=1_000_000, help="size of the mixed capture")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each program; the median counts")
    parser.add_argument("--appid", default=captures.APPID, help="command that checks {capture}")
    parser.add_argument("--goals", action="store_true", help="exit status 1 if a goal is missed")
    parser.add_argument("--keep", action="store_true", help="leave the mixed capture in build/bench")
    given = parser.parse_args()
    if "quick" in given.parts:
        given.parts.remove("quick")
        given.packets, given.rounds = min(given.packets, 100_000), min(given.rounds, 3)
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}")
    return given


def bench_forwarding(rounds: int) -> list[str]:
    """Out: the goals missed, here and below."""
    if os.geteuid() != 0:
        print("forwarding: left out, needs root")
        return ["forwarding: not measured"]
    rows = forwarding.measure(rounds)
    print(forwarding.report(rows), "\n", flush=True)
    return [f"forwarding: {row.traffic} {row.ratio:.3f}" for row in rows if row.ratio < forwarding.GOAL]


def bench_captures(given: argparse.Namespace, wanted: list[str]) -> list[str]:
    found = captures.shared_captures()
    if not found:
        print("captures: left out, no ../shared/captures")
        return ["captures: not measured"]
    text = not appid._is_of(captures.ROOT / "build" / "native" / "SHA256SUMS", captures.ROOT)
    print(f"appid runs {'from its text: make compile' if text else 'compiled'}")
    missed: list[str] = []
    big, single, count = captures.prepared(found, given.packets)
    try:
        if "captures" in wanted:
            programs = captures.PROGRAMS | {"appid check": given.appid}
            rows = captures.costs(programs, big, single, count, given.rounds)
            print(captures.report(rows, count), "\n", flush=True)
            medians = {row.program: row.median for row in rows}
            if medians.get("appid check", inf) > medians.get("NFStream", inf):
                missed.append("captures: more than NFStream")
        if "applications" in wanted:
            missed += bench_applications(given, big, single, count)
    finally:
        if not given.keep:
            big.unlink(missing_ok=True)
    return missed


def bench_applications(given: argparse.Namespace, big: Path, single: Path, count: int) -> list[str]:
    folder = captures.WORK / "applications"
    added = applications.clone_folder(folder)
    few, many = f"{added // 9} applications", f"{added // 9 + added} applications"
    programs = {few: given.appid, many: f"{given.appid} --rules {folder}"}
    rows = {row.program: row for row in captures.costs(programs, big, single, count, given.rounds)}
    print(captures.report(list(rows.values()), count))
    if len(rows) != 2:
        return ["applications: not measured"]
    times = rows[many].median / rows[few].median
    print(f"\n  ten times the applications cost {times:.2f} times as much (goal {MANY})\n")
    return [f"applications: {times:.2f} times"] if times > MANY else []


def main() -> int:
    given = arguments()
    wanted = given.parts or list(PARTS)
    missed: list[str] = []
    if "forwarding" in wanted:
        missed += bench_forwarding(given.rounds)
    if {"captures", "applications"} & set(wanted):
        missed += bench_captures(given, wanted)
    for goal in missed:
        print(f"missed: {goal}")
    return 1 if given.goals and missed else 0


if __name__ == "__main__":
    sys.exit(main())
