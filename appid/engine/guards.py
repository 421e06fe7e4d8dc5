"""What media a dialog may open (design.md, the guards of the ALG).

In: a place that both descriptions named, its dialog and flow, the application, what is known of the dialogs besides.
Out: why it is not opened, or what is expected there.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Protocol

from appid.alg.dialog import Dialog
from appid.alg.dialogs import Dialogs
from appid.alg.expectation import Expectation
from appid.alg.host import Host
from appid.alg.mappings import Owner
from appid.alg.media import MediaPort
from appid.engine.nat import OPENS_MEDIA, NatKeeper
from appid.engine.record import FlowRecord, Settings, Topology
from appid.engine.silence import LIFETIME
from appid.identify.application import Application
from appid.wire import UDP, Endpoint, text

FEW = 16
"""Ports: of more than that one does not listen on each."""


class Known(Protocol):
    """What is known of all dialogs."""

    settings: Settings
    topology: Topology
    dialogs: Dialogs
    nat: NatKeeper
    host: Host


def refusal(place: MediaPort, record: FlowRecord, application: Application, topology: Topology) -> str | None:
    """Media goes to a port in the application's range, for a host that speaks for itself."""
    if place.address is not None and place.address != record.host and topology.inside(place.address):
        return f"media for {text(place.address)}, which is another host"
    if OPENS_MEDIA in application.characteristics and _signals(place.port, record, application):
        return f"media at port {place.port}, which is its signalling's own"
    if (
        OPENS_MEDIA in application.characteristics
        and topology.inside(place.peer)
        and _listens(place.peer_port, application)
    ):
        return f"media from port {place.peer_port} of {text(place.peer)}, which is for signalling"
    if not application.opens(place.port):
        return f"media at port {place.port}, which is outside the range of {application.name}"
    return None


def _signals(port: int, record: FlowRecord, application: Application) -> bool:
    """Whether the port is, or is paired with, one at which the host signals: its flow's, or those where it may listen
    besides. RTP and RTCP are a pair (RFC 3550 section 11), so of an even port follows the odd one: 5061 of 5060."""
    own = (record.host_port,) if record.key.proto == UDP else ()
    return port | 1 in {each | 1 for each in own} or _listens(port, application)


def _listens(port: int, application: Application) -> bool:
    few = (r for r in application.default_ports if r.last - r.first < FEW)
    return any(r.first & ~1 <= port <= r.last | 1 for r in few)


def nobody(address: bytes, known: Known) -> bool:
    """Whether no host out there has this address: it is ours, or stands for none or for many (RFC 6890: this network,
    loopback, link-local, multicast, reserved, broadcast)."""
    if address in known.settings.outside or not address[0]:
        return True
    named = ip_address(address)
    return named.is_loopback or named.is_link_local or named.is_multicast or named.is_reserved


def checked(record: FlowRecord, peer: bytes, application: Application, known: Known) -> bool:
    """Whether a peer's check on a channel may let its direct one in: a host outside, and not the relay itself, from
    where all that comes is the flow's own."""
    fits = any(r.proto == UDP and r.first <= record.host_port <= r.last for r in application.media_ports)
    outside = not (known.topology.inside(peer) or nobody(peer, known) or peer == record.remote)
    return application.expect_from_channel_bind and fits and outside


def strange(place: MediaPort, dialog: Dialog, far: Endpoint, known: Known) -> bool:
    """One guard more: media comes only from an address that the call itself has shown, and that a host can have."""
    if nobody(place.peer, known) and not known.topology.inside(place.peer):
        return True
    if place.peer == dialog.peer or place.peer in dialog.peers:
        return False
    if known.nat.faces(Endpoint(place.peer, place.peer_port), dialog.peer):
        return False
    if not known.topology.inside(place.peer) or place.peer == dialog.host:
        return True
    if any(other.from_tag == dialog.from_tag for other in known.dialogs.at(dialog.call_id, place.peer)):
        return False
    # Of another worker's calls only the kernel tells: with whom the same far end signals, that may be the other.
    return known.settings.share[1] == 1 or not known.host.signals(place.peer, far)


def announced(
    place: MediaPort, record: FlowRecord, owner: Owner, call: tuple[int, str], known: Known, packet: int, now: float
) -> Expectation:
    """What a description announces. `call`: its number, and what its media is called."""
    port = place.port if place.address == record.host else known.nat.inside_port(record, place.port)
    near = known.topology.inside(place.peer)
    outside = (
        known.nat.outside_of(record, Endpoint(record.host, port), place.peer, owner, known.host) if not near else None
    )
    if not near and outside is None and place.address in known.settings.outside and place.address != record.host:
        outside = Endpoint(place.address, place.port)
    address, outside_port = (outside.address, outside.port) if outside is not None else (None, place.port)
    return Expectation(
        UDP, record.host, port, place.peer, None, address, outside_port, call[1], call[0], "sdp-answer", packet,
        now + LIFETIME, place.kind, place.peer_port,
    )  # fmt: skip
