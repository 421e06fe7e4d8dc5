"""Where a flow stands: zones, looked up at about the same cost however many there are.

In: a policy. Out: the zone of an address, whether a zone is outside; zones where no packet is.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from appid.policy.rule import Network, Policy, Zone

_SOME: tuple[Network, ...] = ((bytes(4), 0),)


class Zones:
    """The zone of one side of a flow: by interface where one is known and named, else by the longest network that holds
    the address, else the first zone without networks, one that is outside before others; None if there is none."""

    def __init__(self, zones: Collection[Zone]) -> None:
        self._interfaces: dict[str, str] = {}
        self._networks: dict[tuple[int, int], dict[int, str]] = {}
        for zone in zones:
            for interface in zone.interfaces:
                self._interfaces.setdefault(interface, zone.name)
            for base, prefix in zone.networks:
                table = self._networks.setdefault((len(base), 8 * len(base) - prefix), {})
                table.setdefault(int.from_bytes(base, "big") >> 8 * len(base) - prefix, zone.name)
        self._lengths = {width: sorted(s for w, s in self._networks if w == width) for width in (4, 16)}
        open_ = sorted((zone for zone in zones if not zone.networks), key=lambda zone: not zone.outside)
        self._elsewhere = open_[0].name if open_ else None

    def of(self, address: bytes, interface: str = "") -> str | None:
        if interface and (named := self._interfaces.get(interface)) is not None:
            return named
        width, number = len(address), int.from_bytes(address, "big")
        for shift in self._lengths[width]:
            zone = self._networks[width, shift].get(number >> shift)
            if zone is not None:
                return zone
        return self._elsewhere


def with_sides(policy: Policy, uplinks: Collection[str] = ()) -> Policy:
    """The policy, each zone with its side where that can be told. `uplinks`: the interfaces by which default routes
    leave.

    What a zone says itself holds. One with networks is inside; one without networks and interfaces, where everything
    else lies, is outside. Of those with interfaces alone, the ones with an uplink are outside. If none has one, all of
    them are, where there are zones with networks for them to be the other side of; none is, where another zone is
    outside. Else nothing is known (None), and addresses tell.
    """
    zones = policy.zones.values()
    stated = any(zone.outside for zone in zones)
    networks = any(zone.networks or zone.outside is False for zone in zones)
    elsewhere = any(not zone.networks and not zone.interfaces for zone in zones)
    wired = [zone for zone in zones if zone.outside is None and not zone.networks and zone.interfaces]
    leading = {zone.name for zone in wired if any(each in uplinks for each in zone.interfaces)}

    def side(zone: Zone) -> bool | None:
        if zone.outside is not None or zone.networks:
            return bool(zone.outside)
        if not zone.interfaces or leading or stated:
            return not zone.interfaces or zone.name in leading
        return True if networks else False if elsewhere else None

    return replace(policy, zones={name: replace(zone, outside=side(zone)) for name, zone in policy.zones.items()})


def known_sides(policy: Policy) -> tuple[frozenset[str], frozenset[str]]:
    """The zones that are outside, and those that are inside, wherever default routes lead."""
    zones = policy.zones.values()
    wired = {zone.name for zone in zones if zone.outside is None and not zone.networks and zone.interfaces}
    sided = with_sides(policy).zones.values()
    outside = (zone.name for zone in sided if zone.outside and (zone.name not in wired or len(wired) == 1))
    return frozenset(outside), frozenset(z.name for z in sided if z.outside is False and z.name not in wired)


def empty_zones(policy: Policy) -> list[str]:
    """Zones where no packet ever is: without interfaces and networks, and everything else lies in another one. Not the
    one to which a capture's inside networks go (without_interfaces)."""
    outside, _ = known_sides(policy)
    zones = without_interfaces(with_sides(policy), _SOME).zones.values()
    open_ = sorted((zone for zone in zones if not zone.networks), key=lambda zone: zone.name not in outside)
    return sorted(zone.name for zone in open_[1:] if not zone.interfaces)


def likely_sides(policy: Policy) -> Policy:
    """For a capture, which has no default route: where nothing tells any zone's side, the zone that rules allow from
    more than to is inside (of several the first), the others outside."""
    zones = policy.zones
    if not zones or any(zone.outside is not None for zone in zones.values()):
        return policy
    allowing = [rule for rule in policy.rules if rule.action == "allow"]
    inside = max(zones, key=lambda name: sum((name in rule.from_) - (name in rule.to) for rule in allowing))
    return replace(policy, zones={name: replace(zone, outside=name != inside) for name, zone in zones.items()})


def without_interfaces(policy: Policy, inside: tuple[Network, ...]) -> Policy:
    """The policy for traffic whose interfaces are not known (a capture). Where no zone has networks, `inside` are those
    of the first inside zone, and the first other one is everywhere else."""
    zones = policy.zones
    first = next((zone for zone in zones.values() if zone.outside is False), None)
    if first is None or any(zone.networks for zone in zones.values()):
        return policy
    return replace(policy, zones={**zones, first.name: replace(first, networks=inside)})
