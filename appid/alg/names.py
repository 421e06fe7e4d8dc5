"""What an address in a payload is called on the other side of the NAT: the question that translation asks."""

from __future__ import annotations

from typing import Protocol

from appid.wire import Endpoint


class Names(Protocol):
    """None each time means: not ours, leave it as it stands. A public address that is nobody's mapping is left alone.

    signalling  an endpoint of SIP's own headers, with the port that its absence stands for
    via         one of Via, which is read back by who wrote it
    media       an endpoint of a session description
    host        an address that stands without a port in a header
    seen        the same in Via: `received`
    session     an address that stands without a port in a session description
    ahead       a message's head, which goes on before its body is there
    """

    def signalling(self, named: Endpoint) -> Endpoint | None: ...

    def via(self, named: Endpoint) -> Endpoint | None: ...

    def media(self, named: Endpoint) -> Endpoint | None: ...

    def host(self, named: bytes) -> bytes | None: ...

    def seen(self, named: bytes) -> bytes | None: ...

    def session(self, named: bytes) -> bytes | None: ...

    def ahead(self, head: bytes) -> None: ...


class Natted:
    """One signalling flow behind source NAT: its inside end is `inside`, known to `remote` as `outside`. `knows`: it
    calls itself by the outside address, in Via and elsewhere; then what comes in names it rightly."""

    __slots__ = ("inside", "knows", "knows_via", "outside", "proto", "remote", "renamed")

    def __init__(self, proto: int, inside: Endpoint, outside: Endpoint, remote: Endpoint) -> None:
        self.proto = proto
        self.inside = inside
        self.outside = outside
        self.remote = remote
        self.knows = self.knows_via = False
        self.renamed: dict[Endpoint, Endpoint] = {}
