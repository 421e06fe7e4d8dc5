"""The kernel's rule sets as values. In: a Topology. Out: a ChainSet per family, which render.py turns to text.

mangle/FORWARD classifies and marks, filter/FORWARD enforces by connmark; a decided flow never leaves the kernel again,
except its readable signalling. Chain rules are written as iptables-save prints them, so that diff.py can compare.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_network
from typing import Final, Literal

from appid.dataplane.bytecode import (
    DESTINATION4,
    DESTINATION6,
    SAID,
    SOURCE4,
    SOURCE6,
    WATCH,
    between_bytecode,
    queue_bytecode,
)
from appid.dataplane.marks import Marks
from appid.policy.rule import Qos

Family = Literal[4, 6]
Allowed = Literal["last", "first", "host"]
FAMILIES: Final[tuple[Family, ...]] = (4, 6)

MAIN: Final = "APPID"
QUEUE: Final = "APPID-QUEUE"
INPUT: Final = "APPID-INPUT"
ALLOWED: Final = "APPID-ALLOWED"
QOS: Final = "APPID-QOS"
PREFIX: Final = "appid-"
PINHOLES: Final[dict[Family, str]] = {4: "appid-pinholes4", 6: "appid-pinholes6"}
REFUSED: Final[dict[Family, str]] = {4: "appid-refused4", 6: "appid-refused6"}
"""Flows denied at their first packet that came through another's DNAT: no entry can be made for them."""
INSIDE: Final[dict[Family, str]] = {4: "appid-inside4", 6: "appid-inside6"}
CLEAR_TABLE: Final = "appid-clear"
NAT_TABLE: Final = "appid-nat"
MAX_PINHOLES: Final = 65536
MAX_TIMEOUT: Final = 2147483


@dataclass(frozen=True, slots=True)
class ChainRule:
    """`matches` are whole iptables matches, in order; `target` what follows -j."""

    matches: tuple[str, ...]
    target: str

    def __str__(self) -> str:
        return " ".join((*self.matches, "-j", self.target))


@dataclass(frozen=True, slots=True)
class Chain:
    table: Literal["mangle", "filter"]
    name: str
    rules: tuple[ChainRule, ...]


@dataclass(frozen=True, slots=True)
class Jump:
    """From a built-in chain to ours, put first there: NF_REPEAT then shows no packet twice to the rules of others. Or
    `last`. With `matches`, only what they match goes there."""

    table: Literal["mangle", "filter"]
    hook: str
    chain: str
    last: bool = False
    matches: tuple[str, ...] = ()

    @property
    def rule(self) -> str:
        return str(ChainRule(self.matches, self.chain))

    def __str__(self) -> str:
        return f"{self.hook} {self.rule}"


@dataclass(frozen=True, slots=True)
class IpSet:
    name: str
    type: str
    options: str
    members: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ChainSet:
    """All that one family needs of iptables and ipset."""

    family: Family
    chains: tuple[Chain, ...]
    jumps: tuple[Jump, ...]
    sets: tuple[IpSet, ...]


@dataclass(frozen=True, slots=True)
class Topology:
    """What the rule sets depend on.

    outside   interfaces of the outside zones: unforeseen media-range packets to the gateway itself are dropped there
    inside    inside networks as text (CIDR, both families): they choose the queue where there are several
    queues    NFQUEUE numbers, one process each
    blind     what happens to packets that the engine never saw (the exception policy)
    media     first and last UDP port of the media range
    bypass    where no process listens on a queue, packets go on to the blind rule; else the kernel drops them
    allowed   where what we allow is accepted: "last" in filter/FORWARD, when the rules of others have seen it and had
              nothing against it; "first", before they see it; "host": by them alone
    monitor   nothing is stopped or let through here: each rule of filter only counts
    qos       what the packets of QoS class 1, 2, ... are given; None: no chain for it
    """

    outside: tuple[str, ...] = ()
    inside: tuple[str, ...] = ()
    queues: tuple[int, ...] = (0,)
    blind: Literal["DROP", "ACCEPT"] = "DROP"
    media: tuple[int, int] = (16384, 16402)
    bypass: bool = True
    allowed: Allowed = "last"
    marks: Marks = field(default_factory=Marks)
    monitor: bool = False
    qos: tuple[Qos, ...] | None = None


def _is(value: int, mask: int, kind: str = "mark") -> str:
    return f"-m {kind} --mark {value:#x}/{mask:#x}"


def _is_not(value: int, mask: int, kind: str = "mark") -> str:
    return f"-m {kind} ! --mark {value:#x}/{mask:#x}"


def _state(states: str) -> str:
    return f"-m conntrack --ctstate {states}"


def _icmp(family: Family) -> str:
    return "-p icmp" if family == 4 else "-p ipv6-icmp"


