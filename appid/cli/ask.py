"""`appid flows | calls | pinholes | stats`: asks the running gateway over its control socket; a table, or JSON."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from appid.edge.config import load_config
from appid.edge.control import ask

_ENDS = ("id", "proto", "src", "sport", "dst", "dport")
_COLUMNS = {
    "flows": (*_ENDS, "application", "confidence", "packets", "userspace_packets"),
    "calls": ("id", "application", "caller", "callee", "started_at", "answered_at", "ended_at", "end"),
    "pinholes": ("id", "proto", "inside", "port", "peer", "reason", "opened_at", "closed_at", "call"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-c", dest="config", metavar="FILE", type=Path, help="appid.toml of the gateway")
    parser.add_argument("--json", action="store_true", help="JSON lines")


def run(arguments: argparse.Namespace) -> int:
    control = load_config(arguments.config).control
    try:
        told = ask(control, {"ask": arguments.command})
    except (FileNotFoundError, ConnectionRefusedError):
        print(f"appid: no gateway answers at {control}", file=sys.stderr)
        return 2
    answers = [answer for answer in told if answer.get("type") != "error"]
    if arguments.json:
        for answer in answers:
            print(json.dumps(answer, separators=(",", ":")))
    elif arguments.command in _COLUMNS:
        _table(_COLUMNS[arguments.command], answers)
    else:
        for answer in answers:
            for name, value in answer.items():
                print(f"{name}: {value}")
    for answer in told:
        if answer.get("type") == "error":
            print(f"appid: {answer.get('reason')}", file=sys.stderr)
    return 1 if len(answers) < len(told) else 0


def _table(columns: tuple[str, ...], answers: list[dict[str, Any]]) -> None:
    table = Table()
    for column in (*columns, "decision"):
        table.add_column(column.replace("_", " "))
    for answer in answers:
        made = answer.get("decision")
        shown = f"{made['action']} ({made['rule']})" if made else "-"
        table.add_row(*("-" if answer.get(c) is None else str(answer.get(c)) for c in columns), shown)
    Console(highlight=False, markup=False, emoji=False).print(table)
