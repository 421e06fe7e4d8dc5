"""`appid rules render | diff | apply | confirm | remove`: the rule sets of iptables, ip6tables, ipset and nft.

render    what the programs take; --static NAME: an application's documented ports instead, for a gateway without engine
diff      what the kernel holds that is not configured (-), and lacks (+); status 1 if there is any
apply     all of it, or the kernel stays as it was (3); --confirm SECONDS: undone again unless confirmed (1)
confirm   keep what an apply --confirm changed
remove    out with all of it
"""

from __future__ import annotations

import argparse
import json
import select
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from appid.dataplane.chain import FAMILIES, Topology, chain_set
from appid.dataplane.diff import differences
from appid.dataplane.render import clear_text, ipset_text, nat_text, restore_text
from appid.dataplane.ruleset import wanted
from appid.dataplane.static import opens, static_set
from appid.edge import guard, iptables, preflight, turn
from appid.edge.config import Config, load_config
from appid.edge.errors import RuleError, RuleErrors
from appid.edge.plan import Plan, load_plan

PARTS = ("ipset", "nft", "iptables", "ip6tables")
COMMANDS = {
    "ipset": ("ipset", "-exist", "restore"), "nft": ("nft", "-f", "-"),
    "iptables": ("iptables-restore", "--noflush"), "ip6tables": ("ip6tables-restore", "--noflush"),
}  # fmt: skip
HELP = {
    "render": "print them, for the programs to read",
    "diff": "compare them with the kernel: status 1 if they differ",
    "apply": "put them into the kernel: all of them, or none",
    "confirm": "keep what `apply --confirm` changed",
    "remove": "take them out of the kernel",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, text in HELP.items():
        action = actions.add_parser(name, help=text, description=text.capitalize() + ".")
        action.add_argument("-c", dest="config", metavar="FILE", type=Path, help="default: /etc/appid/appid.toml")
        action.add_argument("--json", action="store_true", help="JSON lines")
        if name == "render":
            action.add_argument("--part", choices=PARTS, help="only what this program reads")
            action.add_argument(
                "--static", metavar="NAME", help="an application's documented ports, without the engine"
            )
        if name == "apply":
            action.add_argument("--confirm", metavar="SECONDS", type=_seconds, help="undo it unless confirmed by then")


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 1 <= value <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds between 1 and 86400")
    return value


def run(arguments: argparse.Namespace) -> int:
    config = load_config(arguments.config)
    match arguments.action:
        case "confirm":
            return _confirm(arguments, config)
        case "remove":
            return _remove(arguments, config)
        case "render":
            return _render(arguments, load_plan(config))
        case "diff":
            return _diff(arguments, load_plan(config))
    return _apply(arguments, load_plan(config))


def _orderly() -> None:
    """The end of the session is an error like others: what was changed half way is undone before the command goes."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _ended)


def _ended(number: int, _frame: object) -> None:
    for each in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    sys.exit(128 + number)


def _place(config: Config) -> Path:
    """Where the guard of an unconfirmed change listens."""
    return config.control.parent / "rules.sock"


def _tell(arguments: argparse.Namespace, state: str, words: str, **more: Any) -> None:
    if arguments.json:
        print(json.dumps({"type": "rules", "state": state, **more}, separators=(",", ":")), flush=True)
    else:
        print(words, flush=True)


# -- render, diff -------------------------------------------------------------------------------------------------


def _render(arguments: argparse.Namespace, plan: Plan) -> int:
    topology = plan.topology()
    parts = _parts(topology) if arguments.static is None else _static(arguments.static, plan, topology)
    for name, text in parts:
        if arguments.part not in (None, name):
            continue
        if arguments.json:
            line = {"type": "rules", "state": "rendered", "part": name, "command": COMMANDS[name], "text": text}
            print(json.dumps(line, separators=(",", ":")))
        else:
            print(f"# {' '.join(COMMANDS[name])}\n{text}", end="" if arguments.part else "\n")
    return 0


def _parts(topology: Topology) -> Iterator[tuple[str, str]]:
    families = [chain_set(topology, family) for family in FAMILIES]
    yield "ipset", "".join(ipset_text(rules.sets) for rules in families)
    yield "nft", clear_text(topology.marks) + nat_text()
    yield from zip(PARTS[2:], map(restore_text, families), strict=True)


def _static(name: str, plan: Plan, topology: Topology) -> Iterator[tuple[str, str]]:
    application = plan.applications.get(name)
    if application is None or not application.default_ports:
        reason = "no such application" if application is None else "its file documents no ports"
        raise RuleErrors([RuleError("--static", "", name, reason)])
    said = "".join(f"# {line}\n" for line in opens(application, topology))
    for part, family in zip(PARTS[2:], FAMILIES, strict=True):
        yield part, said + restore_text(static_set(application, topology, family))


def _diff(arguments: argparse.Namespace, plan: Plan) -> int:
    found = differences(wanted(plan.topology(), iptables.variant_of(plan.config.iptables)), iptables.read())
    for each in found:
        if arguments.json:
            print(json.dumps({"type": "difference", **each._asdict()}, separators=(",", ":")))
        else:
            print(each)
    if not found and not arguments.json:
        print("the kernel holds what is configured")
    return 1 if found else 0


# -- apply, remove ------------------------------------------------------------------------------------------------


def _apply(arguments: argparse.Namespace, plan: Plan) -> int:
    place = _place(plan.config)
    if _waits(place):
        return 1
    _orderly()
    topology, variant = plan.topology(), iptables.variant_of(plan.config.iptables)
    with turn.taken(turn.beside(plan.config.control), "appid rules apply") as held:
        if turn.gateway_runs(plan.config.control) and differences(wanted(topology, variant), iptables.read()):
            print("appid: a gateway runs, and keeps its own rules in force: reload it, or stop it", file=sys.stderr)
            return 1
        preflight.check(topology, variant, starting=False)
        if arguments.confirm is None:
            iptables.apply(topology, variant)
            _tell(arguments, "applied", f"in force: iptables-{variant}, IPv4 and IPv6", variant=variant)
            return 0
        with guard.guarded(iptables.read(), arguments.confirm, place, held):
            iptables.apply(topology, variant)
    here = "Enter here, or `appid rules confirm` elsewhere," if sys.stdin.isatty() else "`appid rules confirm`"
    words = f"in force for {arguments.confirm:g} s; {here} keeps it"
    _tell(arguments, "applied", words, variant=variant, seconds=arguments.confirm)
    return _outcome(arguments, place)


def _outcome(arguments: argparse.Namespace, place: Path) -> int:
    """Wait for Enter at a terminal (a script's next line is none), or for what becomes of it otherwise."""
    try:
        answer = guard.say(place, "wait")
    except OSError:
        return _told(arguments, guard.UNDONE)
    sources: list[Any] = [answer, *([sys.stdin] if sys.stdin.isatty() else [])]
    while answer not in (ready := select.select(sources, [], [])[0]):
        if sys.stdin in ready:
            sources.remove(sys.stdin)
            if sys.stdin.readline():  # an empty one is the end of input: nobody is there to press a key
                return _confirm(arguments, None, place)
    return _told(arguments, guard.outcome(answer))


def _confirm(arguments: argparse.Namespace, config: Config | None, place: Path | None = None) -> int:
    try:
        answer = guard.say(place or _place(config or Config()), "confirm")
    except OSError:
        print("appid: nothing waits to be confirmed", file=sys.stderr)
        return 1
    return _told(arguments, guard.outcome(answer))


def _told(arguments: argparse.Namespace, outcome: str) -> int:
    if outcome == guard.CONFIRMED:
        _tell(arguments, outcome, "confirmed: it stays")
        return 0
    if outcome == guard.UNDONE:
        _tell(arguments, outcome, "not confirmed: the rules of before are back")
        return 1
    print(f"appid: not confirmed, and it could not be undone: {outcome}", file=sys.stderr)
    return 3


def _remove(arguments: argparse.Namespace, config: Config) -> int:
    if _waits(_place(config)):
        return 1
    with turn.taken(turn.beside(config.control), turn.REMOVE):
        iptables.remove()
    if turn.gateway_runs(config.control):
        print("appid: a gateway runs, and judges nothing from now on, until it is reloaded", file=sys.stderr)
    _tell(arguments, "removed", "nothing of appid is left in the kernel")
    return 0


def _waits(place: Path) -> bool:
    if not guard.pending(place):
        return False
    print("appid: a change waits for `appid rules confirm`, or to be undone", file=sys.stderr)
    return True
