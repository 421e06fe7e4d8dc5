"""Calls: the flows that serve one call, tied together by host, application and peer.

In: flows as they are named, their inside host and remote address, and what the ALG says of the call's dialog.
Out: Call records. A call belongs to the inside hosts that take part in it (two, if both clients are inside).

A call ends by its dialog (bye, cancelled, refused), or is lost after SILENCE seconds without a packet of its flows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from heapq import heappop, heappush, heapreplace
from itertools import islice
from typing import Literal

from appid.flow.holders import Holders
from appid.flow.numbers import Numbers

SILENCE = 60.0
"""Seconds without a packet after which a call is lost."""
MAX_CALLS = 4096
PER_HOST = 1024
"""Calls of one inside host."""
TRIES = 64
"""Of a host's calls, how many are looked at for the one silent for longest."""
MAX_PEERS = 32
MAX_HOSTS = 32
MAX_CALL_FLOWS = 256
"""Flows listed with one call; more serve it, but are not listed."""

End = Literal["bye", "cancelled", "refused", "lost", "joined", "open"]


@dataclass(frozen=True, slots=True)
class CallMedia:
    """One medium as negotiated: payload types in order of preference, and for each its codec's name, None where neither
    description gives one."""

    kind: str
    payload_types: tuple[int, ...]
    codecs: tuple[str | None, ...]


@dataclass(slots=True, eq=False)
class Call:
    """One call. Packet numbers are those of the edge; `last_seen` is in seconds."""

    id: int
    application: str
    started_at: int
    last_seen: float
    last_packet: int
    hosts: set[bytes] = field(default_factory=set)
    peers: set[bytes] = field(default_factory=set)
    flows: list[int] = field(default_factory=list)
    call_id: str | None = None
    tag: str = ""
    caller: bytes | None = None
    callee: bytes | None = None
    answered_at: int | None = None
    ringing: bool = False
    ending: bool = False
    ended_at: int | None = None
    end: End = "open"
    media: tuple[CallMedia, ...] = ()

    def touch(self, now: float, packet: int) -> None:
        self.last_seen = max(self.last_seen, now)
        self.last_packet = max(self.last_packet, packet)

    def add_flow(self, flow: int) -> bool:
        """Whether there was room for it."""
        if flow in self.flows:
            return True
        if len(self.flows) < MAX_CALL_FLOWS:
            self.flows.append(flow)
            return True
        return False

    def add_peer(self, peer: bytes) -> None:
        if len(self.peers) < MAX_PEERS:
            self.peers.add(peer)

    def close(self, end: End, packet: int) -> None:
        self.end = end
        self.ended_at = packet


