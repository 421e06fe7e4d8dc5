"""From the rule sets that are there to those wanted, in steps. In: two RuleSets. Out: programs and their input.

Sets come first, then our nft tables, then each family's rules in one iptables-restore; what is no longer wanted loses
its rules there and goes at the end, when nothing refers to it. The same steps undo a change: from what is there now to
what was there before. What is right already is not touched, so counters and live elements stay.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from appid.dataplane.chain import FAMILIES, Family
from appid.dataplane.diff import normal
from appid.dataplane.present import chosen
from appid.dataplane.ruleset import (
    LIVE,
    TABLES,
    VARIANTS,
    At,
    Held,
    NftChain,
    NftTable,
    Place,
    RuleSets,
    SetText,
    Variant,
    is_ours,
    memory,
)

NEXT = "-next"


class Step(NamedTuple):
    """One program and what it reads."""

    command: tuple[str, ...]
    text: str = ""

    def __str__(self) -> str:
        return " ".join(self.command)


def program(family: Family, variant: Variant, what: str) -> str:
    return f"{'iptables' if family == 4 else 'ip6tables'}-{variant}-{what}"


def steps(now: RuleSets, target: RuleSets) -> list[Step]:
    """What changes `now` into `target`; empty if nothing is to be done."""
    return [*_build(now, target), *_prune(now, target)]


def _build(now: RuleSets, target: RuleSets) -> Iterator[Step]:
    if lines := [line for name, each in target.sets.items() for line in _set(name, now.sets.get(name), each)]:
        yield Step(("ipset", "-exist", "restore"), _text(lines))
    if lines := [line for name, table in target.nft.items() for line in _table(name, now.nft.get(name), table)]:
        yield Step(("nft", "-f", "-"), _text(lines))
    for variant in VARIANTS:
        for family in FAMILIES:
            places = [Place(variant, family, table) for table in TABLES]
            if lines := [line for place in places for line in _rules(place.table, now.held(place), target.held(place))]:
                yield Step((program(family, variant, "restore"), "--noflush", *_waiting(variant)), _text(lines))


def _prune(now: RuleSets, target: RuleSets) -> Iterator[Step]:
    for family in FAMILIES:
        lines: list[str] = []
        for table in TABLES:
            if stale := _stale(now, target, Place("legacy", family, table)):
                lines += [f"*{table}", *(f"-X {name}" for name in stale), "COMMIT"]
        if lines:
            yield Step((program(family, "legacy", "restore"), "--noflush", "--wait"), _text(lines))
    yield from (Step(("ipset", "destroy", name)) for name in _needless(now, target))
    if lines := [
        *_emptied(now, target),
        *_gone(now, target),
    ]:  # one transaction, and the last: both families or neither
        yield Step(("nft", "-f", "-"), _text(lines))


def _text(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"


def _waiting(variant: Variant) -> tuple[str, ...]:
    return ("--wait",) if variant == "legacy" else ()  # nft locks by transaction


# -- sets ---------------------------------------------------------------------------------------------------------


def _set(name: str, there: SetText | None, each: SetText) -> Iterator[str]:
    """Elements that differ go into another set, which then changes places with it: no packet meets half of them."""
    if there is None:
        yield from _filled(name, each)
    elif _differs(name, there, each):
        yield from _filled(name + NEXT, SetText(each.create, there.members) if name in LIVE else each)
        yield f"swap {name}{NEXT} {name}"


def _differs(name: str, there: SetText, each: SetText) -> bool:
    return chosen(there.create) != chosen(each.create) or (
        name not in LIVE and sorted(there.members) != sorted(each.members)
    )


def _filled(name: str, each: SetText) -> Iterator[str]:
    yield f"create {name} {each.create}"
    yield f"flush {name}"  # of one that an earlier run left
    yield from (f"add {name} {member}" for member in each.members)


def _needless(now: RuleSets, target: RuleSets) -> list[str]:
    gone = [name for name in now.sets if name not in target.sets]
    swapped = [name + NEXT for name, there in now.sets.items()
               if name in target.sets and _differs(name, there, target.sets[name])]  # fmt: skip
    return list(dict.fromkeys(gone + swapped))


# -- iptables -----------------------------------------------------------------------------------------------------


def _stale(now: RuleSets, target: RuleSets, place: Place) -> list[str]:
    return [name for name in now.held(place).chains if name not in target.held(place).chains]


def _rules(table: str, there: Held, held: Held) -> Iterator[str]:
    """One table's part of iptables-restore: our chains that differ emptied and filled, the jumps in their places."""
    lines: list[str] = []
    filled = {name: rules for name, rules in held.chains.items() if not _same(there.chains.get(name), rules)}
    emptied = [name for name, rules in there.chains.items() if name not in held.chains and rules]
    lines += [f":{name} - [0:0]" for name in (*filled, *emptied)]
    lines += [f"-A {name} {rule}" for name, rules in filled.items() for rule in rules]
    jumps = held.placed(there)
    if _spelled(there.placed(there)) != _spelled(jumps):
        lines += [f"-D {jump.hook} {jump.rule}" for jump in there.jumps]
        lines += [f"-I {jump.hook} {jump.position} {jump.rule}" for jump in jumps]
    if lines:
        yield from (f"*{table}", *lines, "COMMIT")


