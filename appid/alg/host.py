"""What only the gateway's own kernel knows of its source NAT. In: questions while a message is in hand. Out: endpoints.

The class itself is the kernel of a capture: it knows nothing. The edge's answers for the running one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from appid.wire import Endpoint, FlowKey


class Forward(NamedTuple):
    """Ports of the gateway that its own rules send on: to `target`, or to itself (None). `proto` None: any."""

    proto: int | None
    first: int
    last: int
    target: bytes | None


class Host:
    """Nobody answers."""

    def mapped(self, key: FlowKey) -> Endpoint | None:
        """As what the source of a flow is seen outside, `key` from the inside host; None before its first packet."""
        return None

    def behind(self, proto: int, outside: Endpoint, peer: Endpoint) -> Endpoint | None:
        """Who stands behind an outside endpoint, towards that peer: by any process's binding, or by a flow to it."""
        return None

    def bound(self, proto: int, outside: Endpoint, peer: Endpoint) -> Endpoint | None:
        """The same by a binding alone: that somebody has a flow to a port of ours is no word of who stands behind."""
        return None

    def signals(self, inside: bytes, far: Endpoint) -> bool:
        """Whether an inside host has a flow with that endpoint, at which a call is signalled; whoever follows it."""
        return False

    def owns(self, proto: int, outside: Endpoint) -> bool:
        """Whether the gateway itself has a socket there that hears anybody. May be a moment old."""
        return False

    def taken(self, proto: int, outside: bytes, peer: bytes) -> Mapping[int, Endpoint]:
        """The ports of an outside address that flows to that peer have now, and who has them. May be a moment old."""
        return {}


NOBODY = Host()
