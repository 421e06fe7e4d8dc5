"""What of a call outlives its engine, as values: itself, its dialogs, pinholes and bindings, the flows that signal.

In: an engine's call. Out: a KeptCall, and from one the call again, in an engine that begins. Values that another
version may not have written have defaults; none ever comes to mean something else. What a dialog last offered
is not kept: the next offer and its answer are both new. A flow without a call is not kept either: the kernel has its
decision, and if it is watched, its next packet is read anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from appid.alg.dialog import Dialog
from appid.alg.expectation import Expectation
from appid.alg.relay import Relay
from appid.dataplane.command import BindNat, Command
from appid.engine.calls import CallKeeper
from appid.engine.record import FlowRecord
from appid.engine.report import told_call
from appid.engine.silence import LIFETIME, Slept
from appid.flow.call import SILENCE, Call, CallMedia
from appid.flow.key import FlowKey
from appid.identify.identification import Because, Confidence
from appid.policy import Decision
from appid.policy.evaluate import Situation
from appid.wire import UDP, Endpoint

if TYPE_CHECKING:
    from appid.engine.core import Engine

UNHEARD = 20.0
"""Seconds after which a call is lost of which nothing moves after a restart: it may have been hung up meanwhile, and
the kernel does not say so of a stream (doubt.py)."""
MAX_LISTED = 256
"""Flows, peers, dialogs, pinholes of one kept call: more were never written."""


@dataclass(frozen=True, slots=True)
class KeptDialog:
    call_id: str
    host: bytes
    peer: bytes
    caller_inside: bool
    from_tag: str
    cseqs: tuple[tuple[str, bool, int], ...]
    to_tags: tuple[str, ...]
    answered: bool = False
    cancelled: bool = False
    bye_at: float | None = None
    carriers: tuple[FlowKey, ...] = ()


@dataclass(frozen=True, slots=True)
class KeptPinhole:
    number: int
    expectation: Expectation
    binding: BindNat | None = None


@dataclass(frozen=True, slots=True)
class KeptFlow:
    """A flow that userspace follows, decided or not; `seen`: its packets that the engine saw, all of them while nothing
    is decided. `awaits`: per direction, the TCP sequence number that comes next, where nothing waited for more;
    `opening` what that direction began with."""

    number: int
    key: FlowKey
    host_first: bool
    first_packet: int
    payload_packets: int = 1
    application: str = ""
    confidence: Confidence = "supporting"
    situation: Situation | None = None
    decision: Decision | None = None
    state: str | None = None
    foreseen: int | None = None
    channels: tuple[tuple[int, Endpoint], ...] | None = None
    mapped: Endpoint | None = None
    seen: int = 0
    awaits: tuple[int | None, int | None] = (None, None)
    opening: tuple[str, str] = ("", "")


@dataclass(frozen=True, slots=True)
class KeptCall:
    number: int
    application: str
    started_at: int
    last_packet: int
    hosts: tuple[bytes, ...]
    peers: tuple[bytes, ...] = ()
    flows: tuple[int, ...] = ()
    call_id: str | None = None
    caller: bytes | None = None
    callee: bytes | None = None
    answered_at: int | None = None
    ending: bool = False
    ended_at: int | None = None
    end: Literal["open", "bye"] = "open"
    media: tuple[CallMedia, ...] = ()
    decision: Decision | None = None
    situation: tuple[Situation, str] | None = None
    dialogs: tuple[KeptDialog, ...] = ()
    pinholes: tuple[KeptPinhole, ...] = ()
    bindings: tuple[BindNat, ...] = ()
    signalling: tuple[KeptFlow, ...] = ()
    asleep: float | None = None
    """It was lost by silence, and its dialogs are kept until then (seconds); nothing is open for it."""
    awaits: tuple[Expectation, ...] = ()
    """What it has as soon as another call lets go of the place."""


# -- an engine's call -> values ----------------------------------------------------------------------------------------


def kept_call(engine: Engine, number: int) -> KeptCall | None:
    """None where there is no such call (any more), and none whose dialogs sleep."""
    calls = engine.calls
    call = calls.calls.open.get(number)
    if call is None:
        return _kept_asleep(engine, number)
    pinholes = [KeptPinhole(n, expectation, calls.media.bound.get(n)) for n, expectation in calls.book.of_call(number)]
    theirs = {pinhole.binding for pinhole in pinholes}
    owners = [(call.call_id, host) for host in sorted(call.hosts)] if call.call_id is not None else []
    bindings = [bound for owner in owners for bound in calls.nat.held(owner) if bound not in theirs]
    dialogs = calls.dialogs.living(call.call_id, number)
    records = calls.records.get(number, {})
    for flow in [flow for flow, record in records.items() if engine.flows.get(record.key) is not record]:
        del records[flow]  # decided: the kernel's alone
    return KeptCall(
        call.id, call.application, call.started_at, call.last_packet, tuple(sorted(call.hosts)),
        tuple(sorted(call.peers)), tuple(call.flows), call.call_id, call.caller, call.callee, call.answered_at,
        call.ending, call.ended_at, "bye" if call.end == "bye" else "open", call.media,
        calls.decisions.get(number), calls.situations.get(number),
        tuple(_kept_dialog(dialog) for dialog in dialogs), tuple(pinholes), tuple(bindings),
        tuple(kept_flow(record) for record in records.values()), awaits=tuple(calls.book.awaits(number)),
    )  # fmt: skip


def kept_calls(engine: Engine) -> list[KeptCall]:
    """All of them."""
    found = (kept_call(engine, number) for number in (*engine.calls.calls.open, *engine.calls.asleep.names))
    return [kept for kept in found if kept is not None]


def _kept_asleep(engine: Engine, number: int) -> KeptCall | None:
    calls = engine.calls
    slept, application = calls.asleep.names.get(number, (None, ""))
    dialogs = calls.dialogs.living(*slept) if slept is not None else []
    if slept is None or not dialogs:
        return None
    flows = dict.fromkeys(flow for dialog in dialogs for flow in dialog.carriers)
    return KeptCall(
        number, application, 0, 0, tuple(sorted({dialog.host for dialog in dialogs})),
        tuple(sorted({peer for dialog in dialogs for peer in dialog.peers})), call_id=slept.call_id,
        dialogs=tuple(_kept_dialog(dialog) for dialog in dialogs),
        signalling=tuple(kept_flow(engine.flows[flow]) for flow in flows if flow in engine.flows),
        asleep=calls.asleep.until(slept),
    )  # fmt: skip


def _kept_dialog(dialog: Dialog) -> KeptDialog:
    return KeptDialog(
        dialog.call_id, dialog.host, dialog.peer, dialog.caller_inside, dialog.from_tag,
        tuple((method, outward, number) for (method, outward), number in dialog.cseqs.items()),
        tuple(sorted(dialog.to_tags)), dialog.answered, dialog.cancelled, dialog.bye_at,
        tuple(sorted(dialog.carriers)),
    )  # fmt: skip


def kept_flow(record: FlowRecord) -> KeptFlow:
    relay, streams = record.relay, record.streams
    there, back = streams if streams is not None else (None, None)
    return KeptFlow(
        record.id, record.key, record.host_first, record.first_packet, record.payload_packets, record.naming.name or "",
        record.naming.confidence or "supporting", record.situation, record.decision, record.state, record.foreseen,
        tuple(relay.channels.items()) if relay is not None else None, relay.mapped if relay is not None else None,
        record.userspace_packets,
        (
            there.awaits if there is not None and not there.data else None,
            back.awaits if back is not None and not back.data else None,
        ),
        (record.opening[0], record.opening[1]),
    )  # fmt: skip


# -- values -> the call in an engine that begins -----------------------------------------------------------------------


def restore(engine: Engine, kept: Iterable[KeptCall], now: float) -> Iterator[Command]:
    """The calls go on. Out: their pinholes and bindings, to be put (again) where they are missing. What cannot be true
    of a call of this engine is passed over: the file it came from may be anybody's."""
    waiting: list[tuple[KeptCall, Call]] = []
    for each in kept:
        if _sound(engine, each):
            yield from _restore(engine, each, now)
            if (call := engine.calls.calls.open.get(each.number)) is not None:
                waiting.append((each, call))
    for each, call in waiting:
        for expectation in each.awaits[:MAX_LISTED]:
            yield from engine.calls.media.restore_awaited(expectation, call, now)


