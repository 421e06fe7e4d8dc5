"""What a running gateway tells of a call, back into a tale (plain.py, the other way): its messages, with their times.

In: its lines, of one worker or of several (two inside hosts may have one each), and what is known of the call's flows.
Out: Tale. Packet numbers are each worker's own, so order is by time. RTP is not counted: most of it nobody saw.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from appid.story.lanes import Cast
from appid.story.step import Description, Effect, Fold, FoldLine, Step, Tale
from appid.wire import Endpoint, packed

Line = dict[str, Any]


def retold(told: Line, lines: Iterable[Line], flows: list[Line], pinholes: list[Line],
           inside: Callable[[bytes], bool], flow: int | None = None) -> Tale:  # fmt: skip
    """`flow`: what went in that one alone."""
    tale, cast = Tale(told, flows=flows, pinholes=pinholes), Cast(inside)
    for line in lines:
        match line["type"]:
            case "party":
                _party(cast, line)
            case "step" if flow in (None, line["flow"]):
                tale.items.append(_step(line))
            case "fold":
                fold = _fold(line, flow)
                tale.items += [fold] if fold.lines else []
            case "description" if flow is None:
                encoding = line["encoding"] or ""
                tale.descriptions.append(Description(line["packet"], line["role"], encoding, line["text"]))
            case "untold":
                tale.untold += line["messages"]
    tale.items.sort(key=lambda item: (item.time, item.frame))
    for item in tale.items:
        for one in item.lines.values() if isinstance(item, Fold) else (item,):
            cast.add(one.src, one.dst, one.via)
    caller = told.get("caller")
    tale.parties, tale.lanes = cast.parties(packed(caller) if caller else None)
    return tale


def end(text: str | None) -> Endpoint | None:
    """ "192.0.2.1:5", "[2001:db8::1]:5"."""
    if text is None:
        return None
    host, _, port = text.rpartition(":")
    return Endpoint(packed(host.strip("[]")), int(port))


def _party(cast: Cast, line: Line) -> None:
    """Whom a worker has seen in a role keeps it."""
    known = {"relay": cast.relays, "courier": cast.couriers, "web": cast.web}.get(line["role"])
    for address in line["addresses"]:
        with_port = "]:" in address or (address.count(":") == 1 and "." in address)
        found = end(address) if with_port else Endpoint(packed(address), 0)
        assert found is not None
        if known is not None:
            known[found] = None
        elif line["role"] == "router":
            cast.mapped[found.address] = None


def _nanoseconds(seconds: float | None) -> int:
    return round(seconds * 1e9) if seconds is not None else 0


def _step(line: Line) -> Step:
    effects = (
        Effect(each["kind"], each["text"], tuple((one["signature"], one["facts"]) for one in each["because"]))
        for each in line["effects"]
    )
    return Step(
        line["packet"], _nanoseconds(line["time"]), line["flow"] or 0, end(line["src"]), end(line["dst"]),
        end(line["via"]), line["protocol"], line["what"], tuple(line["details"]), tuple(effects), line["bytes"],
    )  # fmt: skip


def _fold(line: Line, flow: int | None) -> Fold:
    fold = Fold()
    for number, each in enumerate(line["lines"]):
        src, dst = end(each["src"]), end(each["dst"])
        if flow in (None, each["flow"]) and src is not None and dst is not None:
            fold.lines[(number,)] = FoldLine(
                each["flow"] or 0, src, dst, end(each["via"]), each["what"], each["first_packet"], each["last_packet"],
                _nanoseconds(each["first"]), _nanoseconds(each["last"]), each["packets"], each["bytes"],
                set(each["types"]), list(each["frames"]),
            )  # fmt: skip
    return fold
