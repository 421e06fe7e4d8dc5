"""Whose names a message bears on which side of the NAT. In: mappings, one signalling flow. Out: Names (alg/names.py).

Each endpoint of ours that comes in by its outside name is told by its inside one, whoever's of ours it is, and back;
but Via, which is read back by who wrote it, and addresses without a port, are the flow's own end's alone.
"""

from __future__ import annotations

from collections.abc import Callable

from appid.alg.names import Natted
from appid.alg.neighbours import Asking, Neighbours
from appid.wire import UDP, Endpoint


class Named:
    """Collects the endpoints that headers name; translates nothing."""

    def __init__(self) -> None:
        self.found: dict[Endpoint, None] = {}
        self.vias: dict[Endpoint, None] = {}

    def signalling(self, named: Endpoint) -> None:
        self.found[named] = None

    def via(self, named: Endpoint) -> None:
        self.vias[named] = None

    def media(self, named: Endpoint) -> None: ...

    def host(self, named: bytes) -> None: ...

    def seen(self, named: bytes) -> None: ...

    def session(self, named: bytes) -> None: ...

    def ahead(self, head: bytes) -> None: ...


class Outward:
    """What the inside host says. `ahead`: told of heads that go on alone."""

    def __init__(
        self, neighbours: Neighbours, natted: Natted, ahead: Callable[[bytes], object] = lambda _head: None
    ) -> None:  # fmt: skip
        self._neighbours, self._natted, self._ahead = neighbours, natted, ahead

    def signalling(self, named: Endpoint) -> Endpoint | None:
        natted = self._natted
        if named == natted.inside:
            return natted.outside
        return self._neighbours.outside_of(natted.proto, named, natted.remote.address)

    def via(self, named: Endpoint) -> Endpoint | None:
        return self.signalling(named) if named.address == self._natted.inside.address else None

    def media(self, named: Endpoint) -> Endpoint | None:
        return self._natted.renamed.get(named)

    def host(self, named: bytes) -> bytes | None:
        return self._natted.outside.address if named == self._natted.inside.address else None

    def seen(self, named: bytes) -> bytes | None:
        return self.host(named)

    def session(self, named: bytes) -> bytes | None:
        return self.host(named)

    def ahead(self, head: bytes) -> None:
        self._ahead(head)


class Inward:
    """What the outside says; `peer` is who says it, perhaps behind a relay."""

    def __init__(
        self, neighbours: Neighbours, natted: Natted, asking: Asking, peer: bytes = b"", call_id: str = ""
    ) -> None:  # fmt: skip
        self._neighbours, self._natted, self._asking = neighbours, natted, asking
        self._peer = Endpoint(peer, natted.remote.port) if peer else natted.remote
        self._call_id = call_id

    def signalling(self, named: Endpoint) -> Endpoint | None:
        natted = self._natted
        if named == natted.outside:
            return None if natted.knows else natted.inside
        found = self._inside(natted.proto, named, natted.remote)
        return None if found is not None and found.address == natted.inside.address and natted.knows else found

    def via(self, named: Endpoint) -> Endpoint | None:
        natted = self._natted
        if natted.knows_via:
            return None
        if named == natted.outside:
            return natted.inside
        found = self._neighbours.mappings.inside_of(natted.proto, named, natted.remote.address)
        return found if found is not None and found.address == natted.inside.address else None

    def media(self, named: Endpoint) -> Endpoint | None:
        return self._inside(UDP, named, self._peer, self._natted.inside.address)

    def _inside(self, proto: int, named: Endpoint, peer: Endpoint, told: bytes | None = None) -> Endpoint | None:
        return self._neighbours.inside_of(proto, named, peer, self._call_id, self._asking, told)

    def host(self, named: bytes) -> bytes | None:
        return None if self._natted.knows else self._own(named)

    def seen(self, named: bytes) -> bytes | None:
        return None if self._natted.knows_via else self._own(named)

    def _own(self, named: bytes) -> bytes | None:
        return self._natted.inside.address if named == self._natted.outside.address else None

    def session(self, named: bytes) -> None:
        """An address without a port may stand for any inside host."""

    def ahead(self, head: bytes) -> None: ...
