"""`appid check CAPTURE...`: captures through the engine and a model of the kernel chains. A table, or JSON lines."""

from __future__ import annotations

import argparse
import gc
import json
import sys
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from appid.cli.shown import printable
from appid.dataplane.model import Kernel
from appid.edge import telling
from appid.edge.policy_file import load_policy
from appid.edge.replay import Life, Replay, Replayed
from appid.edge.rule_files import load_applications
from appid.engine import Engine, Settings
from appid.engine.record import DEFAULT_INSIDE
from appid.policy.evaluate import Judge
from appid.policy.places import likely_sides, with_sides, without_interfaces
from appid.policy.rule import Network
from appid.wire import TCP

_ENCODE = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode
_COLLECT = (200_000, 50, 50)
"""New objects until the collector looks for cycles among them, and so many such times until it looks at older ones.
What a capture leaves are flows, not cycles: looking as often as by default costs a tenth of the run."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("captures", nargs="+", metavar="CAPTURE", help="pcap or pcapng, plain or gzipped")
    parser.add_argument("--policy", metavar="FILE", help="judge the flows by this policy (default: allow everything)")
    parser.add_argument("--inside", action="append", metavar="CIDR", type=network, help="an inside network; repeatable")
    parser.add_argument("--rules", metavar="DIR", help="the operator's applications, over the shipped ones by name")
    parser.add_argument("--json", action="store_true", help="JSON lines")
    parser.add_argument("--drops", action="store_true", help="tell each packet that the gateway would not let through")


def network(value: str) -> Network:
    parsed = ip_network(value, strict=False)
    return parsed.network_address.packed, parsed.prefixlen


def run(arguments: argparse.Namespace) -> int:
    settings = settings_of(arguments)
    gc.freeze()
    gc.set_threshold(*_COLLECT)
    status = 0
    for capture in arguments.captures:
        replayed = replay(capture, settings)
        if arguments.json:
            told = lines(replayed, arguments.drops)
            sys.stdout.writelines(_ENCODE(line) + "\n" for line in told)
        else:
            table(replayed, arguments.drops)
        say_unread(replayed)
        if replayed.error is not None:
            print(f"appid: {printable(replayed.error)}", file=sys.stderr)
            status = 2
    return status


def say_unread(replayed: Replayed) -> None:
    """Frames in which nobody looked for IP."""
    for linktype, count in replayed.unread.items():
        print(
            f"appid: {printable(replayed.file)}: {count} frames of link type {linktype} cannot be read", file=sys.stderr
        )


def settings_of(arguments: argparse.Namespace) -> Settings:
    """The settings that the command line asks for; RuleErrors if a file is wrong."""
    applications = load_applications(Path(arguments.rules) if arguments.rules else None)
    inside = tuple(arguments.inside or ())
    if not arguments.policy:
        return Settings(applications, inside=inside or DEFAULT_INSIDE)
    known = with_sides(load_policy(Path(arguments.policy), applications))
    likely = likely_sides(known)
    if likely is not known:
        (first,) = (name for name, zone in likely.zones.items() if not zone.outside)
        print(
            f"appid: {arguments.policy}: which zone is outside a capture does not show (write outside = true): "
            f"taken for inside: {first}",
            file=sys.stderr,
        )
    policy = without_interfaces(likely, inside or DEFAULT_INSIDE)
    zoned = tuple(network for zone in policy.zones.values() if not zone.outside for network in zone.networks)
    return Settings(applications, Judge(policy, applications), inside or zoned or DEFAULT_INSIDE)


def replay(capture: str, settings: Settings) -> Replayed:
    """One capture through a fresh engine, with progress on a terminal."""
    kernel = Kernel(settings.marks, "pass" if settings.judge is None else "drop")
    progress = None
    if sys.stderr.isatty():

        def progress(packets: int) -> None:
            print(f"\r{printable(capture)}: {packets} packets", end="", file=sys.stderr)

    replayed = Replay(Engine(settings), kernel, progress).run(capture)
    if progress is not None and replayed.packets >= 20_000:
        print("\r\033[K", end="", file=sys.stderr)
    return replayed


def lines(replayed: Replayed, drops: bool) -> Iterator[dict[str, Any]]:
    """The JSON lines of one capture, as the interface fixes them."""
    yield {
        "type": "capture", "file": replayed.file, "packets": replayed.packets, "linktype": replayed.linktype,
        "first": _seconds(replayed.first), "last": _seconds(replayed.last),
    }  # fmt: skip
    of_call: dict[int, set[int]] = {call: set() for call in replayed.calls}
    by_engine = {number: life.id for life in replayed.lives for number in life.flows if number}
    for life in replayed.lives:
        yield flow(life)
        if life.call is not None:
            of_call[life.call].add(life.id)
    for report in replayed.calls.values():
        of_call[report.call].update(by_engine[number] for number in report.flows if number in by_engine)
        yield telling.call(report, sorted(of_call[report.call]))
    yield from (telling.pinhole(report) for report in replayed.pinholes.values())
    if drops:
        yield from ({"type": "drop", "packet": p, "flow": f, "rule": r} for p, f, r in replayed.drops)
    for number, anomaly in replayed.anomalies:
        yield {"type": "anomaly", "packet": anomaly.packet, "flow": number, "protocol": anomaly.protocol,
               "reason": anomaly.reason}  # fmt: skip
    yield {
        "type": "summary", "flows": len(replayed.lives), "calls": len(replayed.calls),
        "pinholes": len(replayed.pinholes), "anomalies": replayed.anomaly_count, "packets": replayed.packets,
        "userspace_packets": replayed.userspace_packets, "drops": replayed.dropped,
    }  # fmt: skip


def _seconds(nanoseconds: int | None) -> float | None:
    return None if nanoseconds is None else nanoseconds / 1e9


def flow(life: Life) -> dict[str, Any]:
    report = life.report
    return {
        "type": "flow", "id": life.id, **telling.addresses(life.key), "packets": life.packets, "bytes": life.bytes,
        "first_packet": life.first_packet, "last_packet": life.last_packet,
        **telling.identification(report, "incomplete" if life.key.proto == TCP else "insufficient-data"),
        "userspace_packets": life.queued, "call": life.call, "community_id": telling.community_id(life.key),
        "decision": telling.decision(report.decision if report is not None else None),
    }  # fmt: skip


def table(replayed: Replayed, drops: bool) -> None:
    """The same for people."""
    console = Console(highlight=False, markup=False, emoji=False)  # "fd00:ab::1" holds an emoji's name
    if not console.is_terminal:
        console.width = max(console.width, 400)  # a pipe has no edge: a row stays a line
    told = list(lines(replayed, drops))
    flows = Table(
        title=f"{printable(replayed.file)}: {replayed.packets} packets", title_justify="left", box=None, pad_edge=False
    )
    for name, justify in (("flow", "right"), ("from", "left"), ("to", "left"), ("application", "left"),
                          ("confidence", "left"), ("at", "right"), ("packets", "right"), ("userspace", "right"),
                          ("decision", "left")):  # fmt: skip
        flows.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for line in told:
        if line["type"] == "flow":
            made = line["decision"]
            flows.add_row(
                str(line["id"]), f"{line['src']}:{line['sport']}/{line['proto']}", f"{line['dst']}:{line['dport']}",
                line["application"], line["confidence"] or "-", str(line["identified_at"] or "-"),
                str(line["packets"]), str(line["userspace_packets"]),
                f"{made['action']} ({made['rule']})" if made else "-",
            )  # fmt: skip
    console.print(flows)
    for line in told:
        match line["type"]:
            case "call":
                console.print(
                    f"call {line['id']}: {line['application']}, {line['caller'] or '?'} -> {line['callee'] or '?'}, "
                    f"started at packet {line['started_at']}, answered at {line['answered_at'] or '-'}, "
                    f"{line['end']} at {line['ended_at'] or '-'}, flows {', '.join(map(str, line['flows']))}"
                )
            case "pinhole":
                console.print(
                    f"pinhole {line['id']}: {line['proto']} {line['inside']}:{line['port']} <-> {line['peer']}, "
                    f"{line['reason']}, packets {line['opened_at']} to {line['closed_at'] or '-'}"
                )
            case "drop" | "anomaly":
                rest = " ".join(f"{key} {value}" for key, value in line.items() if key != "type")
                console.print(f"{line['type']}: {rest}")
            case "summary":
                console.print(", ".join(f"{value} {key}" for key, value in line.items() if key != "type"))
