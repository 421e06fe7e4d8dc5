"""Differences between rule sets wanted and there. The kernel's own text is compared in tests/netns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from appid.dataplane.chain import Topology
from appid.dataplane.diff import differences, normal
from appid.dataplane.ruleset import (
    NOTHING,
    At,
    Held,
    NftChain,
    Place,
    RuleSets,
    SetText,
    Variant,
    remembering,
    wanted,
)

WANTED = wanted(Topology(outside=("wan0",), inside=("10.0.0.0/8",), queues=(0, 1), allowed="host"), "nft")
MAIN = "-m mark ! --mark 0x4/0xf -j APPID"
INPUT = At("INPUT", 1, "-j APPID-INPUT")
MANGLE, FILTER = Place("nft", 4, "mangle"), Place("nft", 4, "filter")


def changed(place: Place, change: Callable[[Held], Held]) -> RuleSets:
    return replace(WANTED, tables={**WANTED.tables, place: change(WANTED.held(place))})


def rules(change: Callable[[tuple[str, ...]], tuple[str, ...]], chain: str = "APPID") -> Callable[[Held], Held]:
    return lambda held: replace(held, chains={**held.chains, chain: change(held.chains[chain])})


def told(now: RuleSets) -> list[str]:
    return [str(each) for each in differences(WANTED, now)]


def test_the_same_is_no_difference() -> None:
    assert told(WANTED) == []
    assert told(remembering(WANTED, NOTHING)) == [], "what remembers built-in chains is no rule"


def test_what_lacks_and_what_is_too_much() -> None:
    drop = "-m connmark --mark 0x3/0x3 -j DROP"
    lacking = changed(FILTER, rules(lambda lines: tuple(line for line in lines if line != drop)))
    assert told(lacking) == [f"+ iptables-nft filter: -A APPID {drop}"]
    assert told(changed(MANGLE, rules(lambda lines: (*lines, "-j ACCEPT")))) == [
        "- iptables-nft mangle: -A APPID -j ACCEPT"
    ]


def test_order_and_number_count() -> None:
    assert told(changed(FILTER, rules(lambda lines: lines[::-1]))) == [
        "- iptables-nft filter: -A APPID order of the rules"
    ]
    assert told(changed(FILTER, rules(lambda lines: (*lines, lines[0])))) == [
        "- iptables-nft filter: -A APPID rules doubled"
    ]


@pytest.mark.parametrize(
    ("jumps", "expected"),
    [
        ((), [f"+ iptables-nft filter: -I FORWARD {MAIN}"]),
        ((At("FORWARD", 1, MAIN), At("FORWARD", 2, MAIN)), [f"- iptables-nft filter: -A FORWARD {MAIN}"]),
        ((At("FORWARD", 3, MAIN),), [f"- iptables-nft filter: -A FORWARD {MAIN} as rule 3",
                                           f"+ iptables-nft filter: -A FORWARD {MAIN} as rule 1"]),
        ((At("FORWARD", 1, MAIN), At("DOCKER-USER", 1, MAIN)),
         [f"- iptables-nft filter: -A DOCKER-USER {MAIN}"]),
    ],
)  # fmt: skip
def test_jumps_have_their_place(jumps: tuple[At, ...], expected: list[str]) -> None:
    assert told(changed(FILTER, lambda held: replace(held, jumps=(*jumps, INPUT), others={"FORWARD": 2}))) == expected


def test_sets_and_tables() -> None:
    def sets(more: Mapping[str, SetText]) -> RuleSets:
        return replace(WANTED, sets={**WANTED.sets, **more})

    there = WANTED.sets["appid-inside4"]
    chosen = SetText(f"{there.create} hashsize 1024 bucketsize 12 initval 0x1", there.members)
    assert told(sets({"appid-inside4": chosen})) == [], "what the kernel chooses is no difference"
    assert told(sets({"appid-inside4": SetText(there.create, ("10.9.0.0/16",))})) == [
        "- ipset: add appid-inside4 10.9.0.0/16", "+ ipset: add appid-inside4 10.0.0.0/8",
    ]  # fmt: skip
    live = WANTED.sets["appid-pinholes4"]
    assert told(sets({"appid-pinholes4": SetText(live.create, ("10.0.0.1,udp:1,192.0.2.1",))})) == [], "the gateway's"
    assert told(sets({"appid-old": SetText("hash:ip family inet")})) == [
        "- ipset: create appid-old hash:ip family inet"
    ]
    clear = WANTED.nft["appid-clear"]
    altered = replace(clear, chains={"early": NftChain("type ..."), "more": NftChain()})
    assert told(replace(WANTED, nft={**WANTED.nft, "appid-clear": altered})) == [
        "+ nft inet appid-clear: early: ct mark & 0xf == 0x1 meta mark set meta mark & 0xff0000f4 | 0x4 accept",
        "+ nft inet appid-clear: early: meta mark & 0xffff0f != 0x0 counter meta mark set meta mark & 0xff0000f0",
        "- nft inet appid-clear: chain more",
    ]
    assert told(replace(WANTED, nft={"appid-clear": clear})) == ["+ nft inet appid-nat: table"]


@pytest.mark.parametrize(("variant", "other"), [("nft", "legacy"), ("legacy", "nft")])
def test_rules_in_the_other_variant_are_too_much(variant: Variant, other: Variant) -> None:
    found = differences(wanted(Topology(), variant), wanted(Topology(), other))
    assert {each.where for each in found if each.sign == "-"} == {
        f"{program}-{other} {table}" for program in ("iptables", "ip6tables") for table in ("mangle", "filter")
    }


def test_spelling_is_no_difference() -> None:
    assert normal('[12:840] -A APPID -p udp -m udp --dport 1:2 -m comment --comment "blind"  -j DROP') == (
        "-A APPID -p udp --dport 1:2 -m comment --comment blind -j DROP"
    )
    assert normal("-A A -m mark --mark 0x00000008/0x0008 -j B") == "-A A -m mark --mark 0x8/0x8 -j B"
