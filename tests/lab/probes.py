"""Who reaches the client uncalled: datagrams to the public address's ports of Apple's range, and a witness inside.

In: a Lab, and the call's peer while there is one. Out: (round, who, port) of each probe that the client's wire carried.
Arrival is seen by a packet socket on the client's own interface, never by a reply.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.lab.net import Lab
from tests.lab.peer import Peer
from tests.lab.scenario import APPLE_PORTS
from tests.lab.wire_facetime import Address

MAGIC = b"appid-probe|"
STRANGER, PEER, PEER_MEDIA = "stranger", "peer", "peer-media"
"""A stranger; the peer from some other port; the peer from its media port."""
EVERYBODY = (STRANGER, PEER, PEER_MEDIA)
_ETH_P_IP = 0x0800


@dataclass
class Witness:
    """Everything that reaches the client and is a probe."""

    lab: Lab
    seen: set[tuple[str, str, int]] = field(default_factory=set)

    def __enter__(self) -> Witness:
        self.sock = self.lab.open_socket("client", socket.SOCK_RAW, socket.AF_PACKET, socket.htons(_ETH_P_IP))
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.sock.bind(("eth0", _ETH_P_IP))
        asyncio.get_running_loop().add_reader(self.sock, self._readable)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self.sock)
        self.sock.close()

    def _readable(self) -> None:
        with contextlib.suppress(BlockingIOError):
            for _ in range(128):
                data = self.sock.recv(2048)
                if (at := data.find(MAGIC)) >= 0:
                    _, name, who, port = data[at:].decode().split("|")
                    self.seen.add((name, who, int(port)))

    def ports(self, name: str, who: str) -> list[int]:
        """Ports by which `who` reached the client in round `name`."""
        return sorted(port for round_, prober, port in self.seen if (round_, prober) == (name, who))


async def probe(lab: Lab, name: str, who: tuple[str, ...] = EVERYBODY, peer: Peer | None = None) -> None:
    """One round: each prober tries every port of the range three times. In a call `peer` lends its media socket."""
    s = lab.scenario
    with contextlib.ExitStack() as stack:
        senders: dict[str, Callable[[bytes, Address], object]] = {}
        for prober, place, own in (
            (STRANGER, "stranger", (s.stranger, 0)),
            (PEER, "peer", (s.peer, 0)),
            (PEER_MEDIA, "peer", (s.peer, s.peer_media_port)),
        ):
            if prober == PEER_MEDIA and peer is not None:
                senders[prober] = peer.send_to
            elif prober in who:
                senders[prober] = stack.enter_context(lab.udp(place, *own)).sendto
        for _ in range(3):
            for port in APPLE_PORTS:
                for prober in who:
                    text = f"{name}|{prober}|{port}".encode()
                    with contextlib.suppress(OSError):
                        senders[prober](MAGIC + text, (s.public, port))
            await asyncio.sleep(0.1)
    await asyncio.sleep(0.2)
