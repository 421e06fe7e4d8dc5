"""The way that a dialog's signalling takes, kept open while the dialog lives.

In: datagram flows that carried a dialog's messages. Out: KeepFlow. The kernel forgets such a flow, and how it is
mapped, after half a minute or two of silence (nf_conntrack_udp_timeout, _stream), and between ACK and BYE a call may be
silent for longer. What the far end says next would then be a flow begun outside, which policy refuses and nobody
translates. Nothing is opened: it is the flow that stands, between its own two ports. The kernel's own time counts again
from its next packet on, so what ends the dialog ends the grace (docs/decisions/0030).
"""

from __future__ import annotations

from collections.abc import Iterator

from appid.alg.dialogs import Dialogs
from appid.dataplane.command import Command, KeepFlow
from appid.engine.due import Due
from appid.flow.key import FlowKey
from appid.wire import UDP

KEPT = 300
"""Seconds for which the kernel is asked to keep it: the bound if the engine is gone, as for pinholes."""
SOON, AGAIN = 4.0, 25.0
"""Seconds after a message (its first packet has no entry yet), and between two requests: datagrams that the kernel lets
through unseen give the flow a time of 30 s at least."""
AT_ONCE, ROUNDS = 64, 10
"""So many are asked for at a tick, or one in so many of all, if that is more."""


class Paths:
    """Those of all dialogs."""

    def __init__(self, dialogs: Dialogs) -> None:
        self._dialogs = dialogs
        self._due: Due[FlowKey] = Due()

    def heard(self, flow: FlowKey, now: float) -> float | None:
        """A message came on it. Out: when it must be kept; None if nobody needs it."""
        if flow.proto != UDP or not self._dialogs.carries(flow):
            return None
        self._due.put(flow, now + SOON)
        return now + SOON

    def tick(self, now: float) -> Iterator[Command]:
        for flow in self._due.take(now, max(AT_ONCE, len(self._due) // ROUNDS)):
            if self._dialogs.carries(flow):
                self._due.put(flow, now + AGAIN)
                yield KeepFlow(flow, KEPT)

    def next(self) -> float | None:
        return self._due.next()
