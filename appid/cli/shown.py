"""What the running gateway answers, for people: which of it is wanted, and the cells of a row.

In: answers of the control socket (docs/reference/json.md). Out: the same that a filter lets pass; columns for a table.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any, NamedTuple

Answer = dict[str, Any]
Network = IPv4Network | IPv6Network

_ADDRESSES = ("src", "dst", "caller", "callee", "inside", "peer")


class Filter(NamedTuple):
    """What to show; None: any. `host` is at either end. `state` is what `state` below says of an answer."""

    application: str | None = None
    host: Network | None = None
    state: str | None = None
    call: int | None = None

    def keeps(self, answer: Answer) -> bool:
        return (
            (self.application is None or application(answer) == self.application)
            and (self.host is None or any(_within(answer.get(name), self.host) for name in _ADDRESSES))
            and (self.state is None or state(answer) == self.state)
            and (self.call is None or answer.get("id" if answer.get("type") == "call" else "call") == self.call)
        )


STATES = {
    "flows": ("undecided", "allow", "deny", "drop", "ended"),
    "calls": ("open", "bye", "cancelled", "refused", "lost"),
    "pinholes": ("open", "closed"),
}


def add_arguments(parser: argparse.ArgumentParser, *views: str) -> None:
    """The options that make a Filter, for what is shown in these views."""
    states = {view: STATES[view] for view in views or STATES}
    parser.add_argument("--application", metavar="NAME", help="of this application")
    parser.add_argument("--host", metavar="ADDRESS", type=_network, help="with this end, or one in this network")
    parser.add_argument(
        "--state", metavar="STATE", choices=list(dict.fromkeys(each for known in states.values() for each in known)),
        help="; ".join(f"{view}: {', '.join(known)}" for view, known in states.items()),
    )  # fmt: skip
    parser.add_argument("--call", metavar="N", type=int, help="of this call")


def filter_of(arguments: argparse.Namespace) -> Filter:
    return Filter(arguments.application, arguments.host, arguments.state, arguments.call)


def _network(text: str) -> Network:
    try:
        return ip_network(text, strict=False)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _within(address: object, network: Network) -> bool:
    return isinstance(address, str) and ip_address(address) in network


def application(answer: Answer) -> str | None:
    """A pinhole's is its call's."""
    named = answer.get("application")
    return named if isinstance(named, str) else None


def state(answer: Answer) -> str:
    """A flow: ended, undecided, or the action that decided it. A call: how it ended. A pinhole: open, closed."""
    match answer.get("type"):
        case "flow":
            made = answer.get("decision")
            if answer.get("alive") is False:
                return "ended"
            return str(made["action"]) if made else "undecided"
        case "call":
            return str(answer.get("end"))
        case _:
            return "closed" if answer.get("closed_at") is not None else "open"


class Column(NamedTuple):
    """`cell`: what a row shows; `key`: by what rows are sorted; `width`: the most it takes, in characters."""

    title: str
    cell: Callable[[Answer], str]
    key: Callable[[Answer], Any]
    width: int = 24
    right: bool = False
    grows: bool = False
    """Takes more where a terminal has it: an address."""


def end(address: object, port: object) -> str:
    """An end as `address:port`, or the address alone."""
    if address is None:
        return "-"
    if port is None:
        return str(address)
    return f"[{address}]:{port}" if ":" in str(address) else f"{address}:{port}"


def size(count: float | None) -> str:
    """Bytes, in four or five characters: 0, 999, 1.2k, 45k, 3.4M."""
    if count is None:
        return "-"
    for unit in ("", "k", "M", "G"):
        if count < 999.5 or unit == "G":
            return f"{count:.1f}{unit}" if unit and count < 9.95 else f"{count:.0f}{unit}"
        count /= 1000
    raise AssertionError


def decision(answer: Answer) -> str:
    made = answer.get("decision")
    return f"{made['action']} ({made['rule']})" if made else "-"


def printable(text: object) -> str:
    """Text of a sender, without what a terminal would obey."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in str(text))


def _text(name: str, title: str = "", width: int = 24) -> Column:
    def cell(answer: Answer) -> str:
        return "-" if answer.get(name) is None else printable(answer[name])

    return Column(title or name, cell, cell, width)


