"""Who takes part in a tale: the columns of the ladder, from left to right.

In: the inside test, what the flows were, the addresses that each message named. Out: parties, and a lane per address.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from appid.story.step import Party, Role
from appid.wire import Endpoint, text

ORDER: tuple[Role, ...] = ("client", "relay", "router", "peer", "web", "courier")
MAX_SEEN = 4096
"""Addresses of one tale that have a lane of their role; others stand with the peers."""


@dataclass
class Cast:
    """Collects who was seen as what. A remote address takes the first role of this list that it has."""

    inside: Callable[[bytes], bool]
    relays: dict[Endpoint, None] = field(default_factory=dict)
    couriers: dict[Endpoint, None] = field(default_factory=dict)
    web: dict[Endpoint, None] = field(default_factory=dict)
    mapped: dict[bytes, None] = field(default_factory=dict)
    """Addresses by which the world knows the clients."""
    complaining: set[bytes] = field(default_factory=set)
    """Senders of ICMP errors."""
    seen: dict[bytes, None] = field(default_factory=dict)
    speaking: set[bytes] = field(default_factory=set)

    def add(self, src: Endpoint | None, *others: Endpoint | None) -> None:
        if src is not None and src.address not in self.complaining:
            self.speaking.add(src.address)
        for end in (src, *others):
            if end is not None and len(self.seen) < MAX_SEEN:
                self.seen[end.address] = None

    def parties(self, first: bytes | None = None) -> tuple[list[Party], dict[bytes, int]]:
        """The lanes. Two clients, and two relays, have one each; else addresses of one role share theirs. `first`: the
        caller, who stands before others of his role."""
        ports: dict[bytes, list[Endpoint]] = {}
        for end in (*self.relays, *self.couriers, *self.web):
            ports.setdefault(end.address, []).append(end)
        by_role: dict[Role, list[bytes]] = {role: [] for role in ORDER}
        for address in sorted(self.seen, key=lambda seen: seen != first):
            by_role[self._role(address)].append(address)
        if not by_role["client"] and len(by_role["peer"]) > 1:  # nobody is inside: the caller, or who spoke first
            by_role["client"].append(by_role["peer"].pop(0))
        parties: list[Party] = []
        lanes: dict[bytes, int] = {}
        for role in ORDER:
            own_lanes = role in ("client", "relay") and len(by_role[role]) <= 2
            groups = [[a] for a in by_role[role]] if own_lanes else [by_role[role]]
            for position, group in enumerate(filter(None, groups)):
                for address in group:
                    lanes[address] = len(parties)
                shown = tuple(str(end) for a in group for end in ports.get(a, ())) or tuple(map(text, group))
                parties.append(Party(role, role if position == 0 else f"{role} {position + 1}", shown))
        return parties, lanes

    def _role(self, address: bytes) -> Role:
        for role, ends in (("relay", self.relays), ("courier", self.couriers), ("web", self.web)):
            if any(end.address == address for end in ends):
                return role  # type: ignore[return-value]
        if self.inside(address) and address in self.speaking:
            return "client"
        return "router" if address in self.mapped or address in self.complaining else "peer"
