"""A policy as a value: zones, rules in order, defaults. No parsing here (edge/policy_file.py reads TOML).

Groups and filters are expanded by the loader: a rule holds plain application names.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from typing import Literal

from appid.identify.application import PortRange
from appid.policy import Action

Network = tuple[bytes, int]
"""(packed network, prefix length)."""
Service = Literal["application-default", "any"] | tuple[PortRange, ...]

DEFAULTS = "defaults"
"""The name under which a decision of [defaults] goes."""
UNDECIDED_PACKETS = 10


@dataclass(frozen=True, slots=True)
class Zone:
    """A side of the gateway. Without networks it is where every address lies that no zone's networks hold."""

    name: str
    interfaces: tuple[str, ...] = ()
    networks: tuple[Network, ...] = ()


@dataclass(frozen=True, slots=True)
class Schedule:
    """Days (0 = Monday) and minutes of the day [start, end) in `timezone`; start > end runs into the next day."""

    days: frozenset[int] = frozenset(range(7))
    start: int = 0
    end: int = 24 * 60
    timezone: tzinfo = UTC

    def active(self, now: float) -> bool:
        local = datetime.fromtimestamp(now, self.timezone)
        minute, day = local.hour * 60 + local.minute, local.weekday()
        if self.start < self.end:
            return day in self.days and self.start <= minute < self.end
        late = day in self.days and minute >= self.start
        return late or ((day - 1) % 7 in self.days and minute < self.end)


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """One [[rule]]. An empty `from_`, `to`, `source`, `destination` means any; `applications` None means any."""

    name: str
    action: Action
    from_: tuple[str, ...] = ()
    to: tuple[str, ...] = ()
    source: tuple[Network, ...] = ()
    destination: tuple[Network, ...] = ()
    applications: frozenset[str] | None = None
    service: Service = "application-default"
    schedule: Schedule | None = None
    implicit: bool = False
    alg: bool = True
    log: bool = True


@dataclass(frozen=True, slots=True)
class Policy:
    """zones by name; rules in order; what holds where no rule matches; how long a name may stay open."""

    rules: tuple[PolicyRule, ...] = ()
    zones: dict[str, Zone] = field(default_factory=dict)
    default_action: Action = "deny"
    default_log: bool = True
    undecided_packets: int = UNDECIDED_PACKETS

    def zone_of(self, address: bytes, interface: str = "") -> str | None:
        """The zone of one side of a flow: by interface where one is known and named, else by the longest network that
        holds the address, else the first zone without networks; None if there is none."""
        if interface:
            for zone in self.zones.values():
                if interface in zone.interfaces:
                    return zone.name
        best, length = None, -1
        for zone in self.zones.values():
            for network, prefix in zone.networks:
                if prefix > length and holds((network, prefix), address):
                    best, length = zone.name, prefix
        if best is not None:
            return best
        return next((zone.name for zone in self.zones.values() if not zone.networks), None)


def holds(network: Network, address: bytes) -> bool:
    """Whether the packed address lies in the network; never across families."""
    base, prefix = network
    if len(base) != len(address):
        return False
    shift = 8 * len(base) - prefix
    return int.from_bytes(base, "big") >> shift == int.from_bytes(address, "big") >> shift
