"""The live table: flow, application, confidence, decision, packets, packets seen by userspace.

In: a running gateway, asked over its control socket, and the kernel's own counters. Out: a table on the terminal; where
there is no terminal, the last state once.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from tests.lab.gateway import Gateway

EVERY = 2.0
Key = tuple[str, str, str, str, str]
_ENTRY = re.compile(r"\b(tcp|udp)\b.*? src=(\S+) dst=(\S+) sport=(\d+) dport=(\d+)(.*)")


def conntrack_packets(text: str) -> dict[Key, int]:
    """(proto, src, sport, dst, dport) of each entry's original direction -> packets of both directions."""
    found: dict[Key, int] = {}
    for line in text.splitlines():
        if entry := _ENTRY.search(line):
            proto, src, dst, sport, dport, rest = entry.groups()
            found[proto, src, sport, dst, dport] = sum(int(n) for n in re.findall(r"packets=(\d+)", rest))
    return found


def table(title: str, flows: list[dict[str, Any]], counted: dict[Key, int]) -> Table:
    made = Table(title=title, title_justify="left")
    for column in ("flow", "application", "confidence", "decision"):
        made.add_column(column)
    for column in ("packets", "in userspace"):
        made.add_column(column, justify="right")
    for flow in flows:
        key = (flow["proto"], flow["src"], str(flow["sport"]), flow["dst"], str(flow["dport"]))
        decision = flow.get("decision") or {}
        made.add_row(
            f"{key[0]} {key[1]}:{key[2]} > {key[3]}:{key[4]}",
            str(flow.get("application") or ""),
            str(flow.get("confidence") or ""),
            str(decision.get("action") or "provisional"),
            str(max(counted.get(key, 0), int(flow.get("packets") or 0))),
            str(flow.get("userspace_packets") or 0),
        )
    return made


async def _look(gateway: Gateway, title: str) -> Table:
    flows, (_, entries) = await asyncio.gather(
        gateway.query("flows"), gateway.lab.ask("gw", "conntrack", "-L", "-o", "extended")
    )
    kept = [flow for flow in flows if flow.get("type", "flow") == "flow" and "src" in flow]
    return table(title, kept, conntrack_packets(entries))


async def watch(gateway: Gateway, console: Console, title: str) -> None:
    """Until called off; then a last look. Without a terminal, that look alone."""
    if not console.is_terminal:
        try:
            await asyncio.Event().wait()
        finally:
            console.print(await _look(gateway, title))
    with Live(console=console, auto_refresh=False) as live:
        try:
            while True:
                live.update(await _look(gateway, title), refresh=True)
                await asyncio.sleep(EVERY)
        finally:
            live.update(await _look(gateway, title), refresh=True)
