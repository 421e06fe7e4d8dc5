"""All cases through a gateway, side by side, and the table of ours and the kernel's.

In: which gateways, families, ways. Out: Results, printed as Markdown. `plain` is the control run, without NAT: what
fails there is the case's own fault, except that a router cuts nothing.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from tests.netns.net import PUBLIC4, PUBLIC6
from tests.sip import oracle
from tests.sip.cases import CASES, Case
from tests.sip.proxy import proxy
from tests.sip.run import run
from tests.sip.town import INSIDE4, INSIDE6, PLACES, Kind, Place, Town, town

LANES = 6
"""Cases at once: they mostly wait."""
ORACLE = "tshark: no packet malformed, what is told is where media goes"
OUTSIDE = {False: (PUBLIC4, INSIDE4), True: (PUBLIC6, INSIDE6)}
"""By family: the gateway's public address, and how those begin that must not be told outside."""
WAYS = ("out", "in", "within", "behind")


@dataclass(frozen=True)
class Result:
    """Of one case under one gateway; `faults` empty: it holds."""

    case: str
    kind: Kind
    nat: bool
    v6: bool
    way: str
    faults: tuple[str, ...]

    @property
    def where(self) -> str:
        return f"{'NAT ' if self.nat else ''}IPv{6 if self.v6 else 4} {self.way}"


def play(
    where: Town, kind: Kind, folder: Path, v6: bool, ways: Iterable[str] = WAYS, cases: Iterable[Case] = CASES.values()
) -> list[Result]:
    """Each case at a place of its own, LANES at once."""
    numbers = itertools.cycle(range(PLACES))
    wanted = [(next(numbers), case, way) for case in cases for way in ways if way in case.ways]

    def one(number: int, case: Case, way: str) -> Result:
        faults = run(case, where, Place.numbered(number, v6), way, folder / f"{number}-{way}")
        return Result(case.name, kind, where.nat, v6, way, tuple(faults))

    behind = any(way == "behind" for _, _, way in wanted)
    with proxy(where, folder / "proxy") if behind else nullcontext(), ThreadPoolExecutor(LANES) as pool:
        return list(pool.map(lambda each: one(*each), wanted))


def measure(kinds: Iterable[Kind], folder: Path, cases: Iterable[Case] = CASES.values()) -> list[Result]:
    """With NAT and without, both families, all ways; one town each."""
    cases, found = list(cases), []
    for kind, nat, v6 in itertools.product(kinds, (False, True), (False, True)):
        place = folder / f"{kind}-{'nat' if nat else 'routed'}-{'v6' if v6 else 'v4'}"
        ways = [way for way in WAYS if way != "within" or not nat]
        with town(kind, nat, place) as (where, _):
            found += play(where, kind, place, v6, ways, cases)
            capture = where.witnesses[where.peer].write(place / "outside.pcap")
        if nat:
            told = oracle.faults(capture, *OUTSIDE[v6])
            found.append(Result(ORACLE, kind, nat, v6, "all", tuple(told)))
    return found


def markdown(results: list[Result]) -> str:
    """A line a case, a column a gateway: the runs that failed, and the first fault of them."""
    kinds = list(dict.fromkeys(result.kind for result in results))
    lines = ["| case | " + " | ".join(kinds) + " |", "|---|" + "---|" * len(kinds)]
    for name in dict.fromkeys(result.case for result in results):
        cells = [_cell([r for r in results if r.case == name and r.kind == kind]) for kind in kinds]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    held = [sum(not r.faults for r in results if r.kind == kind) for kind in kinds]
    played = [sum(r.kind == kind for r in results) for kind in kinds]
    lines.append(
        "| **runs that hold** | " + " | ".join(f"{h} of {p}" for h, p in zip(held, played, strict=True)) + " |"
    )
    return "\n".join(lines)


def _cell(results: list[Result]) -> str:
    failed = [result for result in results if result.faults]
    if not failed:
        return f"all {len(results)}"
    where = "all" if len(failed) == len(results) else "; ".join(result.where for result in failed)
    return f"{len(results) - len(failed)} of {len(results)}; fails {where}: {failed[0].faults[0]}"


def faults(results: list[Result]) -> list[str]:
    """A line a fault, without the numbers in it: how often, which gateway, in which cases."""
    found: dict[tuple[str, str], Counter[str]] = {}
    for result in results:
        for fault in dict.fromkeys(re.sub(r"[\d.:\[\]]+[\da-f.:\]]*", "#", fault) for fault in result.faults):
            found.setdefault((result.kind, fault[:90]), Counter())[f"{result.case} ({result.where})"] += 1
    return [f"{kind}: {fault}: {sum(n.values())}: {'; '.join(list(n)[:6])}" for (kind, fault), n in found.items()]
