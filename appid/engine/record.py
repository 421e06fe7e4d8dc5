"""What the engine is told once (Settings), and what it keeps of a flow that userspace still has to do with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from appid.alg.host import Forward
from appid.alg.lessons import Asked
from appid.alg.names import Natted
from appid.alg.relay import Relay
from appid.alg.splice import Splice
from appid.dataplane.marks import Marks
from appid.engine.limits import Limits
from appid.evidence.ledger import Ledger
from appid.flow.key import FlowKey
from appid.flow.stream import Stream
from appid.identify.application import ALG, AlgFunction, Application
from appid.identify.identification import (
    INCOMPLETE,
    INSUFFICIENT_DATA,
    UNKNOWN_IP,
    UNKNOWN_TCP,
    UNKNOWN_UDP,
    Identification,
)
from appid.identify.match import Candidates
from appid.identify.naming import Lineage, Naming
from appid.policy import Decision
from appid.policy.evaluate import Judge, Situation
from appid.policy.exception import Cause, ExceptionPolicy, Failure
from appid.policy.rule import Network
from appid.wire import TCP, UDP, Endpoint, Fact, packed

DEFAULT_INSIDE: tuple[Network, ...] = tuple(
    (packed(network.split("/")[0]), int(network.split("/")[1]))
    for network in (
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",
        "169.254.0.0/16",
        "fc00::/7",
        "fe80::/10",
    )
)
"""What counts as inside where nobody says otherwise (RFC 1918, 6598, 3927, 4193, 4291)."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Applications by name, the policy (None: allow everything), the inside networks, the gateway's own addresses.

    masqueraded   inside networks whose source the host translates on the way out
    forwarded     ports that the host's own rules send on to somebody
    alg           what the ALG does, for anybody
    share         (index, number) of this process among those that give outside ports
    limits        how much is kept
    exceptions    what becomes of what cannot be seen
    """

    applications: Mapping[str, Application]
    judge: Judge | None = None
    inside: tuple[Network, ...] = DEFAULT_INSIDE
    outside: frozenset[bytes] = frozenset()
    marks: Marks = field(default_factory=Marks)
    monitor: bool = False
    budget: int = 10
    masqueraded: tuple[Network, ...] = ()
    forwarded: tuple[Forward, ...] = ()
    share: tuple[int, int] = (0, 1)
    alg: frozenset[AlgFunction] = ALG
    limits: Limits = field(default_factory=Limits)
    exceptions: ExceptionPolicy = field(default_factory=ExceptionPolicy)

    def failure(self, cause: Cause) -> Failure:
        """Whether traffic passes ("open") where the engine is blind; in monitor mode it always does."""
        return "open" if self.monitor else self.exceptions.failure(cause)


class Topology:
    """Which addresses are inside; remembered for the addresses seen last."""

    def __init__(self, networks: tuple[Network, ...]) -> None:
        prefixes: dict[int, list[tuple[int, int]]] = {4: [], 16: []}  # of addresses of that many bytes
        for base, prefix in networks:
            shift = 8 * len(base) - prefix
            prefixes[len(base)].append((shift, int.from_bytes(base, "big") >> shift))

        def inside(address: bytes) -> bool:
            number = int.from_bytes(address, "big")
            return any(number >> shift == network for shift, network in prefixes[len(address)])

        self.inside = lru_cache(maxsize=8192)(inside)

    def outside(self, address: bytes, zone: bool | None = None) -> bool:
        """Whether one side of a flow is outside: as its zone says (policy.places), else by its address."""
        return not self.inside(address) if zone is None else zone


class FlowRecord:
    """One flow, undecided, or decided and watched. `key` is its first packet's direction; `host` the inside host."""

    __slots__ = (
        "always",
        "asked",
        "awaited",
        "bodies",
        "call",
        "crypto",
        "decision",
        "facts",
        "first_packet",
        "foreseen",
        "host",
        "host_first",
        "id",
        "key",
        "last_seen",
        "ledger",
        "mark",
        "naming",
        "natted",
        "opening",
        "payload_packets",
        "placed",
        "relay",
        "requests",
        "situation",
        "spliced",
        "state",
        "streams",
        "userspace_packets",
        "watch",
    )

    def __init__(
        self,
        number: int,
        key: FlowKey,
        host_first: bool,
        packet: int,
        situation: Situation | None,
        keep: frozenset[str] = frozenset(),
    ) -> None:
        self.id = number
        self.key = key
        self.host_first = host_first
        self.host = key.src if host_first else key.dst
        self.first_packet = packet
        self.situation = situation
        self.ledger = Ledger(keep)
        self.naming = Naming()
        self.relay: Relay | None = None
        self.asked: Asked | None = None
        self.facts = flow_facts(key)
        self.always: Candidates | None = None
        self.streams: tuple[Stream, Stream] | None = (Stream(), Stream()) if key.proto == TCP else None
        self.bodies = [0, 0]
        self.awaited = [0, 0]
        self.requests = 0
        self.opening = ["", ""]
        self.crypto: list[tuple[int, bytes]] = []
        self.payload_packets = 0
        self.userspace_packets = 0
        self.decision: Decision | None = None
        self.mark = 0
        self.watch = False
        self.call: int | None = None
        self.foreseen: int | None = None
        self.state: str | None = None
        self.last_seen = 0.0
        self.natted: Natted | None = None
        self.placed = False
        self.spliced: tuple[Splice, Splice] | None = None

    @property
    def remote(self) -> bytes:
        """The other end, seen from `host`."""
        return self.key.dst if self.host_first else self.key.src

    @property
    def far(self) -> Endpoint:
        return self.key.destination if self.host_first else self.key.source

    @property
    def host_port(self) -> int:
        return self.key.sport if self.host_first else self.key.dport

    def opened_with(self, protocol: str, outward: bool) -> bool:
        """Whether this direction of the flow began with that protocol. Datagrams begin anew each time; a stream is what
        its first byte says, so that no text in the middle of one counts (NAT slipstreaming)."""
        return self.streams is None or self.opening[0 if outward else 1] == protocol

    def possible(self, lineage: Lineage) -> frozenset[str] | None:
        """Names still possible; None: any. Empty once the flow has been given up."""
        return frozenset() if self.state is not None else self.naming.still_possible(lineage)

    def give_up(self) -> None:
        """The budget is spent: the name stands, or there is none to come (policy.md point 2)."""
        names = {TCP: UNKNOWN_TCP, UDP: UNKNOWN_UDP}
        self.state = names.get(self.key.proto, UNKNOWN_IP)

    def ended(self) -> None:
        """The flow is over before it was given up."""
        if self.state is None:
            if self.key.proto in (TCP, UDP):
                self.state = INSUFFICIENT_DATA if self.payload_packets or self.key.proto == UDP else INCOMPLETE
            else:
                self.state = UNKNOWN_IP

    def identification(self) -> Identification:
        return self.naming.identification(self.state or INSUFFICIENT_DATA)


def flow_facts(key: FlowKey) -> tuple[Fact, ...]:
    """What the 5-tuple itself says, as facts; `key` is the direction of the flow's first packet."""
    return (
        Fact("flow.proto", key.proto),
        Fact("flow.destination", key.dst),
        Fact("flow.destination_port", key.dport),
        Fact("flow.source", key.src),
        Fact("flow.source_port", key.sport),
    )
