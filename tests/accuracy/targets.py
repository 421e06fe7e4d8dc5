"""What must be reached: issue 3's target, and the floor that was reached before (floor.toml)."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from tests.accuracy.compare import shares

FLOOR = Path(__file__).parent / "floor.toml"
TARGET = 0.99
MAX_MEMORY = 256
"""MB of a process that has run half of the captures, one after the other."""
MAX_RECORDS = 65536 + 16384
"""engine.core: MAX_FLOWS and MAX_STAMPS."""


def floor() -> dict[str, float]:
    """Row -> the share of right answers, in percent, that was reached before."""
    loaded: dict[str, float] = tomllib.loads(FLOOR.read_text())["right"] if FLOOR.exists() else {}
    return loaded


def missed(counts: Mapping[str, Counter[str]]) -> list[str]:
    found = []
    rows = shares(counts)
    if rows["total"].share < TARGET:
        found.append(f"{100 * rows['total'].share:.2f} of 100 flows are right, not {100 * TARGET:.0f}")
    for row, share in rows.items():
        if share.ours < share.theirs:
            found.append(f"{row}: {share.ours} right of {share.labelled}, nDPI {share.theirs}")
        before = floor().get(row, 0.0)
        if round(100 * share.share, 2) < before:
            found.append(f"{row}: {100 * share.share:.2f} of 100 are right, it was {before:.2f}")
    return found
