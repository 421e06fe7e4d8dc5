"""Flows and dialogs -> calls, expectations, bindings.

In: a flow that has just been named, or a layer of a flow's packet. Out: commands: pinholes and NAT bindings opened and
closed, reports of calls. Nothing is opened for an application that policy does not allow (design.md, the ALG).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import replace
from math import ceil

from appid.alg.book import Book, across
from appid.alg.dialog import BYE_TIMEOUT, Change, Dialog, Dialogs, Signal
from appid.alg.expectation import Expectation
from appid.alg.host import NOBODY, Host
from appid.alg.lessons import LIFETIME as LESSON
from appid.alg.lessons import Lesson, Lessons
from appid.alg.media import MediaPort, described
from appid.dataplane.command import BindNat, ClosePinhole, Command, CutFlow, OpenPinhole, Report
from appid.decode.sdp import Description
from appid.engine import guards
from appid.engine.doubt import Doubt
from appid.engine.due import Due
from appid.engine.nat import OPENS_MEDIA, NatKeeper
from appid.engine.paths import Paths
from appid.engine.record import FlowRecord, Settings, Topology
from appid.engine.report import AnomalyReport, PinholeReport, told_call
from appid.engine.silence import Asleep
from appid.engine.standing import AT_ONCE, REFRESH, ROUNDS
from appid.flow.call import Call, Calls, End
from appid.flow.key import FlowKey
from appid.identify.application import ALG, AlgFunction
from appid.policy import Decision
from appid.policy.evaluate import Situation
from appid.wire import UDP, Endpoint, Layer, text

CHANNEL_BIND, CHECKED = "channel-bind", 30.0
"""The reason of an expectation that no dialog has announced, and the seconds for which it holds."""
PINHOLE_TIMEOUT = 300
"""Seconds the kernel keeps a pinhole or binding without hearing of it again: the bound if the engine is gone."""
MAX_DENIED = 4096
"""Refused datagram flows that are remembered, should a call announce them."""
CALL = "call"
"""The characteristic of applications each flow of which serves a call."""
MEDIA = "rtp"
"""The name of the flows that applications open which only signal."""


class CallKeeper:
    """Keeps calls, dialogs and expectations of all flows."""

    def __init__(self, settings: Settings, topology: Topology, first: int = 1, step: int = 1) -> None:
        self.settings = settings
        self.topology = topology
        limits = settings.limits
        self.calls = Calls(first, step, limits.calls, limits.calls_per_host)
        self.dialogs = Dialogs()
        self.book = Book(first, step, limits.pinholes, limits.pinholes_per_host)
        self.nat = NatKeeper(settings, topology)
        self.asleep = Asleep(self.dialogs, self.nat)
        self.paths = Paths(self.dialogs)
        self.lessons = Lessons()
        self.denied: OrderedDict[tuple[int, bytes, int, bytes], FlowKey] = OrderedDict()
        self.by_call_id: dict[str, int] = {}
        self.records: dict[int, dict[int, FlowRecord]] = {}
        self.doubt = Doubt(self.calls, self.records)
        self.touched: set[int] = set()
        """Calls of which a packet was seen, or that ended, since somebody emptied this."""
        self.bound: dict[int, BindNat] = {}
        self.decisions: dict[int, Decision] = {}
        self.situations: dict[int, tuple[Situation, str]] = {}  # and the name by which it was judged
        self.due: Due[int] = Due()
        self.host: Host = NOBODY
        self.deadline: float | None = None

    def reload(
        self, settings: Settings, topology: Topology, moved: Callable[[Situation], Situation],
        refused: dict[int, Decision],
    ) -> Iterator[Command]:  # fmt: skip
        """New settings: calls of an application that is gone from them are given up, those that policy refuses now end
        (into `refused`, by number); of the others nothing changes but marks. `moved`: a situation in its new zones."""
        marks = {number: self.pinhole_mark(e) for number, e in self.book.open.items()}
        self.settings, self.topology = settings, topology
        self.lessons = Lessons()  # what they name may be gone from the rules
        self.nat.reload(settings, topology)
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
        for number, expectation in self.book.open.items():
            mark = self.pinhole_mark(expectation)
            if marks.get(number, mark) != mark:
                yield OpenPinhole(number, expectation, mark, PINHOLE_TIMEOUT)

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

    def was_denied(self, record: FlowRecord) -> None:
        """A datagram flow that policy refused: a call may announce it yet."""
        place = (record.key.proto, record.host, record.host_port, record.remote)
        self.denied.pop(place, None)
        self.denied[place] = record.key
        if len(self.denied) > MAX_DENIED:
            self.denied.popitem(last=False)

    def moved(self, record: FlowRecord, packet: int, now: float) -> None:
        """A packet of the flow was seen. One of a call that is over may serve the next, as soon as that foresees it."""
        call = self.calls.open.get(record.call or 0)
        if call is None:
            call = self._foreseeing(record.key)
            if call is None or record.call is None:
                return
            self._add(call, record)
        call.touch(now, packet)
        self.touched.add(call.id)

    def moved_foreseen(self, key: FlowKey, packet: int, now: float) -> None:
        """The same for a flow that the kernel let through a pinhole, unseen by the engine."""
        if (call := self._foreseeing(key)) is not None:
            call.touch(now, packet)
            self.doubt.moved(call.id, now)

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
        return (record.host, record.remote) if self.topology.inside(record.remote) else (record.host,)

    # -- signalling ----------------------------------------------------------------------------------------------

    def signal(
        self, record: FlowRecord, layer: Layer, description: Description | None, peer: bytes, outward: bool,
        packet: int, now: float,
    ) -> Iterator[Command]:  # fmt: skip
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
        for change in self.dialogs.handle(signal, now):
            yield from self._apply(change, record, packet, now)
        if (due := self.paths.heard(record.key, now)) is not None:
            self._sooner(due)
        dialog = self.dialogs.known.get((signal.call_id, signal.host))
        if dialog is not None and dialog.settled(signal):
            yield from self.nat.trim((signal.call_id, signal.host), dialog.spoken())
        if self.topology.inside(peer) and (signal.call_id, peer) in self.dialogs.known:
            # Straight from one inside host to the other, though both were called by way of the outside: the other's
            # dialog hears of it as well. Where its media goes was agreed on that way, and is foreseen for the first.
            other = replace(signal, host=peer, peer=record.host, outward=not outward)
            for change in self.dialogs.handle(other, now):
                if change.what in ("leaving", "ended"):
                    yield from self._apply(change, record, packet, now)
        if signal.call_id in self.asleep:
            self.asleep.put(signal.call_id, now)
        elif signal.call_id not in self.by_call_id:
            yield from self.nat.release((signal.call_id, signal.host))  # nobody's dialog: what it named is not kept
            yield from self._late(signal, record, packet, now)

    def _late(self, signal: Signal, record: FlowRecord, packet: int, now: float) -> Iterator[Command]:
        """A call joined in its middle: nothing is opened for it, but its BYE is readable, and ends it."""
        call = self.calls.open.get(record.call or 0)
        if call is None or call.call_id not in (None, signal.call_id):
            return
        if signal.method == "BYE" and not call.ending:
            call.call_id, call.ending = signal.call_id, True
            call.close("bye", packet)
            yield told_call(call)
        elif signal.method is None and signal.cseq_method == "BYE" and call.ending:
            yield from self.end(call, "bye", packet, now)

    def _apply(self, change: Change, record: FlowRecord, packet: int, now: float) -> Iterator[Command]:
        dialog = change.dialog
        if change.what == "invited":
            yield from self._begin(dialog, record, packet, now)
            return
        woken = dialog.call_id in self.asleep and change.what in ("answered", "media")
        if woken:
            yield from self._begin(dialog, record, packet, now)
        found = self.calls.open.get(self.by_call_id.get(dialog.call_id, 0))
        if found is None:
            return
        if dialog.answered:
            self.calls.answered(found)
            found.answered_at = found.answered_at or packet
        self.doubt.drop(found.id)
        if woken or change.what == "media":
            yield from self._media(found, dialog, record, packet, now)
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
        self.asleep.wake(dialog.call_id)
        was = record.call or 0
        call = self._invited(dialog, record, packet, now)
        yield from self._absorb(call, record.call, packet)
        self._add(call, record)
        for peer in dialog.peers:
            call.add_peer(peer)
        dialog.peers = call.peers
        self.by_call_id[dialog.call_id] = call.id
        if not dialog.answered and call.answered_at is None:
            self.calls.rings(call)
        if was not in self.calls.open and was in self.decisions:  # booked for the one that was lost
            self.decisions[call.id] = self.decisions.pop(was)
            if was in self.situations:
                self.situations[call.id] = self.situations.pop(was)
        yield told_call(call)
        yield from self._make_room(call, packet, now)

    def _invited(self, dialog: Dialog, record: FlowRecord, packet: int, now: float) -> Call:
        """The call that this INVITE begins; the same one where two inside hosts see one dialog from both ends."""
        known = self.calls.open.get(self.by_call_id.get(dialog.call_id, 0))
        call = known or self._nascent(dialog, record, packet, now)
        caller, callee = (dialog.host, dialog.peer) if dialog.caller_inside else (dialog.peer, dialog.host)
        if known is None:
            call.started_at = packet
            self.calls.signalled(call, dialog.call_id)
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
        if self.dialogs.living(change.dialog.call_id):
            for number, expectation in self.book.of_call(call.id):
                if expectation.inside == change.dialog.host:
                    yield from self._close(number, packet, now)
            yield from self.nat.release((change.dialog.call_id, change.dialog.host))
            return
        yield from self.end(call, change.end, packet, now, answered)

    # -- expectations --------------------------------------------------------------------------------------------

    def checked(self, record: FlowRecord, peer: Endpoint, packet: int, now: float) -> Iterator[Command]:
        """A peer's own check came on a channel that the inside host had bound to it: each knows of the other. Its
        direct check may come before any SIP; 30 s, then a dialog must have said the same (design.md, the ALG)."""
        call = self.calls.open.get(record.call or 0)
        application = self.settings.applications.get(record.naming.name or "")
        if call is None or application is None or not guards.checked(record, peer.address, application, self):
            return
        port = record.host_port
        number = self.book.at(UDP, record.host, port, peer.address)
        if number is not None:
            known = self.book.open[number]
            if known.reason != CHANNEL_BIND or known.call != call.id or known.expires - now > CHECKED / 2:
                return
            yield from self._renew(number, replace(known, expires=now + CHECKED), now)
            return
        outside = self.nat.behind_relay(record, peer.address, self.host)
        expectation = Expectation(
            UDP, record.host, port, peer.address, None,
            outside.address if outside is not None else None, outside.port if outside is not None else port,
            self._of_media(call), call.id, CHANNEL_BIND, packet, now + CHECKED, announced=peer.port,
        )  # fmt: skip
        yield from self._open(expectation, packet, now)

    def _renew(self, number: int, expectation: Expectation, now: float) -> Iterator[Command]:
        """The same place for the same call, on other grounds or for longer."""
        self.book.replace(number, expectation)
        self.look_at(number, expectation, now)
        yield from self._bind(number, expectation, now)
        yield self._pinhole(number, expectation, now)

    def _bind(self, number: int, expectation: Expectation, now: float) -> Iterator[Command]:
        if expectation.outside is not None:
            inside = Endpoint(expectation.inside, expectation.port)
            outside = Endpoint(expectation.outside, expectation.outside_port)
            peer, ports = expectation.peer, (expectation.announced,)
            if not self.nat.may(expectation.proto, expectation.inside, outside, self.host):
                return
            yield from self.nat.bindings.bind(expectation.proto, inside, outside, peer, now, ports)
            self.bound[number] = self.nat.bindings.standing[expectation.proto, inside, expectation.peer]

    def _pinhole(self, number: int, expectation: Expectation, now: float) -> OpenPinhole:
        timeout = max(1, min(PINHOLE_TIMEOUT, ceil(expectation.expires - now)))
        return OpenPinhole(number, expectation, self.pinhole_mark(expectation), timeout)

    def look_at(self, number: int, expectation: Expectation, now: float) -> None:
        """When it ends, or is to be renewed."""
        time = min(now + REFRESH, expectation.expires)
        self.due.put(number, time)
        self._sooner(time)

    def _sooner(self, time: float) -> None:
        """A deadline may be too early, never too late: the tick looks at all calls, a packet must not."""
        self.deadline = time if self.deadline is None else min(self.deadline, time)

    def _media(self, call: Call, dialog: Dialog, record: FlowRecord, packet: int, now: float) -> Iterator[Command]:
        if dialog.pair is not None:
            call.media = described(*dialog.pair.told)
        if "expectations" not in self.functions(call.application, self.decisions.get(call.id)):
            return
        wanted: dict[tuple[bytes, int, bytes], Expectation] = {}
        for place in dialog.places():
            if self.topology.inside(dialog.peer):
                place = replace(place, peer=dialog.peer)  # both inside: media takes the path of the signalling
            refusal = guards.refusal(place, record, self.settings.applications[call.application], self.topology)
            if refusal is None and guards.strange(place, dialog, record.far, self):
                refusal = f"media from {text(place.peer)}, which is not the peer"
                yield from self._teach(call, place, record, packet, now)
            if refusal is not None:
                if not place.candidate:
                    yield Report("anomaly", AnomalyReport(record.id, packet, "sdp", refusal, record.key))
                continue
            expectation = self._announced(call, place, record, packet, now)
            wanted[expectation.inside, expectation.port, expectation.peer] = expectation
            if self.topology.inside(place.peer) and not self.topology.inside(dialog.peer):
                call.add_peer(place.peer)  # it may speak to the host itself from now on
                if self.settings.share[1] > 1:  # what it sends at once may be another worker's, who has not heard yet
                    there = across(expectation)
                    wanted[there.inside, there.port, there.peer] = there
        ours = {record.host, *(inside for inside, _, _ in wanted)}
        standing = {
            (e.inside, e.port, e.peer): n for n, e in self.book.of_call(call.id)
            if e.inside == record.host or (e.inside in ours and e.peer == record.host)
        }  # fmt: skip
        for place_key, number in standing.items():
            if place_key not in wanted and self.book.open[number].reason != CHANNEL_BIND:
                yield from self._close(number, packet, now)
        for place_key, expectation in wanted.items():
            if place_key not in standing:
                yield from self._open(expectation, packet, now)
            elif self.book.open[standing[place_key]].reason == CHANNEL_BIND:
                yield from self._renew(standing[place_key], expectation, now)

    def _teach(
        self, call: Call, place: MediaPort, record: FlowRecord, packet: int, now: float
    ) -> Iterator[Command]:  # fmt: skip
        """A server for media alone: nothing is opened for it, but what the host sends there is known to be media, and
        comes from where it was said to. Calls whose media would have their own name learn nothing by a line of text."""
        name, server = self._of_media(call), Endpoint(place.peer, place.peer_port)
        if name != call.application and not place.candidate and not self.topology.inside(place.peer):
            self.lessons.learn(record.host, Lesson(name, server, record.id, packet, False, now + LESSON))
            if not guards.nobody(place.peer, self):
                owner = (call.call_id or "", record.host)
                yield from self.nat.served_by(record, place.port, server, owner, self.host, packet, now)

    def _announced(self, call: Call, place: MediaPort, record: FlowRecord, packet: int, now: float) -> Expectation:
        owner, name = (call.call_id or "", record.host), self._of_media(call)
        return guards.announced(place, record, owner, (call.id, name), self, packet, now)

    def functions(self, name: str | None, decision: Decision | None) -> frozenset[AlgFunction]:
        """What the ALG does: what the gateway, the application's file and the policy rule all allow."""
        application, judge = self.settings.applications.get(name or ""), self.settings.judge
        allowed = self.settings.alg & (application.alg if application is not None else ALG)
        return allowed & judge.alg(decision) if judge is not None and decision is not None else allowed

    def _of_media(self, call: Call) -> str:
        known = self.settings.applications
        opens = MEDIA in known and OPENS_MEDIA in known[call.application].characteristics
        return MEDIA if opens else call.application

    def _open(self, expectation: Expectation, packet: int, now: float) -> Iterator[Command]:
        yield from self._inherit(expectation, packet)
        number = self.book.add(expectation)
        if number is None:
            full = self.book.full(expectation)
            if full is not None:
                yield Report("anomaly", AnomalyReport(0, packet, "alg", f"not opened: {full}"))
            return
        yield from self._bind(number, expectation, now)
        for place in (
            (expectation.proto, expectation.inside, expectation.port, expectation.peer),
            (expectation.proto, expectation.peer, expectation.announced, expectation.inside),
        ):
            early = self.denied.pop(place, None)
            if early is not None:
                yield CutFlow(early)  # what came too early was refused, and the kernel would go on refusing it
        yield self._pinhole(number, expectation, now)
        yield from self.tell(number, expectation, None)
        self.look_at(number, expectation, now)

    def _inherit(self, expectation: Expectation, packet: int) -> Iterator[Command]:
        """The same place may still be held by a call that is ending: it is handed over, not closed and opened again."""
        number = self.book.holder(expectation)
        if number is None:
            return
        owner = self.calls.open.get(self.book.open[number].call)
        if owner is not None and not owner.ending:
            return
        self.due.drop(number)
        yield from self.tell(number, self.book.remove(number), packet)
        self.bound.pop(number, None)

    def tell(self, number: int, expectation: Expectation, closed: int | None) -> Iterator[Command]:
        """The way between inside hosts is no hole: the kernel's element for it only makes known what flows there."""
        if not self.topology.inside(expectation.peer):
            yield Report("pinhole", PinholeReport(number, expectation, closed))

    def pinhole_mark(self, expectation: Expectation) -> int:
        application = self.settings.applications[expectation.application]
        decision, judge = self.decisions.get(expectation.call), self.settings.judge
        qos = judge.qos_of(decision) if judge is not None and decision is not None else 0
        return self.settings.marks.encode("allow", application.number, watch=application.watch, qos=qos)

    def _close(self, number: int, packet: int, now: float) -> Iterator[Command]:
        self.due.drop(number)
        expectation = self.book.remove(number, now)
        yield ClosePinhole(number, expectation)
        if self.bound.pop(number, None) is not None:
            inside = Endpoint(expectation.inside, expectation.port)
            yield from self.nat.bindings.unbind(expectation.proto, inside, expectation.peer)
        yield from self.tell(number, expectation, packet)

    # -- time ----------------------------------------------------------------------------------------------------

    def end(
        self, call: Call, end: End, packet: int, now: float, answered: bool = True, silent: bool = False
    ) -> Iterator[Command]:
        """The call is over: its pinholes and bindings go, its dialogs are forgotten, unless it only fell `silent`."""
        if call.ended_at is None or end != "bye":
            call.close(end, call.last_packet if end == "lost" else packet)
        elif answered:
            call.ended_at = packet
        for number, _ in self.book.of_call(call.id):
            yield from self._close(number, packet, now)
        self.calls.remove(call)
        self.records.pop(call.id, None)
        self.touched.add(call.id)
        self.decisions.pop(call.id, None)
        self.situations.pop(call.id, None)
        if call.call_id is not None:
            self.by_call_id.pop(call.call_id, None)
            if silent and self.dialogs.living(call.call_id):
                self.asleep.put(call.call_id, now)
            else:
                yield from self.asleep.forget(call.call_id, now, call.hosts)
        yield told_call(call)

    def resume(self) -> None:
        """Calls were put back: somebody must look after them."""
        self.deadline = self._next_deadline()

    def tick(self, packet: int, now: float) -> Iterator[Command]:
        """What time alone does: unanswered BYEs, silence, hard limits, renewal of what the kernel holds."""
        for change in self.dialogs.expired(now):
            call_id = change.dialog.call_id
            call = self.calls.open.get(self.by_call_id.get(call_id, 0))
            if call_id in self.asleep:
                self.asleep.put(call_id, now)
            if call is not None:
                yield from self._dialog_ended(call, change, packet, now, answered=False)
        for call in dict.fromkeys((*self.doubt.take(now, AT_ONCE), *self.calls.silent(now))):
            end: End = "bye" if call.ending else "lost"
            yield from self.end(call, end, packet, now, answered=False, silent=not call.ending)
        yield from self.asleep.tick(now)
        yield from self._refresh(packet, now)
        yield from self.paths.tick(now)
        self.deadline = self._next_deadline()

    def _make_room(self, newest: Call, packet: int, now: float) -> Iterator[Command]:
        """There are too many calls: one gives way, and that is told."""
        while (overflow := self.calls.overflow(newest)) is not None:
            hosts = ", ".join(text(host) for host in sorted(overflow.hosts)[:2])
            reason = f"too many calls: call {overflow.id} of {hosts} gave way"
            yield Report("anomaly", AnomalyReport(0, packet, "alg", reason))
            yield from self.end(overflow, "lost", packet, now)

    def _refresh(self, packet: int, now: float) -> Iterator[Command]:
        """Close what has had its time; renew what the kernel holds, each once in REFRESH seconds."""
        for number in self.due.take(now, max(AT_ONCE, len(self.due) // ROUNDS)):
            expectation = self.book.open[number]
            if now >= expectation.expires:
                yield from self._close(number, packet, now)
            else:
                self.due.put(number, min(now + REFRESH, expectation.expires))
                yield self._pinhole(number, expectation, now)
        yield from self.nat.bindings.renew(now)

    def _wake(self, now: float) -> None:
        """A new call may be the only one: see that somebody looks after it."""
        if self.deadline is None:
            self.deadline = self._next_deadline()

    def _next_deadline(self) -> float | None:
        keepers = (self.dialogs.next_deadline(), self.calls.next_deadline(), self.asleep.next(), self.doubt.next())
        times = (*keepers, self.due.next(), self.nat.bindings.due.next(), self.paths.next())
        return min((t for t in times if t is not None), default=None)
