"""What one worker answers over the control socket. In: its engine, its loop, what was told. Out: JSON objects."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from typing import Any

from appid.edge import telling
from appid.edge.conntrack import Entry
from appid.edge.gateway import Gateway
from appid.edge.halves import Halves
from appid.edge.told import Told, Totals
from appid.edge.witness import Witness
from appid.engine import Engine, FlowEnded, FlowReport
from appid.packet import id_of, reversed_id

_NOW = ("type", "packets", "missed", "flows", "calls", "pinholes")


def counts_of(stats: dict[str, Any]) -> dict[str, Any]:
    """Of what `Answers.stats` told, what has happened in that process; not how things are."""
    return {name: value for name, value in stats.items() if name not in _NOW}


class Answers:
    """`flows`, `calls`, `pinholes`, `tale`, `stats`: an iterator of objects each. `enforced`: False in monitor mode."""

    def __init__(
        self, engine: Engine, gateway: Gateway, told: Told, halves: Halves | None = None, enforced: bool = True,
        lost: Callable[[], int] = lambda: 0, witness: Witness | None = None,
    ) -> None:  # fmt: skip
        self.engine = engine
        self.gateway = gateway
        self.told = told
        self.halves = halves or Halves(None, 0)
        self.enforced = enforced
        self.lost = lost
        self.witness = witness

    def answer(self, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        match request.get("ask"):
            case "flows":
                yield from self.flows()
            case "calls":
                yield from self._calls()
            case "pinholes":
                yield from self._pinholes()
            case "tale":
                yield from self.witness.lines(request.get("call")) if self.witness is not None else ()
            case "stats":
                yield self.stats()
            case other:
                yield {"type": "error", "reason": f"{other!r} is nothing to ask for"}

    def _named(self, told: dict[str, Any], key: str) -> dict[str, Any]:
        """By the number that the gateway tells of the call."""
        return {**told, key: self.halves.name(told[key])}

    def _pinholes(self) -> Iterator[dict[str, Any]]:
        for pinhole in self.told.pinholes.values():
            wanted = pinhole.expectation
            moments = self.told.moments(wanted.checked_at, wanted.opened_at, pinhole.closed_at)
            yield {**self._named(telling.pinhole(pinhole), "call"), "times": moments}

    def _calls(self) -> Iterator[dict[str, Any]]:
        """Each with what its flows carried: those that ended, and those that live."""
        carried = {call: replace(totals) for call, totals in self.told.of_call.items()}
        for entry in self.gateway.execute.conntrack.entries() if self.engine.calls.calls.open else ():
            number = self.told.call_of(entry.key)
            if number is not None and self.gateway.options.owns(entry.key):
                carried.setdefault(number, Totals()).add(entry)
        for call in self.told.calls.values():
            totals = carried.get(call.call, Totals())
            told = self._named(telling.call(call, list(call.flows)), "id")
            moments = self.told.moments(call.started_at, call.answered_at, call.ended_at)
            yield {**told, "packets": totals.packets, "bytes": totals.bytes, "times": moments}

    def flows(self) -> Iterator[dict[str, Any]]:
        entries = {id_of(entry.key): entry for entry in self.gateway.execute.conntrack.entries()}
        for identity, report in list(self.told.flows.items()):
            entry = entries.pop(identity, None) or entries.pop(reversed_id(identity), None)
            yield self._flow(report, entry)
        for entry in entries.values():
            if not self.gateway.options.owns(entry.key):
                continue
            foreseen = self.engine.glance(entry.key, 0) if entry.mark & self.engine.settings.marks.state else None
            if foreseen is not None:
                yield self._flow(foreseen, entry)

    def _flow(self, report: FlowReport, entry: Entry | None) -> dict[str, Any]:
        identity = id_of(report.key)
        seen = self.told.userspace.get(identity) or self.told.userspace.get(reversed_id(identity), 0)
        counted: Entry | FlowEnded | None = entry if entry is not None else self.told.ended.get(identity)
        return {
            "type": "flow", "id": report.flow, **telling.addresses(counted.key if counted is not None else report.key),
            "packets": sum(counted.packets) if counted is not None else seen,
            "bytes": sum(counted.bytes) if counted is not None else None,
            **telling.identification(report, ""), "userspace_packets": seen,
            "call": self.halves.name(report.call) if report.call is not None else None,
            "seconds": round(counted.seconds, 3) if counted is not None and counted.seconds else None,
            "community_id": telling.community_id(report.key), "alive": entry is not None,
            "decision": telling.decision(report.decision, self.enforced), "times": self.told.moments(
                *(because.packet for because in report.identification.because),
                *(packet for packet, _ in report.identification.shifts), report.packet,
            ),
        }  # fmt: skip

    def counts(self) -> dict[str, Any]:
        """What has happened in this process."""
        stats, queue = self.gateway.stats, self.gateway.queue
        return {
            "errors": self.gateway.loop.errors + queue.errors, "rescued": stats.rescued, "overruns": queue.overruns,
            "command_failures": stats.command_failures, "flows_ended": stats.ended, "reports": dict(self.told.counts),
            "applications": {name: asdict(totals) for name, totals in sorted(self.told.totals.items())},
            "exceptions": dict(self.told.exceptions), "events_lost": self.lost(),
        }  # fmt: skip

    def stats(self) -> dict[str, Any]:
        tally = self.gateway.queue.tally
        return {
            "type": "stats", "packets": tally.seen, "missed": tally.missed, **self.counts(),
            "flows": len(self.engine.flows), "calls": self.halves.counted(self.engine.calls.calls.open),
            "pinholes": len(self.engine.calls.book.open),
        }  # fmt: skip
