"""The storyteller: an observer of a replay. It keeps what calls (and a flow that was asked for) consist of.

In: each packet after the engine and the kernel had it, the layers that the engine read of it, the commands it caused.
Out: Telling per call. What the engine never saw (media, a check through a pinhole) is read here, for flows of calls
only; of other flows nothing is kept but times, and what the engine read until they are decided.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

from appid.alg.expectation import Expectation
from appid.dataplane.command import BindNat, Command, OpenPinhole, Report, RewritePayload, UnbindNat
from appid.decode import peel
from appid.engine import (
    AnomalyReport,
    CallReport,
    Engine,
    Event,
    FlowReport,
    PacketQueued,
    PinholeReport,
    Settings,
    TranslationReport,
)
from appid.engine.record import FlowRecord
from appid.identify.application import Application
from appid.packet import Packet, parse
from appid.story.exchange import AGAIN, Budget
from appid.story.step import Effect, Step
from appid.story.tale import SAID_OFTEN, Telling
from appid.story.words import UNREACHABLE, Said, reason, say
from appid.wire import ICMP, ICMPV6, TCP, UDP, DecodeError, Endpoint, FlowKey, Layer, text

PENDING = 32
"""Messages kept of a flow whose call is not known yet."""
MAX_TIMES = 10_000
"""Frames of flows outside calls whose times are kept: when they got their names."""
WAITING = 1024
"""Flows of which messages are so kept."""
BEFORE = 4
"""Messages with a courier kept, in case a call begins; and for how long, ns."""
RECENT = 30_000_000_000
COURIERS_OFTEN = 40
"""Messages with a courier that are told one by one: few, and each may be the call's signalling."""
COURIERS = 16
"""Of one host: the last ones."""
KEEP_ALIVE = 160
"""Bytes of IP up to which a message with a courier is its keep-alive: it says nothing of a call."""
CALL = "call"
UNTRANSLATED = {
    "unparseable": "it breaks its format", "integrity": "a MESSAGE-INTEGRITY covers it",
    "too-long": "it would not fit its length", "no-port": "no outside port was free",
    "partial": "some of it had gone out before it was whole",
}  # fmt: skip
"""Results of a translation that leave the payload as it is, though it names what should be other."""
OTHERWISE = Said("time", "time passed")
"""Of steps that are no message of their own."""


class Life(Protocol):
    """What the replay knows of a flow."""

    @property
    def id(self) -> int: ...
    @property
    def key(self) -> FlowKey: ...
    @property
    def report(self) -> FlowReport | None: ...
    @property
    def call(self) -> int | None: ...


Raw = tuple[int, int, int, Packet, tuple[Layer, ...], tuple[Effect, ...]]
"""Flow, frame, time, packet, layers, effects."""


NO_RAWS: list[Raw] = []
"""Of flows that have none yet; never added to."""


class _Note:
    """What is kept of one flow."""

    __slots__ = ("courier", "first", "last", "pending", "report", "telling")

    def __init__(self, time: int) -> None:
        self.first = self.last = time
        self.report: FlowReport | None = None
        self.telling: Telling | None = None
        self.pending: list[Raw] | None = NO_RAWS
        self.courier: deque[Raw] | None = None


