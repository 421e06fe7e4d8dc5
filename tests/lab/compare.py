"""What the gateway said while it ran, against what `appid check` says of the client-side capture afterwards.

In: the gateway's events and its record of queued packets, the capture and its JSON. Out: differences, in words.
Packet numbers mean different files, so packets are matched by their bytes (without TTL and checksums).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.lab.pcap import normalised, packets

Flow = tuple[str, str, int, str, int]
Told = dict[str, Any]


class Frames:
    """Number in the record -> frame in the capture."""

    def __init__(self, record: Path, capture: Path) -> None:
        self.record = {number: normalised(packet) for number, packet in packets(record)}
        self.frames: dict[bytes, int] = {}
        for frame, packet in packets(capture):
            self.frames.setdefault(normalised(packet), frame)

    def frame(self, number: Any) -> Any:
        """None for a number that is none; a text where the packet is not in the capture."""
        if number is None:
            return None
        packet = self.record.get(number)
        if packet is None:
            return f"#{number}, not recorded"
        return self.frames.get(packet, f"#{number}, not in the capture")


def of_check(text: str) -> tuple[dict[Flow, Told], list[Told]]:
    """`appid check --json` -> flows by 5-tuple (the first life of each), pinholes."""
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    flows: dict[Flow, Told] = {}
    for line in lines:
        if line["type"] == "flow":
            flows.setdefault(flow_key(line), line)
    return flows, [line for line in lines if line["type"] == "pinhole"]


def flow_key(told: Told) -> Flow:
    return told["proto"], told["src"], told["sport"], told["dst"], told["dport"]


def of_events(path: Path) -> tuple[dict[Flow, Told], list[Told]]:
    """The gateway's events -> flows by 5-tuple (what was said last), pinholes by id (what was said last)."""
    flows: dict[Flow, Told] = {}
    pinholes: dict[Any, Told] = {}
    for line in path.read_text().splitlines():
        event = json.loads(line)
        kind = event.get("event_type")
        body = event.get(kind) if isinstance(event.get(kind), dict) else None
        if body is None:
            continue
        if kind == "flow":
            ends = (event["proto"].lower(), event["src_ip"], event["src_port"], event["dest_ip"], event["dest_port"])
            flows[ends] = {**flows.get(ends, {}), **body}
        elif kind == "pinhole":
            pinholes[body.get("id")] = {**pinholes.get(body.get("id"), {}), **body}
    return flows, list(pinholes.values())


def differences(
    live: tuple[dict[Flow, Told], list[Told]], checked: tuple[dict[Flow, Told], list[Told]], frames: Frames
) -> tuple[int, list[str]]:
    """How many things were compared, and what differs."""
    compared, wrong = 0, []
    for key, told in live[0].items():
        name = f"{key[0]} {key[1]}:{key[2]} > {key[3]}:{key[4]}"
        back = (key[0], key[3], key[4], key[1], key[2])
        other = checked[0].get(key) or (checked[0].get(back) if told.get("foreseen") else None)
        if other is None:
            wrong.append(f"{name}: {told.get('application')} live, not in the capture")
            continue
        compared += 1
        for field, mine, theirs in _claims(told, other, frames):
            if mine != theirs:
                wrong.append(f"{name}: {field}: live {mine}, checked {theirs}")
    mine = sorted(_pinhole(p, frames.frame(p["opened_at"])) for p in live[1])
    theirs = sorted(_pinhole(p, p["opened_at"]) for p in checked[1])
    if mine != theirs:
        wrong.append(f"pinholes: live {mine}, checked {theirs}")
    return compared + len(theirs), wrong


def _claims(told: Told, other: Told, frames: Frames) -> list[tuple[str, Any, Any]]:
    """(what, live, checked). The kernel lets a foreseen flow's first packet pass unseen: there the engine's first sight
    of it, from either side, is no claim about the flow; that it was identified at its first packet is."""
    names = ("application", told.get("application"), other["application"])
    if told.get("foreseen"):
        return [names, ("identified at its first packet", other["first_packet"], other["identified_at"])]
    return [
        names,
        ("identified at", frames.frame(told.get("identified_at")), other["identified_at"]),
        ("shifts", _shifts(told, frames), [list(shift) for shift in other["shifts"]]),
    ]


def _shifts(told: Told, frames: Frames) -> list[Any]:
    return [[frames.frame(number), application] for number, application in told.get("shifts") or []]


def _pinhole(told: Told, opened: Any) -> tuple[str, ...]:
    return (*(str(told[key]) for key in ("proto", "inside", "port", "peer", "reason")), str(opened))
