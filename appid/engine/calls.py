"""Flows and dialogs -> calls.

In: a flow that has just been named, or a layer of a flow's packet. Out: commands: reports of calls, and what follows
for what is open for them (openings.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain

from appid.alg.dialog import BYE_TIMEOUT, Change, Dialog, Signal
from appid.alg.dialogs import Dialogs
from appid.alg.expectation import Expectation
from appid.alg.shares import Shares
from appid.dataplane.command import Command, Report
from appid.decode.sdp import Description
from appid.engine.doubt import Doubt
from appid.engine.openings import Openings
from appid.engine.paths import Paths
from appid.engine.record import FlowRecord, Settings, Topology
from appid.engine.report import AnomalyReport, told_call
from appid.engine.silence import Asleep, Slept
from appid.engine.standing import AT_ONCE
from appid.flow.call import Call, Calls, End
from appid.flow.key import FlowKey
from appid.policy import Decision
from appid.policy.evaluate import Situation
from appid.wire import Layer, text

CALL = "call"
"""The characteristic of applications each flow of which serves a call."""


class CallKeeper:
    """Keeps calls, dialogs and expectations of all flows."""

    def __init__(self, settings: Settings, topology: Topology, first: int = 1, step: int = 1) -> None:
        self.settings = settings
        self.topology = topology
        limits = settings.limits
        self.calls = Calls(first, step, limits.calls, limits.calls_per_host)
        self.dialogs = Dialogs(Shares(limits.calls_per_remote))
        self.decisions: dict[int, Decision] = {}
        self.situations: dict[int, tuple[Situation, str]] = {}  # and the name by which it was judged
        self.media = Openings(
            settings, topology, (first, step), self.calls, self.dialogs, self.decisions, self._sooner
        )  # fmt: skip
        self.book, self.nat, self.lessons = self.media.book, self.media.nat, self.media.lessons
        self.paths = Paths(self.dialogs)
        self.records: dict[int, dict[int, FlowRecord]] = {}
        self.doubt = Doubt(self.calls, self.records)
        self.touched = self.media.touched
        """Calls of which a packet was seen, or that ended, since somebody emptied this."""
        self.asleep = Asleep(self.dialogs, self.nat, self.touched)
        self.deadline: float | None = None

    def reload(
        self,
        settings: Settings,
        topology: Topology,
        moved: Callable[[Situation], Situation],
        refused: dict[int, Decision],
    ) -> Iterator[Command]:
        """New settings: calls of an application that is gone from them are given up, those that policy refuses now end
        (into `refused`, by number); what is switched off of the others is shut. `moved`: a situation in its new
        zones."""
        marks = self.media.reload(settings, topology)
        self.settings, self.topology = settings, topology
        for call in list(self.calls.open.values()):
            if call.application not in settings.applications:
                yield from self.end(call, "lost", call.last_packet, call.last_seen)
                continue
            situation, name = self.situations.get(call.id, (None, ""))
            if situation is None or settings.judge is None:
                continue
            situation, name = moved(situation), name if name in settings.applications else call.application
            self.situations[call.id] = situation, name
            decision = self.decisions[call.id] = settings.judge.first_match(situation, name)
            if decision.action != "allow" and not settings.monitor:
                refused[call.id] = decision
                yield from self.end(call, "refused", call.last_packet, call.last_seen)
        yield from self.media.judged(marks)

    # -- flows ---------------------------------------------------------------------------------------------------

    def named(self, record: FlowRecord, packet: int, now: float) -> Iterator[Command]:
        """The flow has a (new) name: the call it serves, if its application is one of calls."""
        name = record.naming.name
        if name is None or record.call is not None or CALL not in self.settings.applications[name].characteristics:
            return
        hosts = self._hosts(record)
        call = self.calls.find(name, hosts, record.remote) or self.calls.leaving(name, hosts, record.remote)
        if call is None:
            call = self.calls.start(name, hosts, now, packet)
            self._wake(now)
        self._add(call, record)
        call.touch(now, packet)
        yield told_call(call)
        yield from self._make_room(call, packet, now)

    def foresee(self, record: FlowRecord) -> tuple[int, Expectation] | None:
        """Whether a call foresaw this new flow; if so it joins the call."""
        found = self.book.foreseen(record.key)
        if found is not None:
            record.foreseen = found[0]
            call = self.calls.open.get(found[1].call)
            if call is not None:
                self._add(call, record)
        return found

    def moved(self, record: FlowRecord, packet: int, now: float, media: bool = False) -> None:
        """A packet of the flow was seen, of `media` for certain. A flow of a call that is over may serve the next, as
        soon as that foresees it."""
        if media or record.foreseen is not None:
            self.book.passes(record.key, packet, now)
        call = self.calls.open.get(record.call or 0)
        if call is None:
            call = self._foreseeing(record.key)
            if call is None or record.call is None:
                return
            self._add(call, record)
        call.touch(now, packet)
        self.touched.add(call.id)
        if media:
            self.doubt.moved(call.id, now)

    def moved_foreseen(self, key: FlowKey, packet: int, now: float) -> None:
        """The same for a flow that the kernel let through a pinhole, unseen by the engine."""
        if (call := self._foreseeing(key)) is not None:
            call.touch(now, packet)
            self.doubt.moved(call.id, now)
        self.book.passes(key, packet, now)

    def _moved_awaited(self) -> None:
        """What moves at a place may be that of each call that awaits it: those live as its holder does."""
        for number, packet, time in self.book.passed():
            if (call := self.calls.open.get(number)) is not None:
                call.touch(time, packet)
                self.doubt.moved(number, time)

    def _foreseeing(self, key: FlowKey) -> Call | None:
        found = self.book.foreseen(key)
        return None if found is None else self.calls.open.get(found[1].call)

    def refused(self, record: FlowRecord, packet: int, now: float) -> Iterator[Command]:
        """The flow's name shifted to one that policy refuses: what its signalling opened before is shut."""
        call = self.calls.open.get(record.call or 0)
        if call is not None and any(e.inside == record.host for _, e in self.book.of_call(call.id)):
            yield from self.end(call, "refused", packet, now)

    def learned_peer(self, record: FlowRecord, peer: bytes) -> None:
        if record.call is not None and (call := self.calls.open.get(record.call)) is not None:
            call.add_peer(peer)

    def _add(self, call: Call, record: FlowRecord) -> None:
        record.call = call.id
        self.touched.add(call.id)
        if call.add_flow(record.id):
            self.records.setdefault(call.id, {})[record.id] = record
        for host in self._hosts(record):
            self.calls.join(call, host)
        if record.relay is None:
            if record.host_first or record.foreseen is not None:  # what a stranger sends makes him no peer of the call
                call.add_peer(record.remote)
        else:
            for peer in record.relay.channels.values():
                call.add_peer(peer.address)

    def _hosts(self, record: FlowRecord) -> tuple[bytes, ...]:
        if self.topology.inside(record.remote):
            return (record.host, record.remote)
        return (record.host,)

    # -- signalling ----------------------------------------------------------------------------------------------

    def signal(
        self,
        record: FlowRecord,
        layer: Layer,
        description: Description | None,
        peer: bytes,
        outward: bool,
        packet: int,
        now: float,
    ) -> Iterator[Command]:
        """One SIP message on a flow that policy allows; `outward`: sent by the inside host."""
        facts = dict(reversed([(fact.name, fact.value) for fact in layer.facts]))
        method, status = facts.get("sip.method"), facts.get("sip.status")
        signal = Signal(
            str(method) if method is not None else None,
            status if isinstance(status, int) else None,
            str(facts.get("sip.call_id", "")),
            cseq if isinstance(cseq := facts.get("sip.cseq"), int) else -1,
            str(facts.get("sip.cseq_method", "")),
            str(facts.get("sip.from_tag") or ""),
            str(facts.get("sip.to_tag") or ""),
            description,
            record.host,
            peer,
            outward,
            record.key,
        )
        changes = self.dialogs.handle(signal, now)
        for change in changes:
            yield from self._apply(change, record, packet, now)
        if (due := self.paths.heard(record.key, now)) is not None:
            self._sooner(due)
        known, owner = self.dialogs.find(signal), (signal.call_id, signal.host)
        dialog = known if known is not None and known.owns(signal) else None
        call = self.calls.open.get(dialog.call) if dialog is not None else None
        if call is not None:  # whichever call its flow was last heard of
            call.touch(now, packet)
            self.touched.add(call.id)
        if dialog is not None and dialog.settled(signal):
            views = self.dialogs.at(*owner)
            yield from self.nat.trim(owner, chain.from_iterable(view.spoken() for view in views))
            if call is not None and 200 <= (signal.status or 0) < 300 and not changes:
                yield from self.media.confirmed(call, dialog, record, packet, now)
        if self.topology.inside(peer) and self.dialogs.at(signal.call_id, peer):
            # Straight from one inside host to the other, though both were called by way of the outside: the other's
            # dialog hears of it as well. Where its media goes was agreed on that way, and is foreseen for the first.
            other = replace(signal, host=peer, peer=record.host, outward=not outward)
            for change in self.dialogs.handle(other, now) if self.dialogs.find(other) is not None else ():
                if change.what in ("leaving", "ended"):
                    yield from self._apply(change, record, packet, now)
        sleeps = known is not None and (slept := Slept(known.call_id, known.call)) in self.asleep
        if sleeps:
            self.asleep.put(slept, now)
        if not self.dialogs.at(*owner):
            yield from self.nat.release(owner)  # nobody's dialog: what it named is not kept
            yield from self._late(signal, record, packet, now) if not sleeps else ()

    def _late(self, signal: Signal, record: FlowRecord, packet: int, now: float) -> Iterator[Command]:
        """A call joined in its middle: nothing is opened for it, but its BYE is readable, and ends it."""
        call = self.calls.open.get(record.call or 0)
        if call is None or call.call_id not in (None, signal.call_id) or self.dialogs.living(call.call_id, call.id):
            return
        if signal.method == "BYE" and not call.ending:
            call.call_id, call.ending = signal.call_id, True
            call.close("bye", packet)
            yield told_call(call)
        elif signal.method is None and signal.cseq_method == "BYE" and call.ending:
            yield from self.end(call, "bye", packet, now)

    def _apply(self, change: Change, record: FlowRecord, packet: int, now: float) -> Iterator[Command]:
        dialog = change.dialog
        if change.why:
            yield Report("anomaly", AnomalyReport(record.id, packet, "alg", f"not followed: {change.why}", record.key))
        if change.what in ("invited", "crowded"):
            yield from self._begin(dialog, record, packet, now) if change.what == "invited" else ()
            return
        woken = Slept(dialog.call_id, dialog.call) in self.asleep and change.what in ("answered", "media")
        if woken:
            yield from self._begin(dialog, record, packet, now)
        found = self.calls.open.get(dialog.call)
        if found is None:
            if change.what == "ended":
                yield from self.asleep.release(dialog.call_id, dialog.host)
            return
        if dialog.answered:
            self.calls.answered(found)
            found.answered_at = found.answered_at or packet
        self.doubt.drop(found.id)
        if woken or change.what == "media":
            yield from self.media.agreed(found, dialog, record, packet, now)
        elif change.what == "leaving" and change.end == "cancelled":
            self.deadline = self._next_deadline()
            return
        elif change.what == "leaving":
            found.ending = True
            if found.ended_at is None:
                found.close("bye", packet)
            self._sooner(now + BYE_TIMEOUT)
        elif change.what == "ended":
            yield from self._dialog_ended(found, change, packet, now)
            return
        yield told_call(found)

    def _begin(self, dialog: Dialog, record: FlowRecord, packet: int, now: float) -> Iterator[Command]:
        """A call begins, or one that was lost goes on as another."""
        slept = Slept(dialog.call_id, dialog.call)
        views = self.dialogs.living(*slept) if slept in self.asleep else [dialog]
        self.asleep.wake(slept)
        was = record.call or 0
        call = self._invited(dialog, record, packet, now)
        yield from self._absorb(call, record.call, packet)
        self._add(call, record)
        for peer in dialog.peers:
            call.add_peer(peer)
        dialog.peers = call.peers
        for view in views:
            view.call = call.id
        if not dialog.answered and call.answered_at is None:
            self.calls.rings(call)
        if was not in self.calls.open and was in self.decisions:  # booked for the one that was lost
            self.decisions[call.id] = self.decisions.pop(was)
            if was in self.situations:
                self.situations[call.id] = self.situations.pop(was)
        yield told_call(call)
        yield from self._make_room(call, packet, now)

    def _invited(self, dialog: Dialog, record: FlowRecord, packet: int, now: float) -> Call:
        """The call that this INVITE begins; the same one where inside hosts see it from both ends, or it forked."""
        beside = (self.calls.open.get(view.call) for view in self.dialogs.beside(dialog))
        known = next((call for call in beside if call is not None), None)
        call = known or self._nascent(dialog, record, packet, now)
        caller, callee = (dialog.host, dialog.peer) if dialog.caller_inside else (dialog.peer, dialog.host)
        if known is None:
            call.started_at = packet
            self.calls.signalled(call, dialog.call_id, dialog.from_tag)
            call.caller, call.callee = caller, callee
        elif dialog.caller_inside:
            call.caller = caller
        else:
            call.callee = callee
        call.touch(now, packet)
        return call

    def _absorb(self, call: Call, number: int | None, packet: int) -> Iterator[Command]:
        """What was a call of its own until this INVITE is `call`, seen at its other end: both clients are inside, each
        with a relay of its own. All that is its becomes `call`'s."""
        other = self.calls.open.get(number or 0)
        if other is None or other is call or other.ending or other.call_id is not None:
            return
        for pinhole, _ in self.book.of_call(other.id):
            self.book.give(pinhole, call.id)
        for record in self.records.pop(other.id, {}).values():
            self._add(call, record)
        other.close("joined", packet)
        self.calls.remove(other)
        self.touched.add(other.id)
        self.decisions.pop(other.id, None)
        self.situations.pop(other.id, None)
        yield told_call(other, into=call.id)

    def _nascent(self, dialog: Dialog, record: FlowRecord, packet: int, now: float) -> Call:
        """A call of these hosts whose INVITE was still to come, else a new one."""
        name, hosts = record.naming.name or "", self._hosts(record)
        call = self.calls.open.get(record.call or 0)
        if call is None or call.ending or call.call_id is not None:
            call = self.calls.waiting(name, hosts, dialog.peer)
        if call is None or call.call_id is not None:
            call = self.calls.start(name, hosts, now, packet)
            self._wake(now)
        return call

    def _dialog_ended(
        self, call: Call, change: Change, packet: int, now: float, answered: bool = True
    ) -> Iterator[Command]:
        """One end's view is over: what was opened for that host goes; the call is over with its last dialog."""
        call_id, host = change.dialog.call_id, change.dialog.host
        if views := self.dialogs.living(call_id, call.id):
            if all(view.host != host for view in views):
                yield from self.media.over(call, packet, now, host)
            yield from self.asleep.release(call_id, host)
            return
        yield from self.end(call, change.end, packet, now, answered)

    # -- time ----------------------------------------------------------------------------------------------------

    def end(
        self, call: Call, end: End, packet: int, now: float, answered: bool = True, silent: bool = False
    ) -> Iterator[Command]:
        """The call is over: its pinholes and bindings go, its dialogs are forgotten, unless it only fell `silent`."""
        if call.ended_at is None or end != "bye":
            call.close(end, call.last_packet if end == "lost" else packet)
        elif answered:
            call.ended_at = packet
        yield from self.media.over(call, packet, now)
        self.calls.remove(call)
        self.records.pop(call.id, None)
        self.touched.add(call.id)
        self.decisions.pop(call.id, None)
        self.situations.pop(call.id, None)
        if call.call_id is not None:
            slept = Slept(call.call_id, call.id)
            if silent and self.dialogs.living(*slept):
                self.asleep.put(slept, now, call.application)
            else:
                yield from self.asleep.forget(slept, now, call.hosts)
        yield told_call(call)

    def resume(self) -> None:
        """Calls were put back: somebody must look after them."""
        self.deadline = self._next_deadline()

    def tick(self, packet: int, now: float) -> Iterator[Command]:
        """What time alone does: unanswered BYEs, silence, hard limits, renewal of what the kernel holds."""
        self._moved_awaited()
        for change in self.dialogs.expired(now):
            call = self.calls.open.get(change.dialog.call)
            if (slept := Slept(change.dialog.call_id, change.dialog.call)) in self.asleep:
                self.asleep.put(slept, now)
                yield from self.asleep.release(slept.call_id, change.dialog.host)
            if call is not None:
                yield from self._dialog_ended(call, change, packet, now, answered=False)
        for call in dict.fromkeys((*self.doubt.take(now, AT_ONCE), *self.calls.silent(now))):
            end: End = "bye" if call.ending else "lost"
            yield from self.end(call, end, packet, now, answered=False, silent=not call.ending)
        yield from self.asleep.tick(now)
        yield from self.media.refresh(packet, now)
        yield from self.paths.tick(now)
        self.deadline = self._next_deadline()

    def _make_room(self, newest: Call, packet: int, now: float) -> Iterator[Command]:
        """There are too many calls: one gives way, and that is told."""
        while (overflow := self.calls.overflow(newest)) is not None:
            hosts = ", ".join(text(host) for host in sorted(overflow.hosts)[:2])
            reason = f"too many calls: call {overflow.id} of {hosts} gave way"
            yield Report("anomaly", AnomalyReport(0, packet, "alg", reason))
            yield from self.end(overflow, "lost", packet, now)

    def _sooner(self, time: float) -> None:
        """A deadline may be too early, never too late: the tick looks at all calls, a packet must not."""
        self.deadline = time if self.deadline is None else min(self.deadline, time)

    def _wake(self, now: float) -> None:
        """A new call may be the only one: see that somebody looks after it."""
        if self.deadline is None:
            self.deadline = self._next_deadline()

    def _next_deadline(self) -> float | None:
        keepers = (self.dialogs.next_deadline(), self.calls.next_deadline(), self.asleep.next(), self.doubt.next())
        times = (*keepers, self.media.due.next(), self.nat.bindings.due.next(), self.paths.next())
        return min((t for t in times if t is not None), default=None)
