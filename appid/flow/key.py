"""The 5-tuple. In: protocol, packed addresses, ports. Out: a hashable FlowKey.

A NamedTuple, not a dataclass: it is hashed for each packet that userspace sees (docs/decisions/0001-tuples-on-the-packet-path.md).
"""

from __future__ import annotations

from typing import NamedTuple

from appid.wire import Endpoint


class FlowKey(NamedTuple):
    """One direction of a flow. `src`/`dst` are packed addresses; ports are 0 for protocols without them."""

    proto: int
    src: bytes
    sport: int
    dst: bytes
    dport: int

    def reversed(self) -> FlowKey:
        return FlowKey(self.proto, self.dst, self.dport, self.src, self.sport)

    @property
    def source(self) -> Endpoint:
        return Endpoint(self.src, self.sport)

    @property
    def destination(self) -> Endpoint:
        return Endpoint(self.dst, self.dport)
