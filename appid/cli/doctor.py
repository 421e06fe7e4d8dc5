"""`appid doctor`: what stands in the way of a gateway on this host, and what would pass it without being inspected.

Status 0: nothing stands in the way; 1: something does (`appid run` would refuse with 3).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from appid.edge.config import load_config
from appid.edge.doctor import examine
from appid.edge.plan import load_plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-c", dest="config", metavar="FILE", type=Path, help="default: /etc/appid/appid.toml")
    parser.add_argument("--json", action="store_true", help="JSON lines")


def run(arguments: argparse.Namespace) -> int:
    found = examine(load_plan(load_config(arguments.config)))
    for each in found:
        if arguments.json:
            print(json.dumps({"type": "finding", **each._asdict()}, separators=(",", ":")))
        else:
            print(f"{each.weight:<8} {each.about}: {each.text}")
    return int(any(each.weight == "problem" for each in found))
