"""A capture through the engine, as the gateway would see it: link layer -> model of the kernel chains -> engine.

In: a capture, an Engine, the model's Kernel. Out: Replayed, with one Life per flow, the calls, pinholes, drops,
anomalies. A decided flow's packets do not reach the engine: they cost one look-up in the model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from appid.dataplane.command import Command, Report
from appid.dataplane.model import Entry, Kernel
from appid.edge.capture import CaptureError, frames
from appid.engine import (
    AnomalyReport,
    CallReport,
    Engine,
    FlowEnded,
    FlowReport,
    PacketQueued,
    PinholeReport,
    Tick,
)
from appid.engine.event import Activity, Event
from appid.flow.key import FlowKey
from appid.packet import ACK, SYN, Fragments, Packet, id_of, known, parse, reversed_id, strip
from appid.wire import UDP, DecodeError

MAX_TOLD = 100_000
"""Anomalies, and drops, that are kept to be told; more are only counted."""
UDP_LIFE = 300.0
PROGRESS_EVERY = 20_000


class Life:
    """One flow object of the interface: a 5-tuple from its first packet to its end. Counters of several conntrack
    entries add up where the kernel's entry was deleted in between (a call's media, cut at its end)."""

    __slots__ = ("bytes", "call", "dropped", "entry", "first_packet", "flows", "id", "key", "last", "last_packet",
                 "packets", "queued", "report", "stray")  # fmt: skip

    def __init__(self, number: int, key: FlowKey, packet: int) -> None:
        self.id = number
        self.key = key
        self.first_packet = self.last_packet = packet
        self.packets = self.bytes = self.queued = self.dropped = 0
        self.last = 0.0
        self.entry: Entry | None = None
        self.report: FlowReport | None = None
        self.flows: set[int] = set()
        self.call: int | None = None
        self.stray = False

    def settle(self) -> None:
        """Take over the counters of the entry, and let it go."""
        entry = self.entry
        if entry is not None:
            self.packets += entry.packets_there + entry.packets_back
            self.bytes += entry.bytes_there + entry.bytes_back
            self.queued += entry.queued
            self.last_packet = max(self.last_packet, entry.last_packet)
            self.last = entry.last
            self.entry = None

    def tell(self, report: FlowReport) -> None:
        """A name once given is kept until there is a better one."""
        self.flows.add(report.flow)
        if report.call is not None:
            self.call = report.call
        before = self.report
        if before is not None and before.identification.confidence is not None:
            same_flow = before.flow == report.flow != 0  # 0: the kernel's alone, of each call anew
            if report.identification.confidence is None or (
                not same_flow and report.identification.application == before.identification.application
            ):
                return
        self.report = report


@dataclass(slots=True)
class Replayed:
    """What one capture gave. Packet numbers are frame numbers, times nanoseconds since 1970."""

    file: str
    packets: int = 0
    linktype: int = 0
    first: int | None = None
    last: int | None = None
    lives: list[Life] = field(default_factory=list)
    calls: dict[int, CallReport] = field(default_factory=dict)
    pinholes: dict[int, PinholeReport] = field(default_factory=dict)
    drops: list[tuple[int, int, str]] = field(default_factory=list)
    dropped: int = 0
    anomalies: list[tuple[int, AnomalyReport]] = field(default_factory=list)
    anomaly_count: int = 0
    userspace_packets: int = 0
    unread: dict[int, int] = field(default_factory=dict)
    """Frames of link types that are not known, by LINKTYPE_ number."""
    error: CaptureError | None = None


class Observer(Protocol):
    """Looks on: each packet once engine and kernel have had it, and before that the commands it caused."""

    def packet(self, data: memoryview, time: int, number: int, life: Life | None) -> None:
        """An IP packet with its time in nanoseconds since 1970, its frame number, and the flow it belongs to."""

    def commands(self, event: Event, now: float, commands: list[Command], number: int) -> None:
        """What `event` caused; `number` is the packet's, or of the last one before."""


