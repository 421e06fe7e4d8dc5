"""Commands into the kernel, front to back, each done when the next begins.

In: the engine's command lists, the queued packet they answer. Out: CommandFailed for what the kernel refused.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import replace
from math import ceil
from typing import assert_never

from appid.dataplane.command import (
    BindNat,
    ClosePinhole,
    Command,
    CutFlow,
    KeepFlow,
    OpenPinhole,
    Postpone,
    RelaxTcp,
    ReplaceChains,
    Report,
    RewritePayload,
    SetMark,
    SetVerdict,
    UnbindNat,
)
from appid.dataplane.marks import Marks
from appid.dataplane.rewrite import replace_payload
from appid.dataplane.state import Desired, Element, element
from appid.edge.conntrack import DENIED_TIMEOUT, Conntrack, Echo, Entry, echo_of
from appid.edge.host import Kernel
from appid.edge.ipset import Pinholes
from appid.edge.nat import Bindings
from appid.edge.netlink import KernelError
from appid.edge.nfqueue import Held
from appid.edge.too_big import TooBig
from appid.engine import CommandFailed
from appid.flow.key import FlowKey
from appid.wire import ICMP, ICMPV6

_MAX_REFUSED = 4096


Later = Callable[[float, Callable[[], None]], None]
"""Does a thing after so many seconds."""


class Executor:
    """The kernel as the engine's commands see it. `desired` is what it was asked to hold."""

    def __init__(
        self,
        marks: Marks,
        on_report: Callable[[Report], None] | None = None,
        on_replace: Callable[[], None] | None = None,
        inside: Callable[[bytes], bool] = lambda address: False,
        too_big: TooBig | None = None,
        later: Later = lambda seconds, step: step(),
    ) -> None:
        self.inside = inside
        self._later = later
        self._too_big = too_big
        self._refused: dict[FlowKey, float] = {}
        self.marks = marks
        self.desired = Desired()
        self.conntrack = Conntrack()
        self.host = Kernel(self.conntrack)
        self.pinholes = Pinholes()
        self.bindings = Bindings(self.conntrack)
        self._on_report = on_report
        self._on_replace = on_replace
        self.known: dict[Element, list[Entry]] = {}
        self._open: set[Element] = set()
        self.closed: dict[
            Element, int | None
        ] = {}  # pinholes shut a moment ago: the peer's port, if for that one alone
        self._leaving: list[UnbindNat] = []
        self._cut: list[Entry] = []
        self._echoes: dict[FlowKey, tuple[Echo, ...]] = {}

    def close(self) -> None:
        self.pinholes.close()
        self.bindings.close()
        self.host.close()
        self.conntrack.close()

    def run(
        self, commands: Sequence[Command], now: float, held: Held | None = None, number: int = 0
    ) -> list[CommandFailed]:
        """Carry out a list. A refused command does not keep the others from being carried out."""
        failed: list[CommandFailed] = []
        self.bindings.prepare([command for command in commands if isinstance(command, BindNat)])
        for command in commands:
            if (self._leaving or self._cut) and not isinstance(command, (ClosePinhole, UnbindNat, Report)):
                self._leave()
            try:
                self._one(command, now, held, number)
            except (KernelError, ValueError, OSError) as error:
                self.desired.failed(command)
                failed.append(CommandFailed(command, str(error)))
        self._leave()
        return failed

    def _leave(self) -> None:
        """Bindings that go together, in one transaction; then the flows that lived by them."""
        leaving, self._leaving = self._leaving, []
        self.bindings.unbind(leaving)
        cut, self._cut = self._cut, []
        for entry in cut:
            self.conntrack.delete(entry.orig)

    def _one(self, command: Command, now: float, held: Held | None, number: int) -> None:
        match command:
            case SetVerdict(packet, verdict, mark):
                self._verdict(_in_hand(held, packet, number), verdict, mark)
            case Postpone(packet, seconds):
                waiting = _in_hand(held, packet, number)
                waiting.wait()
                self._later(seconds, lambda: waiting.repeat(waiting.mark & ~self.marks.mask & 0xFFFFFFFF))
            case SetMark(key, mark, create):
                self._mark(key, mark & self.marks.saved, create, held, now)
            case KeepFlow(key, timeout):
                self.conntrack.keep(key, timeout)
            case CutFlow(key):
                self.conntrack.delete(key)
            case OpenPinhole(_, expectation, mark, timeout):
                self.desired.note(command, now)
                place = element(expectation)
                if place in self.closed:  # what is left of a call before must not be taken for this one's
                    self.sweep()
                self._open.add(place)
                self.pinholes.open(expectation, mark & self.marks.saved, self.marks.mask, timeout)
            case ClosePinhole():
                self._close(command, now)
            case BindNat():
                self.desired.note(command, now)
                self.bindings.bind(command)
            case UnbindNat():
                if self.desired.binding(command) is None:
                    return  # it went with its pinhole, entries and all: looking for them walks the whole table
                self.desired.note(command, now)
                self._leaving.append(command)  # its flows ended, or their pinhole was shut
            case RewritePayload(packet, payload, numbers):
                waiting = _in_hand(held, packet, number)
                before = waiting.data
                waiting.replace(replace_payload(before, payload, numbers))
                if self._too_big is not None:
                    self._too_big.tell(before, len(waiting.data), now)
            case RelaxTcp(key):
                self.conntrack.relax(key, self.marks.passing)
            case ReplaceChains():
                if self._on_replace is not None:
                    self._on_replace()
            case Report():
                if self._on_report is not None:
                    self._on_report(command)
            case _:
                assert_never(command)

    def _mark(self, key: FlowKey, mark: int, create: bool, held: Held | None, now: float) -> None:
        if key.proto in (ICMP, ICMPV6):
            self._mark_echo(key, mark, create, held)
            return
        self.conntrack.set_mark(key, mark, self.marks.saved, create)
        if create and self.inside(key.dst) and not self.inside(key.src):
            self._refuse_forwarded(key, mark, now)

    def _mark_echo(self, key: FlowKey, mark: int, create: bool, held: Held | None) -> None:
        """Requests have entries of their own, by identifiers that a flow's key has not: those that were refused are
        remembered, and begin anew when the flow is judged again. Errors need no entry: they are their flow's."""
        if not create:
            for echo in self._echoes.pop(key, ()):
                self.conntrack.delete_echo(key, echo)
            return
        asked = echo_of(held.data) if held is not None else None
        if asked is not None:
            self.conntrack.create_echo(key, asked, mark)
            self._echoes[key] = (*self._echoes.pop(key, ())[-7:], asked)
            while len(self._echoes) > _MAX_REFUSED:
                del self._echoes[next(iter(self._echoes))]

    def _refuse_forwarded(self, key: FlowKey, mark: int, now: float) -> None:
        """A flow from outside, refused at its first packet: if it is asked about again, the entry that was made is not
        its own, for its packets come to another address and are forwarded (DNAT). Then the set refuses it."""
        before = self._refused.pop(key, None)
        self._refused[key] = now
        if before is not None and now - before < DENIED_TIMEOUT:
            self.pinholes.refuse((key.proto, key.dst, key.dport, key.src), mark, self.marks.mask)
        while len(self._refused) > _MAX_REFUSED:
            del self._refused[next(iter(self._refused))]

    def _verdict(self, held: Held, verdict: str, mark: int) -> None:
        if verdict == "drop":
            held.drop()
        else:
            held.repeat(self.marks.merge(held.mark, mark))

    def _close(self, command: ClosePinhole, now: float) -> None:
        """Set element, binding, entries, in this order: what was cut cannot come back by what is still there."""
        expectation = command.expectation
        shared = self.desired.shared(command, now)
        self.desired.note(command, now)
        if shared:
            return
        place = element(expectation)
        self.pinholes.shut(place)
        binding = self.desired.binding(expectation)
        if binding is not None:
            gone = UnbindNat(
                binding.proto, binding.inside, binding.port, binding.outside, binding.outside_port, binding.peer
            )
            self.desired.note(gone, now)
            self._leaving.append(gone)
        known = self.known.pop(place, ())
        self._cut += [entry for entry in known if expectation.peer_port in (None, _far_port(entry, place))]
        if expectation.announced and not known:  # where the peer said it would be: cut before anything else goes on
            key = FlowKey(
                expectation.proto, expectation.inside, expectation.port, expectation.peer, expectation.announced
            )
            entry = self.conntrack.entry(key)
            self._cut += [entry] if entry is not None else []
        self._open.discard(place)
        self.closed[place] = expectation.peer_port

    def sweep(self) -> int:
        """Delete the entries of flows whose pinhole was shut since the last time, however they were decided. Out: how
        many. To look for them walks the kernel's whole table (4 ms on a large one), once for all that were shut."""
        if not self.closed:
            return 0
        closed, self.closed = self.closed, {}
        gone = 0
        for entry in list(self.conntrack.entries()):
            place = place_of(entry, closed)
            if place is not None and closed[place] in (None, _far_port(entry, place)):
                gone += self.conntrack.delete(entry.orig)
        return gone

    def anew(self, now: float) -> list[Command]:
        """All that was asked for and has not had its time, bindings first: they go together."""
        self.bindings.forget()
        bound = [replace(binding, peer_ports=()) for binding, until in self.desired.bindings() if until > now]
        open_ = [
            replace(pinhole, timeout=ceil(until - now)) for pinhole, until in self.desired.pinholes() if until > now
        ]
        return [*bound, *open_]

    def saw(self, entries: Iterable[Entry]) -> None:
        """These entries are flows of pinholes: once their pinhole is shut, they need not be looked for."""
        self.known = {}
        for entry in entries:
            place = place_of(entry, self._open)
            if place is not None:
                self.known.setdefault(place, []).append(entry)


def place_of(entry: Entry, places: Container[Element]) -> Element | None:
    """Which of these pinholes the entry is a flow of, begun inside or outside."""
    key = entry.key
    for place in ((key.proto, key.src, key.sport, key.dst), (key.proto, key.dst, key.dport, key.src)):
        if place in places:
            return place
    return None


def _far_port(entry: Entry, place: Element) -> int:
    key = entry.key
    return key.dport if (key.src, key.sport) == place[1:3] else key.sport


def _in_hand(held: Held | None, packet: int, number: int) -> Held:
    if held is None or packet != number or held.answered:
        raise ValueError(f"packet {packet} is not in the queue")
    return held
