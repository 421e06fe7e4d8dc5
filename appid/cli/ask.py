"""`appid flows | calls | pinholes | stats`: asks the running gateway over its control socket; a table, or JSON."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from appid.cli import shown
from appid.cli.shown import COLUMNS, Column, printable
from appid.edge.config import load_config
from appid.edge.control import ask


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-c", dest="config", metavar="FILE", type=Path, help="appid.toml of the gateway")
    parser.add_argument("--json", action="store_true", help="JSON lines")
    view = parser.prog.rpartition(" ")[2]
    if view in COLUMNS:
        shown.add_arguments(parser, view)


def run(arguments: argparse.Namespace) -> int:
    control = load_config(arguments.config).control
    told = ask(control, {"ask": arguments.command})
    answers = [answer for answer in told if answer.get("type") != "error"]
    refused = len(told) - len(answers)
    if arguments.command in COLUMNS:
        wanted = shown.filter_of(arguments)
        answers = [answer for answer in answers if wanted.keeps(answer)]
    if arguments.json:
        for answer in answers:
            print(json.dumps(answer, separators=(",", ":")))
    elif arguments.command in COLUMNS:
        _table(COLUMNS[arguments.command], answers)
    else:
        for answer in answers:
            for name, value in answer.items():
                print(f"{name}: {plain(value)}")
    for answer in told:
        if answer.get("type") == "error":
            print(f"appid: {answer.get('reason')}", file=sys.stderr)
    return 1 if refused else 0


def plain(value: object) -> str:
    """A count, a table of counts in one line, or a list with a line for each."""
    match value:
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:,.3f}"
        case int():
            return f"{value:,}"
        case dict():
            inner = (f"{name} ({plain(one)})" if isinstance(one, dict) else f"{name} {plain(one)}"
                     for name, one in value.items())  # fmt: skip
            return ", ".join(inner) or "none"
        case list():
            return "".join(f"\n  {plain(one)}" for one in value) or "none"
        case _:
            return "-" if value is None else printable(value)


def _table(columns: tuple[Column, ...], answers: list[dict[str, Any]]) -> None:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column.title, justify="right" if column.right else "left", overflow="fold")
    for row in shown.rows(columns, answers):
        table.add_row(*row)
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = max(console.width, 400)  # a pipe has no edge: a row stays a line
    console.print(table)
