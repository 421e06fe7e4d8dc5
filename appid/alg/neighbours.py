"""Both ends of a call behind this gateway: who of ours it is that the outside speaks of.

In: an outside endpoint in what a peer says. Out: the inside one, so that signalling and media go from one to the other
and not by the gateway's own address, where nobody listens. It may be mapped by another process, or towards another
peer; what was told so is remembered, to be told outside by its outside name again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container, Iterable

from appid.alg.host import Host
from appid.alg.mappings import Mappings, Owner
from appid.wire import Endpoint

MAX_MET = 8192
MAX_HEARD = 8192
MAX_ADDRESSES = 16
"""Dialogs, and addresses that the far end of one has named."""
MAX_ASKED = 16
"""Questions to the kernel about one message, 0.1 ms each: its sender may name whatever he likes."""


class Neighbours:
    """What inside endpoints are called outside, and the other way round, whoever mapped them."""

    def __init__(self, mappings: Mappings, ours: Container[bytes]) -> None:
        self.mappings = mappings
        self.ours = ours
        self._met: OrderedDict[tuple[int, Endpoint, bytes], Endpoint] = OrderedDict()
        self._faces: OrderedDict[tuple[Endpoint, bytes], None] = OrderedDict()
        self._heard: OrderedDict[Owner, set[bytes]] = OrderedDict()

    def outside_of(self, proto: int, inside: Endpoint, peer: bytes) -> Endpoint | None:
        """By which endpoint this peer knows an inside one."""
        return self.mappings.outside_of(proto, inside, peer) or self._met.get((proto, inside, peer))

    def inside_of(
        self, proto: int, outside: Endpoint, peer: Endpoint, call_id: str, asking: Asking, told: bytes | None = None
    ) -> Endpoint | None:  # fmt: skip
        """Who stands behind an endpoint that this peer names. `told`: the inside host that is to send media there: only
        what a description names counts then, no signalling's own port and no port forwarding. One that signals with
        another peer is only named if that has not named somebody else to him: else anybody might lead one host's voice
        into another's call."""

        def fits(owner: Owner) -> bool:
            heard = self._heard.get(owner)
            return not isinstance(owner, int) and (owner[0] == call_id or not heard or told in heard)

        mappings = self.mappings
        if (found := mappings.inside_of(proto, outside, peer.address)) is not None:
            return found
        if outside.address not in self.ours:
            return None
        media = told is not None
        found = mappings.elsewhere(proto, outside, call_id, fits if media else None)
        found = found or asking.behind(proto, outside, peer, media)
        if found is not None:
            self._meet(proto, found, outside, peer.address, media)
        return found

    def heard(self, owner: Owner, addresses: Iterable[bytes]) -> None:
        """The far end of a dialog has named these, by their inside names, for its media."""
        known = self._heard.setdefault(owner, set())
        known.update(addresses)
        if len(known) > MAX_ADDRESSES:
            known.clear()
        if len(self._heard) > MAX_HEARD:
            self._heard.popitem(last=False)

    def forget(self, owner: Owner) -> None:
        self._heard.pop(owner, None)

    def faces(self, inside: Endpoint, peer: bytes) -> bool:
        """Whether this peer knows that inside endpoint for media, by a mapping of ours. With RTP's port it knows
        RTCP's, the next one (RFC 3550 section 11)."""
        before = Endpoint(inside.address, inside.port - 1)
        return self.mappings.for_media(inside, peer) or not self._faces.keys().isdisjoint(
            ((inside, peer), (before, peer))
        )

    def _meet(self, proto: int, inside: Endpoint, outside: Endpoint, peer: bytes, media: bool) -> None:
        self._met[proto, inside, peer] = outside
        self._met.move_to_end((proto, inside, peer))
        if media:
            self._faces[inside, peer] = None
            self._faces.move_to_end((inside, peer))
        for table in (self._met, self._faces):
            if len(table) > MAX_MET:
                table.popitem(last=False)


class Asking:
    """The kernel's answers for one message."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._left = MAX_ASKED

    def behind(self, proto: int, outside: Endpoint, peer: Endpoint, media: bool) -> Endpoint | None:
        if not self._left:
            return None
        self._left -= 1
        return (self._host.bound if media else self._host.behind)(proto, outside, peer)
