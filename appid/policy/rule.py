"""A policy as a value: zones, rules in order, defaults. No parsing here (edge/policy_file.py reads TOML).

Groups and filters are expanded by the loader: a rule holds plain application names.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from typing import Literal, NamedTuple

from appid.identify.application import ALG, AlgFunction, PortRange
from appid.policy import Action

Network = tuple[bytes, int]
"""(packed network, prefix length)."""
Service = Literal["application-default", "any"] | tuple[PortRange, ...]

DEFAULTS = "defaults"
"""The name under which a decision of [defaults] goes."""
UNDECIDED_PACKETS = 10


@dataclass(frozen=True, slots=True)
class Zone:
    """A side of the gateway. Without networks it is where every address lies that no zone's networks hold.
    `undecided_packets`: the budget of flows that begin here, if it is not that of [defaults]. `outside`: whether it is
    on the internet's side (None: not said)."""

    name: str
    interfaces: tuple[str, ...] = ()
    networks: tuple[Network, ...] = ()
    undecided_packets: int | None = None
    outside: bool | None = None


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


class PacketMark(NamedTuple):
    """Bits of a packet mark to set: the bits of `mask` become `value`."""

    value: int
    mask: int


@dataclass(frozen=True, slots=True)
class Qos:
    """What the packets of a rule's flows are given on their way out: a DSCP (RFC 2474), a packet mark, or both."""

    dscp: int | None = None
    mark: PacketMark | None = None


@dataclass(frozen=True, slots=True)
class Override:
    """One [[override]]: a flow to these addresses and ports is `application`, whatever it shows. Empty: any."""

    application: str
    source: tuple[Network, ...] = ()
    destination: tuple[Network, ...] = ()
    ports: tuple[PortRange, ...] = ()


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
    alg: frozenset[AlgFunction] = ALG
    log: bool = True
    qos: Qos | None = None
    capture_unknown: bool = True


@dataclass(frozen=True, slots=True)
class Policy:
    """zones by name; rules in order; what holds where no rule matches; how long a name may stay open."""

    rules: tuple[PolicyRule, ...] = ()
    zones: dict[str, Zone] = field(default_factory=dict)
    default_action: Action = "deny"
    default_log: bool = True
    undecided_packets: int = UNDECIDED_PACKETS
    overrides: tuple[Override, ...] = ()
    capture_unknown: bool = True

    @property
    def qos(self) -> tuple[Qos, ...]:
        """What the rules give packets, each once, in their order; the first is class 1."""
        return tuple(dict.fromkeys(rule.qos for rule in self.rules if rule.qos is not None))

    def budget(self, zone: str | None) -> int:
        """Payload packets for which the name of a flow that begins in this zone may stay open (point 2)."""
        own = self.zones[zone].undecided_packets if zone in self.zones else None
        return self.undecided_packets if own is None else own


def holds(network: Network, address: bytes) -> bool:
    """Whether the packed address lies in the network; never across families."""
    base, prefix = network
    if len(base) != len(address):
        return False
    shift = 8 * len(base) - prefix
    return int.from_bytes(base, "big") >> shift == int.from_bytes(address, "big") >> shift
