"""All that is ours in a kernel, as one value: what is wanted, and what is there, in the same shape.

In: a Topology and the variant of iptables (wanted), or what the programs print (present.py). Out: a RuleSets, which
diff.py compares and converge.py turns into steps. Ours is what bears our names: chains APPID*, sets and tables appid-*.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal, NamedTuple

from appid.dataplane.chain import (
    CLEAR_TABLE,
    FAMILIES,
    MAIN,
    NAT_TABLE,
    PINHOLES,
    REFUSED,
    Chain,
    Family,
    IpSet,
    Jump,
    Topology,
    chain_set,
)
from appid.dataplane.marks import Marks

Variant = Literal["nft", "legacy"]
VARIANTS: Final[tuple[Variant, ...]] = ("nft", "legacy")
TABLES: Final = ("mangle", "filter")
LIVE: Final = frozenset((*PINHOLES.values(), *REFUSED.values()))
"""Sets whose elements the running gateway puts in and takes out: never looked at, never lost."""
MADE: Final = "made-"
"""Chains in our clearing table that remember which empty built-in chains of iptables-nft came with our rules."""


def is_ours(chain: str) -> bool:
    return chain == MAIN or chain.startswith(f"{MAIN}-")


LAST: Final = 0


class Place(NamedTuple):
    variant: Variant
    family: Family
    table: str


class At(NamedTuple):
    """A rule of another chain that jumps to ours: `position` in `hook`, from 1; LAST where it is to stand last."""

    hook: str
    position: int
    rule: str


@dataclass(frozen=True, slots=True)
class Held:
    """One table of one family: our chains, the jumps to them, and how many rules of others each hook has."""

    chains: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    jumps: tuple[At, ...] = ()
    others: Mapping[str, int] = field(default_factory=dict, compare=False)

    def placed(self, there: Held) -> tuple[At, ...]:
        """The jumps, with their positions among the rules of others that are `there`, never beyond the end: others may
        have taken rules away since."""
        put: dict[str, int] = {}
        found: list[At] = []
        for jump in sorted(self.jumps, key=lambda jump: (jump.hook, jump.position == LAST, jump.position)):
            end = there.others.get(jump.hook, 0) + put.get(jump.hook, 0) + 1
            put[jump.hook] = put.get(jump.hook, 0) + 1
            found.append(jump._replace(position=end if jump.position == LAST else min(jump.position, end)))
        return tuple(found)


@dataclass(frozen=True, slots=True)
class SetText:
    """One ipset, as `ipset save` prints it: type and options, and its elements."""

    create: str
    members: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NftChain:
    """`hook` is its "type ...; policy ...;" line, empty for a chain that is no base chain; `handles` are the kernel's
    numbers of its rules, where it was read."""

    hook: str = ""
    rules: tuple[str, ...] = ()
    handles: tuple[int, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class NftTable:
    """Rules are written as nft prints them, counters without their values."""

    maps: Mapping[str, str] = field(default_factory=dict)
    chains: Mapping[str, NftChain] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RuleSets:
    """tables   our part of mangle and filter, where there is one     sets    our ipsets by name
    nft      our tables of family inet by name
    builtin  all chains in nft's tables of ip and ip6, iptables-nft's: "ip mangle" -> {"FORWARD": NftChain}
    shared   those of these tables that hold more than chains
    """

    tables: Mapping[Place, Held] = field(default_factory=dict)
    sets: Mapping[str, SetText] = field(default_factory=dict)
    nft: Mapping[str, NftTable] = field(default_factory=dict)
    builtin: Mapping[str, Mapping[str, NftChain]] = field(default_factory=dict)
    shared: frozenset[str] = frozenset()

    def held(self, place: Place) -> Held:
        return self.tables.get(place, Held())

    @property
    def made(self) -> frozenset[str]:
        """Memories of the built-in chains and tables that came with our rules."""
        chains = self.nft[CLEAR_TABLE].chains if CLEAR_TABLE in self.nft else ()
        return frozenset(name for name in chains if name.startswith(MADE))


NOTHING: Final = RuleSets()
"""A kernel without us."""


def clear_table(marks: Marks) -> NftTable:
    """Just before mangle (NF_REPEAT re-enters only the mangle hook): forget mark bits that others set, and say of a
    packet whose flow is allowed and unwatched that it is settled."""
    kept = ~marks.mask & 0xFFFFFFFF
    rules = (
        f"ct mark & {marks.nibble:#010x} == {1 << marks.shift:#010x} "
        f"meta mark set meta mark & {kept | marks.settled:#010x} | {marks.settled:#010x} accept",
        f"meta mark & {marks.mask:#010x} != 0x00000000 counter meta mark set meta mark & {kept:#010x}",
    )
    return NftTable(chains={"early": NftChain("type filter hook forward priority mangle - 1; policy accept;", rules)})


def relaid(before: RuleSets, after: RuleSets) -> int:
    """Where the bits of state were others before: all bits of marks that are ours before or after, else 0. What they
    say of flows that began under the old layout would be misread: "denied" as "allowed", for one."""
    (old, nibble), (new, other) = (_layout(each.nft.get(CLEAR_TABLE, NftTable())) for each in (before, after))
    return old | new if nibble and other and nibble != other else 0


def _layout(clear: NftTable) -> tuple[int, int]:
    """(mask, nibble) that the clearing table goes by; 0 where there is none."""
    text = "\n".join(clear.chains.get("early", NftChain()).rules)
    mask, nibble = (re.search(rf"{kind} mark & (0x[0-9a-f]+) [!=]=", text) for kind in ("meta", "ct"))
    return int(mask[1], 16) if mask else 0, int(nibble[1], 16) if nibble else 0


def nat_table() -> NftTable:
    """The binding maps and the chains that read them, ahead of the host's own NAT."""
    maps, inbound, outbound = {}, [], []
    for family, ip in ((4, "ip"), (6, "ip6")):
        address = f"ipv{family}_addr"
        for kind in ("dnat", "snat"):
            key = f"inet_proto . {address} . inet_service . {address} : {address} . inet_service"
            maps[f"{kind}{family}"] = f"type {key}; size 65536; flags timeout;"
        inbound.append(f"dnat {ip} to meta l4proto . {ip} daddr . th dport . {ip} saddr map @dnat{family}")
        outbound.append(f"snat {ip} to meta l4proto . {ip} saddr . th sport . {ip} daddr map @snat{family}")
    pre, post = (f"type nat hook {hook}; policy accept;" for hook in
                 ("prerouting priority dstnat - 10", "postrouting priority srcnat - 10"))  # fmt: skip
    return NftTable(maps, {"pre": NftChain(pre, tuple(inbound)), "post": NftChain(post, tuple(outbound))})