class Storyteller:
    """Observes one replay; `wanted`: the flow (a Life's number) that was asked for."""

    def __init__(self, engine: Engine, wanted: int | None = None) -> None:
        self.inside = engine.topology.inside
        self.wanted = wanted
        self.calls: dict[int, Telling] = {}
        self.budget = Budget()
        self.flow: Telling | None = None
        self.notes: dict[int, _Note] = {}
        self.times: dict[int, int] = {}
        self.most_waiting, self.most_pending = WAITING, PENDING
        self.learn(engine.settings)
        self._couriers: dict[bytes, deque[_Note]] = {}
        self._open: dict[bytes, Telling] = {}
        self._layers: tuple[Layer, ...] | None = None
        self._effects: list[tuple[int, Effect]] = []
        self._reports: dict[int, CallReport] = {}
        self._by_call_id: dict[str, int] = {}
        self._reasons: dict[int, str] = {}
        self._waiting: deque[_Note] = deque()
        self._time = 0
        engine.on_read = self.read

    def learn(self, settings: Settings) -> None:
        """These applications and this policy are in force."""
        self.judged = settings.judge is not None
        self.applications = settings.applications
        self._serving = _serving(self.applications)

    # -- what the replay tells -----------------------------------------------------------------------------------

    def read(self, _record: FlowRecord, _number: int, _outward: bool, layers: tuple[Layer, ...]) -> None:
        self._layers = layers

    def commands(self, event: Event, now: float, commands: list[Command], number: int) -> None:
        """What a packet caused, or time alone (`number` is the last frame before)."""
        before = len(self._effects)
        for command in commands:
            if isinstance(command, Report):
                self._report(command.body, number)
            elif isinstance(command, OpenPinhole):
                self._opened(command)
            elif isinstance(command, BindNat | UnbindNat | RewritePayload):
                self._effects.append((0, _translated(command)))
        if not isinstance(event, PacketQueued) and len(self._effects) > before:
            self._by_time(number, before)

    def packet(self, data: memoryview, time: int, number: int, life: Life | None) -> None:
        """After engine and kernel had it."""
        layers, self._layers = self._layers, None
        self._time = time
        if life is None:
            self._effects.clear()
            return
        note = self.notes.get(life.id)
        if note is None:
            note = self.notes[life.id] = _Note(time)
        note.last = time
        telling = self._telling(note, life, layers)
        effects: tuple[Effect, ...] = ()
        if life.report is not note.report or self._effects:
            effects = self._changed(note, life, number, telling)
        if telling is not None and telling is not note.telling:
            self._joined(note, life, telling)
        elif telling is None and note.telling is not None:
            return
        if note.telling is None and note.courier is None and (layers is None or note.pending is None):
            return
        try:
            packet = parse(data)
        except DecodeError:
            return
        if packet is None:
            return
        raw = (life.id, number, time, packet, _layers(packet) if layers is None else layers, effects)
        if note.telling is not None:
            self._tell(note.telling, raw)
        elif note.courier is not None:
            self._courier(note, life, raw)
        elif note.pending is not None and len(note.pending) < self.most_pending:
            self._keep(note, raw)

    def _keep(self, note: _Note, raw: Raw) -> None:
        """An early message of a flow that may yet join a call; of too many such flows the oldest is given up."""
        assert note.pending is not None
        if not note.pending:
            note.pending = []
            self._waiting.append(note)
            if len(self._waiting) > self.most_waiting:
                self._waiting.popleft().pending = None
        note.pending.append(raw)

    # -- which tale ----------------------------------------------------------------------------------------------

    def _telling(self, note: _Note, life: Life, layers: tuple[Layer, ...] | None) -> Telling | None:
        """The tale that this packet is part of: the flow asked for, its SIP's call's, its flow's. None: of none, though
        its flow may have one (a registration between two calls)."""
        if self.wanted is not None:
            if life.id == self.wanted:
                self.flow = self.flow or Telling(self.inside, self.budget)
                return self.flow
            return None
        named = _call_id(layers) if layers else None
        call = self._by_call_id.get(named) if named is not None else None
        if call is None and (note.telling is not None or life.call is None):
            return None if note.telling is not None and self._strange(note.telling, named, layers) else note.telling
        number = call or life.call or 0
        telling = self.calls.get(number)
        if telling is None and self.budget.take("tales"):
            telling = self.calls[number] = self._new(number)
        return telling

    def _new(self, number: int) -> Telling:
        return Telling(self.inside, self.budget, number)

    def _strange(self, telling: Telling, named: str | None, layers: tuple[Layer, ...] | None) -> bool:
        """SIP of another dialog than the call's; and after its end, what keeps the flow alive and says nothing."""
        report = self._reports.get(telling.number)
        if named is not None:
            return report is not None and report.call_id is not None
        return telling.over and layers == ()

    def _joined(self, note: _Note, life: Life, telling: Telling) -> None:
        """What was kept of the flow comes first; and of the host's couriers, what they said just before."""
        note.telling = telling
        for raw in note.pending or ():
            self._tell(telling, raw)
        note.pending = None
        note.courier = None
        for host in (life.key.src, life.key.dst):
            if self.inside(host) and self._open.get(host) is not telling:
                self._open[host] = telling
                for courier in self._couriers.get(host, ()):
                    for raw in courier.courier or ():
                        if self._time - raw[2] < RECENT:
                            self._tell(telling, raw, courier=True)
                    if courier.courier:
                        courier.courier.clear()

    def _courier(self, note: _Note, life: Life, raw: Raw) -> None:
        """A message of a flow that serves calls without being part of one."""
        if raw[3].length <= KEEP_ALIVE:
            return
        host = life.key.src if self.inside(life.key.src) else life.key.dst
        telling = self._open.get(host)
        if telling is not None and not telling.over:
            self._tell(telling, raw, courier=True)
        elif note.courier is not None:
            note.courier.append(raw)

    # -- what changed --------------------------------------------------------------------------------------------

    def _changed(self, note: _Note, life: Life, number: int, telling: Telling | None) -> tuple[Effect, ...]:
        """The effects of this packet."""
        if telling is not None or len(self.times) < MAX_TIMES:
            self.times[number] = self._time
        effects = [effect for _, effect in self._effects]
        self._elsewhere(number, telling)
        self._effects.clear()
        before, report = note.report, life.report
        note.report = report
        if report is None or report is before:
            return tuple(effects)
        named = report.identification
        was = before.identification if before is not None else None
        if named.confidence is not None and (
            was is None or (was.path, was.confidence) != (named.path, named.confidence)
        ):
            effects.insert(0, self._named(report, was.path if was is not None else (), number))
        made = report.decision
        if self.judged and made is not None and (before is None or before.decision != made):
            effects.append(Effect("decided", f"{made.action} by {made.rule}"))
        if self._serves(life, named.application) and note.courier is None and note.telling is None:
            note.courier = deque(maxlen=BEFORE)
            host = life.key.src if self.inside(life.key.src) else life.key.dst
            self._couriers.setdefault(host, deque(maxlen=COURIERS)).append(note)
        if made is not None and life.call is None and life.id != self.wanted:
            note.pending = None
        return tuple(effects)

    def _serves(self, life: Life, name: str) -> bool:
        """Whether the flow serves calls without being part of one."""
        ports = self._serving.get(name, ()) if self.wanted is None and life.call is None else ()
        return (life.key.proto, life.key.dport) in ports

    def _named(self, report: FlowReport, was: tuple[str, ...], number: int) -> Effect:
        named = report.identification
        application = self.applications.get(named.application)
        known = {s.name for s in application.signatures} if application is not None else set()
        now = [because for because in named.because if because.packet == number]
        now = now or ([] if was else list(named.because))  # of packets that were not seen
        counted = [because for because in now if because.signature in known] or now
        new = named.path[len(was) :]
        way = f" ({' > '.join(named.path)})" if len(new) > 1 or was else ""
        return Effect("named", f"{named.application}, {named.confidence}{way}",
                      tuple((b.signature, reason(b.facts)) for b in counted))  # fmt: skip

    def _opened(self, command: OpenPinhole) -> None:
        """A pinhole is renewed now and then; that a dialog stands now behind what a check alone had opened is told."""
        e = command.expectation
        before = self._reasons.get(command.id)
        self._reasons[command.id] = e.reason
        if before is not None and before != e.reason:
            self._effects.append((e.call, Effect("pinhole", f"pinhole {command.id} held on: {_place(e)}")))

    def _report(self, body: Any, number: int) -> None:
        match body:
            case CallReport():
                before = self._reports.get(body.call)
                self._reports[body.call] = body
                if body.into is not None:
                    self._one(body.call, body.into)
                    return
                if body.call_id is not None:
                    self._by_call_id[body.call_id] = body.call
                for words in _call_words(before, body):
                    self._effects.append((body.call, Effect("call", words)))
                telling = self.calls.get(body.call)
                if telling is not None and body.end != "open" and body.ended_at is not None:
                    telling.over = number > body.started_at
            case PinholeReport():
                e = body.expectation
                word = "opened" if body.closed_at is None else "closed"
                self._effects.append((e.call, Effect("pinhole", f"pinhole {body.pinhole} {word}: {_place(e)}")))
                if body.closed_at is not None:
                    self._reasons.pop(body.pinhole, None)
            case TranslationReport() if body.result in UNTRANSLATED:
                self._effects.append((0, Effect("translated", f"not translated: {UNTRANSLATED[body.result]}")))
            case AnomalyReport():
                self._effects.append((0, Effect("anomaly", f"{body.protocol}: {body.reason}")))

    def _one(self, call: int, into: int) -> None:
        """A call that turned out to be the other end of `into` is told with it."""
        self._effects.append((into, Effect("call", f"call {call} is the other end of call {into}")))
        old, telling = self.calls.pop(call, None), self.calls.get(into)
        if old is None:
            return
        if telling is None:
            old.number, self.calls[into] = into, old
            return
        telling.join(old)
        for note in self.notes.values():
            if note.telling is old:
                note.telling = telling
        self._open.update((host, telling) for host, one in self._open.items() if one is old)

    def _elsewhere(self, number: int, telling: Telling | None) -> None:
        """What this packet changes of another call than its own."""
        own = telling.number if telling is not None else 0
        for call in {call for call, _ in self._effects if call and call != own and call in self.calls}:
            effects = tuple(effect for of, effect in self._effects if of == call)
            what = f"seen in call {own}" if own else "seen in another flow"
            self.calls[call].add(Step(number, self._time, 0, None, None, None, "time", what, (), effects), OTHERWISE)

    def _by_time(self, number: int, before: int) -> None:
        """What a timer did, told after the last frame before it."""
        mine, self._effects = self._effects[before:], self._effects[:before]
        for call in dict.fromkeys(call for call, _ in mine if call):
            telling = self.calls.get(call)
            if telling is not None:
                effects = tuple(effect for of, effect in mine if of == call)
                step = Step(number, self._time, 0, None, None, None, "time", "time passed", (), effects)
                telling.add(step, OTHERWISE)
                self.times[number] = self._time

    # -- one message ---------------------------------------------------------------------------------------------

    def _tell(self, telling: Telling, raw: Raw, courier: bool = False) -> None:
        flow, number, time, packet, layers, effects = raw
        key, size = packet.key, packet.length
        if key.proto not in (UDP, TCP):
            said = _other(packet)
        elif not packet.payload and not effects:
            return
        else:
            if key.proto == UDP and len(layers) < 2:
                layers = telling.known_rtp(flow, key.source, layers, packet.payload)
            said = say(layers, packet.payload, "tcp" if key.proto == TCP else "udp")
        src, dst = key.source, key.destination
        via = telling.exchange.peer(flow, layers)
        details = () if said.media else tuple(telling.exchange.details(flow, number, time, key.src, layers))
        if not any(detail.startswith(AGAIN) for detail in details):
            details = (*said.details, *details)
        effects = tuple(dict.fromkeys(effects))  # a fault in each of two descriptions is said once
        step = Step(number, time, flow, src, dst, via, said.kind, said.what, details, effects, size)
        self._cast(telling, key, layers, courier)
        if said.kind == "rtp":
            effect = telling.media(step, layers[-1], layers[0].name == "turn")
            if effect is not None or effects:
                self.times[number] = time
                effects = effects if effect is None else (*effects, effect)
                step = replace(step, what=f"RTP PT {said.types[0]}", details=said.details, effects=effects)
        elif said.kind == "sip":
            description = telling.describe(number, layers)
            step = replace(step, what=f"{said.what}, {description}") if description is not None else step
        telling.add(step, said, COURIERS_OFTEN if courier else SAID_OFTEN)

    def _cast(self, telling: Telling, key: FlowKey, layers: tuple[Layer, ...], courier: bool) -> None:
        remote = key.source if self.inside(key.dst) and not self.inside(key.src) else key.destination
        cast = telling.cast
        if courier:
            cast.couriers[remote] = None
        elif key.proto in (ICMP, ICMPV6):
            cast.complaining.add(key.src)
        elif layers and layers[0].name == "http":
            cast.web[remote] = None
        elif layers and (layers[0].name == "turn" or _relays(layers[0])):
            cast.relays[remote] = None
        telling.mapped(layers)


