"""`appid explain CAPTURE | --live [--call N | --flow N] [--html FILE] [--json]`: why, packet by packet.

A capture runs through the engine as with `appid check`, with an observer that keeps what calls consist of; a running
gateway is asked for what it remembers. Status: 0 done, 1 there is no such call or flow, 2 it cannot be read.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from appid.cli import check
from appid.cli.ladder import draw
from appid.cli.page import page
from appid.cli.shown import printable
from appid.dataplane.model import Kernel
from appid.edge.config import load_config
from appid.edge.control import ask
from appid.edge.replay import Replay, Replayed
from appid.engine import Engine
from appid.engine.record import DEFAULT_INSIDE, Settings, Topology
from appid.story import Story
from appid.story.compose import compose
from appid.story.plain import lines
from appid.story.recall import recall
from appid.story.teller import Storyteller

SPARSE = 10.0
"""Seconds between two lines of progress where there is no terminal to rewrite one."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("capture", nargs="?", metavar="CAPTURE", help="pcap or pcapng, plain or gzipped")
    what.add_argument("--live", action="store_true", help="ask the running gateway what it remembers")
    parser.add_argument("-c", dest="config", metavar="FILE", type=Path, help="appid.toml of the gateway, with --live")
    one = parser.add_mutually_exclusive_group()
    one.add_argument("--call", type=int, metavar="N", help="this call only")
    one.add_argument("--flow", type=int, metavar="N", help="this flow only, whether it belongs to a call or not")
    parser.add_argument("--policy", metavar="FILE", help="judge the flows by this policy (default: allow everything)")
    parser.add_argument("--inside", action="append", metavar="CIDR", type=check.network,
                        help="an inside network; repeatable")  # fmt: skip
    parser.add_argument("--rules", metavar="DIR", help="the operator's applications, over the shipped ones by name")
    parser.add_argument("--json", action="store_true", help="JSON lines")
    parser.add_argument("--html", metavar="FILE", type=Path, help="write it as one self-contained page")


def run(arguments: argparse.Namespace) -> int:
    return _tell(arguments, *(of_gateway(arguments) if arguments.live else of_capture(arguments)))


def _tell(arguments: argparse.Namespace, story: Story, error: object) -> int:
    nothing = error is not None and bool(story.capture) and not story.capture["packets"]
    if arguments.html is not None and not nothing:
        with arguments.html.open("w", encoding="utf-8") as out:
            out.writelines(page(story))
    if arguments.json:
        for line in lines(story):
            print(json.dumps(line, separators=(",", ":")))
    elif arguments.html is None and not nothing:
        draw(Console(highlight=False, markup=False, emoji=False), story)
    if error is not None:
        print(f"appid: {printable(error)}", file=sys.stderr)
        return 2
    asked = next((f"{kind} {n}" for kind in ("call", "flow") if (n := getattr(arguments, kind)) is not None), None)
    if asked is not None and not story.tales:
        where = "of the gateway" if arguments.live else f"in {printable(arguments.capture)}"
        print(f"appid: no {asked} {where}", file=sys.stderr)
        return 1
    return 0


def of_gateway(arguments: argparse.Namespace) -> tuple[Story, object]:
    """What the running gateway remembers, and why some of it is missing."""
    control = load_config(arguments.config).control
    told = [ask(control, {"ask": what}) for what in ("flows", "calls", "pinholes")]
    faults = [str(line["reason"]) for lines in told for line in lines if line["type"] == "error"]
    flows, calls, pinholes = ([line for line in lines if line["type"] != "error"] for lines in told)
    wanted = [call["id"] for call in calls if arguments.call in (None, call["id"])]
    if arguments.flow is not None:
        wanted = [flow["call"] for flow in flows if flow["id"] == arguments.flow and flow["call"] is not None]
    messages = {call: ask(control, {"ask": "tale", "call": call}) for call in wanted}
    faults += [str(line["reason"]) for lines in messages.values() for line in lines if line["type"] == "error"]
    inside = Topology(tuple(arguments.inside or ()) or DEFAULT_INSIDE).inside
    story = recall(flows, calls, pinholes, inside, arguments.call, arguments.flow, messages)
    return story, "; ".join(dict.fromkeys(faults)) or None


def of_capture(arguments: argparse.Namespace) -> tuple[Story, object]:
    """The story of a capture, and what kept it from being read to its end."""
    settings = check.settings_of(arguments)
    gc.freeze()
    gc.set_threshold(50_000)
    teller, replayed = _replayed(arguments, settings)
    _cleared(replayed)
    check.say_unread(replayed)
    story = compose(check.lines(replayed, False), teller, arguments.call)
    if arguments.call is not None or arguments.flow is not None:
        story.others.clear()
    return story, replayed.error


def _replayed(arguments: argparse.Namespace, settings: Settings) -> tuple[Storyteller, Replayed]:
    """Engine and kernel are gone when this returns: of a large capture their tables are as large as what they gave."""
    engine = Engine(settings)
    teller = Storyteller(engine, arguments.flow)
    kernel = Kernel(settings.marks, "pass" if settings.judge is None else "drop")
    replayed = Replay(engine, kernel, progress(arguments.capture), teller).run(arguments.capture)
    engine.on_read = None
    return teller, replayed


def progress(capture: str) -> Callable[[int], None]:
    """Rewrites a line on a terminal; elsewhere says something now and then."""
    capture = printable(capture)
    if sys.stderr.isatty():
        return lambda packets: print(f"\r{capture}: {packets:,} packets", end="", file=sys.stderr, flush=True)
    last = time.monotonic()

    def sparse(packets: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= SPARSE:
            last = now
            print(f"appid: {capture}: {packets:,} packets", file=sys.stderr, flush=True)

    return sparse


def _cleared(replayed: Replayed) -> None:
    if sys.stderr.isatty() and replayed.packets >= 20_000:
        print("\r\033[K", end="", file=sys.stderr)
