"""What the chain sets promise, beyond their text."""

from __future__ import annotations

from dataclasses import replace

import pytest

from appid.dataplane.bytecode import SAID, WATCH
from appid.dataplane.chain import (
    ALLOWED,
    FAMILIES,
    MAIN,
    QOS,
    QUEUE,
    Allowed,
    Chain,
    ChainSet,
    Family,
    Jump,
    Topology,
    chain_set,
)
from appid.dataplane.marks import Marks
from appid.policy.rule import PacketMark, Qos


def chain(rules: ChainSet, table: str, name: str) -> Chain:
    return next(each for each in rules.chains if (each.table, each.name) == (table, name))


@pytest.mark.parametrize("family", FAMILIES)
def test_mangle_never_accepts_or_drops(family: Family) -> None:
    """Rules of others that stand after ours must see every packet."""
    rules = chain_set(Topology(queues=(0, 1)), family)
    targets = {rule.target.split()[0] for each in rules.chains if each.table == "mangle" for rule in each.rules}
    assert targets == {"RETURN", "CONNMARK", "SET", QUEUE, "NFQUEUE"}


@pytest.mark.parametrize("family", FAMILIES)
def test_several_queues_are_chosen_by_host_and_strangers_have_the_first(family: Family) -> None:
    topology = Topology(inside=("10.0.0.0/8", "fd00::/8"), queues=(4, 5, 6))
    rules = chain(chain_set(topology, family), "mangle", QUEUE).rules
    assert [rule.target.split()[2] for rule in rules] == ["4", "5", "6"] * 3 + ["4"]
    assert rules[-1].matches == ()
    sides = [" ".join(match.split()[-1] for match in rule.matches if "--match-set" in match) for rule in rules[:-1]]
    assert sides == ["src dst"] * 3 + ["dst"] * 3 + ["src"] * 3, "flows between inside hosts first"


def test_inside_networks_go_to_their_family_and_only_where_they_are_needed() -> None:
    inside = ("10.0.0.0/8", "fd00::/8")
    assert [each.members for each in chain_set(Topology(inside=inside, queues=(0, 1)), 6).sets] == [
        (),
        (),
        ("fd00::/8",),
    ]
    assert len(chain_set(Topology(inside=inside), 4).sets) == 2


def test_members_are_written_as_ipset_takes_and_prints_them() -> None:
    """hash:net has no /0, and leaves the length of a single host out (ipset(8))."""
    inside = ("0.0.0.0/0", "192.0.2.7/32", "10.1.2.3/8", "::/0", "2001:DB8::1/128")
    told = [chain_set(Topology(inside=inside, queues=(0, 1)), family).sets[-1].members for family in FAMILIES]
    assert told == [("0.0.0.0/1", "128.0.0.0/1", "192.0.2.7", "10.0.0.0/8"), ("::/1", "8000::/1", "2001:db8::1")]


@pytest.mark.parametrize(
    ("allowed", "drop", "accept"),
    [
        ("first", ["-j DROP"], ["-j ACCEPT"]),
        ("last", ["-j DROP"], ["-j RETURN", "-j ACCEPT"]),
        ("host", ["-j DROP"], ["-j RETURN"]),
    ],
)
def test_the_exception_policy_decides_about_what_was_never_seen(
    allowed: Allowed, drop: list[str], accept: list[str]
) -> None:
    for topology, expected in ((Topology(blind="DROP"), drop), (Topology(blind="ACCEPT"), accept)):
        chains = chain_set(replace(topology, allowed=allowed), 4).chains
        rules = [str(rule) for each in chains for rule in each.rules]
        assert [rule.removeprefix("-m comment --comment blind ") for rule in rules if "blind" in rule] == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_allowed_is_accepted_behind_the_rules_of_others(family: Family) -> None:
    """Accounting rules that stand after ours see it; nothing is accepted that the first chain does not let through."""
    rules = chain_set(Topology(), family)
    assert rules.jumps[-1] == Jump("filter", "FORWARD", ALLOWED, last=True)
    first, last = chain(rules, "filter", MAIN).rules, chain(rules, "filter", ALLOWED).rules
    assert {rule.target for rule in last} == {"ACCEPT"}
    unsettled = {jump.matches for jump in rules.jumps if jump.chain == MAIN}
    assert unsettled == {("-m mark ! --mark 0x4/0xf",)}, "what is settled goes round our first chains"
    assert {rule.matches for rule in last[1:]} == {rule.matches for rule in first if rule.target == "RETURN"}
    assert last[0].matches == ("-m mark --mark 0x4/0xf",)
    for other in (Topology(allowed="host"), Topology(allowed="first"), Topology(monitor=True)):
        assert ALLOWED not in {each.name for each in chain_set(other, family).chains}
    ends = {rule.target for rule in chain(chain_set(Topology(allowed="host"), family), "filter", MAIN).rules}
    assert "ACCEPT" not in ends, "the host alone lets through"


