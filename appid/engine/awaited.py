"""Datagrams from outside that a phone waits for at another port than it sends from (alg/listening.py).

In: SIP of allowed flows; a datagram that would begin a flow from outside. Out: whether it is to be judged as what the
phone itself has begun: it comes from the very endpoint that was told, to the very port that was named, it is SIP, and
of a transaction or dialog that lives, or the phone is registered there. Such flows are cut when the last reason ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from appid.alg.dialogs import Dialogs
from appid.alg.listening import Listening, listens
from appid.alg.registration import Registration
from appid.dataplane.command import Command, CutFlow
from appid.decode import sip
from appid.engine.record import FlowRecord
from appid.engine.registered import Registered
from appid.flow.key import FlowKey
from appid.packet import Packet
from appid.policy.evaluate import Situation
from appid.wire import UDP, DecodeError

if TYPE_CHECKING:
    from appid.engine.core import Engine

TRANSACTION = 32.0
"""Seconds for which an answer is waited for, and what is sent again after an end: 64*T1, RFC 3261 section 17."""
SWEEP = 16.0
"""Seconds between two looks for reasons that have ended."""


class Awaited:
    """The ports that are named, and the flows that came of it."""

    def __init__(self, dialogs: Dialogs, registered: Registered) -> None:
        self._dialogs, self._registered = dialogs, registered
        self._listening = Listening()
        self.begun: dict[FlowKey, None] = {}
        self._sweep_at: float | None = None

    def hear(self, engine: Engine, record: FlowRecord, message: sip.Message, now: float) -> Iterator[Command]:
        """The inside host has sent it, in a datagram of a flow that policy allows."""
        call_id = message.header("call-id") or ""
        for port in listens(message, record.host, record.host_port):
            self._listening.name(record.host, port, record.far, call_id, now + TRANSACTION)
            self._wake(now)
            early = FlowKey(UDP, *record.far, record.host, port)
            if engine.calls.media.was_early(early):
                engine.stamps.drop(early)
                yield CutFlow(early)  # what came too early was refused, and the kernel would go on refusing it

    def named(self, key: FlowKey, now: float) -> bool:
        """Whether the far end may send here, if what it sends is what is waited for."""
        return bool(self._reasons(key, now)) or self._registration(key, now) is not None

    def judged_as(self, situation: Situation, packet: Packet, now: float) -> Situation:
        """As what a flow's first packet is to be judged: what the host waits for, as the host's own."""
        at = situation
        if not at.begun_outside or packet.key.proto != UDP or not self._begins(packet, now):
            return at
        return at._replace(key=at.key.reversed(), from_zone=at.to_zone, to_zone=at.from_zone, begun_outside=False)

    def _begins(self, packet: Packet, now: float) -> bool:
        key = packet.key
        registration, reasons = self._registration(key, now), self._reasons(key, now)
        if registration is None and not reasons:
            return False
        try:
            layer = sip.decode(packet.payload) if not packet.fragment else None
        except DecodeError:
            return False
        message = layer.message if layer is not None else None
        if not isinstance(message, sip.Message) or (registration is None and message.header("call-id") not in reasons):
            return False
        self.begun[key] = None
        self._wake(now)
        if registration is not None:
            self._registered.touch(registration.flow)
        return True

    def go_on(self, key: FlowKey, now: float) -> None:
        """One that had begun when the engine before this one ended."""
        self.begun[key] = None
        self._wake(now)

    def _registration(self, key: FlowKey, now: float) -> Registration | None:
        found = self._registered.registrations.of(key.dst) if key.proto == UDP else ()
        return next((each for each in found if key in each.beside() and each.lasts() > now), None)

    def _reasons(self, key: FlowKey, now: float) -> set[str]:
        """Call-IDs."""
        if key.proto != UDP or not len(self._listening):
            return set()
        found = self._listening.named(key.dst, key.dport, key.source)
        return {call_id for call_id, until in found.items() if self._lives(key.dst, call_id, until, now)}

    def _lives(self, host: bytes, call_id: str, until: float, now: float) -> bool:
        views = (view for view in self._dialogs.views(call_id) if view.host == host)
        return until > now or any(not view.ended or now - view.ended_time < TRANSACTION for view in views)

    # -- time ----------------------------------------------------------------------------------------------------

    def tick(self, engine: Engine, now: float) -> Iterator[Command]:
        if self._sweep_at is None or now < self._sweep_at:
            return
        self._sweep_at = None
        named = self._listening.all()
        living = {(host, call_id) for host, call_id, until in named if self._lives(host, call_id, until, now)}
        self._listening.forget({(host, call_id) for host, call_id, _ in named} - living)
        for key in list(self.begun):
            if key not in engine.flows:
                del self.begun[key]
            elif not self.named(key, now):
                del self.begun[key]
                del engine.flows[key]
                yield CutFlow(key)
        if self.begun or len(self._listening):
            self._wake(now)

    def _wake(self, now: float) -> None:
        if self._sweep_at is None:
            self._sweep_at = now + SWEEP

    def next(self) -> float | None:
        return self._sweep_at
