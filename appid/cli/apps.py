"""`appid apps [NAME]`: the applications known; one in full, with where each signature comes from."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from appid.edge.config import load_config
from appid.edge.rule_files import load_applications
from appid.identify.application import Application, Condition, PortRange, Signature
from appid.wire import TCP, text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="one application, in full")
    parser.add_argument("--rules", metavar="DIR", type=Path, help="the operator's applications (default: configured)")
    parser.add_argument("--json", action="store_true", help="JSON lines")


def run(arguments: argparse.Namespace) -> int:
    applications = load_applications(arguments.rules or load_config().rules)
    if arguments.name is None:
        if arguments.json:
            sys.stdout.writelines(json.dumps(_whole(one)) + "\n" for one in applications.values())
        else:
            _table(applications.values())
        return 0
    application = applications.get(arguments.name)
    if application is None:
        print(f"appid: no application {arguments.name!r}", file=sys.stderr)
        return 1
    print(json.dumps(_whole(application)) if arguments.json else "\n".join(_page(application)))
    return 0


def _table(applications: Iterable[Application]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("name", "category", "risk", "number", "signatures", "default ports", "description"):
        table.add_column(column, no_wrap=column == "name", justify="right" if column in ("risk", "number") else "left")
    for one in applications:
        table.add_row(
            one.name, one.category, str(one.risk), str(one.number), str(len(_distinct(one.signatures))),
            ports_text(one.default_ports) or "-", one.description,
        )  # fmt: skip
    Console(highlight=False, width=None if sys.stdout.isatty() else 200).print(table)


def _page(one: Application) -> Iterable[str]:
    yield f"{one.name}: {one.description}"
    rows = (
        ("category", one.category),
        ("risk", str(one.risk)),
        ("number", str(one.number)),
        ("characteristics", ", ".join(one.characteristics)),
        ("default ports", ports_text(one.default_ports)),
        ("media ports", ports_text(one.media_ports)),
        ("begun outside", "only where a call foresaw it" if one.inbound == "foreseen" else "any"),
        ("may become", ", ".join(one.may_become)),
        ("depends on", ", ".join(one.depends_on)),
        ("implicit use", ", ".join(dict.fromkeys(entry.application for entry in one.implicit))),
        ("watched", _watched(one)),
        ("references", "; ".join(one.references)),
    )
    yield from (f"  {name:<16} {value}" for name, value in rows if value)
    for title, signatures in (("signatures", one.signatures), ("excluded by", one.excluded_by)):
        for signature, alternatives in _distinct(signatures):
            yield ""
            yield f"  {title.removesuffix('s')} {signature.name} ({signature.strength}, {signature.scope} scope)"
            yield f"    era    {signature.era}"
            if signature.date:
                yield f"    seen   {signature.date}"
            yield f"    source {signature.source}"
            for conditions in zip(*(other.conditions for other in alternatives), strict=True):
                values = list(dict.fromkeys(value_text(c) for c in conditions))
                yield f"    {conditions[0].fact} {conditions[0].operator} {' or '.join(values)}"


def _watched(one: Application) -> str:
    if not one.watch:
        return "no"
    unread = sorted({s.era for s in one.signatures if not s.watch} - {s.era for s in one.signatures if s.watch})
    return "yes: its signalling can be read" + (f", but not that of {', '.join(unread)}" if unread else "")


def _distinct(signatures: Iterable[Signature]) -> list[tuple[Signature, list[Signature]]]:
    """Signatures by name: one over several networks is one for people."""
    named: dict[str, list[Signature]] = {}
    for signature in signatures:
        named.setdefault(signature.name, []).append(signature)
    return [(group[0], group) for group in named.values()]


def value_text(condition: Condition) -> str:
    value: Any = condition.value
    if condition.operator == "within" and isinstance(value[0], bytes):
        return f"{text(value[0])}/{value[1]}"
    if condition.operator == "within":
        return f"{value[0]}-{value[1]}"
    if isinstance(value, bytes):
        return value.hex()
    if condition.fact == "stun.attribute" and value is not True:
        return f"{value:#06x}"
    return json.dumps(value, default=bytes.hex)


def ports_text(ports: Iterable[PortRange]) -> str:
    shown = []
    for proto, first, last in ((p.proto, p.first, p.last) for p in ports):
        name = "tcp" if proto == TCP else "udp"
        shown.append(f"{name}/{first}" if first == last else f"{name}/{first}-{last}")
    return ", ".join(shown)


def _whole(one: Application) -> dict[str, Any]:
    def signatures(given: tuple[Signature, ...]) -> list[dict[str, Any]]:
        return [
            {
                "name": s.name, "strength": s.strength, "scope": s.scope, "era": s.era, "date": s.date,
                "source": s.source, "watch": one.watch and s.watch,
                "match": [{"fact": c.fact, c.operator: value_text(c)} for c in s.conditions],
            }
            for s in given
        ]  # fmt: skip

    return {
        "type": "application", "name": one.name, "number": one.number, "description": one.description,
        "category": one.category, "risk": one.risk, "characteristics": one.characteristics,
        "default_ports": ports_text(one.default_ports), "media_ports": ports_text(one.media_ports),
        "inbound": one.inbound, "may_become": one.may_become, "depends_on": one.depends_on,
        "implicit": [{"application": i.application, "ports": ports_text(i.ports), "provisional": i.provisional}
                     for i in one.implicit],
        "watch": one.watch, "references": one.references,
        "signatures": signatures(one.signatures), "excluded_by": signatures(one.excluded_by),
    }  # fmt: skip
