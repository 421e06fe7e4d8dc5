"""The flows by which registrars call phones, kept in the kernel while the registration lasts (alg/registration.py).

In: SIP of allowed datagram flows, time. Out: KeepFlow, as for dialogs (paths.py): nothing is opened; a flow that policy
refuses, or that nobody follows any more, is not kept. And as values, what of a registration outlives its engine: the
phone may say nothing for an hour, and whoever serves by then must know who had begun its flow.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

from appid.alg.listening import MAX_PORTS, listens
from appid.alg.media import LOWEST_PORT
from appid.alg.registration import LONGEST, PER_FLOW, Registration, Registrations
from appid.dataplane.command import BindNat, Command, KeepFlow
from appid.decode import sip
from appid.engine.due import Due
from appid.engine.kept import KeptFlow, kept_flow, record_of
from appid.engine.paths import AGAIN, AT_ONCE, KEPT, ROUNDS, SOON
from appid.engine.record import FlowRecord
from appid.flow.key import FlowKey
from appid.wire import UDP, Endpoint

if TYPE_CHECKING:
    from appid.engine.core import Engine

LEAST = 30
"""Seconds that any datagram gives a flow in the kernel: a registration that ends sooner shortens nothing."""


@dataclass(frozen=True, slots=True)
class KeptRegistration:
    """`until`: by address of record, when it ends (seconds); `bindings`: of ports that its Contact and Via name;
    `ports`: those of the host at which it wants to be called; `beside`: the flows that have come to them."""

    flow: KeptFlow
    until: tuple[tuple[str, float], ...]
    bindings: tuple[BindNat, ...] = ()
    ports: tuple[int, ...] = ()
    beside: tuple[KeptFlow, ...] = ()


class Registered:
    """The registrations of one engine."""

    def __init__(self) -> None:
        self.registrations = Registrations()
        self.touched: set[int] = set()
        """Flow numbers whose registration changed or ended since somebody emptied this."""
        self._numbers: dict[int, FlowKey] = {}
        self._flows: dict[FlowKey, int] = {}
        self._due: Due[FlowKey] = Due()

    def hear(self, engine: Engine, record: FlowRecord, message: sip.Message, by_host: bool, now: float) -> None:
        """One SIP message of a flow that policy allows, not one of a relay's channel."""
        if record.key.proto != UDP:
            return  # a connection lives by itself
        if by_host:

            def outside_of(inside: Endpoint) -> Endpoint | None:
                known = engine.calls.nat.mappings.outside_of(UDP, inside, record.remote)
                return known if inside.address == record.host else None

            if message.method == "REGISTER":
                ports = listens(message, record.host, record.host_port)
                self.registrations.asked(message, record.key, record.host, record.far, outside_of, ports)
        else:
            changed = self.registrations.answered(message, record.host, record.far, now)
            if changed is not None:
                self._changed(engine, changed, now)
        if record.key in self.registrations.flows:
            self._due.put(record.key, now + SOON)

    def _changed(self, engine: Engine, registration: Registration, now: float) -> None:
        flow, record = registration.flow, engine.flows.get(registration.flow)
        if record is None or not registration.lasts():
            self._drop(flow)
            return
        self._number(record)
        record.watch = True  # it gives way to no flood, however long the phone says nothing
        self._due.put(flow, now + SOON)

    def _number(self, record: FlowRecord) -> None:
        """The flow's number, by which its registration is written down: a new life of its 5-tuple has another."""
        before = self._flows.get(record.key, record.id)
        if before != record.id:
            del self._numbers[before]
            self.touched.add(before)
        self._numbers[record.id], self._flows[record.key] = record.key, record.id
        self.touched.add(record.id)

    def touch(self, flow: FlowKey) -> None:
        """Something about it is to be written down."""
        number = self._flows.get(flow)
        if number is not None:
            self.touched.add(number)

    def _drop(self, flow: FlowKey) -> None:
        self.registrations.drop(flow)
        self._due.drop(flow)
        number = self._flows.pop(flow, None)
        if number is not None:
            del self._numbers[number]
            self.touched.add(number)

    def tick(self, engine: Engine, now: float) -> Iterator[Command]:
        for flow in self._due.take(now, max(AT_ONCE, len(self._due) // ROUNDS)):
            registration, record = self.registrations.flows.get(flow), engine.flows.get(flow)
            left = registration.lasts() - now if registration is not None else 0.0
            if left <= 0 or record is None or not engine.hears(record):
                self._drop(flow)
                if record is not None and record.decision is None:
                    record.watch = False
            else:
                self._due.put(flow, now + AGAIN)
                yield KeepFlow(flow, max(LEAST, min(KEPT, ceil(left))))

    def next(self) -> float | None:
        return self._due.next()

    # -- over a restart ------------------------------------------------------------------------------------------

    def living(self) -> list[int]:
        """The numbers of flows with a registration."""
        return list(self._numbers)

    def kept(self, engine: Engine, number: int) -> KeptRegistration | None:
        """None where it has ended."""
        flow = self._numbers.get(number)
        registration = self.registrations.flows.get(flow) if flow is not None else None
        record = engine.flows.get(flow) if flow is not None else None
        if registration is None or record is None or record.id != number:
            return None
        begun = (key for key in registration.beside() if key in engine.awaited.begun)
        return KeptRegistration(
            kept_flow(record), tuple(sorted(registration.until.items())), tuple(engine.calls.nat.held(number)),
            registration.ports, tuple(kept_flow(engine.flows[key]) for key in begun if key in engine.flows),
        )  # fmt: skip

    def go_on(self, engine: Engine, kept: KeptRegistration, now: float) -> Iterator[Command]:
        """It lasts on. What cannot be one of this engine is passed over."""
        key, known = kept.flow.key, kept.flow.application
        until = {name: min(end, now + LONGEST) for name, end in kept.until[:PER_FLOW] if end > now}
        sizes = {len(key.src), len(key.dst)}
        if key.proto != UDP or kept.flow.number <= 0 or not until or len(sizes) != 1 or not sizes <= {4, 16}:
            return
        record = engine.flows.get(key) or record_of(kept.flow, None, now)
        if not engine.topology.inside(record.host) or known not in engine.settings.applications:
            return
        ports = tuple(port for port in kept.ports[:MAX_PORTS] if LOWEST_PORT <= port <= 0xFFFF)
        registration = self.registrations.put(Registration(key, record.host, until, ports))
        if registration is None:
            return
        engine.follow_again(record)
        self._number(record)
        self._due.put(key, now)
        for binding in kept.bindings:
            if binding.inside == record.host:
                engine.calls.nat.restore(binding, record.id, now)
                yield binding
        for flow in kept.beside:
            if flow.key in registration.beside() and flow.key not in engine.flows and flow.number > 0:
                engine.follow_again(record_of(flow, None, now))
                engine.awaited.go_on(flow.key, now)
