"""From the rule sets that are there to those wanted, in steps. In: two RuleSets. Out: programs and their input.

Sets come first. For iptables-nft the chains of both families are then staged, and take the place of the old ones, with
all that is nft's own, in one transaction (switch.py). iptables-legacy replaces a table at a time, mangle first: a
packet meets each as it was or as it will be, and both speak of marks alike. What is no longer wanted goes at the end,
when nothing refers to it. The same steps undo a change: from what is there now to what was there before. What is right
already is not touched, so counters and live elements stay.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from appid.dataplane.chain import CLEAR_TABLE, FAMILIES, Family
from appid.dataplane.present import chosen
from appid.dataplane.ruleset import LIVE, TABLES, Held, NftTable, Place, RuleSets, SetText, Variant
from appid.dataplane.switch import BASE, same, slipped, staged, stale, switched, unspoken

NEXT = "-next"
PATIENCE = "5"
"""Seconds for which another may hold the lock of iptables-legacy."""
_OUR_JUMP = re.compile(r"(?:-m (?:conn)?mark (?:! )?--mark \S+ )*-j \S+")


class Step(NamedTuple):
    """One program and what it reads."""

    command: tuple[str, ...]
    text: str = ""

    def __str__(self) -> str:
        return " ".join(self.command)


def program(family: Family, variant: Variant, what: str) -> str:
    return f"{'iptables' if family == 4 else 'ip6tables'}-{variant}{what and '-'}{what}"


def steps(now: RuleSets, target: RuleSets) -> list[Step]:
    """What changes `now` into `target`, but for `leftovers`; empty if nothing is to be done."""
    return [*_steps(now, target)]


def leftovers(now: RuleSets, target: RuleSets) -> list[Step]:
    """What may go when the steps are done, or later."""
    return [Step(("ipset", "destroy", name)) for name in _needless(now, target)]


def taken_along(now: RuleSets, target: RuleSets) -> list[str]:
    """Rules of others that jump to chains of ours: no step leaves them, since a chain that is led to cannot go."""
    return [
        f"{program(place.family, place.variant, '')} -t {place.table} -A {jump.hook} {jump.rule}"
        for place, held in now.tables.items() for jump in held.jumps
        if (jump.hook, jump.rule) not in [(each.hook, each.rule) for each in target.held(place).jumps]
        and not (jump.hook in BASE and _OUR_JUMP.fullmatch(jump.rule))
    ]  # fmt: skip


def _steps(now: RuleSets, target: RuleSets) -> Iterator[Step]:
    yield from (Step(("ipset", "destroy", name)) for name in _in_the_way(now, target))
    if lines := [line for name, each in target.sets.items() for line in _set(name, now.sets.get(name), each)]:
        yield Step(("ipset", "-exist", "restore"), _text(lines))
    to_nft, to_legacy = _has(target, "nft"), _has(target, "legacy")
    legacy = {family: [*_legacy(now, target, family)] for family in FAMILIES}
    own = [line for name, table in target.nft.items() for line in _table(name, now.nft.get(name), table)]
    parts = {family: [*staged(now, target, family)] for family in FAMILIES}
    if first := own if to_legacy else [*_memories(now, target)] if any(parts.values()) else []:
        yield Step(("nft", "-f", "-"), _text(first))
    yield from _restored("nft", parts)
    if not to_nft:
        yield from _restored("legacy", legacy)
    if lines := [*(() if to_legacy else own), *switched(now, target), *_emptied(now, target)]:
        yield Step(("nft", "-f", "-"), _text(lines))
    yield from _restored("nft", {family: [*unspoken(now, target, family)] for family in FAMILIES})
    if to_nft:
        yield from _restored("legacy", legacy)
    yield from _restored("legacy", {family: [*_dropped(now, target, family)] for family in FAMILIES})


def _has(target: RuleSets, variant: Variant) -> bool:
    return any(place.variant == variant and (held.chains or held.jumps) for place, held in target.tables.items())


def _restored(variant: Variant, parts: dict[Family, list[str]]) -> Iterator[Step]:
    for family, lines in parts.items():
        if lines:
            yield Step(restoring(family, variant), _text(lines))


def restoring(family: Family, variant: Variant) -> tuple[str, ...]:
    """iptables-restore's command. That of iptables-legacy waits for its lock; nft has transactions."""
    return (program(family, variant, "restore"), "--noflush", *(("--wait", PATIENCE) if variant == "legacy" else ()))