def _same(there: tuple[str, ...] | None, rules: tuple[str, ...]) -> bool:
    return there is not None and [normal(rule) for rule in there] == [normal(rule) for rule in rules]


def _spelled(jumps: tuple[At, ...]) -> list[At]:
    return sorted(jump._replace(rule=normal(jump.rule)) for jump in jumps)


# -- nft ----------------------------------------------------------------------------------------------------------


def nft_lines(name: str, table: NftTable) -> list[str]:
    """nft -f input that makes the table from nothing."""
    return list(_table(name, None, table))


def _table(name: str, there: NftTable | None, table: NftTable) -> Iterator[str]:
    if there is None:
        yield f"add table inet {name}"
    has = there or NftTable()
    for each, content in table.maps.items():
        if each not in has.maps:
            yield f"add map inet {name} {each} {{ {content} }}"
    for each, chain in table.chains.items():
        known = has.chains.get(each)
        if known is None:
            yield f"add chain inet {name} {each}" + (f" {{ {chain.hook} }}" if chain.hook else "")
        if not _same(known.rules if known is not None else None, chain.rules):
            yield f"flush chain inet {name} {each}"
            yield from (f"add rule inet {name} {each} {rule}" for rule in chain.rules)


def _emptied(now: RuleSets, target: RuleSets) -> Iterator[str]:
    """Our tables and chains of them that are wanted no longer."""
    for name, table in now.nft.items():
        if name not in target.nft:
            yield f"delete table inet {name}"
            continue
        for each in table.chains:
            if each not in target.nft[name].chains:
                yield f"flush chain inet {name} {each}"
                yield f"delete chain inet {name} {each}"


def _gone(now: RuleSets, target: RuleSets) -> Iterator[str]:
    """Our chains in iptables-nft's tables, and built-in chains that came with them, if nothing has moved in since."""
    forgotten = now.made - target.made
    for family in FAMILIES:
        for table in TABLES:
            home = f"{'ip' if family == 4 else 'ip6'} {table}"
            chains = now.builtin.get(home, {})
            going = _stale(now, target, Place("nft", family, table))
            going += [name for name, chain in chains.items() if memory(f"{home} {name}") in forgotten and _idle(chain)]
            yield from (f"delete chain {home} {name}" for name in going)
            if home in now.builtin and memory(home) in forgotten and len(going) == len(chains):
                yield f"delete table {home}"


def _idle(chain: NftChain) -> bool:
    """A base chain that does nothing, once the jumps to us are gone."""
    return "policy accept" in chain.hook and all(is_ours(rule.rpartition("jump ")[2]) for rule in chain.rules)
