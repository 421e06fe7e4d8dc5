"""Commands into the kernel, front to back, each done when the next begins.

In: the engine's command lists, the queued packet they answer. Out: CommandFailed for what the kernel refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import assert_never

from appid.alg.expectation import Expectation
from appid.dataplane.command import (
    BindNat,
    ClosePinhole,
    Command,
    CutFlow,
    OpenPinhole,
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
from appid.dataplane.state import Desired
from appid.edge.conntrack import Conntrack, Entry, TupleFilter
from appid.edge.ipset import Pinholes
from appid.edge.nat import Bindings
from appid.edge.netlink import KernelError
from appid.edge.nfqueue import Held
from appid.engine import CommandFailed
from appid.wire import ICMP, ICMPV6


class Executor:
    """The kernel as the engine's commands see it. `desired` is what it was asked to hold."""

    def __init__(
        self,
        marks: Marks,
        on_report: Callable[[Report], None] | None = None,
        on_replace: Callable[[], None] | None = None,
    ) -> None:
        self.marks = marks
        self.desired = Desired()
        self.conntrack = Conntrack()
        self.pinholes = Pinholes()
        self.bindings = Bindings(self.conntrack)
        self._on_report = on_report
        self._on_replace = on_replace

    def close(self) -> None:
        self.pinholes.close()
        self.bindings.close()
        self.conntrack.close()

    def run(
        self, commands: Sequence[Command], now: float, held: Held | None = None, number: int = 0
    ) -> list[CommandFailed]:
        """Carry out a list. A refused command does not keep the others from being carried out."""
        failed: list[CommandFailed] = []
        for command in commands:
            try:
                self._one(command, now, held, number)
            except (KernelError, ValueError, OSError) as error:
                self.desired.failed(command)
                failed.append(CommandFailed(command, str(error)))
        return failed

    def _one(self, command: Command, now: float, held: Held | None, number: int) -> None:
        match command:
            case SetVerdict(packet, verdict, mark):
                self._verdict(_in_hand(held, packet, number), verdict, mark)
            case SetMark(key, mark, create):
                if create and key.proto in (ICMP, ICMPV6):
                    return  # a FlowKey does not hold what tells one echo from another: each one is asked about
                self.conntrack.set_mark(key, mark & self.marks.saved, self.marks.saved, create)
            case CutFlow(key):
                self.conntrack.delete(key)
            case OpenPinhole(_, expectation, mark, timeout):
                self.desired.note(command, now)
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
                self.bindings.unbind(command)
            case RewritePayload(packet, payload, numbers):
                waiting = _in_hand(held, packet, number)
                waiting.replace(replace_payload(waiting.data, payload, numbers))
            case RelaxTcp(key):
                self.conntrack.relax(key)
            case ReplaceChains():
                if self._on_replace is not None:
                    self._on_replace()
            case Report():
                if self._on_report is not None:
                    self._on_report(command)
            case _:
                assert_never(command)

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
        self.pinholes.shut(expectation)
        binding = self.desired.binding(expectation)
        if binding is not None:
            gone = UnbindNat(
                binding.proto, binding.inside, binding.port, binding.outside, binding.outside_port, binding.peer
            )
            self.desired.note(gone, now)
            self.bindings.unbind(gone, entries=False)
        for entry in self.entries(expectation):
            self.conntrack.delete(entry.orig)

    def entries(self, wanted: Expectation) -> list[Entry]:
        """The conntrack entries of a pinhole's flows, whichever side began them."""
        ends = TupleFilter(wanted.proto, wanted.inside, wanted.port, wanted.peer, wanted.peer_port)
        found = {entry.orig: entry for reply in (False, True) for entry in self.conntrack.find(ends, reply)}
        return list(found.values())


def _in_hand(held: Held | None, packet: int, number: int) -> Held:
    if held is None or packet != number or held.answered:
        raise ValueError(f"packet {packet} is not in the queue")
    return held
