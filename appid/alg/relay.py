"""What a TURN flow teaches: which peer stands behind each channel, and by which address the world knows the client.

In: the facts of STUN messages on the flow (RFC 8656). Out: peers by channel, the mapped address.
A channel counts from the client's own ChannelBind request on: FaceTime's relay accepts ChannelData before it answers
(facetime-2015.md, session 1, packets 121 and 122).
"""

from __future__ import annotations

from collections.abc import Sequence

from appid.wire import Endpoint, Fact

MAX_CHANNELS = 64


class Relay:
    """Channels and addresses of one TURN flow."""

    __slots__ = ("channels", "mapped")

    def __init__(self) -> None:
        self.channels: dict[int, Endpoint] = {}
        self.mapped: Endpoint | None = None

    def learn(self, facts: tuple[Fact, ...], outward: bool) -> Endpoint | None:
        """Book one STUN message; returns the peer if it binds a channel. `outward`: sent by the inside host."""
        values: dict[str, object] = {}
        for fact in facts:
            values.setdefault(fact.name, fact.value)
        if values.get("stun.class") == "success" and not outward:
            mapped = values.get("stun.mapped_address")
            if isinstance(mapped, Endpoint) and values.get("stun.method") in ("allocate", "binding"):
                self.mapped = mapped
            return None
        if not outward or values.get("stun.method") != "channel-bind" or values.get("stun.class") != "request":
            return None
        channel, peer = values.get("stun.channel_number"), values.get("stun.peer_address")
        if not isinstance(channel, int) or not isinstance(peer, Endpoint):
            return None
        if channel in self.channels or len(self.channels) < MAX_CHANNELS:
            self.channels[channel] = peer
        return peer


def checks(facts: Sequence[Fact]) -> bool:
    """Of a connectivity check (RFC 8445 section 7.2)."""
    return {fact.name: fact.value for fact in facts[:2]} == {"stun.method": "binding", "stun.class": "request"}
