"""From offer and answer to what the inside host may receive: ports, peers, codecs (RFC 3264, 8866, 3605, 5761).

In: the description of the inside host and that of the other side. Out: MediaPort values and CallMedia.
Ports follow the words of the description: `a=rtcp` where it stands (RFC 3605), the same port under `a=rtcp-mux`
(RFC 5761), port + 1 only as the default (RFC 3550 section 11).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from appid.decode.sdp import Description, Media
from appid.flow.call import CallMedia

MAX_PORTS = 16
"""Ports that one offer and answer may open."""
LOWEST_PORT = 1024


@dataclass(frozen=True, slots=True)
class MediaPort:
    """A port of the inside host as its description gives it, and the address that will send to it."""

    port: int
    peer: bytes


def agreed(inside: Description, outside: Description) -> tuple[MediaPort, ...]:
    """The ports at which the inside host will receive; media that either side refused (port 0) have none."""
    ports: dict[MediaPort, None] = {}
    for ours, theirs in zip(inside.media, outside.media, strict=False):
        peer = theirs.connection or outside.connection
        mine = ours.connection or inside.connection or b"\1"
        if peer is None or not any(peer) or not any(mine) or ours.port == 0 or theirs.port == 0:
            continue  # refused (RFC 3264 section 6), or 0.0.0.0: on hold (section 8.4)
        for port in _ports(ours, theirs):
            if LOWEST_PORT <= port <= 0xFFFF and len(ports) < MAX_PORTS:
                ports[MediaPort(port, peer)] = None
    return tuple(ports)


def _ports(ours: Media, theirs: Media) -> Iterator[int]:
    yield ours.port
    if ours.rtcp_mux and theirs.rtcp_mux:  # both must say so: RFC 5761 section 5.1.1
        return
    if ours.rtcp_port is not None:
        yield ours.rtcp_port
    elif "RTP" in ours.proto:
        yield ours.port + 1


def described(answer: Description) -> tuple[CallMedia, ...]:
    """What the answer left of the offer, for people: kind, payload types, codec names."""
    found = []
    for media in answer.media:
        types = tuple(number for number in media.formats if isinstance(number, int))
        names = tuple(name for _, name in media.codecs)
        found.append(CallMedia(media.kind, types, names))
    return tuple(found)
