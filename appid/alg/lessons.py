"""Learned peers: an address that a validated exchange taught names the flow that follows, for LIFETIME seconds.

In: STUN messages of a flow. Out: for another flow's packet, the Lesson that foretells its name. A flow teaches once its
own name is final; what it validated until then waits for that: permissions and checks come before what tells the name.
Validated is what the other side confirmed under the same transaction: the relay a CreatePermission or ChannelBind of
the inside host (RFC 8656 sections 9 and 12), the peer a check of the inside host (RFC 8445 section 7.2.5), directly or
through the channel that is bound to it. A Binding without USERNAME is no check: it asks a server for the own address.
Media that a SIP dialog announced needs no lesson: it is expected (alg/book.py), unless it goes to a server of its own,
for which nothing is opened (engine/openings.py). A lesson names, it opens nothing.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import NamedTuple

from appid.wire import UDP, Endpoint, Fact, FlowKey

LIFETIME = 60.0
"""Seconds; a call that goes on asks again: a permission lasts 300 s (RFC 8656 section 9), consent 30 s (RFC 7675)."""
MAX_LESSONS = 4096
PER_HOST = 64
MAX_ASKED = 16
"""Unanswered requests remembered per flow, and peers that wait for its name."""
TEACHING = frozenset({"create-permission", "channel-bind", "binding"})

_Place = tuple[bytes, tuple[bytes, int]]


class Lesson(NamedTuple):
    """`endpoint` is a peer of `application`, as flow `flow` showed at `packet`; `watch`: its signalling can be read."""

    application: str
    endpoint: Endpoint
    flow: int
    packet: int
    watch: bool
    until: float


class Asked:
    """The requests of one flow's inside host that wait for their answer, and the peers that wait for its name."""

    __slots__ = ("pending", "validated")

    def __init__(self) -> None:
        self.pending: OrderedDict[bytes, tuple[Endpoint, ...]] = OrderedDict()
        self.validated: OrderedDict[Endpoint, float] = OrderedDict()

    def hear(self, facts: tuple[Fact, ...], by_host: bool, remote: Endpoint | None) -> tuple[Endpoint, ...]:
        """One STUN message; the peers that it validates. `remote`: to whom a check goes, None: to a server."""
        values: dict[str, object] = {}
        for fact in facts:
            values.setdefault(fact.name, fact.value)
        method, kind, transaction = values.get("stun.method"), values.get("stun.class"), values.get("stun.transaction")
        if method not in TEACHING or not isinstance(transaction, bytes):
            return ()
        if kind == "request" and by_host:
            peers = tuple(f.value for f in facts if f.name == "stun.peer_address" and isinstance(f.value, Endpoint))
            if method == "binding":
                peers = (remote,) if remote is not None and "stun.username" in values else ()
            if not peers:
                return ()
            self.pending[transaction] = peers
            if len(self.pending) > MAX_ASKED:
                self.pending.popitem(last=False)
        elif kind in ("success", "error") and not by_host:
            validated = self.pending.pop(transaction, ())
            return validated if kind == "success" else ()
        return ()

    def keep(self, peers: tuple[Endpoint, ...], now: float) -> None:
        """Peers validated at `now`, seconds; the oldest give way."""
        for peer in peers:
            self.validated.pop(peer, None)
            self.validated[peer] = now
            if len(self.validated) > MAX_ASKED:
                self.validated.popitem(last=False)

    def tell(self) -> tuple[tuple[Endpoint, float], ...]:
        """The peers that wait and when each was validated, oldest first; told once."""
        told = tuple(self.validated.items())
        self.validated.clear()
        return told


class Lessons:
    """All that was learned, by inside host and peer; the oldest gives way."""

    def __init__(self) -> None:
        self.places: OrderedDict[_Place, Lesson] = OrderedDict()
        self._hosts: Counter[bytes] = Counter()

    def learn(self, host: bytes, lesson: Lesson) -> None:
        """A lesson of a known peer renews it; a host that has learned too much learns nothing new until it forgets."""
        place = (host, lesson.endpoint)
        if place in self.places:
            self._forget(place)
        self._expire(lesson.until - LIFETIME)
        if self._hosts[host] >= PER_HOST:
            return
        if len(self.places) >= MAX_LESSONS:
            self._forget(next(iter(self.places)))
        self.places[place] = lesson
        self._hosts[host] += 1

    def clear(self) -> None:
        self.places.clear()
        self._hosts.clear()

    def known(self, key: FlowKey, now: float) -> Lesson | None:
        """What is known of a datagram's two ends, in either direction."""
        if key.proto != UDP:
            return None
        _, src, sport, dst, dport = key
        lesson = self.places.get((src, (dst, dport))) or self.places.get((dst, (src, sport)))
        return lesson if lesson is not None and now < lesson.until else None

    def _expire(self, now: float) -> None:
        """Lessons are kept nearly in the order in which they end: one that waited for its name may go a little late."""
        while self.places and (oldest := next(iter(self.places.items())))[1].until <= now:
            self._forget(oldest[0])

    def _forget(self, place: _Place) -> None:
        del self.places[place]
        self._hosts[place[0]] -= 1
        if not self._hosts[place[0]]:
            del self._hosts[place[0]]