def _number(name: str, title: str = "", width: int = 7) -> Column:
    def cell(answer: Answer) -> str:
        return "-" if answer.get(name) is None else str(answer[name])

    return Column(title or name, cell, lambda a: -1 if a.get(name) is None else a[name], width, right=True)


def _bytes(name: str, title: str) -> Column:
    return Column(title, lambda a: size(a.get(name)), lambda a: -1 if a.get(name) is None else a[name], 5, right=True)


def _end(title: str, address: str, port: str | None, width: int = 21) -> Column:
    def value(answer: Answer) -> tuple[Any, Any]:
        return answer.get(address), answer.get(port) if port is not None else None

    return Column(title, lambda a: end(*value(a)), lambda a: tuple(map(str, value(a))), width, grows=True)


_STATE = Column("state", state, state, 9)
_DECISION = Column("decision", decision, decision, 40)
_RATE = _bytes("rate", "B/s")

COLUMNS: dict[str, tuple[Column, ...]] = {
    "flows": (
        _number("id", width=5), _text("application", width=14), _text("confidence", width=10), _text("proto", width=4),
        _end("from", "src", "sport"), _end("to", "dst", "dport"), _number("packets"), _bytes("bytes", "bytes"),
        _number("userspace_packets", "userspace", 9), _number("call", width=4), _STATE, _DECISION,
    ),
    "calls": (
        _number("id", width=5), _text("application", width=14), _end("caller", "caller", None),
        _end("callee", "callee", None), _number("started_at", "started"), _number("answered_at", "answered"),
        _number("ended_at", "ended"), _STATE,
        Column("flows", lambda a: str(len(a.get("flows", ()))), lambda a: len(a.get("flows", ())), 5, right=True),
    ),
    "pinholes": (
        _number("id", width=5), _text("proto", width=5), _end("inside", "inside", "port"),
        _end("peer", "peer", "peer_port"),
        _text("reason", width=14), _number("opened_at", "opened"), _number("closed_at", "closed"),
        _number("call", width=4), _STATE,
    ),
}  # fmt: skip
"""Every view's columns, as `appid flows | calls | pinholes` print them."""

_NAME = _text("application", width=12)

LIVE: dict[str, tuple[Column, ...]] = {
    "flows": (_NAME, _end("from", "src", "sport"), _end("to", "dst", "dport"), _RATE, _STATE),
    "calls": (
        _number("id", width=4), _NAME, _end("caller", "caller", None, 14), _end("callee", "callee", None, 14), _RATE,
        _bytes("bytes", "bytes"), _STATE,
    ),
    "pinholes": (
        _end("inside", "inside", "port"), _end("peer", "peer", "peer_port", 15), _text("reason", width=12), _RATE,
        _number("call", width=4), _STATE,
    ),
}  # fmt: skip
"""The columns of `appid top`: 80 characters are enough for them."""


GAP = 2
"""Characters between two columns."""


def fitted(columns: tuple[Column, ...], room: int) -> tuple[Column, ...]:
    """The columns as wide as `room` characters allow, none narrower than it is; an arrow fits behind each title."""
    columns = tuple(column._replace(width=max(column.width, len(column.title) + 2)) for column in columns)
    spare = room - sum(column.width + GAP for column in columns)
    growing = sum(column.grows for column in columns)
    more = min(spare // growing, 26) if growing and spare > 0 else 0  # an IPv6 address and its port take 47
    return tuple(column._replace(width=column.width + more) if column.grows else column for column in columns)


def rows(columns: tuple[Column, ...], answers: Iterable[Answer], narrow: bool = False) -> list[list[str]]:
    """Cells, a list for each answer; `narrow`: each at most its column's width."""
    return [
        [_cut(column.cell(answer), column.width) if narrow else column.cell(answer) for column in columns]
        for answer in answers
    ]


def _cut(cell: str, width: int) -> str:
    """Too long, it loses its middle."""
    if len(cell) <= width:
        return cell
    head = (width - 1) // 2
    return f"{cell[:head]}…{cell[head + 1 - width :]}"