def _call_id(layers: tuple[Layer, ...]) -> str | None:
    """One flow may signal for many calls."""
    for layer in layers:
        if layer.name == "sip":
            named = next((fact.value for fact in layer.facts if fact.name == "sip.call_id"), None)
            return named if isinstance(named, str) else ""
    return None


def _relays(layer: Layer) -> bool:
    return layer.name == "stun" and any(
        fact.name == "stun.method" and fact.value in ("allocate", "channel-bind", "refresh") for fact in layer.facts[:1]
    )


def _layers(packet: Packet) -> tuple[Layer, ...]:
    """Of a packet that the engine did not read: the kernel dealt with it alone."""
    if not packet.payload or packet.encapsulation is not None:
        return ()
    if packet.key.proto == UDP:
        return peel(packet.payload, "udp").layers
    return peel(packet.payload, "middle").layers if packet.key.proto == TCP else ()


def _serving(applications: Mapping[str, Application]) -> dict[str, set[tuple[int, int]]]:
    """Names of flows that serve calls beside the calls' own, with the ports at which they do (`implicit`)."""
    found: dict[str, set[tuple[int, int]]] = {}
    for application in applications.values():
        if CALL in application.characteristics:
            for implicit in application.implicit:
                if not implicit.provisional:
                    ports = {
                        (r.proto, n) for r in implicit.ports for n in range(r.first, min(r.last, r.first + 64) + 1)
                    }
                    found.setdefault(implicit.application, set()).update(ports)
    return found