def _restore(engine: Engine, kept: KeptCall, now: float) -> Iterator[Command]:
    calls = engine.calls
    if kept.asleep is not None:
        _restore_asleep(engine, kept, kept.asleep, now)
        return
    told_of = kept.signalling and all(flow.key.proto == UDP for flow in kept.signalling)
    seen = now if told_of else now - SILENCE + UNHEARD
    call = Call(kept.number, kept.application, kept.started_at, seen, kept.last_packet)
    call.flows = list(kept.flows[:MAX_LISTED])
    call.call_id, call.caller, call.callee = kept.call_id, kept.caller, kept.callee
    call.answered_at, call.ending, call.ended_at = kept.answered_at, kept.ending, kept.ended_at
    call.end, call.media = kept.end, kept.media
    for peer in kept.peers:
        call.add_peer(peer)
    calls.calls.put(call, kept.hosts)
    if kept.decision is not None:
        calls.decisions[call.id] = kept.decision
    if kept.situation is not None:
        calls.situations[call.id] = kept.situation
    call.tag = next((dialog.from_tag for dialog in kept.dialogs), "")
    for dialog in kept.dialogs[:MAX_LISTED]:
        _restore_dialog(calls, call, dialog, now)
    for record in _followed(engine, kept, call.id, now):
        calls.records.setdefault(call.id, {})[record.id] = record
    for binding in kept.bindings[:MAX_LISTED]:
        calls.nat.restore(binding, (call.call_id or "", binding.inside), now)
        yield binding
    for pinhole in kept.pinholes[:MAX_LISTED]:
        yield from calls.media.restore(pinhole.number, pinhole.expectation, pinhole.binding, call, now)
    calls.resume()
    yield told_call(call)


