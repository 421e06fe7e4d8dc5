"""Payloads come whole through the gateway, whatever the interfaces carry at once: fragments, jumbo frames, packets of
segmentation offload; and nothing of it is called a loss."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

from tests.netns.live import ALL, live
from tests.netns.net import CLIENT4, CLIENT6, PEER4, PEER6, Net, received

pytestmark = [pytest.mark.kernel, pytest.mark.slow, pytest.mark.timeout(60)]
SIZES = (1, 1400, 4016, 4100, 8900, 30_000, 60_000, 65_000)
LARGEST = {CLIENT4: 65_507, CLIENT6: 65_527}
"""What a datagram can hold (RFC 768; RFC 8200 section 4.5 without a jumbogram)."""


@pytest.mark.parametrize("mtu", [1500, 9000, 65_535])
@pytest.mark.parametrize(("client", "peer"), [(CLIENT4, PEER4), (CLIENT6, PEER6)])
def test_each_byte_arrives(bare: Net, tmp_path: Path, mtu: int, client: str, peer: str) -> None:
    for host, device in ((bare.client, "lan"), (bare.gateway, "lan0"), (bare.gateway, "wan0"), (bare.peer, "net")):
        host.run("ip", "link", "set", device, "mtu", str(mtu))
    with live(bare, tmp_path, ALL, "nft") as gateway:
        sender, taker = bare.client.udp(client, 5000), bare.peer.udp(peer, 6000)
        taker.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        for size in (*SIZES, LARGEST[client]):
            data = b"\xff" + os.urandom(size - 1)
            sender.sendto(data, (peer, 6000))
            assert received(taker, 0.01, least=1) == [data], size
        listener, out = bare.peer.listen(peer, 7000), bare.client.tcp(client)
        out.connect((peer, 7000))
        accepted, _ = listener.accept()
        data = os.urandom(1 << 20)
        threading.Thread(target=out.sendall, args=(data,)).start()
        came = b""
        while len(came) < len(data):
            came += accepted.recv(1 << 17)
        assert came == data
        (stats,) = gateway.ask("stats")
        assert stats["packets"] >= 20, "undecided, they came by userspace"
        assert not any(stats["exceptions"].values())
