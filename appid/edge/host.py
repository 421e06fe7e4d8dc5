"""The kernel's word on source NAT, while a message is in hand: conntrack, and the bindings of all workers.

In: questions of the engine (alg/host.py). Out: endpoints. A binding is asked for by its key, a flow by its tuple: some
20 us each, whatever the tables hold. Only who has which port towards a peer takes a walk (4 ms on a large table).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

from appid.alg.headers import DEFAULT_PORT
from appid.alg.host import Host
from appid.dataplane.chain import NAT_TABLE
from appid.edge.conntrack import Conntrack, Entry, TupleFilter
from appid.edge.netlink import KernelError, Socket, attribute, attributes, nested
from appid.edge.own_ports import ANY, OwnPorts, own_ports
from appid.wire import TCP, UDP, Endpoint, FlowKey

_NFTABLES, _GET_ELEMENT, _INET = 10, 13, 1
_TABLE, _SET, _ELEMENTS, _ELEMENT, _KEY, _DATA, _VALUE = 1, 2, 3, 1, 1, 2, 1
log = logging.getLogger("appid")
FRESH = 1.0
"""Seconds for which a walk's findings are taken for true."""
REST = 99.0
"""A walk is followed by so many times its own time without one: set-up of many calls at once does not pay for it."""
MAX_KNOWN = 256


class Kernel(Host):
    """Of this network namespace."""

    def __init__(self, conntrack: Conntrack) -> None:
        self._conntrack = conntrack
        self._socket = Socket()
        self._taken: dict[tuple[int, bytes, bytes], tuple[float, Mapping[int, Endpoint]]] = {}
        self._walk_at = 0.0
        self._own_ports: OwnPorts = frozenset()
        self._listen_at = 0.0

    def close(self) -> None:
        self._socket.close()

    def mapped(self, key: FlowKey) -> Endpoint | None:
        return self._conntrack.mapped(key)

    def behind(self, proto: int, outside: Endpoint, peer: Endpoint) -> Endpoint | None:
        bound = self.bound(proto, outside, peer)
        if bound is not None or len(outside.address) != len(peer.address):
            return bound
        entry = self._conntrack.entry(FlowKey(proto, *peer, *outside))
        if entry is None:
            return None
        inside = entry.orig.source if entry.reply.destination == outside else entry.reply.source
        return inside if inside not in (outside, peer) else None

    def bound(self, proto: int, outside: Endpoint, peer: Endpoint) -> Endpoint | None:
        size = len(peer.address)
        if len(outside.address) != size:
            return None
        name = b"dnat4\0" if size == 4 else b"dnat6\0"
        key = bytes((proto, 0, 0, 0)) + outside.address + outside.port.to_bytes(2, "big") + b"\0\0" + peer.address
        asked = nested(_ELEMENTS, nested(_ELEMENT, nested(_KEY, attribute(_VALUE, key))))
        table = attribute(_TABLE, NAT_TABLE.encode() + b"\0")
        body = self._socket.get(_NFTABLES, _GET_ELEMENT, _INET, table, attribute(_SET, name), asked)
        for path in (_ELEMENTS, _ELEMENT, _DATA, _VALUE):
            if body is None:
                return None
            body = next((value for kind, value in attributes(body) if kind == path), None)
        if body is None or len(body) < size + 2:
            return None
        return Endpoint(bytes(body[:size]), int.from_bytes(body[size : size + 2], "big"))

    def signals(self, inside: bytes, far: Endpoint) -> bool:
        """At its usual ports that is seen at once; else by a walk, if there may be one now."""
        for proto in (UDP, TCP):
            for own in {DEFAULT_PORT, far.port}:
                if self._conntrack.entry(FlowKey(proto, inside, own, *far)) is not None:
                    return True
        wanted = (TupleFilter(proto, inside, None, *far) for proto in (UDP, TCP))
        return any(self._walk(each) for each in wanted)

    def _walk(self, wanted: TupleFilter, reply: bool = False) -> list[Entry]:
        """All that match; nothing while it must rest."""
        begun = time.monotonic()
        if begun < self._walk_at:
            return []
        try:
            return self._conntrack.find(wanted, reply)
        except KernelError:
            return []
        finally:
            end = time.monotonic()
            self._walk_at = end + REST * (end - begun)

    def owns(self, proto: int, outside: Endpoint) -> bool:
        """To look takes 0.3 ms, and no more than a hundredth of the time: what was found last is some 30 ms old."""
        now = time.monotonic()
        if now >= self._listen_at:
            try:
                self._own_ports = own_ports()
            except KernelError as error:
                if not self._listen_at:
                    log.warning("which ports the gateway itself listens on is not known: %s", error)
            self._listen_at = time.monotonic() + REST * (time.monotonic() - now)
        anywhere = outside._replace(address=ANY[len(outside.address)])
        return (proto, outside) in self._own_ports or (proto, anywhere) in self._own_ports

    def taken(self, proto: int, outside: bytes, peer: bytes) -> Mapping[int, Endpoint]:
        """A walk takes no more than a hundredth of the time: between two, what was found last has to do."""
        place, now = (proto, outside, peer), time.monotonic()
        known = self._taken.get(place)
        if len(outside) == 16:  # kernels up to 6.18 compare IPv6 addresses wrongly: they would send all they have
            return {}
        if (known is not None and now - known[0] < FRESH) or now < self._walk_at:
            return known[1] if known is not None else {}
        entries = self._walk(TupleFilter(proto, peer, None, outside), reply=True)
        found = {entry.reply.dport: entry.orig.source for entry in entries if entry.orig.src != peer}
        self._taken.pop(place, None)
        self._taken[place] = (now, found)
        if len(self._taken) > MAX_KNOWN:
            del self._taken[next(iter(self._taken))]
        return found