def _followed(engine: Engine, kept: KeptCall, call: int, now: float) -> Iterator[FlowRecord]:
    for flow in kept.signalling[:MAX_LISTED]:
        record = engine.flows.get(flow.key)  # of another call, too
        if record is None or record.id != flow.number:
            record = record_of(flow, call, now)
            engine.follow_again(record)
        yield record


def _restore_asleep(engine: Engine, kept: KeptCall, until: float, now: float) -> None:
    """What its dialogs say next wakes it."""
    calls = engine.calls
    call = Call(kept.number, kept.application, kept.started_at, now, kept.last_packet, call_id=kept.call_id)
    call.peers = set(kept.peers[:MAX_LISTED])
    calls.calls.numbers.beyond(kept.number)
    for dialog in kept.dialogs[:MAX_LISTED]:
        _restore_dialog(calls, call, dialog, now)
    for _ in _followed(engine, kept, call.id, now):
        pass
    calls.asleep.keep(Slept(kept.call_id or "", call.id), min(until, now + LIFETIME), kept.application)
    calls.resume()


def _sound(engine: Engine, kept: KeptCall) -> bool:
    """Whether it may be a call of this engine."""
    numbers = (kept.number, *kept.flows, *(pinhole.number for pinhole in kept.pinholes))
    if kept.application not in engine.settings.applications or kept.number in engine.calls.calls.open:
        return False
    inside = engine.topology.inside
    hosts = (
        *kept.hosts,
        *(b.inside for b in kept.bindings),
        *(p.expectation.inside for p in kept.pinholes),
        *(awaited.inside for awaited in kept.awaits),
        *(d.host for d in kept.dialogs),
    )
    keys = (*(flow.key for flow in kept.signalling), *(key for dialog in kept.dialogs for key in dialog.carriers))
    flows = (address for key in keys for address in (key.src, key.dst))
    if not kept.hosts or not all(number > 0 for number in numbers):
        return False
    return all(len(a) in (4, 16) for a in (*hosts, *flows, *kept.peers)) and all(inside(host) for host in hosts)


def _restore_dialog(calls: CallKeeper, call: Call, kept: KeptDialog, now: float) -> None:
    if kept.call_id != call.call_id or not any(method == "INVITE" for method, _, _ in kept.cseqs):
        return
    cseqs = {(method, outward): number for method, outward, number in kept.cseqs}
    dialog = Dialog(kept.call_id, kept.host, kept.peer, kept.caller_inside, kept.from_tag, cseqs, call.peers)
    if ("INVITE", kept.caller_inside) not in cseqs:
        return
    dialog.to_tags, dialog.branch = set(kept.to_tags), next(iter(kept.to_tags), "")
    dialog.answered, dialog.cancelled, dialog.bye_at = kept.answered, kept.cancelled, kept.bye_at
    dialog.call = call.id
    calls.dialogs.put(dialog)
    for flow in kept.carriers:
        calls.dialogs.carry(dialog, flow)
        calls.paths.heard(flow, now)


def record_of(kept: KeptFlow, call: int | None, now: float) -> FlowRecord:
    record = FlowRecord(kept.number, kept.key, kept.host_first, kept.first_packet, kept.situation)
    because = Because(kept.first_packet, "kept over a restart", record.facts)
    if kept.application:
        record.naming.take(kept.application, kept.confidence, [because], kept.first_packet)
    record.decision, record.state, record.foreseen = kept.decision, kept.state, kept.foreseen
    record.call, record.watch, record.last_seen = call, True, now
    record.payload_packets = max(1, kept.payload_packets)
    record.userspace_packets = max(kept.seen, record.payload_packets)
    if kept.channels is not None:
        record.relay = Relay()
        record.relay.channels.update(kept.channels)
        record.relay.mapped = kept.mapped
    if record.streams is not None:
        for side in (0, 1):
            awaited = kept.awaits[side]
            if awaited is not None:
                record.streams[side].syn(awaited - 1)  # what was sent before is not part of a message
                record.opening[side] = kept.opening[side]
    return record
