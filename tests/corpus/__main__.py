"""`python -m tests.corpus SESSION [--seed N] [--v6] [--from FRAME] OUT.pcap`: one session as a file."""

from __future__ import annotations

import argparse
from pathlib import Path

from tests.corpus import sessions
from tests.corpus.variation import Variation


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.corpus", description=__doc__)
    parser.add_argument("session", type=int, choices=sorted(sessions.BUILDERS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--v6", action="store_true")
    parser.add_argument("--from", dest="start", type=int, default=1, metavar="FRAME", help="begin the capture here")
    parser.add_argument("out", type=Path)
    wanted = parser.parse_args()
    case = sessions.build(wanted.session, Variation.from_seed(wanted.seed, v6=wanted.v6))
    (case.from_frame(wanted.start) if wanted.start > 1 else case).capture.save(wanted.out)


if __name__ == "__main__":
    main()
