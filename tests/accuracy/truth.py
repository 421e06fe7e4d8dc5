"""The truth of the two FaceTime captures of 2023 (facetime_flows.tsv beside them), and what our runs miss of it.

Also: no flow of any other capture is FaceTime's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.accuracy.labels import Tuple, tuple_of
from tests.accuracy.ours import Run

CAPTURES = Path(__file__).parents[3] / "shared" / "captures"
FILE = CAPTURES / "facetime_flows.tsv"
FACETIME = "facetime"


@dataclass(frozen=True, slots=True)
class Truth:
    """One row: a flow by its ends (`*` as a port: any) and its label; `not-facetime` allows any other name."""

    capture: str
    proto: str
    side_a: str
    side_b: str
    label: str

    def holds(self, key: Tuple) -> bool:
        def same(end: str, wanted: str) -> bool:
            address, port = wanted.rsplit(":", 1)
            return end.split()[0] == address and port in ("*", end.split()[1])

        proto, low, high = key
        both = (same(low, self.side_a) and same(high, self.side_b), same(low, self.side_b) and same(high, self.side_a))
        return proto == self.proto and any(both)


def read(path: Path = FILE) -> list[Truth]:
    rows = [line.split("\t") for line in path.read_text().splitlines()[1:] if line]
    return [Truth(*row[:5]) for row in rows]


def label_of(truths: Iterable[Truth], capture: str, key: Tuple) -> str | None:
    """The label that the table gives this flow; None if it says nothing of it."""
    return next((one.label for one in truths if one.capture == capture and one.holds(key)), None)


def missed(runs: Iterable[Run], truths: Iterable[Truth] | None = None) -> list[str]:
    """What our names do not have right, one line each. A FaceTime flow must be known by its first packet: each of them
    begins with one that tells (a QUIC Initial to the relay, a check of its own shape)."""
    truths = read() if truths is None else list(truths)
    wrong = []
    for run in runs:
        wanted = [one for one in truths if one.capture == run.capture and "*" not in one.side_a]
        seen = set()
        for key, flow in run.flows.items():
            label = label_of(truths, run.capture, key)
            seen.add(label is not None and key)
            place = f"{run.capture} {' '.join(key)}"
            if label == FACETIME:
                for life in flow.lives:
                    if (life.application, life.identified_at) != (FACETIME, life.first_packet):
                        wrong.append(f"{place}: {life.application} at {life.identified_at}, not from its first packet")
            elif FACETIME in flow.applications:
                wrong.append(f"{place}: named facetime, is {label or 'another'}")
            elif label not in (None, "not-facetime") and flow.applications != [label]:
                wrong.append(f"{place}: named {flow.applications}, is {label}")
        found = [key for key in run.flows if key in seen]
        lost = [one for one in wanted if not any(one.holds(key) for key in found)]
        wrong += [f"{run.capture} {one.proto} {one.side_a} {one.side_b}: no such flow seen" for one in lost]
    return wrong


def of_captures() -> list[Path]:
    """The captures that the table is about."""
    names = {one.capture for one in read()}
    return sorted(path for path in CAPTURES.glob("*/*") if path.name in names)


__all__ = ["Truth", "label_of", "missed", "of_captures", "read", "tuple_of"]
