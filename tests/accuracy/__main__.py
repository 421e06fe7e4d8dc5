"""`make accuracy`: base protocols on the shared captures beside nDPI, with tshark as the judge (`--help`).

Also: no capture of the set makes appid fail, two runs give the same bytes, what is kept is bounded; time per capture.
Exit status 1 if a target (issue 3) or the recorded floor (floor.toml) is missed.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from tests.accuracy import confidence, labels, middle, oracle, ours, targets, truth, verdicts
from tests.accuracy.compare import Comparison, Pair, compare, outcome, table
from tests.accuracy.ours import Run

CAPTURES = Path(__file__).parents[3] / "shared" / "captures"
LABELS = CAPTURES / "ndpi_labels"
WORKERS = 2
SECONDS = 120
"""For all captures once; it takes some three."""
SLOWEST = 8


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests.accuracy", description=__doc__)
    parser.add_argument("captures", nargs="*", help="names of captures (all)")
    parser.add_argument("--refresh", action="store_true", help="ask tshark again, and write verdicts.tsv")
    parser.add_argument("--wrong", action="store_true", help="list the flows where appid is not right")
    parser.add_argument("--differ", action="store_true", help="list the flows where nDPI and appid differ")
    parser.add_argument("--once", action="store_true", help="no second run to compare bytes with")
    return parser.parse_args()


def all_captures() -> list[Path]:
    return sorted(p for p in CAPTURES.glob("*/*") if p.parent != LABELS and p.is_file())


def runs(paths: Iterable[Path], run: Callable[[Path], Run] = ours.safe_run) -> list[Run]:
    """All captures, in order, by worker processes: spawned, so that each has a hash seed of its own."""
    with ProcessPoolExecutor(WORKERS, get_context("spawn")) as pool:
        return list(pool.map(run, list(paths), chunksize=8, timeout=SECONDS))


def label_file(path: Path) -> Path:
    return LABELS / f"{path.name}.out"


def labelled(paths: Iterable[Path], results: Iterable[Run]) -> list[tuple[Path, Comparison]]:
    found = []
    for path, run in zip(paths, results, strict=True):
        if path.parent.name == "ndpi" and label_file(path).exists():
            found.append((path, compare(run, labels.read(label_file(path), run.flows))))
    return found


def judge(compared: list[tuple[Path, Comparison]], refresh: bool) -> verdicts.Verdicts:
    """A verdict on each flow on which the two differ: by hand, kept, or from tshark now."""
    kept = {} if refresh else verdicts.load()
    hand = verdicts.by_hand()
    asked: dict[Path, list[labels.Tuple]] = {}
    for path, comparison in compared:
        for pair in comparison.pairs:
            if not pair.agreed and (pair.capture, pair.key) not in kept:
                asked.setdefault(path, []).append(pair.key)
    for path, keys in asked.items():
        kept |= {(path.name, key): verdict for key, verdict in oracle.verdicts(path, keys).items()}
    if refresh:
        verdicts.save(kept)
    return kept | hand


def describe(pair: Pair, verdict: oracle.Verdict | None, result: str) -> str:
    label = pair.label.text if pair.label is not None else "(not listed)"
    guess = " (guessed)" if pair.label is not None and pair.label.guessed else ""
    shown = " ".join(f"{p}@{frames[0]}" for p, frames in (verdict or {}).items()) or "none"
    return (
        f"{result:12} {pair.capture} #{pair.first_packet} {' '.join(pair.key)}: appid {'/'.join(pair.names) or '-'}, "
        f"nDPI {label}{guess}, tshark {shown}"
    )


def report(compared: list[tuple[Path, Comparison]], decided: verdicts.Verdicts, given: argparse.Namespace) -> list[str]:
    """Prints the table; what is missed."""
    counts: dict[str, Counter[str]] = {}
    left_out: Counter[str] = Counter()
    for _, comparison in compared:
        left_out += comparison.left_out
        for pair in comparison.pairs:
            verdict = decided.get((pair.capture, pair.key))
            result = outcome(pair, verdict)
            counts.setdefault(pair.protocol, Counter())[result] += 1
            if (given.differ and result != "agreed") or (given.wrong and result in ("nDPI right", "both wrong")):
                print(describe(pair, verdict, result))
    print(table(counts))
    print(f"left out: {', '.join(f'{number} {why}' for why, number in sorted(left_out.items())) or 'none'}; "
          f"by hand: {len(verdicts.by_hand())} of at most {verdicts.MOST_BY_HAND}")  # fmt: skip
    return [] if given.captures else targets.missed(counts)


def sure(
    first: list[Run], compared: list[tuple[Path, Comparison]], decided: verdicts.Verdicts, given: argparse.Namespace
) -> list[str]:
    """Prints what our confidence is worth; what FaceTime's own captures, and all others, show wrong."""
    pairs = {(pair.capture, pair.key): pair for _, comparison in compared for pair in comparison.pairs}
    told = {
        (run.capture, key): label
        for path, _ in compared
        for run in first
        if run.capture == path.name
        for key, label in labels.read(label_file(path), run.flows)
    }
    counts, wrong = confidence.count(first, pairs, told, decided)
    spoken, vain = confidence.evidence(first, pairs, told, decided)
    print(f"\n{confidence.table(counts)}\n\n{confidence.table(spoken, 'evidence')}")
    if given.wrong:
        print("\n".join(wrong + vain))
    return truth.missed(first) + ([] if given.captures else confidence.unordered(counts, spoken))