def test_no_mark_is_written_or_read_outside_the_operators_mask() -> None:
    marks = Marks(0x0000FFFF)
    for each in chain_set(Topology(marks=marks), 4).chains:
        for rule in each.rules:
            values = [word for part in str(rule).split() for word in part.split("/") if word.startswith("0x")]
            assert all(int(value, 16) & ~marks.mask == 0 for value in values), rule


def test_without_an_outside_nothing_is_guarded() -> None:
    assert chain(chain_set(Topology(), 4), "filter", "APPID-INPUT").rules == ()
    assert chain(chain_set(Topology(), 4), "filter", MAIN).rules != ()


@pytest.mark.parametrize("family", FAMILIES)
def test_monitor_mode_neither_stops_nor_opens_anything(family: Family) -> None:
    """The host's own rules behind ours keep the last word; mangle classifies as ever."""
    topology = Topology(outside=("wan0",), blind="DROP")
    watching, enforcing = chain_set(replace(topology, monitor=True), family), chain_set(topology, family)
    assert {rule.target for each in watching.chains if each.table == "filter" for rule in each.rules} == {"RETURN"}
    assert [c for c in watching.chains if c.table == "mangle"] == [c for c in enforcing.chains if c.table == "mangle"]


@pytest.mark.parametrize("family", FAMILIES)
def test_qos_classes_are_written_on_the_way_out(family: Family) -> None:
    marks = Marks(qos=0x0F000000)
    qos = (Qos(46), Qos(None, PacketMark(0x10000000, 0xF0000000)), Qos(8, PacketMark(0x20, 0xF0)))
    rules = chain_set(Topology(marks=marks, qos=qos), family)
    assert [str(rule) for rule in chain(rules, "mangle", QOS).rules] == [
        "-m connmark --mark 0x1000000/0xf000000 -j DSCP --set-dscp 0x2e",
        "-m connmark --mark 0x2000000/0xf000000 -j MARK --set-xmark 0x10000000/0xffffff0f",
        "-m connmark --mark 0x3000000/0xf000000 -j DSCP --set-dscp 0x08",
        "-m connmark --mark 0x3000000/0xf000000 -j MARK --set-xmark 0x20/0xfffffff",
    ]
    assert Jump("mangle", "POSTROUTING", QOS) in rules.jumps
    assert QOS not in {each.name for each in chain_set(Topology(marks=marks), family).chains}
    assert chain(chain_set(Topology(marks=marks, qos=()), family), "mangle", QOS).rules == ()


@pytest.mark.parametrize("family", FAMILIES)
def test_signalling_that_nobody_hears_passes_and_is_kept_in_mind(family: Family) -> None:
    marks = Marks()
    rules = chain(chain_set(Topology(), family), "filter", MAIN).rules
    position = next(i for i, rule in enumerate(rules) if rule.target.startswith("CONNMARK"))
    noted, readable = rules[position], chain(chain_set(Topology(), family), "mangle", MAIN).rules[4]
    assert noted.target == "CONNMARK --set-xmark 0x8/0x8"
    assert noted.matches[:2] == readable.matches[:2], "what goes to the queue, if somebody listens"
    assert (noted.matches[2], readable.matches[2]) == tuple(f'-m bpf --bytecode "{code}"' for code in (SAID, WATCH))
    assert readable.target == QUEUE
    assert noted.matches[-1] == "-m mark --mark 0x0/0xb", "with no word of the engine"
    assert rules[position + 1].matches == ("-m connmark --mark 0x1/0x3",), "before it passes"
    assert not marks.saved & marks.passing, "a decision that is saved does not wipe it out"


@pytest.mark.parametrize("family", FAMILIES)
def test_what_the_engine_has_not_seen_of_a_spliced_stream_stops_here(family: Family) -> None:
    """A queue without a listener, or a full one, lets packets go on: these would be bytes under wrong numbers."""
    marks = Marks()
    stops = chain(chain_set(Topology(), family), "filter", MAIN).rules[0]
    assert stops.target == "DROP"
    assert stops.matches[0] == "-p tcp", "the same bit of a datagram flow: something in it was not heard"
    connmark, packet = (tuple(int(n, 16) for n in each.split()[-1].split("/")) for each in stops.matches[1:])

    def stopped(flow: int, seen: int) -> bool:
        return flow & connmark[1] == connmark[0] and seen & packet[1] == packet[0]

    spliced = marks.encode("allow", 4, watch=True) | marks.passing
    assert stopped(spliced, 0)
    assert stopped(marks.passing, 0), "while undecided, too"
    assert not stopped(spliced, marks.encode("allow", 4, watch=True)), "back from the engine"
    assert not stopped(marks.passing, marks.passing)
    assert not stopped(marks.encode("deny") | marks.passing, 0), "refused: it is reset"
    assert not stopped(marks.encode("allow", 4, watch=True), 0), "SIP over UDP goes on without us"
