"""Engine.handle: packet -> flow -> decode -> evidence -> identify -> policy | alg -> dataplane commands.

The same events in the same order give the same commands, in any process: time is an argument, and numbers are counted
from 1.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Final

from appid.alg.expectation import Expectation
from appid.alg.lessons import Lesson
from appid.dataplane.command import Command, Postpone, Report, RewritePayload, SetMark, SetVerdict
from appid.dataplane.marks import ALLOW
from appid.engine import room
from appid.engine.awaited import Awaited
from appid.engine.calls import CallKeeper
from appid.engine.doubt import DENSE
from appid.engine.event import CommandFailed, Event, FlowEnded, PacketQueued, Restored, RulesLoaded, Tick
from appid.engine.keepalive import Keepalives
from appid.engine.kept import restore
from appid.engine.kept_stream import go_on
from appid.engine.read import read
from appid.engine.record import FlowRecord, Settings, Topology, flow_facts
from appid.engine.registered import Registered
from appid.engine.reload import reload
from appid.engine.report import AnomalyReport, ExceptionReport, FlowReport, TranslationReport
from appid.engine.signalling import hear, learn
from appid.engine.stamps import Stamps
from appid.engine.streams import Streams
from appid.engine.waiting import Waiting
from appid.evidence.ledger import FactSet
from appid.evidence.recent import Recent
from appid.flow.key import FlowKey
from appid.flow.numbers import Numbers
from appid.identify.application import AlgFunction, Scope, Signature
from appid.identify.identification import Because
from appid.identify.match import Match, Matcher
from appid.identify.naming import Lineage, Naming
from appid.packet import ACK, SYN, Packet, parse
from appid.policy import Decision
from appid.policy.evaluate import Situation
from appid.wire import TCP, UDP, DecodeError, Fact, Layer

PATIENCE: Final = 128
"""Packets of a stream within which a message of these that came in pieces counts as one."""
IN_PIECES: Final = frozenset({"sip", "stun"})
SWEEP: Final = 60.0
"""Seconds between two looks for mappings whose signalling flow is followed no more."""

PEERS_SPEAK: Final = frozenset({"stun", "turn", "dtls", "rtp", "rtcp"})
"""What a learned peer's flow may begin with, beside what no decoder reads; anything else is named for what it is."""

MIDSTREAM: Final = Decision("deny", "exceptions: mid-stream")
ALLOW_ALL: Final = Decision("allow", "defaults")

OnRead = Callable[[FlowRecord, int, bool, tuple[Layer, ...]], None]
"""Told of each packet that is read: its flow, number, whether it goes the way of the first one, its layers."""


