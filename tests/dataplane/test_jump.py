"""A jump in iptables' words and in nft's. Texts are iptables 1.8.9's and nft 1.0.6's own."""

from __future__ import annotations

import pytest

from appid.dataplane.jump import leads, native, nft_leads, spoken


@pytest.mark.parametrize(
    ("iptables", "nft"),
    [
        ("-j APPID", "counter jump APPID"),
        ("-m mark ! --mark 0x4/0xf -j APPID", "meta mark & 0x0000000f != 0x00000004 counter jump APPID"),
        ("-m mark --mark 0x40000/0xf0000 -j APPID-X", "meta mark & 0x000f0000 == 0x00040000 counter jump APPID-X"),
    ],
)
def test_the_same_jump_in_both(iptables: str, nft: str) -> None:
    assert native(iptables) == nft
    assert spoken(nft) == spoken(nft.replace("counter ", "")) == iptables
    assert leads(iptables) == nft_leads(nft) != ""


def test_what_asks_for_more_has_no_words_in_the_other() -> None:
    assert native("-p tcp -j APPID") is native("-g APPID") is None
    assert spoken("meta l4proto tcp counter jump APPID") is spoken("goto APPID") is spoken("counter accept") is None
    assert native("ip saddr 10.9.9.9 goto APPID") == "ip saddr 10.9.9.9 goto APPID", "it is nft's already"


def test_where_it_leads() -> None:
    assert leads("-p tcp -g APPID-X") == "APPID-X"
    assert leads("-p tcp -j REJECT --reject-with tcp-reset") == ""
    assert nft_leads('ip saddr 10.9.9.9 goto APPID comment "hello"') == "APPID"
    assert nft_leads('log prefix "jump APPID"') == nft_leads('drop comment "goto APPID\\"') == ""