def _mapped(name: str) -> ChainRule:
    """A new flow that has an element in the set takes over its mark."""
    return ChainRule(
        (_state("NEW"), f"-m set --match-set {name} dst,dst,src"), f"SET --map-set {name} dst,dst,src --map-mark"
    )


def _watched(marks: Marks) -> str:
    return _is(1 << marks.shift | marks.watch, marks.state | marks.watch, "connmark")


def _readable(marks: Marks, bytecode: str = WATCH) -> tuple[str, ...]:
    """Packets of watched datagram flows that the engine can read."""
    return ("-p udp", _watched(marks), f'-m bpf --bytecode "{bytecode}"')


def _mangle(topology: Topology, family: Family) -> Chain:
    marks = topology.marks
    decided_packet = _is_not(0, marks.state)
    seen_packet = _is_not(0, marks.state | marks.passing)
    save = f"CONNMARK --save-mark --nfmask {marks.saved:#x} --ctmask {marks.saved:#x}"
    rules = (
        ChainRule((decided_packet,), save),  # back from the engine (NF_REPEAT)
        ChainRule((seen_packet,), "RETURN"),  # decided, or PASS: later rules of others still see it
        ChainRule((_state("INVALID,UNTRACKED"),), "RETURN"),
        # An ICMP error carries its flow's connmark: never decide on it.
        ChainRule((_icmp(family), _state("RELATED")), "RETURN"),
        ChainRule(_readable(marks), QUEUE),
        ChainRule(("-p tcp", _watched(marks)), QUEUE),
        ChainRule((_is_not(0, marks.state, "connmark"),), "RETURN"),
        _mapped(REFUSED[family]),
        _mapped(PINHOLES[family]),  # last: what a call foresees wins
        ChainRule((decided_packet,), save),
        ChainRule((seen_packet,), "RETURN"),
        ChainRule((), QUEUE),
    )
    return Chain("mangle", MAIN, rules)


def _settled(marks: Marks) -> str:
    return _is(marks.settled, marks.nibble)


def _unsettled(marks: Marks) -> tuple[str, ...]:
    """What goes to our chains: not nearly all packets, whose flow is allowed and unwatched. The clearing table has
    marked those (ruleset.py); without it all go there, and it is only slower."""
    return (_is_not(marks.settled, marks.nibble),)


def _queue(topology: Topology, family: Family) -> Chain:
    """The queue by inside host, whichever direction the packet has; between two, the lower address chooses: what they
    signal and what they send meets in one worker, whoever begins."""
    bypass = " --queue-bypass" if topology.bypass else ""
    targets = [f"NFQUEUE --queue-num {number}{bypass}" for number in topology.queues]
    rules: list[ChainRule] = []
    if len(targets) > 1:
        source, destination = (SOURCE4, DESTINATION4) if family == 4 else (SOURCE6, DESTINATION6)
        from_inside, to_inside = (f"-m set --match-set {INSIDE[family]} {side}" for side in ("src", "dst"))
        by_host = (
            ((from_inside, to_inside), partial(between_bytecode, source, destination)),
            ((to_inside,), partial(queue_bytecode, destination)),
            ((from_inside,), partial(queue_bytecode, source)),
        )
        for matches, bytecode in by_host:
            for index, target in enumerate(targets):
                chosen = f'-m bpf --bytecode "{bytecode(len(targets), index)}"'
                rules.append(ChainRule((*matches, chosen), target))
    rules.append(ChainRule((), targets[0]))
    return Chain("mangle", QUEUE, tuple(rules))


def _filter(topology: Topology, family: Family) -> Chain:
    marks = topology.marks
    deny, drop = (_is(state << marks.shift, marks.state, "connmark") for state in (2, 3))
    prohibited = "icmp-admin-prohibited" if family == 4 else "icmp6-adm-prohibited"
    let = "ACCEPT" if topology.allowed == "first" else "RETURN"
    allow, passing, related, blind = _let_through(topology, family)
    spliced = _is(marks.passing, marks.passing | 2 << marks.shift, "connmark")  # and not refused
    unseen = _is(0, marks.state | marks.passing)  # no engine, or a full queue
    rules: tuple[ChainRule, ...] = (
        # A stream whose numbers we change, and that nobody has seen to: it will come again.
        ChainRule(("-p tcp", spliced, unseen), "DROP"),
        # Signalling that nobody has heard passes, but the next engine is told of it, if it may have ended a call.
        ChainRule((*_readable(marks, SAID), unseen), f"CONNMARK --set-xmark {marks.passing:#x}/{marks.passing:#x}"),
        ChainRule((allow,), let),  # an INVALID packet has no connmark
        ChainRule((_state("INVALID"),), "DROP"),
        ChainRule((passing,), let),  # undecided, let through by the engine
        ChainRule(("-p tcp", deny), "REJECT --reject-with tcp-reset"),
        ChainRule((deny,), f"REJECT --reject-with {prohibited}"),
        ChainRule((drop,), "DROP"),
        ChainRule((related,), let),
        ChainRule((blind,), let if topology.blind == "ACCEPT" else "DROP"),  # never seen by the engine
    )
    if topology.allowed == "first":
        rules = (ChainRule((_settled(marks),), let), *rules)
    if topology.monitor:
        rules = tuple(ChainRule(rule.matches, "RETURN") for rule in rules)
    return Chain("filter", MAIN, rules)