def _text(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"


# -- sets ---------------------------------------------------------------------------------------------------------


def _in_the_way(now: RuleSets, target: RuleSets) -> Iterator[str]:
    """Sets of our names that cannot become those wanted: of another type; or with other options where one is to be
    filled (of an apply that was killed, and of another version)."""
    for name, each in target.sets.items():
        there, half = now.sets.get(name), now.sets.get(name + NEXT)
        if there is not None and _kind(there) != _kind(each):
            yield name
        if half is not None and chosen(half.create) != chosen(each.create):
            yield name + NEXT


def _kind(each: SetText) -> str:
    return each.create.split()[0]


def _set(name: str, there: SetText | None, each: SetText) -> Iterator[str]:
    """Elements that differ go into another set, which then changes places with it: no packet meets half of them."""
    if there is None or _kind(there) != _kind(each):
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
               if name in target.sets and _kind(there) == _kind(target.sets[name])
               and _differs(name, there, target.sets[name])]  # fmt: skip
    return list(dict.fromkeys(gone + swapped))


# -- iptables-legacy ----------------------------------------------------------------------------------------------


def _legacy(now: RuleSets, target: RuleSets, family: Family) -> Iterator[str]:
    for table in TABLES:
        place = Place("legacy", family, table)
        yield from _rules(table, now.held(place), target.held(place))


def _rules(table: str, there: Held, held: Held) -> Iterator[str]:
    """One table's part: our chains that differ emptied and filled, the jumps in their places."""
    lines: list[str] = []
    filled = {name: rules for name, rules in held.chains.items() if not same(there.chains.get(name), rules)}
    emptied = [name for name, rules in there.chains.items() if name not in held.chains and rules]
    lines += [f":{name} - [0:0]" for name in (*filled, *emptied)]
    lines += [f"-A {name} {rule}" for name, rules in filled.items() for rule in rules]
    if slipped(there, held):
        lines += [f"-D {jump.hook} {jump.rule}" for jump in there.jumps]
        lines += [f"-I {jump.hook} {jump.position} {jump.rule}" for jump in held.placed(there)]
    if lines:
        yield from (f"*{table}", *lines, "COMMIT")


def _dropped(now: RuleSets, target: RuleSets, family: Family) -> Iterator[str]:
    for table in TABLES:
        if names := stale(now, target, Place("legacy", family, table)):
            yield from (f"*{table}", *(f"-X {name}" for name in names), "COMMIT")


# -- nft ----------------------------------------------------------------------------------------------------------


def nft_lines(name: str, table: NftTable) -> list[str]:
    """nft -f input that makes the table from nothing."""
    return list(_table(name, None, table))


def _table(name: str, there: NftTable | None, table: NftTable) -> Iterator[str]:
    if there is not None and _begun_anew(there, table):
        yield f"delete table inet {name}"
        there = None
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
        if not same(known.rules if known is not None else None, chain.rules):
            yield f"flush chain inet {name} {each}"
            yield from (f"add rule inet {name} {each} {rule}" for rule in chain.rules)


def _begun_anew(there: NftTable, table: NftTable) -> bool:
    """Whether a map is of another type, or not wanted. What follows the type, versions of nft tell differently."""
    types = {name: content.partition(";")[0] for name, content in table.maps.items()}
    return any(content.partition(";")[0] != types.get(name) for name, content in there.maps.items())


def _emptied(now: RuleSets, target: RuleSets) -> Iterator[str]:
    """Our tables and chains of them that are wanted no longer."""
    for name, table in now.nft.items():
        if name not in target.nft:
            yield f"delete table inet {name}"
            continue
        for each in table.chains if not _begun_anew(table, target.nft[name]) else ():
            if each not in target.nft[name].chains:
                yield f"flush chain inet {name} {each}"
                yield f"delete chain inet {name} {each}"


def _memories(now: RuleSets, target: RuleSets) -> Iterator[str]:
    """What comes with our rules is written down before it comes."""
    if new := sorted(target.made - now.made):
        yield f"add table inet {CLEAR_TABLE}"
        yield from (f"add chain inet {CLEAR_TABLE} {name}" for name in new)