def from_the_middle(paths: list[Path], first: list[Run], given: argparse.Namespace) -> list[str]:
    """Prints how many names stay what they are where the beginning of each flow is missing; what must not be."""
    missed = []
    print(f"\n{'from the middle':18}{'named':>9}{'as whole':>10}{'share':>9}")
    for gone in middle.GONE:
        agree, differ, wrong = middle.compare(first, runs(paths, middle.runner(gone)))
        share = 100 * confidence.share(agree)
        print(f"{f'{gone} packets gone':18}{agree.total():9}{agree[True]:10}{share:9.2f}")
        if given.wrong:
            print("\n".join(differ))
        missed += wrong
    return missed


def stability(paths: list[Path], first: list[Run], given: argparse.Namespace) -> list[str]:
    """Prints what the runs cost; what failed, differed or grew."""
    wrong = [f"{run.capture}: {run.failure}" for run in first if run.failure is not None]
    if not given.once:
        second = runs(paths)
        wrong += [f"{a.capture}: two runs differ" for a, b in zip(first, second, strict=True) if a.digest != b.digest]
    wrong += [f"{run.capture}: {run.records} records kept" for run in first if run.records > targets.MAX_RECORDS]
    broken = [run for run in first if run.error is not None]
    packets, seconds = sum(run.packets for run in first), sum(run.seconds for run in first)
    print(
        f"\n{len(first)} captures, {packets} packets, {seconds:.1f} s of CPU; {len(broken)} end early, as damaged files"
    )
    most = max(run.memory for run in first)
    print(f"at most {most} MB per process (bound {targets.MAX_MEMORY})")
    if most > targets.MAX_MEMORY:
        wrong.append(f"{most} MB held, more than {targets.MAX_MEMORY}")
    print("slowest, per packet (microseconds):")
    slow = sorted((r for r in first if r.packets >= 20), key=lambda r: r.seconds / r.packets, reverse=True)
    for run in slow[:SLOWEST]:
        print(f"  {1e6 * run.seconds / run.packets:8.0f}  {run.capture} ({run.packets} packets)")
    return wrong


def main() -> int:
    given = arguments()
    paths = [path for path in all_captures() if not given.captures or path.name in given.captures]
    if not paths:
        print(f"accuracy: no captures in {CAPTURES}", file=sys.stderr)
        return 2
    first = runs(paths)
    compared = labelled(paths, first)
    decided = judge(compared, given.refresh)
    missed = report(compared, decided, given)
    missed += sure(first, compared, decided, given)
    missed += from_the_middle(paths, first, given)
    missed += stability(paths, first, given)
    for what in missed:
        print(f"missed: {what}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