def _let_through(topology: Topology, family: Family) -> tuple[str, str, str, str]:
    """What may pass: of an allowed flow; undecided, with PASS; an ICMP error about a known flow; blind."""
    marks = topology.marks
    return (
        _is(1 << marks.shift, marks.state, "connmark"),
        _is(marks.passing, marks.passing),
        f"{_icmp(family)} {_state('RELATED')}",
        "-m comment --comment blind",
    )


def _allowed(topology: Topology, family: Family) -> Chain:
    """The same once more, behind the rules of others: a host whose policy is DROP lets it through here."""
    *known, blind = (_settled(topology.marks), *_let_through(topology, family))
    matches = (*known, blind) if topology.blind == "ACCEPT" else known
    return Chain("filter", ALLOWED, tuple(ChainRule((match,), "ACCEPT") for match in matches))


def _qos(topology: Topology) -> Chain:
    """What is sent on, by its flow's class: userspace sees a decided flow no more, so the kernel writes it."""
    marks = topology.marks
    rules: list[ChainRule] = []
    for number, given in enumerate(topology.qos or (), 1):
        of_class = _is(marks.encode(None, qos=number), marks.qos, "connmark")
        if given.dscp is not None:
            rules.append(ChainRule((of_class,), f"DSCP --set-dscp {given.dscp:#04x}"))
        if given.mark is not None:
            mask = given.mark.mask | marks.mask  # of our own bits nothing is left: tc may compare all of the mark
            rules.append(ChainRule((of_class,), f"MARK --set-xmark {given.mark.value:#x}/{mask:#x}"))
    return Chain("mangle", QOS, tuple(rules))


def _input(topology: Topology) -> Chain:
    """A peer's early check would make a local entry and so poison the binding: drop it before it is confirmed."""
    first, last = topology.media
    if topology.monitor:
        return Chain("filter", INPUT, ())
    return Chain(
        "filter",
        INPUT,
        tuple(
            ChainRule((f"-i {interface}", f"-p udp -m udp --dport {first}:{last}", _state("NEW")), "DROP")
            for interface in topology.outside
        ),
    )


def _sets(topology: Topology, family: Family) -> tuple[IpSet, ...]:
    inet = "inet" if family == 4 else "inet6"
    sets = tuple(
        IpSet(name, "hash:ip,port,ip", f"family {inet} maxelem {MAX_PINHOLES} timeout {timeout} skbinfo{more}")
        for name, timeout, more in ((PINHOLES[family], 60, ""), (REFUSED[family], 30, " forceadd"))
    )
    if len(topology.queues) == 1:
        return sets
    return (*sets, IpSet(INSIDE[family], "hash:net", f"family {inet} maxelem 65536", _members(topology.inside, family)))


def _members(networks: tuple[str, ...], family: Family) -> tuple[str, ...]:
    """As ipset prints them. It takes no /0: that is two halves."""
    found: list[str] = []
    for network in (ip_network(each, strict=False) for each in networks):
        if network.version == family:
            halves = network.subnets() if not network.prefixlen else (network,)
            found += [str(half).removesuffix("/32" if family == 4 else "/128") for half in halves]
    return tuple(dict.fromkeys(found))


def chain_set(topology: Topology, family: Family) -> ChainSet:
    """The rule set of one family."""
    unsettled = _unsettled(topology.marks)
    chains: tuple[Chain, ...] = (
        _mangle(topology, family), _queue(topology, family), _filter(topology, family), _input(topology),
    )  # fmt: skip
    jumps: tuple[Jump, ...] = (
        Jump("mangle", "FORWARD", MAIN, matches=unsettled),
        Jump("filter", "FORWARD", MAIN, matches=() if topology.allowed == "first" else unsettled),
        Jump("filter", "INPUT", INPUT),
    )
    if topology.allowed == "last" and not topology.monitor:
        chains += (_allowed(topology, family),)
        jumps += (Jump("filter", "FORWARD", ALLOWED, last=True),)
    if topology.qos is not None:
        chains += (_qos(topology),)
        jumps += (Jump("mangle", "POSTROUTING", QOS),)
    return ChainSet(family, chains, jumps, _sets(topology, family))
