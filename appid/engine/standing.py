"""NAT bindings that the kernel holds: made, renewed, taken out.

In: a mapping and the peer to which it holds. Out: BindNat and UnbindNat, each binding once, and again every REFRESH
seconds.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from appid.dataplane.command import BindNat, Command, UnbindNat
from appid.engine.due import Due
from appid.wire import Endpoint, FlowKey

BINDING_TIMEOUT = 300
"""Seconds the kernel keeps a binding without hearing of it again: the bound if the engine is gone."""
REFRESH = 100.0
"""Seconds between two renewals of a binding or a pinhole."""
AT_ONCE, ROUNDS = 64, 50
"""So many are renewed at a tick, or one in so many of all, if that is more: what began together does not stay so."""
MAX_PLACES = 65536
MAX_FLOWS_OF_PORT = 8
"""Datagram flows that are remembered, and of one port to one peer."""

Key = tuple[int, Endpoint, bytes]
"""Protocol, inside endpoint, peer."""


class Standing:
    """The bindings of one process."""

    def __init__(self) -> None:
        self.standing: dict[Key, BindNat] = {}
        self.due: Due[Key] = Due()
        self._flows: OrderedDict[Key, tuple[int, ...]] = OrderedDict()

    def bind(
        self, proto: int, inside: Endpoint, outside: Endpoint, peer: bytes, now: float, peer_ports: tuple[int, ...] = ()
    ) -> Iterator[Command]:
        """The mapping into the kernel, if it is not there. `peer_ports`: what the peer has announced."""
        key = (proto, inside, peer)
        standing = self.standing.get(key)
        if standing is None or (standing.outside, standing.outside_port) != outside:
            known = (*peer_ports, *self._flows.get(key, ()))
            self.put(BindNat(proto, *inside, *outside, peer, BINDING_TIMEOUT, known), now)
            yield self.standing[key]

    def put(self, binding: BindNat, now: float) -> None:
        """The kernel holds it, or is about to."""
        key = (binding.proto, Endpoint(binding.inside, binding.port), binding.peer)
        self.standing[key] = binding
        self.due.put(key, now + REFRESH)

    def renew(self, now: float) -> Iterator[Command]:
        """The kernel hears again of what it holds."""
        for key in self.due.take(now, max(AT_ONCE, len(self.due) // ROUNDS)):
            self.due.put(key, now + REFRESH)
            yield self.standing[key]

    def unbind(self, proto: int, inside: Endpoint, peer: bytes) -> Iterator[Command]:
        """It is not needed any more."""
        gone = self.standing.pop((proto, inside, peer), None)
        self.due.drop((proto, inside, peer))
        if gone is not None:
            yield UnbindNat(gone.proto, gone.inside, gone.port, gone.outside, gone.outside_port, gone.peer)

    def saw(self, key: FlowKey) -> None:
        """A datagram flow from inside begins: should its port be bound, it must begin anew."""
        place = (key.proto, key.source, key.dst)
        ports = self._flows.get(place, ())
        if len(ports) < MAX_FLOWS_OF_PORT:
            self._flows[place] = (*ports, key.dport)
        if len(self._flows) > MAX_PLACES:
            self._flows.popitem(last=False)

    def gone(self, key: FlowKey) -> None:
        """It has ended."""
        place = (key.proto, key.source, key.dst)
        ports = tuple(port for port in self._flows.get(place, ()) if port != key.dport)
        if ports:
            self._flows[place] = ports
        else:
            self._flows.pop(place, None)
