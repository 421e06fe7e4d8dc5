"""From offer and answer to what the inside host may receive: ports, peers, codecs (RFC 3264, 8866, 3605, 5761).

In: the description of the inside host and that of the other side. Out: MediaPort values and CallMedia.
Ports follow the words of the description: `a=rtcp` where it stands (RFC 3605), the same port under `a=rtcp-mux`
(RFC 5761), port + 1 only as the default (RFC 3550 section 11).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from appid.decode.sdp import Description, Media
from appid.flow.call import CallMedia

MAX_PORTS = 16
"""Ports that one offer and answer may open."""
LOWEST_PORT = 1024


@dataclass(frozen=True, slots=True)
class MediaPort:
    """A port of the inside host as its description gives it, and the address that will send to it.

    kind       the medium; "shared" where several have this port
    address    the inside host's own, as its description names it; None: it names none
    peer_port  where the peer says it will be (it may send from elsewhere)
    candidate  only a candidate of the peer says so (RFC 8839)
    """

    port: int
    peer: bytes
    kind: str = "shared"
    address: bytes | None = None
    peer_port: int = 0
    candidate: bool = False


def agreed(
    inside: Description, outside: Description, host: bytes | None = None, sender: bytes | None = None
) -> tuple[MediaPort, ...]:  # fmt: skip
    """The ports at which the inside host will receive; media that either side refused (port 0) have none. `host`: its
    address, to which candidates of its own must belong; `sender`: who sends where the other description has a name in
    the place of an address (RFC 8866 section 5.7)."""
    found: dict[tuple[int, bytes], MediaPort] = {}
    for ours, theirs in zip(inside.media, outside.media, strict=False):
        peer = theirs.connection or outside.connection or sender
        mine = ours.connection or inside.connection
        if peer is None or not any(peer) or not any(mine or b"\1") or ours.port == 0 or theirs.port == 0:
            continue  # refused (RFC 3264 section 6), or 0.0.0.0: on hold (section 8.4)
        candidates = dict.fromkeys(each.address for each in theirs.candidates if each.proto == "udp")
        far = tuple(_ports(theirs, ours))
        for index, (address, port) in enumerate(_ports(ours, theirs, host)):
            announced = far[index][1] if index < len(far) else theirs.port
            for source in (peer, *candidates):
                place = MediaPort(port, source, ours.kind, address or mine, announced, source != peer)
                known = found.get((port, source))
                if known is not None and known.kind != place.kind:
                    found[port, source] = replace(known, kind="shared")
                elif known is None and LOWEST_PORT <= port <= 0xFFFF and len(found) < MAX_PORTS:
                    found[port, source] = place
    return tuple(found.values())


def _ports(ours: Media, theirs: Media, host: bytes | None = None) -> Iterator[tuple[bytes | None, int]]:
    """Each port, and the address that it goes by."""
    mux = ours.rtcp_mux and theirs.rtcp_mux  # both must say so: RFC 5761 section 5.1.1
    for address, ports in runs(ours, mux, host):
        for port in ports:
            yield address, port


def runs(ours: Media, mux: bool = False, host: bytes | None = None) -> Iterator[tuple[bytes | None, tuple[int, ...]]]:
    """The ports that a medium names, each run with the address it goes by: within one, the peer counts on from the
    first. RTP has every other port (RFC 8866 section 5.14), RTCP those between, unless `a=rtcp` or `mux` say so. Media
    over TCP (RFC 4145: TCP, TCP/MSRP, TCP/BFCP) name no port that a datagram may come to."""
    if ours.port == 0 or ours.proto.upper().split("/")[0] == "TCP":
        return
    counted = "RTP" in ours.proto and (ours.count > 1 or (ours.rtcp_port is None and not mux))
    size = ours.count * (2 if counted else 1)
    run = tuple(range(ours.port, min(ours.port + size, 0x10000)))
    yield ours.connection, run
    if ours.rtcp_port is not None and not mux and ours.rtcp_port not in run:
        yield ours.rtcp_address or ours.connection, (ours.rtcp_port,)
    for each in ours.candidates:
        own = host is None or each.address == host
        if own and each.proto == "udp" and each.type == "host" and each.port and each.port not in run:
            yield each.address, (each.port,)


def described(offer: Description, answer: Description) -> tuple[CallMedia, ...]:
    """What the answer left of the offer, for people. Where it explains nothing, the offer's meaning stands (RFC 3264
    section 6.1)."""
    found = []
    for index, media in enumerate(answer.media):
        names = dict(offer.media[index].codecs) if index < len(offer.media) else {}
        names.update(media.codecs)
        types = tuple(number for number in media.formats if isinstance(number, int))
        found.append(CallMedia(media.kind, types, tuple(names.get(number) for number in types)))
    return tuple(found)
