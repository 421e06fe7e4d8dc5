"""Whose source is translated: rules as Debian's iptables-save and nft print them."""

from __future__ import annotations

import pytest

from appid.edge.source_nat import masqueraded, of_iptables, of_nft
from appid.policy.rule import Network
from appid.wire import packed, text
from tests.netns.net import Net

WAN = ("wan0",)


def shown(networks: list[Network]) -> list[str]:
    return sorted(f"{text(address)}/{prefix}" for address, prefix in networks)


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        ("-A POSTROUTING -o wan0 -j MASQUERADE", ["0.0.0.0/0"]),
        ("-A POSTROUTING -s 10.0.0.0/8 -o wan0 -j MASQUERADE --random", ["10.0.0.0/8"]),
        ("-A POSTROUTING -s 10.1.0.0/16 ! -d 10.0.0.0/8 -j SNAT --to-source 203.0.113.7", ["10.1.0.0/16"]),
        ("-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE", ["172.17.0.0/16"]),
        ("-A POSTROUTING -o wan+ -j MASQUERADE", ["0.0.0.0/0"]),
        ("-A POSTROUTING -o tun0 -j MASQUERADE", []),
        ("-A POSTROUTING ! -o wan0 -j MASQUERADE", []),
        ("-A PREROUTING -i wan0 -p udp -j DNAT --to-destination 10.0.0.2", []),
        ("-A POSTROUTING -o wan0 -j ACCEPT", []),
        ('-A POSTROUTING -m comment --comment "was: -j MASQUERADE" -j ACCEPT', []),
        ('-A POSTROUTING -o wan0 -m comment --comment "not -o tun0 -s 10.0.0.0/8" -j MASQUERADE', ["0.0.0.0/0"]),
    ],
)
def test_iptables(rule: str, wanted: list[str]) -> None:
    saved = f"*nat\n:POSTROUTING ACCEPT [0:0]\n{rule}\nCOMMIT\n"
    assert shown(list(of_iptables(saved, 4, WAN))) == wanted


NFT = """table inet nat {
	chain post {
		type nat hook postrouting priority srcnat; policy accept;
		%s
	}
}
table inet appid-nat {
	chain post {
		type nat hook postrouting priority srcnat - 10; policy accept;
		snat ip to meta l4proto . ip saddr . th sport . ip daddr map @snat4
	}
}
"""


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        ('oifname "wan0" masquerade', ["0.0.0.0/0", "::/0"]),
        ('oifname { "wan0", "wan1" } ip saddr 10.0.0.0/8 counter packets 0 bytes 0 masquerade', ["10.0.0.0/8"]),
        ("ip saddr { 10.0.0.0/8, 192.168.0.0/16 } snat ip to 203.0.113.7", ["10.0.0.0/8", "192.168.0.0/16"]),
        ('oifname "tun0" masquerade', []),
        ("counter packets 0 bytes 0", []),
        ('oifname "wan0" accept comment "no masquerade here"', []),
    ],
)
def test_nft(rule: str, wanted: list[str]) -> None:
    assert shown(list(of_nft(NFT % rule, WAN))) == wanted


@pytest.mark.kernel
@pytest.mark.parametrize("variant", ["nft", "legacy"])
def test_a_real_host(bare: Net, variant: str) -> None:
    assert bare.gateway.call(lambda: masqueraded(WAN)) == ()
    bare.masquerade(variant)
    assert bare.gateway.call(lambda: masqueraded(WAN)) == ((packed("0.0.0.0"), 0), (packed("::"), 0))
    assert bare.gateway.call(lambda: masqueraded(("lan0",))) == ()
