"""`appid policy test FILE CAPTURE [--against OLD]`: what a policy would do to a capture, per flow, and by which rule.

Status: 0 done, with --against no difference; 1 with --against, flows that differ; 2 a file cannot be used.
Two policies differ on a flow in its name, its decision (the action and the rule behind it: the same action by another
rule is a difference too), the packets that it loses, or the DSCP and mark that the others get.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from appid.cli import check
from appid.edge.config import load_config
from appid.edge.errors import RuleError, RuleErrors
from appid.edge.replay import Replayed
from appid.engine import Settings
from appid.flow.key import FlowKey
from appid.policy.rule import Network, Qos

Flow = dict[str, Any]
_VIEW = ("application", "decision", "dropped", "dscp", "mark")
_ENDS = ("proto", "src", "sport", "dst", "dport")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", type=Path)
    parser.add_argument("capture", metavar="CAPTURE", help="pcap or pcapng, plain or gzipped")
    parser.add_argument("--against", metavar="OLD", type=Path, help="another policy: only what differs from it is told")
    parser.add_argument("--inside", action="append", metavar="CIDR", type=check.network,
                        help="an inside network; repeatable (default: the networks of the zones)")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="JSON lines")
    parser.add_argument("--rules", metavar="DIR", type=Path, help="the operator's applications (default: configured)")


def run(arguments: argparse.Namespace) -> int:
    policies = [arguments.file, *([arguments.against] if arguments.against else [])]
    rules = arguments.rules or load_config().rules
    settings = list(_settings(policies, arguments.inside, rules))
    replayed = [check.replay(arguments.capture, each) for each in settings]
    found = [list(flows(each, by)) for each, by in zip(replayed, settings, strict=True)]
    told = found[0] if len(found) == 1 else list(differences(found[1], found[0]))
    summary = {
        "type": "summary", "flows": len(found[0]), "packets": replayed[0].packets, "dropped": replayed[0].dropped,
        **({"differences": len(told)} if arguments.against else {}),
    }  # fmt: skip
    if arguments.json:
        for line in (*told, summary):
            print(json.dumps(line, separators=(",", ":")))
    elif arguments.against:
        _differences(told, summary)
    else:
        _flows(told, summary)
    error = next((each.error for each in replayed if each.error is not None), None)
    if error is not None:
        print(f"appid: {error}", file=sys.stderr)
        return 2
    return 1 if arguments.against and told else 0


def _settings(policies: list[Path], inside: list[Network] | None, rules: Path) -> Iterator[Settings]:
    """Those of each policy; RuleErrors with the faults of all."""
    faults: list[RuleError] = []
    for file in policies:
        try:
            yield check.settings_of(argparse.Namespace(policy=str(file), inside=inside, rules=rules))
        except RuleErrors as errors:
            faults += [fault for fault in errors.errors if fault not in faults]
    if faults:
        raise RuleErrors(faults)


def flows(replayed: Replayed, settings: Settings) -> Iterator[Flow]:
    """Each flow of the capture with its decision, and how many of its packets would not have passed. `decision` None:
    it ended while its name was open, and passed so far."""
    judge = settings.judge
    assert judge is not None
    for life in replayed.lives:
        line = check.flow(life)
        made = life.report.decision if life.report is not None else None
        rule = judge.rule_of(made) if made is not None and made.action == "allow" else None
        yield {
            "type": "flow", "id": life.id, **{key: line[key] for key in _ENDS}, "packets": life.packets,
            "first_packet": life.first_packet, "application": line["application"], "decision": line["decision"],
            "dropped": life.dropped, **_qos(rule.qos if rule is not None else None),
            "community_id": line["community_id"],
        }  # fmt: skip


def _qos(given: Qos | None) -> Flow:
    mark = given.mark if given is not None else None
    return {
        "dscp": given.dscp if given is not None else None,
        "mark": f"{mark.value:#x}/{mark.mask:#x}" if mark is not None else None,
    }


def differences(old: list[Flow], new: list[Flow]) -> Iterator[Flow]:
    """The flows on which they differ, as the new policy sees them; `was` is the old policy's view."""
    before = {_identity(flow): flow for flow in old}
    for flow in new:
        was = before.pop(_identity(flow), None)
        if was is None or _view(was) != _view(flow):
            yield {**flow, "type": "difference", "was": _view(was)}
    for gone in before.values():  # the kernel saw it as one flow more
        nothing = dict.fromkeys(_VIEW) | {"application": gone["application"], "dropped": 0}
        yield {**gone, "type": "difference", **nothing, "was": _view(gone)}


def _identity(flow: Flow) -> tuple[FlowKey | Any, ...]:
    return (flow["first_packet"], *(flow[key] for key in _ENDS))


def _view(flow: Flow | None) -> Flow | None:
    return None if flow is None else {key: flow[key] for key in _VIEW}


def _said(flow: Flow | None) -> str:
    if flow is None or flow["decision"] is None:
        return "undecided"
    made = f"{flow['decision']['action']} ({flow['decision']['rule']})"
    return made + "".join(f", {key} {flow[key]}" for key in ("dscp", "mark") if flow[key] is not None)


def _beside(flow: Flow, key: str) -> str:
    """What it is, and what it was where that differs."""
    was = (flow.get("was") or flow)[key]
    return str(flow[key]) if was == flow[key] else f"{was} -> {flow[key]}"


def _table(flows: list[Flow], columns: tuple[str, ...]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("flow", "from", "to", "application", "packets", "dropped", *columns):
        right = column in ("flow", "packets", "dropped")
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    for flow in flows:
        views = (_said(flow["was"]), _said(flow)) if len(columns) == 2 else (_said(flow),)
        table.add_row(
            str(flow["id"]), f"{flow['src']}:{flow['sport']}/{flow['proto']}", f"{flow['dst']}:{flow['dport']}",
            _beside(flow, "application"), str(flow["packets"]), _beside(flow, "dropped"), *views,
        )  # fmt: skip
    return table


def _console() -> Console:
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = max(console.width, 400)  # a pipe has no edge: a row stays a line
    return console


def _flows(told: list[Flow], summary: Flow) -> None:
    console = _console()
    console.print(_table(told, ("decision",)))
    console.print(f"{summary['flows']} flows, {summary['dropped']} of {summary['packets']} packets dropped")


def _differences(told: list[Flow], summary: Flow) -> None:
    console = _console()
    if told:
        console.print(_table(told, ("was", "becomes")))
    console.print(f"{summary['differences']} of {summary['flows']} flows differ")