class Replay:
    """Runs one capture. `progress(packets)` is called now and then."""

    def __init__(
        self,
        engine: Engine,
        kernel: Kernel,
        progress: Callable[[int], None] | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.engine = engine
        self.kernel = kernel
        self.progress = progress
        self.observer = observer
        self.enforced = engine.settings.judge is not None and not engine.settings.monitor
        self.by_id: dict[bytes, Life] = {}
        self.by_call: dict[int, list[Life]] = {}
        self.fragments = Fragments()

    def run(self, path: str | Path) -> Replayed:
        """The whole capture; what could be read before an error is in the result, with the error."""
        result = self.result = Replayed(str(path))
        kernel, engine = self.kernel, self.engine
        deadline, enforced = engine.deadline, self.enforced
        progress, observer = self.progress, self.observer
        now = 0.0
        number = 0
        try:
            for number, nanoseconds, linktype, frame in frames(path):
                if result.first is None:
                    result.first, result.linktype = nanoseconds, linktype
                result.last = nanoseconds
                data = strip(linktype, frame)
                if data is None or len(data) < 20:
                    if data is None and not known(linktype):
                        result.unread[linktype] = result.unread.get(linktype, 0) + 1
                    continue
                now = nanoseconds / 1e9
                pieces = 0
                if (data[6] & 0x3F or data[7]) if data[0] & 0xF0 == 0x40 else data[6] in (0, 43, 44, 60):
                    whole = self.fragments.add(data, now, number)
                    if whole is None:
                        continue
                    pieces = len(self.fragments.packets) - 1 if whole is not data else 0
                    data = whole
                if deadline is not None and now >= deadline:
                    self._tick(now, number - 1)
                    deadline = engine.deadline
                entry = kernel.forward(data, now, number)
                if kernel.ended:  # an old life of this 5-tuple, before the new one is told of
                    self._ended(now)
                if isinstance(entry, Entry):
                    if entry.slot is None:
                        self._kernel_only(entry, data, now, number)
                elif entry == "queue":
                    self._queued(data, now, number)
                    deadline = engine.deadline
                else:
                    self._stray(data, now, number)
                if kernel.ended:
                    self._ended(now)
                if pieces and kernel.current is not None:
                    self._pieces(kernel.current.slot, number)
                if enforced and kernel.outcome != "pass":
                    self._dropped(number)
                if observer is not None:
                    current = kernel.current
                    observer.packet(data, nanoseconds, number, current.slot if current is not None else None)
                if progress is not None and number % PROGRESS_EVERY == 0:
                    progress(number)
        except CaptureError as error:
            result.error = error
        result.packets = number
        self._finish(now)
        return result

    # -- packets -------------------------------------------------------------------------------------------------

    def _queued(self, data: memoryview, now: float, number: int) -> None:
        entry = self.kernel.current
        assert entry is not None
        life: Life = entry.slot or self._attach(entry, now, number)
        event = PacketQueued(number, data, parsed=self.kernel.seen)
        self._carry_out(self.engine.handle(event, now), now, number, life, event)

    def _carry_out(self, commands: list[Command], now: float, number: int, life: Life | None, event: Event) -> None:
        if self.observer is not None:
            self.observer.commands(event, now, commands, number)
        for command in commands:
            if isinstance(command, Report):
                self._told(command.body, life)
            else:
                self.kernel.apply(command, now)

    def _told(self, body: object, life: Life | None) -> None:
        result = self.result
        if isinstance(body, FlowReport):
            if life is not None:
                life.tell(body)
                self._in_call(life)
        elif isinstance(body, CallReport):
            result.calls[body.call] = body
            if body.into is not None:
                self._join(body.call, body.into)
        elif isinstance(body, PinholeReport):
            result.pinholes[body.pinhole] = body
        elif isinstance(body, AnomalyReport):
            result.anomaly_count += 1
            if len(result.anomalies) < MAX_TOLD:
                result.anomalies.append((life.id if life is not None else 0, body))

    def _join(self, call: int, into: int) -> None:
        """What was told of a call is told of the one that it is part of."""
        del self.result.calls[call]
        for life in self.by_call.pop(call, []):
            life.call = into
            self._in_call(life)
        for number, report in self.result.pinholes.items():
            if report.expectation.call == call:
                expectation = replace(report.expectation, call=into)
                self.result.pinholes[number] = replace(report, expectation=expectation)

    def _in_call(self, life: Life) -> None:
        if life.call is not None:
            lives = self.by_call.setdefault(life.call, [])
            if life not in lives:
                lives.append(life)

    def _attach(self, entry: Entry, now: float, number: int) -> Life:
        """The Life that this new conntrack entry belongs to."""
        life = self.by_id.get(entry.id)
        begins = self.kernel.seen is not None and self.kernel.seen.tcp_flags & (SYN | ACK) == SYN
        silent = life is not None and (life.entry is not None or now - life.last > UDP_LIFE)
        reusable = not silent and life is not None and (life.key.proto == UDP or (life.stray and not begins))
        if life is None or not reusable:
            life = self._new(entry.id, entry.key, number)
        life.entry = entry
        life.stray = False
        entry.slot = life
        return life

    def _pieces(self, life: Life, number: int) -> None:
        """The packet was put together from fragments: all of them count, and the flow began with the first."""
        life.packets += len(self.fragments.packets) - 1
        if life.first_packet == number:
            life.first_packet = min(self.fragments.packets)

    def _new(self, identity: bytes, key: FlowKey, number: int) -> Life:
        life = Life(len(self.result.lives) + 1, key, number)
        self.result.lives.append(life)
        self.by_id[identity] = life
        self.by_id[reversed_id(identity)] = life
        return life

    def _kernel_only(self, entry: Entry, data: memoryview, now: float, number: int) -> None:
        """A flow that never reached the engine: a pinhole let it through, or an ICMP error was about a flow."""
        life = self._attach(entry, now, number)
        report = self.engine.glance(entry.key, number)
        if report is not None:
            life.tell(report)
            self._in_call(life)

    def _stray(self, data: memoryview, now: float, number: int) -> None:
        """What conntrack makes nothing of still is somebody's packet: it is shown, and counted, with its flow."""
        try:
            packet = parse(data)
        except DecodeError as error:
            self._told(AnomalyReport(0, number, error.protocol, error.reason), None)
            return
        if packet is not None:
            self._count_stray(packet, now, number)

    def _count_stray(self, packet: Packet, now: float, number: int) -> None:
        identity = id_of(packet.key)
        life = self.by_id.get(identity)
        if life is None:
            life = self._new(identity, packet.key, number)
            life.stray = True
            report = self.engine.glance(packet.key, number)
            if report is not None:
                life.tell(report)
        life.packets += 1
        life.bytes += packet.length
        life.last_packet = max(life.last_packet, number)
        life.last = now

    def _dropped(self, number: int) -> None:
        result = self.result
        result.dropped += 1
        entry = self.kernel.current
        life: Life | None = entry.slot if entry is not None else None
        if life is not None:
            life.dropped += 1
        report = life.report if life is not None else None
        rule = report.decision.rule if report is not None and report.decision is not None else "conntrack"
        if len(result.drops) < MAX_TOLD:
            result.drops.append((number, life.id if life is not None else 0, rule))

    # -- ends ----------------------------------------------------------------------------------------------------

    def _ended(self, now: float) -> None:
        ended, self.kernel.ended = self.kernel.ended, []
        for entry in ended:
            life: Life | None = entry.slot
            if life is not None:
                life.settle()
            event = FlowEnded(entry.key, entry.mark, entry.packets, entry.bytes)
            self._carry_out(self.engine.handle(event, now), now, entry.last_packet, life, event)

    def _tick(self, now: float, last: int) -> None:
        """Every deadline of the engine that lies before `now`, at its own time."""
        deadline = self.engine.deadline
        while deadline is not None and deadline <= now:
            active = tuple(
                Activity(life.key, life.entry.last, life.entry.last_packet)
                for lives in self.by_call.values()
                for life in lives
                if life.entry is not None
            )
            event = Tick(last, active)
            self._carry_out(self.engine.handle(event, deadline), deadline, last, None, event)
            if self.kernel.ended:
                self._ended(deadline)
            following = self.engine.deadline
            if following is not None and following <= deadline:
                following = deadline + 1.0
            deadline = following

    def _finish(self, now: float) -> None:
        """End all flows. One that was decided and is not watched the engine has let go of already."""
        marks = self.kernel.marks
        for life in self.result.lives:
            entry = life.entry
            if entry is not None:
                if not entry.mark & marks.state or entry.mark & marks.watch:
                    event = FlowEnded(entry.key, entry.mark, entry.packets, entry.bytes)
                    self._carry_out(self.engine.handle(event, now), now, entry.last_packet, life, event)
                life.settle()
            self.result.userspace_packets += life.queued
