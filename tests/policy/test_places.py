"""Zones of addresses, sides of zones, overrides."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appid.policy.places import Zones, likely_sides, with_sides, without_interfaces
from appid.policy.rule import Network, Policy, PolicyRule, Zone, holds
from appid.wire import packed
from tests.policy.random_policies import NETWORKS, V4, V6

POLICY = Policy(
    zones={
        "lan": Zone("lan", ("lan0",), ((packed("172.16.0.0"), 16), (packed("fd00::"), 64))),
        "guests": Zone("guests", (), ((packed("172.16.42.0"), 24),)),
        "outside": Zone("outside", ("wan0",)),
    }
)


@pytest.mark.parametrize(
    ("address", "interface", "zone"),
    [
        ("172.16.1.1", "", "lan"),
        ("172.16.42.1", "", "guests"),  # the longer network
        ("fd00::7", "", "lan"),
        ("17.173.254.35", "", "outside"),  # the zone without networks is everywhere else
        ("17.173.254.35", "lan0", "lan"),  # the interface says more than the address
        ("172.16.42.1", "guest0", "guests"),  # an interface that no zone names says nothing
    ],
)
def test_zone_of(address: str, interface: str, zone: str) -> None:
    assert Zones(POLICY.zones.values()).of(packed(address), interface) == zone


def test_no_zone_holds_the_address() -> None:
    assert Zones([POLICY.zones["lan"]]).of(packed("8.8.8.8")) is None


@given(
    st.lists(st.tuples(st.lists(NETWORKS, max_size=3), st.lists(st.sampled_from(["a", "b"]), max_size=1)), max_size=4),
    V4 | V6,
    st.sampled_from(["", "a", "c"]),
)
def test_zones_equal_looking_at_each(
    given_: list[tuple[list[Network], list[str]]], address: bytes, interface: str
) -> None:
    zones = [Zone(f"z{i}", tuple(interfaces), tuple(networks)) for i, (networks, interfaces) in enumerate(given_)]
    named = [zone.name for zone in zones if interface in zone.interfaces]
    longest = [(-n[1], i, z.name) for i, z in enumerate(zones) for n in z.networks if holds(n, address)]
    open_ = [zone.name for zone in zones if not zone.networks]
    expected = named[0] if named else min(longest)[2] if longest else open_[0] if open_ else None
    assert Zones(zones).of(address, interface) == expected


NET = ((packed("10.0.0.0"), 8),)
LAN, WAN = Zone("lan", ("lan0",)), Zone("wan", ("wan0",))


@pytest.mark.parametrize(
    ("zones", "uplinks", "sides"),
    [
        # the example of policy.md: the zone without networks is the other side, whatever the routes say yet
        ([Zone("lan", ("lan0",), NET), WAN], (), [False, True]),
        ([Zone("lan", (), NET), Zone("wan")], (), [False, True]),
        # of zones with interfaces alone the default route tells
        ([LAN, WAN], ("wan0",), [False, True]),
        ([WAN, LAN], ("wan0", "tun0"), [True, False]),
        ([LAN, WAN], (), [None, None]),
        ([LAN, WAN], ("tun0",), [None, None]),
        # guests are inside, without networks of their own
        ([Zone("lan", ("lan0",), NET), Zone("guests", ("lan1",)), WAN], ("wan0",), [False, False, True]),
        # everywhere else is outside, and so the interfaces are not
        ([LAN, Zone("rest")], (), [False, True]),
        # what a zone says itself holds
        ([LAN, Zone("wan", ("wan0",), outside=True)], ("lan0",), [True, True]),
        ([LAN, Zone("wan", ("wan0",), outside=True)], (), [False, True]),
        ([Zone("lan", ("lan0",), outside=False), WAN], (), [False, True]),
        ([Zone("partner", (), NET, outside=True), LAN], (), [True, False]),
    ],
)
def test_which_zones_are_outside(zones: list[Zone], uplinks: tuple[str, ...], sides: list[bool | None]) -> None:
    policy = with_sides(Policy(zones={zone.name: zone for zone in zones}), uplinks)
    assert [zone.outside for zone in policy.zones.values()] == sides
    assert [zone.name for zone in policy.zones.values()] == [zone.name for zone in zones]


def test_elsewhere_is_outside_where_a_zone_is() -> None:
    zones = with_sides(Policy(zones={"lan": LAN, "guests": Zone("guests", ("lan1",)), "rest": Zone("rest")})).zones
    assert Zones(zones.values()).of(packed("17.1.1.1")) == "rest"
    assert Zones([LAN, WAN]).of(packed("17.1.1.1")) == "lan", "nothing is known: the first"


def test_a_capture_has_no_interfaces() -> None:
    stated = with_sides(Policy(zones={"wan": Zone("wan", ("wan0",), outside=True), "lan": LAN}))
    zones = Zones(without_interfaces(stated, NET).zones.values())
    assert (zones.of(packed("10.1.1.1")), zones.of(packed("17.1.1.1"))) == ("lan", "wan")
    unknown = with_sides(Policy(zones={"lan": LAN, "wan": WAN}))
    assert without_interfaces(unknown, NET) == unknown


def test_a_captures_inside_is_the_zone_that_rules_allow_from() -> None:
    out = PolicyRule("out", "allow", from_=("lan",), to=("wan",))
    for zones in ([LAN, WAN], [WAN, LAN]):
        policy = Policy((out,), {zone.name: zone for zone in zones})
        likely = likely_sides(with_sides(policy)).zones
        assert (likely["lan"].outside, likely["wan"].outside) == (False, True)
        found = Zones(without_interfaces(likely_sides(with_sides(policy)), NET).zones.values())
        assert (found.of(packed("10.1.1.1")), found.of(packed("17.1.1.1"))) == ("lan", "wan")
    assert not likely_sides(with_sides(Policy(zones={"lan": LAN, "wan": WAN}))).zones["lan"].outside
    stated = with_sides(Policy((out,), {"lan": LAN, "wan": Zone("wan", ("wan0",), outside=True)}))
    assert likely_sides(stated) is stated
    assert likely_sides(Policy()) == Policy()
