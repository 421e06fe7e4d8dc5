"""What is refused at its first packet is the kernel's from then on: echo requests, what a port forwarding lets in."""

from __future__ import annotations

import socket
import struct
import time
from pathlib import Path

import pytest

from appid.dataplane.rewrite import checksum
from tests.netns.live import ALL, Live, live, rule
from tests.netns.net import CLIENT4, PEER4, PEER6, PUBLIC4, Net, received

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120)]
NOTHING = rule("nothing", "deny", service='"any"')


def seen(gateway: Live) -> int:
    return int(gateway.ask("stats")[0]["packets"])


def echoes(net: Net, to: str, count: int) -> int:
    """Echo requests of one identifier; how many answers come (RFC 792, RFC 4443)."""
    v6 = ":" in to

    def make() -> socket.socket:
        family, proto = (socket.AF_INET6, socket.IPPROTO_ICMPV6) if v6 else (socket.AF_INET, socket.IPPROTO_ICMP)
        return socket.socket(family, socket.SOCK_RAW, proto)

    sock = net.client.call(make)
    for number in range(count):
        request = struct.pack(">BBHHH", 128 if v6 else 8, 0, 0, 77, number) + b"echo"
        if not v6:
            request = request[:2] + checksum(request).to_bytes(2, "big") + request[4:]
        sock.sendto(request, (to, 0))
        time.sleep(0.02)
    return sum(data[0 if v6 else 20] in (0, 129) for data in received(sock))


def test_echoes_come_back_where_they_may(bare: Net, tmp_path: Path) -> None:
    with live(bare, tmp_path, ALL, "nft"):
        assert [echoes(bare, to, 3) for to in (PEER4, PEER6)] == [3, 3]


def test_an_echo_is_asked_about_once(bare: Net, tmp_path: Path) -> None:
    with live(bare, tmp_path, NOTHING, "nft") as gateway:
        for to in (PEER4, PEER6):
            before = seen(gateway)
            assert echoes(bare, to, 8) == 0
            assert seen(gateway) - before <= 3, "of eight requests; neighbour discovery is not forwarded"


@pytest.mark.parametrize("variant", ["nft", "legacy"])
def test_what_a_port_forwarding_lets_in_is_asked_about_twice(bare: Net, tmp_path: Path, variant: str) -> None:
    """The entry that is made after the first packet is not the one that the next finds: that came to another address.
    So the kernel's set refuses the third."""
    forward = f"-t nat -A PREROUTING -i wan0 -p udp --dport 7000 -j DNAT --to-destination {CLIENT4}:7000"
    bare.gateway.run(f"iptables-{variant}", *forward.split())
    with live(bare, tmp_path, NOTHING, variant) as gateway:
        client, peer = bare.client.udp(CLIENT4, 7000), bare.peer.udp(PEER4, 6000)
        before = seen(gateway)
        for _ in range(20):
            peer.sendto(b"\xff let me in", (PUBLIC4, 7000))
            time.sleep(0.02)
        assert received(client) == []
        assert 1 <= seen(gateway) - before <= 3
        assert CLIENT4 in bare.gateway.run("ipset", "list", "appid-refused4")