class Engine:
    """One engine: its flows, calls and settings. `deadline` is when it next wants a Tick (seconds; None: no need)."""

    def __init__(self, settings: Settings, first: int = 1, step: int = 1) -> None:
        """Flows, calls and pinholes are numbered first, first + step, ...: several engines share the numbers."""
        self.take(settings)
        self.calls = CallKeeper(settings, self.topology, first, step)
        self.streams = Streams(self.calls.nat)
        self.flows: OrderedDict[FlowKey, FlowRecord] = OrderedDict()
        self.stamps = Stamps()
        self.waiting = Waiting()
        self.registered = Registered()
        self.awaited = Awaited(self.calls.dialogs, self.registered)
        self.skew = 0.0  # to be added to times for the time of day
        self.broken = False  # whether the packet at hand breaks its own format
        self.on_read: OnRead | None = None
        self.numbers = Numbers(first, step)
        self._sweep_at = 0.0
        self._ceiling = room.ANY

    @property
    def deadline(self) -> float | None:
        times = (self.calls.deadline, self.registered.next(), self.awaited.next())
        return min((time for time in times if time is not None), default=None)

    def handle(self, event: Event, now: float) -> list[Command]:
        """What follows from `event`, in the order in which it must be carried out. Times are seconds."""
        match event:
            case PacketQueued():
                return self._queued(event, now)
            case FlowEnded():
                return self._flow_ended(event)
            case Tick():
                return list(self._tick(event, now))
            case RulesLoaded():
                return list(reload(self, event, now))
            case Restored():
                calls = list(restore(self, event.calls, now))
                streams = [command for kept in event.streams for command in go_on(self, kept, now)]
                flows = [each for kept in event.registrations for each in self.registered.go_on(self, kept, now)]
                return calls + streams + flows
            case CommandFailed():
                return []

    def follow_again(self, record: FlowRecord) -> None:
        """A watched flow of an engine that is gone."""
        if record.naming.name is None or record.naming.name in self.settings.applications:
            self.numbers.beyond(record.id)
            record.mark = self.mark_of(record)
            self.flows[record.key] = record

    def take(self, settings: Settings) -> None:
        """What follows from settings alone."""
        self.settings = settings
        self.lineage = Lineage(settings.applications)
        self.matcher = Matcher(settings.applications.values())
        self.recent = recent_of(self.matcher)
        self.keepalives = Keepalives(settings.applications.values())
        self.topology = Topology(settings.inside)

    # -- a packet ------------------------------------------------------------------------------------------------

    def _queued(self, event: PacketQueued, now: float) -> list[Command]:
        out: list[Command] = []
        self.broken = False
        packet = event.parsed
        if packet is None:
            try:
                packet = parse(event.data)
            except DecodeError as error:
                out.append(Report("anomaly", AnomalyReport(0, event.packet, error.protocol, error.reason)))
                self.broken = True
        if packet is None:
            if not self._unread(event.packet, out):
                out.append(SetVerdict(event.packet, "repeat", self.settings.marks.passing))
            return out
        key = packet.key
        record, outward = self.record_of(key)
        begins = packet.tcp_flags & (SYN | ACK) == SYN
        if record is not None and begins and outward and record.payload_packets:
            self.forget(record)  # a SYN on a 5-tuple that had data: a new life of it
            record = None
        if record is not None:
            self.flows.move_to_end(record.key)
        else:
            if begins:
                self.stamps.drop(key)
            stamp = None if begins else self.stamps.find(key, now, self.calls.book.open)
            if stamp is not None and not self._announced(key, stamp):
                out.append(SetVerdict(event.packet, "repeat", stamp))
                if self.settings.marks.state_of(stamp) != ALLOW:
                    out.append(SetMark(key, stamp, create=True))  # the kernel should have known
                return out
            record, outward = self._create(packet, event, now, out), True
            if key not in self.flows:  # all that is followed is of calls: there is no room for it
                stamp = self.stamps.find(key, now, ()) or self.settings.marks.passing
                out.append(SetVerdict(event.packet, "repeat", stamp))
                return out
            if key.proto == TCP and not packet.tcp_flags & SYN and self._midstream(record, event.packet, now, out):
                return out
        record.userspace_packets += 1
        record.last_seen = now
        if packet.tcp_flags & SYN and record.streams is not None:
            record.streams[0 if outward else 1].syn(packet.tcp_seq)
            whole, packet = packet, self.streams.bare(record, packet)
            if packet is not whole:
                out.append(RewritePayload(event.packet, b""))
        if packet.payload or record.userspace_packets == 1:
            told = len(out)
            self._follow(record, packet, outward, event, now, out)
            if self._overtakes(record) and (patience := self.waiting.patience(record.key, now)) is not None:
                out[told:] = [Postpone(event.packet, patience)]
                self.forget(record)
                return out
            if self.broken and self._unread(event.packet, out):
                return out
            if record.streams is not None and self.streams.early(record, outward):
                out.append(SetVerdict(event.packet, "drop", 0))
                return out
        elif record.call is not None:  # a bare ACK says nothing that was not said
            self.calls.moved(record, event.packet, now)
        if record.spliced is not None:
            out.extend(self.streams.segment(record, packet, event.data, outward, event.packet, event.host))
            if out and isinstance(out[-1], Postpone | SetVerdict):
                return out
        self._answer(record, event.packet, now, out)
        return out

    def _overtakes(self, record: FlowRecord) -> bool:
        """Whether a refused flow may be media that another worker is about to foresee (engine/waiting.py)."""
        if self.settings.share[1] == 1 or record.decision is None or record.decision.action == "allow":
            return False
        key, calls = record.key, self.calls.calls
        if key.proto != UDP or record.userspace_packets > 1 or record.call is not None or self.settings.monitor:
            return False
        inside = self.topology.inside
        return inside(key.src) and inside(key.dst) and (calls.of(key.src) or calls.of(key.dst))

    def _unread(self, number: int, out: list[Command]) -> bool:
        """What breaks its own format: passed, or dropped, as the exception policy says. Out: whether it was dropped."""
        if not self.broken:
            return False
        failure = self.settings.failure("undecodable")
        out.append(Report("exception", ExceptionReport("undecodable", failure)))
        if failure == "closed":
            out.append(SetVerdict(number, "drop", 0))
        return failure == "closed"

    def _announced(self, key: FlowKey, stamp: int) -> bool:
        """Whether a call has announced this flow since it was refused."""
        refused = self.settings.marks.decode(stamp).action not in (None, "allow")
        return refused and self.calls.book.foreseen(key) is not None

    def record_of(self, key: FlowKey) -> tuple[FlowRecord | None, bool]:
        """What is kept of the flow, and whether `key` is the direction of its first packet."""
        record = self.flows.get(key)
        return (record, True) if record is not None else (self.flows.get(key.reversed()), False)

    def _create(self, packet: Packet, event: PacketQueued, now: float, out: list[Command]) -> FlowRecord:
        key = packet.key
        judge, situation = self.settings.judge, None
        if judge is not None:
            from_zone, to_zone = judge.zone_of(key.src, event.indev), judge.zone_of(key.dst, event.outdev)
            from_outside = self.topology.outside(key.src, judge.outside(from_zone))
            to_outside = self.topology.outside(key.dst, judge.outside(to_zone))
            situation = Situation(key, from_zone, to_zone, from_outside and not to_outside, now=now + self.skew)
            situation = self.awaited.judged_as(situation, packet, now)
        else:
            from_outside, to_outside = self.topology.outside(key.src), self.topology.outside(key.dst)
        host_first = not from_outside or to_outside
        record = FlowRecord(self.numbers.take(), key, host_first, event.packet, situation, self.matcher.wide["flow"])
        self.flows[key] = record
        if key.proto == UDP and not from_outside and self.settings.masqueraded:
            self.calls.nat.bindings.saw(key)
        gone = room.give_way(self.flows, min(self.settings.limits.flows, self._ceiling), record)
        if gone is not None:
            out.extend(room.decided(gone, self.settings, self.stamps, now))
        return record

    def _midstream(self, record: FlowRecord, number: int, now: float, out: list[Command]) -> bool:
        """A connection whose beginning was not seen: judged by what is visible, or refused."""
        failure = self.settings.failure("mid-stream")
        out.append(Report("exception", ExceptionReport("mid-stream", failure)))
        if failure == "open":
            return False
        record.userspace_packets = 1
        record.decision = MIDSTREAM
        record.mark = self.mark_of(record)
        out.append(self.report_of(record, number))
        self._answer(record, number, now, out)
        return True

    def _follow(
        self, record: FlowRecord, packet: Packet, outward: bool, event: PacketQueued, now: float, out: list[Command]
    ) -> None:
        """One packet of a flow: what it shows, what it changes."""
        number = event.packet
        before, decided, served = (record.naming.name, record.naming.confidence), record.decision, record.call
        layers: tuple[Layer, ...] = ()
        if record.userspace_packets == 1:
            self._foresee(record, number)
            if self.settings.judge is not None and self.settings.judge.policy.overrides:
                self._override(record, number)
        overridden = record.state is not None and record.state == record.naming.name
        prefix = self.streams.prefix(record, outward) if record.streams is not None else None
        if (packet.payload or packet.key.proto not in (TCP, UDP)) and not overridden:
            layers = self._read(record, packet, number, outward, out)
        named = (record.naming.name, record.naming.confidence)
        if named != before:
            out.extend(self.calls.named(record, number, now))
        if record.call is not None:
            self.calls.moved(record, number, now)
        record.decision = self.decide(record)
        if (
            prefix is not None
            and self.streams.spliceable(record, packet, layers, outward)
            and "translation" in self.functions(record)
        ):
            out.extend(self.streams.splice(record, packet, event.data, outward, prefix, event.host))
        if layers and self._allowed(record):
            out.extend(hear(self, record, packet, layers, outward, number, now, event.host))
            if record.asked is not None and record.asked.validated:
                learn(self, record, record.asked, number)
        refused = record.decision is not None and record.decision.action != "allow" and not self.settings.monitor
        if refused and record.decision != decided and record.call is not None:
            out.extend(self.calls.refused(record, number, now))
        if record.decision != decided or named != before or record.call != served:
            record.mark = self.mark_of(record)
            out.append(self.report_of(record, number))

    def _override(self, record: FlowRecord, number: int) -> None:
        """The operator knows better: the name stands from the first packet on, and nothing is read of the flow."""
        assert self.settings.judge is not None
        key = record.key
        name = self.settings.judge.overridden(key)
        if name is not None and record.foreseen is None:
            record.naming.take(name, "conclusive", [Because(number, "override", record.facts)], number)
            record.state = name

    def _foresee(self, record: FlowRecord, number: int) -> None:
        found = self.calls.foresee(record)
        if found is None:
            left = self.calls.book.left(record.key, record.last_seen)
            if left is not None and left[0] in self.settings.applications:
                # a call that is over cut it: what goes on is no new flow
                record.naming.take(left[0], "conclusive", [Because(number, f"left by call {left[1]}", ())], number)
                record.call = left[1]
            return
        pinhole, expectation = found
        record.foreseen = pinhole
        if record.situation is not None:
            decision = self.calls.decisions.get(expectation.call)
            record.situation = record.situation._replace(foreseen=True, call=decision)
        record.naming.take(expectation.application, "conclusive", [_foreseen_because(expectation, number)], number)

    def _read(
        self, record: FlowRecord, packet: Packet, number: int, outward: bool, out: list[Command]
    ) -> tuple[Layer, ...]:
        """Decode, book the evidence, match."""
        if packet.payload:
            record.payload_packets += 1
        told = read(record, packet, outward)
        layers = told.layers
        if layers and not layers[-1].consumed and layers[-1].name in IN_PIECES and record.userspace_packets < PATIENCE:
            record.payload_packets -= 1  # a message in small segments is one packet, not many
        elif record.decision is None and self.keepalives.only(record, packet, layers):
            record.payload_packets -= 1
        if self.on_read is not None:
            self.on_read(record, number, outward, layers)
        self.broken = bool(told.anomalies)
        for error in told.anomalies:
            out.append(Report("anomaly", AnomalyReport(record.id, number, error.protocol, error.reason, record.key)))
            if error.protocol == "sip" and record.natted is not None:
                out.append(Report("translation", TranslationReport(record.id, number, "unparseable")))
        booked = record.ledger.add(told.facts, outward)
        if record.always is None:
            record.always = self.matcher.always(record.facts)
        matches = self.matcher.match(booked, self._wider(record, booked), record.always, len(record.facts))
        if self.calls.lessons.places:
            lesson = self.calls.lessons.known(packet.key, record.last_seen)
            if lesson is not None and (not layers or layers[0].name in PEERS_SPEAK):
                matches.append(_taught(lesson))
        record.naming.add(matches, number, self.lineage)
        return layers

    def _wider(self, record: FlowRecord, facts: list[Fact]) -> dict[Scope, FactSet]:
        """What this packet belongs to: its flow, and, if anyone asks, the last minute of its inside host and call."""
        wider: dict[Scope, FactSet] = {"flow": record.ledger.flow}
        for scope, recent in self.recent:
            key = record.host if scope == "host" else record.call
            if key is not None:
                wider[scope] = recent.add(key, facts, record.last_seen)
        return wider

    def decide(self, record: FlowRecord) -> Decision | None:
        """What policy says now; None while the flow is provisional (policy.md point 2)."""
        settings = self.settings
        budget = settings.budget
        if settings.judge is not None and record.situation is not None:
            budget = settings.judge.budget(record.situation.from_zone)
        if record.state is None and record.foreseen is None and record.payload_packets > budget:
            record.give_up()
        possible = record.possible(self.lineage)
        name = record.naming.name or record.state
        if settings.judge is None or record.situation is None:
            if record.foreseen is not None:
                return ALLOW_ALL
            return ALLOW_ALL if possible is not None and not possible and name is not None else None
        return settings.judge.judge(record.situation, name, possible, record.payload_packets)

    def _allowed(self, record: FlowRecord) -> bool:
        """Whether the flow is allowed: by its decision, or, while provisional, by the name that it has. A call's answer
        often comes before its name stands; what it opens is shut again if the name shifts to one that is refused."""
        if record.decision is not None:
            return record.decision.action == "allow"
        name, judge = record.naming.name, self.settings.judge
        if name is None or judge is None or record.situation is None:
            return name is not None
        return judge.first_match(record.situation, name).action == "allow"

    def hears(self, record: FlowRecord) -> bool:
        """Whether what is said on the flow is the ALG's business."""
        decision, judge, situation, name = record.decision, self.settings.judge, record.situation, record.naming.name
        if decision is None and judge is not None and situation is not None and name is not None:
            decision = judge.first_match(situation, name)
        return self._allowed(record) and bool(self.calls.media.functions(name, decision))

    def mark_of(self, record: FlowRecord) -> int:
        marks = self.settings.marks
        if record.decision is None:
            return marks.passing
        name = record.naming.name
        application = self.settings.applications[name] if name is not None else None
        number = application.number if application is not None else 0
        action = "allow" if self.settings.monitor else record.decision.action
        watched = application is not None and application.watch and record.naming.watchable and record.state != name
        record.watch = action == "allow" and (watched or record.spliced is not None)
        qos = self.settings.judge.qos_of(record.decision) if self.settings.judge is not None else 0
        return marks.encode(action, number, watch=record.watch, qos=qos)

    def _answer(self, record: FlowRecord, number: int, now: float, out: list[Command]) -> None:
        mark = record.mark or self.settings.marks.passing
        out.append(SetVerdict(number, "repeat", mark))
        if record.decision is None or record.watch:
            return
        if record.userspace_packets == 1 and record.decision.action != "allow" and not self.settings.monitor:
            # its first packet dies: nothing else would keep the decision
            if self._awaited(record):
                self.forget(record)
                return
            out.append(SetMark(record.key, mark, create=True))
        self.forget(record)
        if record.decision.action != "allow" and record.key.proto == UDP:
            self.calls.media.was_denied(record)
        self.stamps.put(record.key, mark, now, record.foreseen)

    def _awaited(self, record: FlowRecord) -> bool:
        """Whether the refusal ends with its packet: a peer's check that came before the client's own. The client's,
        a moment later, begins the flow inside on the same 5-tuple (policy.md point 3); a kept refusal would cut it. Or
        something is still to come that an inside host waits for there."""
        situation, name = record.situation, record.naming.name
        if situation is None or not situation.begun_outside or record.key.proto != UDP:
            return False
        known, names = self.settings.applications, (name, *self.lineage.descendants[name]) if name is not None else ()
        return any(known[n].inbound == "foreseen" for n in names) or self.awaited.named(record.key, record.last_seen)

    def glance(self, key: FlowKey, packet: int) -> FlowReport | None:
        """The name of a flow that the kernel dealt with alone: foreseen by a call, or plain from its 5-tuple."""
        naming = Naming()
        call, decision = None, ALLOW_ALL if self.settings.judge is None else None
        found = self.calls.book.foreseen(key)
        if found is not None:
            expectation = found[1]
            call = expectation.call
            decision = self.calls.decisions.get(call, decision)
            naming.take(expectation.application, "conclusive", [_foreseen_because(expectation, packet)], packet)
        else:
            naming.add(self.matcher.match(list(flow_facts(key)), {}), packet, self.lineage)
        if naming.name is None:
            return None
        identification = naming.identification("")
        return FlowReport(0, key, identification, packet, decision, call, found is not None, packet, 0)

    # -- ends and time -------------------------------------------------------------------------------------------

    def _flow_ended(self, event: FlowEnded) -> list[Command]:
        self.stamps.drop(event.key)
        self.calls.nat.bindings.gone(event.key)
        record, _ = self.record_of(event.key)
        if record is None or (record.decision is None and self.settings.marks.state_of(event.mark)):
            return []  # what ended was decided: this record is a later life of the same 5-tuple
        record.ended()
        out: list[Command] = [self.report_of(record, record.first_packet), *self.calls.nat.release(record.id)]
        self.forget(record)
        return out

    def _tick(self, event: Tick, now: float) -> Iterator[Command]:
        for activity in event.active:
            record, _ = self.record_of(activity.key)
            if record is not None:
                media = record.foreseen is not None or activity.packets >= DENSE
                self.calls.moved(record, activity.packet, activity.time, media)
            else:
                self.calls.moved_foreseen(activity.key, activity.packet, activity.time)
        self.calls.doubt.unheard(event.unheard, now)
        yield from self.calls.tick(event.packet, now)
        yield from self.registered.tick(self, now)
        yield from self.awaited.tick(self, now)
        if now >= self._sweep_at and self.calls.nat.mappings.flows():
            self._sweep_at = now + SWEEP
            yield from self.calls.nat.sweep({record.id for record in self.flows.values()})
        self.stamps.expire(now)
        for record in room.give_up(self.flows) if event.short else ():
            yield from room.decided(record, self.settings, self.stamps, now)
        self._ceiling = room.ceiling(self.flows, event.short, self._ceiling)

    def functions(self, record: FlowRecord) -> frozenset[AlgFunction]:
        """What the ALG may do for this flow; books its call's decision, by which its media goes."""
        judge, situation, name = self.settings.judge, record.situation, record.naming.name
        if judge is None or situation is None or name is None or record.call is None:
            decision = record.decision
            if decision is None and judge is not None and situation is not None and name is not None:
                decision = judge.first_match(situation, name)
            return self.calls.media.functions(name, decision)
        decision = record.decision or judge.first_match(situation, name)
        self.calls.decisions[record.call] = decision
        if not situation.foreseen:  # what is foreseen goes by its call, which goes by the flow that announced it
            self.calls.situations[record.call] = (situation, name)
        return self.calls.media.functions(name, decision)

    def forget(self, record: FlowRecord) -> None:
        if record.spliced is not None:
            self.streams.touched[record.id] = record
        self.flows.pop(record.key, None)

    def report_of(self, record: FlowRecord, number: int) -> Report:
        return Report(
            "flow",
            FlowReport(
                record.id,
                record.key,
                record.identification(),
                record.naming.identified_at,
                record.decision,
                record.call,
                record.foreseen is not None,
                number,
                record.userspace_packets,
            ),
        )


def recent_of(matcher: Matcher) -> list[tuple[Scope, Recent]]:
    """The scopes beyond the flow that a signature asks for."""
    beside: tuple[Scope, ...] = ("host", "call")
    return [(scope, Recent(matcher.wide[scope])) for scope in beside if matcher.wide[scope]]


def _taught(lesson: Lesson) -> Match:
    name = f"peer learned by flow {lesson.flow} at packet {lesson.packet}"
    return Match(
        lesson.application,
        Signature(name, "strong", "call", (), "", "", watch=lesson.watch),
        (Fact("peer.endpoint", lesson.endpoint),),
        excludes=False,
    )


def _foreseen_because(expectation: Expectation, packet: int) -> Because:
    facts = (Fact("expectation.reason", expectation.reason), Fact("expectation.opened_at", expectation.opened_at))
    return Because(packet, f"foreseen by call {expectation.call}", facts)
