"""What is wanted, as one value."""

from __future__ import annotations

from dataclasses import replace

import pytest

from appid.dataplane.chain import Topology
from appid.dataplane.marks import Marks
from appid.dataplane.ruleset import (
    LAST,
    NOTHING,
    At,
    Held,
    NftChain,
    NftTable,
    Place,
    clear_table,
    is_ours,
    relaid,
    remembering,
    wanted,
)

ONE = wanted(Topology(), "nft")


@pytest.mark.parametrize(
    ("name", "ours"), [("APPID", True), ("APPID-QOS", True), ("APPIDENTITY", False), ("FORWARD", False)]
)
def test_ours_is_what_bears_our_name(name: str, ours: bool) -> None:
    assert is_ours(name) is ours


def test_a_rule_set_is_wanted_in_one_variant_for_both_families() -> None:
    assert {(place.variant, place.family, place.table) for place in ONE.tables} == {
        ("nft", family, table) for family in (4, 6) for table in ("mangle", "filter")
    }
    assert set(ONE.nft) == {"appid-clear", "appid-nat"}
    assert set(ONE.held(Place("nft", 6, "filter")).chains) == {"APPID", "APPID-INPUT", "APPID-ALLOWED"}
    assert ONE.held(Place("legacy", 6, "filter")).chains == {}


def test_jumps_find_their_place_among_the_rules_of_others() -> None:
    """Rules of others may have gone since the positions were noted."""
    jumps = (At("FORWARD", 1, "-j APPID"), At("FORWARD", LAST, "-j APPID-ALLOWED"), At("INPUT", 9, "-j APPID-INPUT"))
    assert Held(jumps=jumps).placed(Held(others={"FORWARD": 3, "INPUT": 1})) == (
        At("FORWARD", 1, "-j APPID"), At("FORWARD", 5, "-j APPID-ALLOWED"), At("INPUT", 2, "-j APPID-INPUT"),
    )  # fmt: skip


def test_foreign_bits_are_kept_by_the_clearing_table() -> None:
    """Whether it writes "settled" (state allow, neither watched nor spliced: 1 of the nibble) or clears."""
    assert clear_table(Marks(0xFFF0F000)).chains["early"].rules == (
        "ct mark & 0x0000f000 == 0x00001000 meta mark set meta mark & 0x000f4fff | 0x00004000 accept",
        "meta mark & 0xfff0f000 != 0x00000000 counter meta mark set meta mark & 0x000f0fff",
    )


def test_another_layout_of_the_marks_is_noticed() -> None:
    other = wanted(Topology(marks=Marks(0xFFF0F000)), "nft")
    assert relaid(ONE, other) == 0xFFFFFF0F
    classes = wanted(Topology(marks=Marks(qos=0x0F000000)), "nft")
    assert relaid(ONE, classes) == relaid(NOTHING, ONE) == relaid(ONE, NOTHING) == relaid(ONE, ONE) == 0


def test_built_in_chains_that_come_along_are_remembered() -> None:
    every = {
        f"made-{ip}-{rest}" for ip in ("ip", "ip6")
        for rest in ("mangle", "filter", "mangle-FORWARD", "filter-FORWARD", "filter-INPUT")
    }  # fmt: skip
    assert remembering(ONE, NOTHING).made == every
    forward = NftChain("type filter hook forward priority mangle; policy accept;")
    there = replace(NOTHING, builtin={"ip mangle": {"FORWARD": forward}, "ip filter": {"OUTPUT": forward}})
    assert remembering(ONE, there).made == every - {"made-ip-mangle", "made-ip-mangle-FORWARD", "made-ip-filter"}


def test_what_is_remembered_is_not_forgotten_and_legacy_has_nothing_to_remember() -> None:
    earlier = replace(NOTHING, nft={"appid-clear": NftTable(chains={"made-ip-mangle": NftChain()})})
    legacy = wanted(Topology(), "legacy")
    assert remembering(legacy, earlier).made == {"made-ip-mangle"}
    assert remembering(legacy, NOTHING).made == frozenset()
