"""What was told of flows, calls and pinholes, kept for who asks.

In: the engine's reports, queued packets, flow ends. Out: bounded tables, the one written longest ago gives way.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from appid.dataplane.command import Command, Report
from appid.edge.conntrack import Entry
from appid.edge.metrics import Metrics
from appid.engine import CallReport, DecisionReport, Engine, Event, FlowEnded, FlowReport, PinholeReport
from appid.flow.key import FlowKey
from appid.packet import flow_id, id_of, reversed_id
from appid.policy.exception import Cause

REMEMBERED = 4096
"""Flows, calls and pinholes that the control socket can still tell of."""


@dataclass(slots=True)
class Totals:
    """Of flows that ended, as the kernel counted them; seconds are those of all flows together."""

    flows: int = 0
    packets: int = 0
    bytes: int = 0
    seconds: float = 0.0

    def plus(self, other: Totals) -> Totals:
        return Totals(
            self.flows + other.flows, self.packets + other.packets, self.bytes + other.bytes,
            self.seconds + other.seconds,
        )  # fmt: skip

    def add(self, flow: FlowEnded | Entry) -> None:
        self.flows += 1
        self.packets += sum(flow.packets)
        self.bytes += sum(flow.bytes)
        self.seconds += flow.seconds


class Told:
    """What was reported last of flows, calls and pinholes, and how often userspace saw each flow; bounded."""

    def __init__(self) -> None:
        self.flows: OrderedDict[bytes, FlowReport] = OrderedDict()
        self.calls: OrderedDict[int, CallReport] = OrderedDict()
        self.pinholes: OrderedDict[int, PinholeReport] = OrderedDict()
        self.userspace: OrderedDict[bytes, int] = OrderedDict()
        self.ended: OrderedDict[bytes, FlowEnded] = OrderedDict()
        self.kinds: OrderedDict[tuple[bytes, int, bytes], tuple[int, str, str]] = OrderedDict()
        self.media: OrderedDict[tuple[bytes, int, bytes], int] = OrderedDict()
        self.totals: dict[str, Totals] = {}
        self.of_call: OrderedDict[int, Totals] = OrderedDict()
        self.counts: Counter[str] = Counter()
        self.times: OrderedDict[int, float] = OrderedDict()
        """Of packets that changed something."""
        self.exceptions: Counter[Cause] = Counter()

    def report(self, report: Report) -> None:
        self.counts[report.kind] += 1
        match report.body:
            case FlowReport() as flow:
                before = self.of(flow.key)
                if before is not None and before.flow != flow.flow:
                    self._begins_anew(flow)
                _remember(self.flows, id_of(flow.key), flow)
                if flow.decision is not None:
                    self.counts[f"decision {flow.decision.action}"] += 1
            case CallReport() as call if call.into is not None:
                self._join(call.call, call.into)
            case CallReport() as call:
                _remember(self.calls, call.call, call)
            case PinholeReport() as pinhole:
                _remember(self.pinholes, pinhole.pinhole, pinhole)
                wanted = pinhole.expectation
                place = (wanted.inside, wanted.port, wanted.peer)
                _remember(self.kinds, place, (wanted.call, wanted.application, wanted.kind))
                _remember(self.media, place, wanted.call)

    def _join(self, call: int, into: int) -> None:
        """What was told of a call is told of the one that it is part of."""
        self.calls.pop(call, None)
        for identity, flow in self.flows.items():
            if flow.call == call:
                self.flows[identity] = flow._replace(call=into)
        for place, number in self.media.items():
            if number == call:
                self.media[place] = into
        totals = self.of_call.pop(call, None)
        if totals is not None:
            self.of_call[into] = totals.plus(self.of_call.get(into, Totals()))

    def _begins_anew(self, flow: FlowReport) -> None:
        """Its 5-tuple had another life: what that carried, and how often it was seen, is not this one's."""
        identity = id_of(flow.key)
        self.flows.pop(reversed_id(identity), None)
        for either in (identity, reversed_id(identity)):
            self.ended.pop(either, None)
            if either in self.userspace:
                self.userspace[either] = flow.userspace_packets - 1  # this packet is counted after its verdict

    def changed(self, packet: int, now: float) -> None:
        """Something is told of this packet, or of what time did after it."""
        if packet not in self.times:
            _remember(self.times, packet, now)

    def moments(self, *packets: int | None) -> list[tuple[int, float]]:
        """When these packets came, as far as that is known: (packet, seconds since 1970)."""
        wanted = dict.fromkeys(packet for packet in packets if packet is not None)
        return [(packet, self.times[packet]) for packet in wanted if packet in self.times]

    def judged(self, report: DecisionReport) -> bool:
        """Take over a decision about a flow known already; whether that is news."""
        known = self.of(report.key)
        if known is None or known.decision == report.decision:
            return report.changed
        self.flows[id_of(known.key)] = known._replace(decision=report.decision)
        return True

    def end(self, event: FlowEnded, application: str) -> None:
        """The last counters of a flow: of its application, of its call, and its own if it was told of."""
        self.totals.setdefault(application, Totals()).add(event)
        identity = id_of(event.key)
        back = reversed_id(identity)
        if identity in self.flows or back in self.flows:
            _remember(self.ended, identity if identity in self.flows else back, event)
        call = self.call_of(event.key)
        if call is not None:
            self.of_call.setdefault(call, Totals()).add(event)
            while len(self.of_call) > REMEMBERED:
                self.of_call.popitem(last=False)

    def of(self, key: FlowKey) -> FlowReport | None:
        """What was told last of a flow, either way."""
        identity = id_of(key)
        return self.flows.get(identity) or self.flows.get(reversed_id(identity))

    def call_of(self, key: FlowKey) -> int | None:
        """The call that a flow served or serves: by what was told of it, or by the pinhole that let it in."""
        known = self.of(key)
        if known is not None and known.call is not None:
            return known.call
        return self.media.get((key.src, key.sport, key.dst)) or self.media.get((key.dst, key.dport, key.src))

    def medium(self, key: FlowKey) -> tuple[str, str] | None:
        """(application of the call, medium) of a flow that a pinhole let in, open or closed by now; None of others."""
        wanted = self.kinds.get((key.src, key.sport, key.dst)) or self.kinds.get((key.dst, key.dport, key.src))
        if wanted is None:
            return None
        call = self.calls.get(wanted[0])
        return call.application if call is not None else wanted[1], wanted[2]

    def saw(self, data: bytes) -> None:
        identity = flow_id(data)
        if identity is not None:
            if identity not in self.userspace:
                back = reversed_id(identity)
                identity = back if back in self.userspace else identity
            _remember(self.userspace, identity, self.userspace.get(identity, 0) + 1)


def _remember(table: OrderedDict[Any, Any], key: Any, value: Any) -> None:
    table[key] = value
    table.move_to_end(key)
    while len(table) > REMEMBERED:
        table.popitem(last=False)


class Counted:
    """The engine, with its answers counted."""

    def __init__(
        self, engine: Engine, metrics: Metrics, told: Told, media: frozenset[str],
        keep: Callable[[], None] = lambda: None, witness: Callable[[Event, float, list[Command]], None] | None = None,
    ) -> None:  # fmt: skip
        """`keep` is called after each event, before its commands are carried out; and `witness` with it and them."""
        self.engine = engine
        self.metrics = metrics
        self.told = told
        self.media = media
        self.keep = keep
        self.witness = witness

    @property
    def deadline(self) -> float | None:
        return self.engine.deadline

    def handle(self, event: Event, now: float) -> list[Command]:
        commands = self.engine.handle(event, now)
        self.keep()
        self.metrics.commands(commands)
        if self.witness is not None:
            self.witness(event, now, commands)
        if isinstance(event, FlowEnded):
            self.metrics.ended(event, self.media, self.told.medium(event.key))
            self.told.end(event, self.metrics.name_of(event.mark))
        return commands
