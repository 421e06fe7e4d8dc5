"""Differences between a rule set and iptables-save text. The kernel's own text is compared in tests/netns."""

from __future__ import annotations

from appid.dataplane.chain import Topology, chain_set
from appid.dataplane.diff import differences, normal
from appid.dataplane.render import restore_text

RULES = chain_set(Topology(outside=("wan0",)), 4)
SAVED = restore_text(RULES).replace("-I ", "-A ")


def test_the_same_is_no_difference() -> None:
    assert list(differences(RULES, SAVED)) == []


def test_chains_of_others_are_not_looked_at() -> None:
    other = SAVED.replace("*filter\n", "*filter\n:DOCKER - [0:0]\n-A DOCKER -j RETURN\n-A FORWARD -j DOCKER\n")
    assert list(differences(RULES, other)) == []


def test_what_lacks_and_what_is_too_much() -> None:
    lacking = SAVED.replace("-A APPID -m connmark --mark 0x3/0x3 -j DROP\n", "")
    assert list(differences(RULES, lacking)) == ["+ filter: -A APPID -m connmark --mark 0x3/0x3 -j DROP"]
    more = SAVED.replace("*mangle\n", "*mangle\n-A APPID -j ACCEPT\n")
    assert list(differences(RULES, more)) == ["- mangle: -A APPID -j ACCEPT"]


def test_jumps_are_counted() -> None:
    assert list(differences(RULES, SAVED.replace("-A FORWARD -j APPID\n", "", 1))) == ["+ mangle: -A FORWARD -j APPID"]
    twice = SAVED.replace("-A INPUT -j APPID-INPUT\n", "-A INPUT -j APPID-INPUT\n" * 2)
    assert list(differences(RULES, twice)) == ["- filter: -A INPUT -j APPID-INPUT"]


def test_order_counts() -> None:
    one, other = "-A APPID -m connmark --mark 0x1/0x3 -j ACCEPT\n", "-A APPID -m connmark --mark 0x3/0x3 -j DROP\n"
    swapped = SAVED.replace(one, "@").replace(other, one).replace("@", other)
    assert list(differences(RULES, swapped)) == ["- filter: order of APPID"]


def test_an_empty_kernel_lacks_everything() -> None:
    assert len(list(differences(RULES, ""))) == sum(len(chain.rules) for chain in RULES.chains) + len(RULES.jumps)


def test_spelling_is_no_difference() -> None:
    assert normal('[12:840] -A APPID -p udp -m udp --dport 1:2 -m comment --comment "blind"  -j DROP') == (
        "-A APPID -p udp --dport 1:2 -m comment --comment blind -j DROP"
    )
    assert normal("-A A -m mark --mark 0x00000008/0x0008 -j B") == "-A A -m mark --mark 0x8/0x8 -j B"
