"""What is open for calls: media foreseen, its pinholes and bindings in the kernel, how long, and why not.

In: a call, its dialog's agreement, or a peer's check on the client's own channel. Out: commands. Nothing is opened for
an application that policy does not allow, or where the operator has switched it off (design.md, the ALG).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from math import ceil

from appid.alg.book import Book, across
from appid.alg.dialog import Dialog
from appid.alg.dialogs import Dialogs
from appid.alg.expectation import Expectation
from appid.alg.host import NOBODY, Host
from appid.alg.lessons import LIFETIME as LESSON
from appid.alg.lessons import Lesson, Lessons
from appid.alg.media import MediaPort, described
from appid.dataplane.command import BindNat, ClosePinhole, Command, CutFlow, OpenPinhole, Report
from appid.engine import guards
from appid.engine.due import Due
from appid.engine.nat import OPENS_MEDIA, NatKeeper
from appid.engine.record import FlowRecord, Settings, Topology
from appid.engine.report import AnomalyReport, PinholeReport
from appid.engine.silence import LIFETIME
from appid.engine.standing import AT_ONCE, REFRESH, ROUNDS
from appid.flow.call import Call, Calls
from appid.flow.key import FlowKey
from appid.identify.application import ALG, AlgFunction
from appid.policy import Decision
from appid.wire import UDP, Endpoint, text

CHANNEL_BIND, CHECKED = "channel-bind", 30.0
"""The reason of an expectation that no dialog has announced, and the seconds for which it holds."""
PINHOLE_TIMEOUT = 300
"""Seconds the kernel keeps a pinhole or binding without hearing of it again: the bound if the engine is gone."""
MAX_DENIED = 4096
"""Refused datagram flows that are remembered, should a call announce them."""
MEDIA = "rtp"
"""The name of the flows that applications open which only signal."""


class Openings:
    """The expectations of all calls. `decisions`: by call; `sooner`: told when something is to be done."""

    def __init__(
        self, settings: Settings, topology: Topology, numbers: tuple[int, int], calls: Calls, dialogs: Dialogs,
        decisions: Mapping[int, Decision], sooner: Callable[[float], None],
    ) -> None:  # fmt: skip
        self.settings, self.topology = settings, topology
        self.calls, self.dialogs, self.decisions = calls, dialogs, decisions
        self.book = Book(*numbers, settings.limits.pinholes, settings.limits.pinholes_per_host)
        self.nat = NatKeeper(settings, topology)
        self.lessons = Lessons()
        self.bound: dict[int, BindNat] = {}
        self.due: Due[int] = Due()
        self.host: Host = NOBODY
        self._denied: OrderedDict[tuple[int, bytes, int, bytes], FlowKey] = OrderedDict()
        self._sooner = sooner
        self.touched: set[int] = set()
        """Calls that changed, since somebody emptied this."""

    # -- settings ------------------------------------------------------------------------------------------------

    def reload(self, settings: Settings, topology: Topology) -> dict[int, int]:
        """New settings. Out: the marks that the pinholes have had."""
        marks = {number: self.mark(e) for number, e in self.book.open.items()}
        self.settings, self.topology = settings, topology
        self.lessons.clear()  # what they name may be gone from the rules
        self.nat.reload(settings, topology)
        return marks

    def judged(self, marks: Mapping[int, int]) -> Iterator[Command]:
        """The calls have been judged again: what is switched off now is shut, of the rest nothing changes but marks."""
        for number, expectation in list(self.book.open.items()):
            call = self.calls.open[expectation.call]
            needed: AlgFunction = "channel-bind" if expectation.reason == CHANNEL_BIND else "expectations"
            known = expectation.application in self.settings.applications
            if not known or needed not in self.functions(call.application, self.decisions.get(call.id)):
                yield from self.close(number, call.last_packet, call.last_seen)
            elif (mark := self.mark(expectation)) != marks.get(number, mark):
                yield OpenPinhole(number, expectation, mark, PINHOLE_TIMEOUT)

    def functions(self, name: str | None, decision: Decision | None) -> frozenset[AlgFunction]:
        """What the ALG does: what the gateway, the application's file and the policy rule all allow."""
        application, judge = self.settings.applications.get(name or ""), self.settings.judge
        allowed = self.settings.alg & (application.alg if application is not None else ALG)
        return allowed & judge.alg(decision) if judge is not None and decision is not None else allowed

    def _of_media(self, call: Call) -> str:
        known = self.settings.applications
        opens = MEDIA in known and OPENS_MEDIA in known[call.application].characteristics
        return MEDIA if opens else call.application

    def mark(self, expectation: Expectation) -> int:
        application = self.settings.applications[expectation.application]
        decision, judge = self.decisions.get(expectation.call), self.settings.judge
        qos = judge.qos_of(decision) if judge is not None and decision is not None else 0
        return self.settings.marks.encode("allow", application.number, watch=application.watch, qos=qos)

    def was_denied(self, record: FlowRecord) -> None:
        """A datagram flow that policy refused: a call may announce it yet."""
        place = (record.key.proto, record.host, record.host_port, record.remote)
        self._denied.pop(place, None)
        self._denied[place] = record.key
        if len(self._denied) > MAX_DENIED:
            self._denied.popitem(last=False)

    def was_early(self, key: FlowKey) -> bool:
        """Whether this datagram flow from outside was refused; it is not asked for again."""
        place = (key.proto, key.dst, key.dport, key.src)
        return self._denied.get(place) == key and self._denied.pop(place) == key

    # -- what opens ----------------------------------------------------------------------------------------------

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

    def agreed(self, call: Call, dialog: Dialog, record: FlowRecord, packet: int, now: float) -> Iterator[Command]:
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
        self.book.forgo(call.id, record.host)
        ours = {record.host, *(inside for inside, _, _ in wanted)}
        standing = {
            (e.inside, e.port, e.peer): n for n, e in self.book.of_call(call.id)
            if e.inside == record.host or (e.inside in ours and e.peer == record.host)
        }  # fmt: skip
        beside = (view for view in self.dialogs.living(dialog.call_id, call.id) if view is not dialog)
        theirs = {place.port for view in beside if view.host == record.host for place in view.places()}
        for place_key, number in standing.items():
            if place_key not in wanted and place_key[1] not in theirs and self.book.open[number].reason != CHANNEL_BIND:
                yield from self.close(number, packet, now)
        for place_key, expectation in wanted.items():
            if place_key not in standing:
                yield from self._open(expectation, packet, now)
            elif self.book.open[standing[place_key]].reason == CHANNEL_BIND:
                yield from self._renew(standing[place_key], expectation, now)

    def confirmed(self, call: Call, dialog: Dialog, record: FlowRecord, packet: int, now: float) -> Iterator[Command]:
        """Both ends have said again that the session goes on (RFC 4028): its time begins anew, or it opens anew."""
        mine = [(n, e) for n, e in self.book.of_call(call.id) if e.inside == record.host and e.reason != CHANNEL_BIND]
        for number, expectation in mine:
            self.book.replace(number, replace(expectation, expires=now + LIFETIME))
        if not mine:
            yield from self.agreed(call, dialog, record, packet, now)

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
            early = self._denied.pop(place, None)
            if early is not None:
                yield CutFlow(early)  # what came too early was refused, and the kernel would go on refusing it
        yield self._pinhole(number, expectation, now)
        yield from self.tell(number, expectation, None)
        self.look_at(number, expectation, now)

    def restore(
        self, number: int, expectation: Expectation, binding: BindNat | None, call: Call, now: float
    ) -> Iterator[Command]:  # fmt: skip
        """One known from before goes on, if it can be true of this call."""
        if not self._may_go_on(expectation, call, now) or not self.book.put(number, expectation):
            return
        if binding is not None:
            self.bound[number] = binding
            self.nat.restore(binding, (call.call_id or "", expectation.inside), now)
            yield binding
        self.look_at(number, expectation, now)
        yield OpenPinhole(number, expectation, self.mark(expectation), PINHOLE_TIMEOUT)
        yield from self.tell(number, expectation, None)

    def restore_awaited(self, expectation: Expectation, call: Call, now: float) -> Iterator[Command]:
        """One for which the call waited: whoever has its place is known by now."""
        if self._may_go_on(expectation, call, now):
            yield from self._open(expectation, call.last_packet, now)

    def _may_go_on(self, expectation: Expectation, call: Call, now: float) -> bool:
        port, known = 1024 <= expectation.port <= 65535, expectation.application in self.settings.applications
        return expectation.call == call.id and known and port and expectation.expires > now

    def _inherit(self, expectation: Expectation, packet: int) -> Iterator[Command]:
        """The same place may still be held by a call that is ending: it is handed over, not closed and opened again."""
        number = self.book.holder(expectation)
        if number is None:
            return
        owner = self.calls.open.get(self.book.open[number].call)
        if owner is None or owner.ending:
            yield from self._hand_over(number, packet)

    def _hand_over(self, number: int, packet: int) -> Iterator[Command]:
        """Another call takes the place: the kernel's element and binding stay."""
        self.due.drop(number)
        yield from self.tell(number, self.book.remove(number), packet)
        self.bound.pop(number, None)

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
        return OpenPinhole(number, expectation, self.mark(expectation), timeout)

    def look_at(self, number: int, expectation: Expectation, now: float) -> None:
        """When it ends, or is to be renewed."""
        time = min(now + REFRESH, expectation.expires)
        self.due.put(number, time)
        self._sooner(time)

    def tell(self, number: int, expectation: Expectation, closed: int | None) -> Iterator[Command]:
        """The way between inside hosts is no hole: the kernel's element for it only makes known what flows there."""
        if not self.topology.inside(expectation.peer):
            yield Report("pinhole", PinholeReport(number, expectation, closed))

    def over(self, call: Call, packet: int, now: float, host: bytes | None = None) -> Iterator[Command]:
        """The call has ended, or one inside host's part in it."""
        self.book.forgo(call.id, host)
        for number, expectation in self.book.of_call(call.id):
            if host in (None, expectation.inside):
                yield from self.close(number, packet, now)

    def close(self, number: int, packet: int, now: float) -> Iterator[Command]:
        if (heir := self.book.heir(number)) is not None:
            yield from self._hand_over(number, packet)
            yield from self._open(heir, packet, now)
            self.touched.add(heir.call)
            return
        self.due.drop(number)
        expectation = self.book.remove(number, now)
        yield ClosePinhole(number, expectation)
        if self.bound.pop(number, None) is not None:
            inside = Endpoint(expectation.inside, expectation.port)
            yield from self.nat.bindings.unbind(expectation.proto, inside, expectation.peer)
        yield from self.tell(number, expectation, packet)

    def refresh(self, packet: int, now: float) -> Iterator[Command]:
        """Close what has had its time; renew what the kernel holds, each once in REFRESH seconds."""
        for number in self.due.take(now, max(AT_ONCE, len(self.due) // ROUNDS)):
            expectation = self.book.open[number]
            if now >= expectation.expires:
                yield from self.close(number, packet, now)
            else:
                self.due.put(number, min(now + REFRESH, expectation.expires))
                yield self._pinhole(number, expectation, now)
        yield from self.nat.bindings.renew(now)
