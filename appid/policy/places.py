"""Where a flow stands, and what the operator says it is: zones and overrides, looked up at about the same cost however
many there are.

In: a policy. Out: the zone of an address, whether a zone is outside, the application that an override gives a flow;
zones where no packet is, overrides that never count.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from itertools import islice

from appid.flow.key import FlowKey
from appid.policy.index import PortIndex, cover
from appid.policy.mask import lowest, mask_of, rows_of
from appid.policy.networks import NetworkIndex
from appid.policy.rule import Network, Override, Policy, Zone

_SOME: tuple[Network, ...] = ((bytes(4), 0),)
_TRIED = 64
"""Earlier overrides with ports that are looked at, one by one, for one that holds all of another's."""


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


class Overrides:
    """The application that the first matching [[override]] gives a flow."""

    def __init__(self, policy: Policy) -> None:
        given = policy.overrides
        self._applications = [override.application for override in given]
        self._source = NetworkIndex([override.source for override in given])
        self._destination = NetworkIndex([override.destination for override in given])
        self._ports = PortIndex((i, override.ports) for i, override in enumerate(given) if override.ports)
        self._any_port = mask_of(i for i, override in enumerate(given) if not override.ports)

    def of(self, key: FlowKey) -> str | None:
        """`key` is the direction of the flow's first packet."""
        if not self._applications:
            return None
        held = self._any_port | self._ports.at(key.proto, key.dport)
        held = held and held & self._source.find(key.src)
        held = held and held & self._destination.find(key.dst)
        return self._applications[lowest(held)] if held else None


def shadowed_overrides(overrides: Sequence[Override]) -> Iterator[tuple[int, int]]:
    """(an override, one before it that holds every flow that it holds). Not every such pair: of an override, the first
    that is found."""
    source = NetworkIndex([override.source for override in overrides])
    destination = NetworkIndex([override.destination for override in overrides])
    ports = PortIndex((i, override.ports) for i, override in enumerate(overrides) if override.ports)
    any_port = mask_of(i for i, override in enumerate(overrides) if not override.ports)
    for row, override in enumerate(overrides):
        held = (1 << row) - 1 & source.covering(row) & destination.covering(row)
        some = held if override.ports else 0
        for each in override.ports:
            some &= ports.at(each.proto, each.first) & ports.at(each.proto, each.last)
        for other in islice(rows_of(held & (any_port | some)), _TRIED):
            if other not in ports.merged or cover(ports.merged[other], ports.merged[row]):
                yield row, other
                break


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


def without_interfaces(policy: Policy, inside: tuple[Network, ...]) -> Policy:
    """The policy for traffic whose interfaces are not known (a capture). Where no zone has networks, `inside` are those
    of the first inside zone, and the first other one is everywhere else."""
    zones = policy.zones
    first = next((zone for zone in zones.values() if zone.outside is False), None)
    if first is None or any(zone.networks for zone in zones.values()):
        return policy
    return replace(policy, zones={**zones, first.name: replace(first, networks=inside)})