def _call_words(before: CallReport | None, now: CallReport) -> list[str]:
    words = []
    if now.call_id is not None and (before is None or before.call_id is None):
        who = f": {text(now.caller)} calls {text(now.callee)}" if now.caller and now.callee else ""
        words.append(f"call {now.call} of {now.application} begins{who}")
    elif before is None:
        words.append(f"call {now.call} of {now.application} is set up")
    if now.answered_at is not None and (before is None or before.answered_at is None):
        words.append(f"call {now.call} answered")
    if now.ended_at is not None and (before is None or before.ended_at is None):
        words.append(f"call {now.call} ends: {now.end}")
    elif before is not None and now.ended_at != before.ended_at:
        words.append(f"call {now.call} is over")
    return words


def _place(wanted: Expectation) -> str:
    return f"{text(wanted.inside)} port {wanted.port} from {text(wanted.peer)} ({wanted.reason})"


def _translated(command: BindNat | UnbindNat | RewritePayload) -> Effect:
    if isinstance(command, RewritePayload):
        return Effect("translated", f"addresses in the payload translated, {len(command.payload):,} bytes now")
    outside = Endpoint(command.outside, command.outside_port)
    inside = Endpoint(command.inside, command.port)
    word = "NAT binding" if isinstance(command, BindNat) else "NAT binding removed"
    return Effect("translated", f"{word}: {outside} is {inside} for {text(command.peer)}")


ERRORS = {(ICMP, 3): UNREACHABLE, (ICMPV6, 1): UNREACHABLE, (ICMP, 11): "time exceeded", (ICMPV6, 3): "time exceeded"}


def _other(packet: Packet) -> Said:
    name = {ICMP: "ICMP", ICMPV6: "ICMPv6"}.get(packet.key.proto, f"IP protocol {packet.key.proto}")
    kind = ERRORS.get((packet.key.proto, packet.icmp_type), "")
    return Said("icmp" if "ICMP" in name else "ip", f"{name} {kind}".rstrip())
