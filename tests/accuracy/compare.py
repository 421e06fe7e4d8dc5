"""Flow by flow: our name, nDPI's label, and where they differ tshark's verdict -> who is right, per base protocol.

A labelled flow is one that either side names with a base protocol: false names and missed ones both count. Left out,
and counted apart: flows without payload (nothing can be read in them), flows inside a tunnel (appid names the tunnel).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tests.accuracy.labels import BASES, Label, Tuple
from tests.accuracy.oracle import Verdict
from tests.accuracy.ours import Flow, Run

COLUMNS = ("labelled", "agreed", "appid right", "nDPI right", "both right", "both wrong")


@dataclass(frozen=True, slots=True)
class Pair:
    """One labelled flow. `names` are our applications, `ours` their base protocols, `label` is nDPI's, if any."""

    capture: str
    key: Tuple
    names: tuple[str, ...]
    ours: frozenset[str]
    lineage: frozenset[str]
    label: Label | None
    first_packet: int

    @property
    def theirs(self) -> str | None:
        return self.label.base if self.label is not None else None

    @property
    def protocol(self) -> str:
        """The row it counts in: what both say, else nDPI's, else ours."""
        if self.theirs is not None:
            return self.theirs
        return min(self.ours, key=BASES.index)

    @property
    def agreed(self) -> bool:
        return self.theirs in self.ours | self.lineage


@dataclass(slots=True)
class Comparison:
    pairs: list[Pair]
    left_out: Counter[str]


def compare(run: Run, labels: Iterable[tuple[Tuple, Label]]) -> Comparison:
    """The labelled flows of one capture."""
    merged: dict[Tuple, Label] = {}
    left_out: Counter[str] = Counter()
    for key, label in labels:
        if label.tunnel is not None:
            left_out["inside a tunnel"] += label.base is not None
            continue
        known = merged.get(key)
        if known is None or (known.base is None and label.base is not None):
            merged[key] = label
    pairs = []
    for key in sorted(run.flows.keys() | merged.keys()):
        flow, found = run.flows.get(key), merged.get(key)
        mine = flow or Flow()
        if not mine.bases and (found is None or found.base is None):
            continue
        if found is not None and found.empty and not mine.bases:
            left_out["without payload"] += 1
        else:
            pairs.append(
                Pair(
                    run.capture,
                    key,
                    tuple(mine.applications),
                    frozenset(mine.bases),
                    frozenset(mine.lineage),
                    found,
                    mine.first_packet,
                )
            )
    return Comparison(pairs, left_out)


def right(said: Iterable[str], verdict: Verdict) -> bool:
    """A side is right if it names a protocol that is there, or none where none is."""
    said = set(said)
    return bool(said & verdict.keys()) if verdict else not said


def outcome(pair: Pair, verdict: Verdict | None) -> str:
    """`agreed`, or by the verdict: `appid right`, `nDPI right`, `both right`, `both wrong`."""
    if pair.agreed:
        return "agreed"
    assert verdict is not None, f"no verdict on {pair.capture} {pair.key}"
    mine = right(pair.ours or pair.lineage & verdict.keys(), verdict)
    theirs = right({pair.theirs} - {None}, verdict)  # type: ignore[arg-type]
    if mine and theirs:
        return "both right"
    return "appid right" if mine else "nDPI right" if theirs else "both wrong"


@dataclass(frozen=True, slots=True)
class Share:
    """Right answers of one row of the table."""

    labelled: int
    ours: int
    theirs: int

    @property
    def share(self) -> float:
        return self.ours / self.labelled if self.labelled else 1.0


def shares(counts: Mapping[str, Counter[str]]) -> dict[str, Share]:
    """Row -> how many each side has right; the row `total` is the sum."""
    rows = {row: counts[row] for row in BASES if row in counts}
    rows["total"] = sum((Counter(count) for count in counts.values()), Counter())
    return {
        row: Share(
            sum(count.values()),
            count["agreed"] + count["appid right"] + count["both right"],
            count["agreed"] + count["nDPI right"] + count["both right"],
        )
        for row, count in rows.items()
    }


def table(counts: Mapping[str, Counter[str]]) -> str:
    lines = [f"{'':8}" + "".join(f"{column:>13}" for column in (*COLUMNS, "appid %", "nDPI %"))]
    rows = dict(counts) | {"total": sum((Counter(count) for count in counts.values()), Counter())}
    for row, share in shares(counts).items():
        cells = [share.labelled, *(rows[row][column] for column in COLUMNS[1:])]
        percent = [100 * share.share, 100 * share.theirs / share.labelled if share.labelled else 100.0]
        lines.append(f"{row:8}" + "".join(f"{cell:13}" for cell in cells) + "".join(f"{p:13.2f}" for p in percent))
    return "\n".join(lines)
