"""The verdict files: `verdicts.tsv` is written by `--refresh` from tshark alone, `by_hand.toml` by people.

verdicts.tsv   capture, protocol, both ends, and `PROTOCOL@frame,frame` for each that tshark shows (`-`: none).
by_hand.toml   at most 20 flows that tshark reads wrongly or not at all, each with the tshark command and its output.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

from tests.accuracy.labels import BASES, Tuple
from tests.accuracy.oracle import Verdict

FOLDER = Path(__file__).parent
DERIVED = FOLDER / "verdicts.tsv"
BY_HAND = FOLDER / "by_hand.toml"
MOST_BY_HAND = 20

Verdicts = dict[tuple[str, Tuple], Verdict]


def load(path: Path = DERIVED) -> Verdicts:
    found: Verdicts = {}
    if path.exists():
        for line in path.read_text().splitlines():
            capture, proto, low, high, *shown = line.split("\t")
            found[capture, (proto, low, high)] = dict(_shown(one) for one in shown if one != "-")
    return found


def _shown(text: str) -> tuple[str, list[int]]:
    protocol, frames = text.split("@")
    return protocol, [int(frame) for frame in frames.split(",")]


def save(verdicts: Mapping[tuple[str, Tuple], Verdict], path: Path = DERIVED) -> None:
    lines = []
    for (capture, key), verdict in sorted(verdicts.items()):
        shown = [f"{protocol}@{','.join(map(str, frames))}" for protocol, frames in verdict.items()] or ["-"]
        lines.append("\t".join((capture, *key, *shown)))
    path.write_text("\n".join(lines) + "\n")


def by_hand(path: Path = BY_HAND) -> Verdicts:
    """The verdicts of people; ValueError if there are too many, or one lacks its proof."""
    listed = tomllib.loads(path.read_text())["verdict"] if path.exists() else []
    if len(listed) > MOST_BY_HAND:
        raise ValueError(f"{path.name}: {len(listed)} verdicts, at most {MOST_BY_HAND}")
    found: Verdicts = {}
    for one in listed:
        low, high = sorted(one["ends"])
        if not (one["tshark"].startswith("tshark ") and one["output"].strip() and one["why"]):
            raise ValueError(f"{path.name}: {one['capture']} {low}: no proof")
        if unknown := set(one["protocols"]) - set(BASES):
            raise ValueError(f"{path.name}: {one['capture']} {low}: no protocol {unknown}")
        found[one["capture"], (one["proto"], low, high)] = {protocol: [one["frame"]] for protocol in one["protocols"]}
    return found
