"""The set for a gateway without the engine. Ports: Apple's HT202078 as rules/apps has them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from appid.dataplane.chain import FAMILIES, Family, Topology
from appid.dataplane.render import restore_text
from appid.dataplane.static import inward, opens, static_set
from appid.edge.rule_files import load_applications
from appid.identify.application import PortRange
from appid.wire import TCP, UDP
from tests.netns.net import CLIENT4, CLIENT6, PEER4, PEER6, Namespace, net, received

FACETIME = load_applications()["facetime"]
PLACES: tuple[tuple[Family, str, str, str], ...] = (
    (4, "iptables", CLIENT4, PEER4), (6, "ip6tables", CLIENT6, PEER6),
)  # fmt: skip
TOPOLOGY = Topology(("wan0",), ("172.16.42.0/24", "fd00:42::/64"))


def test_the_documented_ports_are_open_outward_and_those_of_media_inward() -> None:
    (chain,) = static_set(FACETIME, TOPOLOGY, 4).chains
    assert [str(rule) for rule in chain.rules] == [
        "-m conntrack --ctstate INVALID -j DROP",
        "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-s 172.16.42.0/24 -o wan0 -p tcp -m multiport --dports 80,443,4080,5223 -j ACCEPT",
        "-s 172.16.42.0/24 -o wan0 -p udp -m multiport --dports 3478:3497,16384:16387,16393:16402 -j ACCEPT",
        "-d 172.16.42.0/24 -i wan0 -p udp -m multiport --dports 16384:16387,16393:16402 -j ACCEPT",
        "-j DROP",
    ]
    assert sum(ports.last - ports.first + 1 for ports in inward(FACETIME)) == 14


def test_what_it_opens_is_said() -> None:
    said = "\n".join(opens(FACETIME, TOPOLOGY))
    assert "outward 4 tcp ports and 34 udp ports: from 256 IPv4 and 2^64 IPv6 inside addresses to every address" in said
    assert "closed: all else" in said
    assert "inward 14 udp ports: from every address to 256 IPv4 and 2^64 IPv6 inside addresses, always" in said


def test_one_match_holds_fifteen_ports_at_most() -> None:
    """xt_multiport: XT_MULTI_PORTS is 15, a range takes two of them."""
    many = (*(PortRange(UDP, 100 * n, 100 * n + 9) for n in range(1, 21)), PortRange(TCP, 80, 80))
    (chain,) = static_set(replace(FACETIME, default_ports=many, media_ports=()), TOPOLOGY, 4).chains
    lists = [str(rule).split("--dports ")[1].split()[0] for rule in chain.rules if "dports" in str(rule)]
    assert sum(len(ports.split(",")) for ports in lists) == 21
    assert all(ports.count(":") * 2 + sum(":" not in port for port in ports.split(",")) <= 15 for ports in lists)


@pytest.mark.kernel
def test_it_opens_and_closes_what_it_says() -> None:
    """Inward with no call at all; that is what the engine is for."""
    with net() as bare:
        for family, program, client, peer in PLACES:
            text = restore_text(static_set(FACETIME, Topology(("wan0",), ("10.77.1.0/24", "fd00:77:1::/64")), family))
            bare.gateway.run(f"{program}-nft-restore", "--noflush", text=text)
            for sender, taker, to, port, passes in (
                (bare.peer.udp(peer), bare.client, client, 16402, True),
                (bare.peer.udp(peer), bare.client, client, 16392, False),
                (bare.peer.udp(peer), bare.client, client, 3478, False),
                (bare.client.udp(client), bare.peer, peer, 3478, True),
                (bare.client.udp(client), bare.peer, peer, 53, False),
            ):
                with taker.udp(to, port) as far, sender:
                    sender.sendto(b"x", (to, port))
                    assert received(far, 0.1) == ([b"x"] if passes else []), (to, port)


@pytest.fixture(scope="module")
def somewhere() -> Iterator[Namespace]:
    made = Namespace("s")
    yield made
    made.remove()


@pytest.mark.kernel
@pytest.mark.parametrize("variant", ["nft", "legacy"])
@pytest.mark.parametrize("family", FAMILIES)
def test_iptables_restore_takes_it(somewhere: Namespace, family: Family, variant: str) -> None:
    text = restore_text(static_set(FACETIME, TOPOLOGY, family))
    program = "iptables" if family == 4 else "ip6tables"
    somewhere.run(f"{program}-{variant}-restore", "--noflush", "--test", text=text)