class Calls:
    """The open calls, at most MAX_CALLS, and PER_HOST of one inside host. First gives way what only rings, of the host
    of which most does; where nothing rings, a call of the host with most calls."""

    def __init__(self, first: int = 1, step: int = 1, limit: int | None = None, host: int | None = None) -> None:
        self._limit, self._host = limit or MAX_CALLS, host or PER_HOST
        self.open: dict[int, Call] = {}
        self._held, self._ringing, self._unsignalled = Holders(), Holders(), Holders()
        self._by_host = self._held.of
        self._idle: list[tuple[float, int]] = []
        self.numbers = Numbers(first, step)

    def start(self, application: str, hosts: Iterable[bytes], now: float, packet: int) -> Call:
        call = Call(self.numbers.take(), application, packet, now, packet)
        self.put(call, hosts)
        return call

    def put(self, call: Call, hosts: Iterable[bytes]) -> None:
        """The call is one of those open, under its own number."""
        self.numbers.beyond(call.id)
        self.open[call.id] = call
        heappush(self._idle, (call.last_seen, call.id))
        for host in hosts:
            self.join(call, host)

    def join(self, call: Call, host: bytes) -> None:
        if len(call.hosts) >= MAX_HOSTS and host not in call.hosts:
            return
        call.hosts.add(host)
        self._held.add(host, call.id)
        if call.call_id is None:
            self._unsignalled.add(host, call.id)
        if call.ringing:
            self._ringing.add(host, call.id)

    def of(self, host: bytes) -> bool:
        """Whether this inside host is in a call."""
        return host in self._by_host

    def rings(self, call: Call) -> None:
        """It was asked for, and nobody has answered."""
        call.ringing = True
        for host in call.hosts:
            self._ringing.add(host, call.id)

    def answered(self, call: Call) -> None:
        call.ringing = False
        for host in call.hosts:
            self._ringing.drop(host, call.id)

    def overflow(self, newest: Call | None = None) -> Call | None:
        """The call that must be given up because there are too many, of the newest one's hosts or of all."""
        for host in newest.hosts if newest is not None else ():
            if len(self._by_host.get(host, ())) > self._host:
                return self._least(host, newest)
        if len(self.open) <= self._limit:
            return None
        crowd, biggest = self._ringing.most(), self._held.most()
        if crowd is not None and (len(self._ringing.of[crowd]) > 1 or newest is None):
            return self._least(crowd, newest)
        return self._least(biggest, newest) if biggest is not None else self._quietest()

    def _least(self, host: bytes, newest: Call | None) -> Call:
        """Of a host's calls the one that rings for longest, but not the newest; else the one silent for longest."""
        for number in islice(self._ringing.of.get(host, ()), 2):
            if newest is None or number != newest.id:
                return self.open[number]
        calls = (self.open[number] for number in islice(self._by_host[host], TRIES))
        return min(calls, key=lambda call: call.last_seen)

    def leaving(self, application: str, hosts: Iterable[bytes], remote: bytes) -> Call | None:
        """The call that is just ending, if a flow of these inside hosts goes to its own peer: it begins no other."""
        ids = {number for host in hosts for number in self._by_host.get(host, ())}
        calls = (self.open[number] for number in sorted(ids))
        return next((c for c in calls if c.application == application and c.ending and remote in c.peers), None)

    def find(self, application: str, hosts: Iterable[bytes], remote: bytes) -> Call | None:
        """The open call that a flow of these inside hosts to `remote` serves: by its peer, else the last one active.
        Seen from outside a NAT, who sent first to a private address is the `remote`, and its call is meant."""
        return self._serving(self._held, application, (*hosts, remote), remote)

    def waiting(self, application: str, hosts: Iterable[bytes], remote: bytes) -> Call | None:
        """The same among those whose INVITE is still to come: a telephone exchange has few of them, and many others."""
        return self._serving(self._unsignalled, application, (*hosts, remote), remote)

    def signalled(self, call: Call, call_id: str, tag: str) -> None:
        """Its INVITE came; `tag` is the caller's."""
        call.call_id, call.tag = call_id, tag
        for host in call.hosts:
            self._unsignalled.drop(host, call.id)

    def _serving(self, held: Holders, application: str, hosts: Iterable[bytes], remote: bytes) -> Call | None:
        ids = {number for host in hosts for number in held.of.get(host, ())}
        calls = [c for number in ids if (c := self.open[number]).application == application and not c.ending]
        if not calls:
            return None
        with_peer = [c for c in calls if remote in c.peers]
        return max(with_peer or calls, key=lambda c: (c.last_seen, c.id))

    def remove(self, call: Call) -> None:
        self.open.pop(call.id, None)
        for host in call.hosts:
            self._held.drop(host, call.id)
            self._ringing.drop(host, call.id)
            self._unsignalled.drop(host, call.id)

    def silent(self, now: float) -> list[Call]:
        """Those silent for too long; each is told once."""
        found = []
        while (call := self._quietest()) is not None and now - call.last_seen >= SILENCE:
            heappop(self._idle)
            found.append(call)
        return found

    def next_deadline(self) -> float | None:
        """When the call silent for longest would be lost; None if there is none."""
        call = self._quietest()
        return None if call is None else call.last_seen + SILENCE

    def _quietest(self) -> Call | None:
        """The call silent for longest, at the cost of one step for each that has moved since it was looked at."""
        while self._idle:
            seen, number = self._idle[0]
            call = self.open.get(number)
            if call is None:
                heappop(self._idle)
            elif call.last_seen > seen:
                heapreplace(self._idle, (call.last_seen, number))
            else:
                return call
        return None