def wanted(topology: Topology, variant: Variant) -> RuleSets:
    """What a kernel holds that has exactly these rule sets."""
    tables: dict[Place, Held] = {}
    sets: dict[str, SetText] = {}
    for family in FAMILIES:
        rules = chain_set(topology, family)
        for table in TABLES:
            tables[Place(variant, family, table)] = _held(rules.chains, rules.jumps, table)
        sets |= {each.name: set_text(each) for each in rules.sets}
    return RuleSets(tables, sets, {CLEAR_TABLE: clear_table(topology.marks), NAT_TABLE: nat_table()})


def grounded(now: RuleSets, target: RuleSets) -> RuleSets:
    """`now` with what calls live in, where it is missing: sets and binding maps, and no rule that leads to them."""
    nft = {NAT_TABLE: target.nft[NAT_TABLE], **now.nft}
    return replace(now, sets={**target.sets, **now.sets}, nft=nft)


def set_text(each: IpSet) -> SetText:
    return SetText(f"{each.type} {each.options}", each.members)


def _held(chains: tuple[Chain, ...], jumps: tuple[Jump, ...], table: str) -> Held:
    return Held(
        {chain.name: tuple(str(rule) for rule in chain.rules) for chain in chains if chain.table == table},
        positions([jump for jump in jumps if jump.table == table]),
    )


def positions(jumps: Collection[Jump]) -> tuple[At, ...]:
    """Of one table's jumps: in their order at the head of each hook, or last."""
    count: Counter[str] = Counter()
    found: list[At] = []
    for jump in jumps:
        count[jump.hook] += not jump.last
        found.append(At(jump.hook, LAST if jump.last else count[jump.hook], jump.rule))
    return tuple(found)


def remembering(target: RuleSets, now: RuleSets) -> RuleSets:
    """`target` with the memory of which built-in chains and tables it brings along, and of those brought before."""
    made = set(now.made)
    for (variant, family, table), held in target.tables.items():
        home = home_of(family, table)
        for hook in {jump.hook for jump in held.jumps} if variant == "nft" else ():
            if home not in now.builtin:
                made.add(memory(home))
            if hook not in now.builtin.get(home, {}):
                made.add(memory(f"{home} {hook}"))
    clear = target.nft[CLEAR_TABLE]
    chains = {**clear.chains, **{name: NftChain() for name in sorted(made)}}
    return replace(target, nft={**target.nft, CLEAR_TABLE: replace(clear, chains=chains)})


def memory(what: str) -> str:
    """ "ip mangle" or "ip mangle FORWARD" -> the chain that remembers it."""
    return MADE + what.replace(" ", "-")


def home_of(family: Family, table: str) -> str:
    """A table of iptables-nft as nft names it."""
    return f"{'ip' if family == 4 else 'ip6'} {table}"
