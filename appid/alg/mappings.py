"""Which outside port stands for which inside port, towards which peer: the gateway's half of source NAT for calls.

In: an inside endpoint, its peer, an outside address, who asks. Out: the outside port, the same each time it is asked.
The port is kept where nobody else has it towards that peer; else a run of free ports of the same parity is taken (RFC
4787 sections 4.2.1 to 4.2.3: preservation, parity, contiguity). What a look costs does not grow with what is held.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from appid.wire import UDP, Endpoint

LOWEST, HIGHEST = 16384, 32767
"""Ports given in a kept one's stead: below those that Linux gives its own sockets (ip_local_port_range)."""
PER_OWNER = 64
PER_HOST = 256
MAX_MAPPINGS = 65536
TRIES = 64

Owner = tuple[str, bytes] | int
"""A dialog (Call-ID and inside host), or a signalling flow's number."""


class _Inside(NamedTuple):
    proto: int
    endpoint: Endpoint
    peer: bytes


class _Outside(NamedTuple):
    proto: int
    endpoint: Endpoint
    peer: bytes


class Gone(NamedTuple):
    """A mapping, as those who hold it let go of it."""

    proto: int
    inside: Endpoint
    outside: Endpoint
    peer: bytes


@dataclass(slots=True, eq=False)
class _Mapping:
    inside: _Inside
    outside: _Outside
    owners: set[Owner] = field(default_factory=set)
    media: set[Owner] = field(default_factory=set)
    """Those of them that are dialogs whose description names it."""


