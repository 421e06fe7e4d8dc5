"""`python -m tests.sip table [ours|kernel|plain ...]`: the cases, gateway by gateway. Needs root. Exit status 0 if ours
passes every case."""

from __future__ import annotations

import argparse
import shutil
import sys

from tests.netns.live import ROOT
from tests.sip.cases import CASES
from tests.sip.table import faults, markdown, measure


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sip", description="SIP user agents through the gateway.")
    parser.add_argument("what", choices=["table"])
    parser.add_argument("kinds", nargs="*", default=["ours", "kernel"], metavar="ours|kernel|plain")
    parser.add_argument("--case", default="", help="only cases whose name has this in it")
    parser.add_argument("--faults", action="store_true", help="each fault of each run as well")
    given = parser.parse_args()
    folder = ROOT / "build" / "sip"
    shutil.rmtree(folder, ignore_errors=True)
    results = measure(given.kinds, folder, [case for case in CASES.values() if given.case in case.name])
    print(markdown(results))
    if given.faults:
        print("\n".join(faults(results)))
    return int(any(result.faults for result in results if result.kind == "ours"))


if __name__ == "__main__":
    sys.exit(main())
