"""Which ports the host's own rules send on: as Debian's iptables-save and nft print them."""

from __future__ import annotations

import pytest

from appid.edge.forwards import of_iptables, of_nft
from appid.wire import text

WAN = ("wan0",)


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        ("-A PREROUTING -i wan0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.0.0.5:80",
         ["6 8080-8080 10.0.0.5"]),
        ("-A DOCKER ! -i docker0 -p udp -m udp --dport 5000:5010 -j DNAT --to-destination 172.17.0.2",
         ["17 5000-5010 172.17.0.2"]),
        ("-A PREROUTING -p tcp -m multiport --dports 80,443,1000:2000 -j DNAT --to-destination 10.0.0.5",
         ["6 1000-2000 10.0.0.5", "6 443-443 10.0.0.5", "6 80-80 10.0.0.5"]),
        ("-A PREROUTING -i wan+ -p udp -m udp --dport 53 -j REDIRECT --to-ports 5353", ["17 53-53 None"]),
        ("-A PREROUTING -p udp -m udp --dport 9 -j DNAT --to-destination 10.0.0.5-10.0.0.9", ["17 9-9 None"]),
        ("-A PREROUTING -p tcp -m tcp --dport 22 -j DNAT --to-destination [fd00::5]:22", ["6 22-22 fd00::5"]),
        ("-A PREROUTING -i lan0 -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 3128", []),
        ("-A PREROUTING -i wan0 -j DNAT --to-destination 10.0.0.5", []),
        ("-A PREROUTING -p tcp -m tcp ! --dport 80 -j DNAT --to-destination 10.0.0.5", []),
        ("-A OUTPUT -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.0.0.5", []),
        ('-A PREROUTING -m comment --comment "--dport 80 -j DNAT" -j ACCEPT', []),
    ],
)  # fmt: skip
def test_iptables(rule: str, wanted: list[str]) -> None:
    assert shown(of_iptables(f"*nat\n:PREROUTING ACCEPT [0:0]\n{rule}\nCOMMIT\n", WAN)) == wanted


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        ('iifname "wan0" tcp dport 8080 dnat ip to 10.0.0.5:80', ["6 8080-8080 10.0.0.5"]),
        ("udp dport { 53, 5000-5010 } counter packets 0 bytes 0 dnat to 10.0.0.5",
         ["17 5000-5010 10.0.0.5", "17 53-53 10.0.0.5"]),
        ('iifname { "wan0", "wan1" } meta l4proto { tcp, udp } th dport 5060 dnat ip6 to [fd00::5]:5060',
         ["None 5060-5060 fd00::5"]),
        ("dnat ip addr . port to tcp dport map { 80 : 10.0.0.1 . 8080, 443 : 10.0.0.2 . 8443 }",
         ["6 443-443 10.0.0.2", "6 80-80 10.0.0.1"]),
        ("dnat to udp dport map { 7000-7010 : 10.0.0.1 }", ["17 7000-7010 10.0.0.1"]),
        ("tcp dport 80 redirect to :3128", ["6 80-80 None"]),
        ('iifname "lan0" tcp dport 80 redirect to :3128', []),
        ("tcp dport 80 accept comment \"dnat to 10.0.0.5\"", []),
    ],
)  # fmt: skip
def test_nft(rule: str, wanted: list[str]) -> None:
    chain = "\tchain pre {{\n\t\ttype nat hook prerouting priority dstnat; policy accept;\n\t\t{}\n\t}}\n"
    ours = "table inet appid-nat {\n" + chain.format("dnat ip to 10.0.0.9 udp dport 4000") + "}\n"
    assert shown(of_nft("table inet nat {\n" + chain.format(rule) + "}\n" + ours, WAN)) == wanted


def shown(found: object) -> list[str]:
    return sorted(
        f"{each.proto} {each.first}-{each.last} {text(each.target) if each.target else None}"
        for each in found  # type: ignore[attr-defined]
    )