class Mappings:
    """All mappings of one process, at most `per_host` of an inside host. Of several processes, number `share[0]` of
    `share[1]` gives only the pairs of ports that are its own. `free` tells whether nobody else in the host has an
    outside port towards the peer."""

    def __init__(self, share: tuple[int, int] = (0, 1), per_host: int = PER_HOST) -> None:
        self.per_host = per_host
        self._hosts: dict[bytes, int] = {}
        self._inside: dict[_Inside, _Mapping] = {}
        self._outside: dict[_Outside, _Mapping] = {}
        self._anywhere: dict[tuple[int, Endpoint], dict[_Mapping, None]] = {}
        self._owned: dict[Owner, list[_Mapping]] = {}
        self._cursor: dict[tuple[int, bytes, bytes], int] = {}
        self._share = share

    def __len__(self) -> int:
        return len(self._inside)

    def outside_of(self, proto: int, inside: Endpoint, peer: bytes) -> Endpoint | None:
        found = self._inside.get(_Inside(proto, inside, peer))
        return found.outside.endpoint if found is not None else None

    def inside_of(self, proto: int, outside: Endpoint, peer: bytes) -> Endpoint | None:
        """Who stands behind an outside endpoint that this peer knows."""
        found = self._outside.get(_Outside(proto, outside, peer))
        return found.inside.endpoint if found is not None else None

    def for_media(self, inside: Endpoint, peer: bytes) -> bool:
        """Whether a dialog's description names that endpoint to this peer: a signalling flow's own does not count."""
        found = self._inside.get(_Inside(UDP, inside, peer))
        return found is not None and bool(found.media)

    def elsewhere(
        self, proto: int, outside: Endpoint, call_id: str, fits: Callable[[Owner], bool] | None = None
    ) -> Endpoint | None:  # fmt: skip
        """Who stands behind an outside endpoint that other peers know: who alone does, or alone in that call. For
        media: counted are those that a dialog's description names which `fits`."""
        known = [
            each for each in self._anywhere.get((proto, outside), ()) if fits is None or any(map(fits, each.media))
        ]
        ends = {each.inside.endpoint for each in known}
        if len(ends) > 1:
            of_call = (each for each in known if any(isinstance(o, tuple) and o[0] == call_id for o in each.owners))
            ends = {each.inside.endpoint for each in of_call}
        return ends.pop() if len(ends) == 1 else None

    def note(self, proto: int, inside: Endpoint, outside: Endpoint, peer: bytes, owner: Owner) -> bool:
        """A mapping that stands already (the host made it, or a client learned it). Out: whether it may: its outside
        port is not another's, the inside port not mapped elsewhere, and the owner has not too many."""
        here, there = _Inside(proto, inside, peer), _Outside(proto, outside, peer)
        known, other = self._inside.get(here), self._outside.get(there)
        if known is not other or not self._room(owner, inside.address, [known]):
            return False
        self._make(here, there, owner)
        return True

    def hold(
        self, proto: int, inside: bytes, ports: tuple[int, ...], outside: bytes, peer: bytes, owner: Owner,
        free: Callable[[Endpoint, int], bool] = lambda _here, _port: True, media: bool = True,
    ) -> tuple[int, ...] | None:  # fmt: skip
        """The outside ports for a run of inside ports that must stay a run. None: a cap, or no run is free. `media`: a
        dialog's are, unless only its headers name them."""
        here = [_Inside(proto, Endpoint(inside, port), peer) for port in ports]
        known = [self._inside.get(one) for one in here]
        if not self._room(owner, inside, known):
            return None
        for first in self._starts(proto, ports, outside, peer, known):
            there = [_Outside(proto, Endpoint(outside, first + i), peer) for i in range(len(ports))]
            if first + len(ports) > 0x10000 or any(
                self._outside.get(t) is not k for t, k in zip(there, known, strict=True)
            ):
                continue
            if all(
                k is not None or free(h.endpoint, t.endpoint.port) for h, t, k in zip(here, there, known, strict=True)
            ):
                for mine, theirs in zip(here, there, strict=True):
                    self._make(mine, theirs, owner, media)
                if first != ports[0]:
                    self._cursor[proto, outside, peer] = first + len(ports)
                return tuple(one.endpoint.port for one in there)
        return None

    def full(self, inside: bytes) -> bool:
        """Whether this inside host has all that it may have."""
        return self._hosts.get(inside, 0) >= self.per_host

    def held(self, owner: Owner) -> list[Gone]:
        """What this owner holds."""
        return [Gone(m.inside.proto, m.inside.endpoint, m.outside.endpoint, m.inside.peer) for m in
                self._owned.get(owner, ())]  # fmt: skip

    def flows(self) -> list[int]:
        """The signalling flows among the owners."""
        return [owner for owner in self._owned if isinstance(owner, int)]

    def release(self, owner: Owner, only: Container[Endpoint] | None = None) -> list[Gone]:
        """The owner is gone, or holds these inside endpoints of datagrams no more. Out: what nobody holds any more."""
        gone, mine = [], self._owned.pop(owner, [])
        if only is not None:
            kept = [each for each in mine if each.inside.proto != UDP or each.inside.endpoint not in only]
            mine = [each for each in mine if each.inside.proto == UDP and each.inside.endpoint in only]
            if kept:
                self._owned[owner] = kept
        for mapping in mine:
            mapping.owners.discard(owner)
            mapping.media.discard(owner)
            if not mapping.owners:
                del self._inside[mapping.inside]
                del self._outside[mapping.outside]
                self._count(mapping, -1)
                self._apart(mapping)
                here = mapping.inside
                gone.append(Gone(here.proto, here.endpoint, mapping.outside.endpoint, here.peer))
        if not self._inside:
            self._cursor.clear()
        return gone

    def _starts(
        self, proto: int, ports: tuple[int, ...], outside: bytes, peer: bytes, known: list[_Mapping | None]
    ) -> Iterator[int]:
        """Where a run may begin: as its known part says, else as inside, else at the next free places."""
        for index, mapping in enumerate(known):
            if mapping is not None:
                yield mapping.outside.endpoint.port - index
                return
        mine, of = self._share
        if (ports[0] >> 1) % of == mine:
            yield ports[0]
        step = 2 * of * -(-(len(ports) + 1) // 2 // of)
        at = self._cursor.get((proto, outside, peer), LOWEST)
        for _ in range(TRIES):
            at += (2 * mine - at) % (2 * of)
            if at + step > HIGHEST:
                at = LOWEST + (2 * mine - LOWEST) % (2 * of)
            yield at + (ports[0] & 1)
            at += step

    def _room(self, owner: Owner, inside: bytes, wanted: list[_Mapping | None]) -> bool:
        """Whether the owner may have these (None: a new one), its host and all together so many more."""
        new, more = wanted.count(None), sum(one is None or owner not in one.owners for one in wanted)
        mine = not more or len(self._owned.get(owner, ())) + more <= PER_OWNER
        return mine and (
            not new or (self._hosts.get(inside, 0) + new <= self.per_host and len(self._inside) + new <= MAX_MAPPINGS)
        )

    def _count(self, mapping: _Mapping, more: int) -> None:
        host = mapping.inside.endpoint.address
        self._hosts[host] = self._hosts.get(host, 0) + more
        if not self._hosts[host]:
            del self._hosts[host]

    def _make(self, here: _Inside, there: _Outside, owner: Owner, media: bool = True) -> None:
        mapping = self._inside.get(here)
        if mapping is None:
            mapping = self._inside[here] = self._outside[there] = _Mapping(here, there)
            self._count(mapping, 1)
            self._anywhere.setdefault((there.proto, there.endpoint), {})[mapping] = None
        if owner not in mapping.owners:
            self._owned.setdefault(owner, []).append(mapping)
            mapping.owners.add(owner)
        if media and not isinstance(owner, int):
            mapping.media.add(owner)

    def _apart(self, mapping: _Mapping) -> None:
        place = (mapping.outside.proto, mapping.outside.endpoint)
        others = self._anywhere[place]
        del others[mapping]
        if not others:
            del self._anywhere[place]
