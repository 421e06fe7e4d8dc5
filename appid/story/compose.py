"""Tellings and JSON lines -> Story: the numbers of flows, calls and pinholes are those of the lines, in every view."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from appid.story.step import Fold, Step, Story, Tale
from appid.story.tale import Telling
from appid.story.teller import Storyteller
from appid.wire import packed

VALID = 3
"""Packets that make a stream: of what merely looks like RTP some has an SSRC of its own each (RFC 3550 A.1)."""
OTHERS = 1000
"""Flows of no call that are kept to be listed."""


def compose(lines: Iterable[dict[str, Any]], teller: Storyteller, call: int | None = None) -> Story:
    """`lines`: those of `appid check --json`, in order; `call`: tell of this one only."""
    flows: dict[int, dict[str, Any]] = {}
    calls: list[dict[str, Any]] = []
    pinholes: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    capture: dict[str, Any] = {}
    summary: dict[str, Any] = {}
    for line in lines:
        match line["type"]:
            case "capture":
                capture = line
            case "flow" if line["id"] == teller.wanted or line["call"] is not None:
                flows[line["id"]] = line
            case "flow" if len(others) < OTHERS:
                others.append(line)
            case "call":
                calls.append(line)
            case "pinhole":
                pinholes.append(line)
            case "summary":
                summary = line
    story = Story(capture, [], others, summary, times=teller.times, pinholes=pinholes)
    if teller.wanted is not None:
        if teller.flow is not None and teller.wanted in flows:
            story.tales.append(tale(flows[teller.wanted], teller.flow, [flows[teller.wanted]], []))
    else:
        for told in calls:
            telling = teller.calls.get(told["id"])
            if telling is not None and call in (None, told["id"]):
                mine = [flow for flow in flows.values() if flow["id"] in set(told["flows"])]
                story.tales.append(tale(told, telling, mine, [p for p in pinholes if p["call"] == told["id"]]))
    shown = {flow["id"] for tale in story.tales for flow in tale.flows} | {flow["id"] for flow in others}
    story.spans = {number: (note.first, note.last) for number, note in teller.notes.items() if number in shown}
    return story


def tale(told: dict[str, Any], telling: Telling, flows: list[dict[str, Any]], pinholes: list[dict[str, Any]]) -> Tale:
    """`told`: the JSON line of the call, or of the flow."""
    caller = told.get("caller")
    parties, lanes = telling.cast.parties(packed(caller) if caller else None)
    streams = [each.done(telling.kinds) for each in telling.streams.values() if each.packets >= VALID]
    return Tale(
        told, parties, [_named(item, telling) for item in telling.sorted()], streams, telling.descriptions, flows,
        pinholes, lanes, telling.untold,
    )  # fmt: skip


def _named(item: Step | Fold, telling: Telling) -> Step | Fold:
    """What a description said later of payload types: audio, video."""
    if isinstance(item, Step) and item.kind == "rtp":
        kind = item.what.rpartition(" ")[2]
        known = telling.kinds.get(int(kind)) if kind.isdigit() else None
        return replace(item, what=f"RTP {known + ' ' if known else ''}PT {kind}")
    if isinstance(item, Fold):
        for line in item.lines.values():
            if line.what == "RTP":
                line.types = set(_types(line.types, telling.kinds))
    return item


def _types(numbers: Iterable[str], kinds: dict[int, str]) -> Iterator[str]:
    """{"104", "119", "123"} -> "audio 104 119", "video 123"."""
    of_kind: dict[str, list[int]] = {}
    for number in sorted(int(n) for n in numbers if n.isdigit()):
        of_kind.setdefault(kinds.get(number, "PT"), []).append(number)
    for kind, known in of_kind.items():
        yield f"{kind} {' '.join(map(str, known))}"
