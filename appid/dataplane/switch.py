"""iptables-nft's tables from one state into another by one transaction, both families at once.

In: what is there, what is wanted. Out: what iptables-nft-restore is to stage beforehand, in chains that nothing leads
to yet (it commits each table by itself, and nft cannot write its matches); nft's lines that then hang the jumps over,
drop the old chains and give the staged ones their names; jumps that nft has no words for.

Counters and rules of chains that stay as they are stay, too. What fails before the transaction has touched nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Final

from appid.dataplane.chain import FAMILIES, Family
from appid.dataplane.diff import normal
from appid.dataplane.jump import leads, native, nft_leads
from appid.dataplane.ruleset import TABLES, At, Held, NftChain, Place, RuleSets, home_of, is_ours, memory

STAGED: Final = "-NEXT"
BASE: Final = {"INPUT": "input", "FORWARD": "forward", "POSTROUTING": "postrouting"}
"""Built-in chains that we jump from, and nft's hooks."""


def same(there: tuple[str, ...] | None, rules: tuple[str, ...]) -> bool:
    """Whether two chains have the same rules, however they are spelled."""
    return there is not None and [normal(rule) for rule in there] == [normal(rule) for rule in rules]


def slipped(there: Held, held: Held) -> bool:
    """Whether the jumps that are there are others than those wanted, or stand elsewhere."""
    return _spelled(there.placed(there)) != _spelled(held.placed(there))


def _spelled(jumps: tuple[At, ...]) -> list[At]:
    return sorted(jump._replace(rule=normal(jump.rule)) for jump in jumps)


def stale(now: RuleSets, target: RuleSets, place: Place) -> list[str]:
    """Our chains there that are not wanted."""
    return [name for name in now.held(place).chains if name not in target.held(place).chains]


def staged(now: RuleSets, target: RuleSets, family: Family) -> Iterator[str]:
    """iptables-nft-restore's lines: each chain that is to change, under another name."""
    for table in TABLES:
        place = Place("nft", family, table)
        moved = _moved(now.held(place), target.held(place))
        if moved:
            yield f"*{table}"
            yield from (f":{name}{STAGED} - [0:0]" for name in moved)
            yield from (f"-A {name}{STAGED} {_led(rule, moved)}" for name, rules in moved.items() for rule in rules)
            yield "COMMIT"


def _moved(there: Held, held: Held) -> Mapping[str, tuple[str, ...]]:
    """The wanted chains whose rules are new, and those that lead to them."""
    found = {name for name, rules in held.chains.items() if not same(there.chains.get(name), rules)}
    while more := {name for name, rules in held.chains.items()
                   if name not in found and any(leads(rule) in found for rule in rules)}:  # fmt: skip
        found |= more
    return {name: rules for name, rules in held.chains.items() if name in found}


def _led(rule: str, moved: Mapping[str, tuple[str, ...]]) -> str:
    return rule + STAGED if leads(rule) in moved else rule


def switched(now: RuleSets, target: RuleSets) -> Iterator[str]:
    """nft's lines for iptables-nft's tables."""
    for family in FAMILIES:
        for table in TABLES:
            place = Place("nft", family, table)
            yield from _table(now, place, target.held(place), stale(now, target, place))
    yield from _gone(now, target)


def _table(now: RuleSets, place: Place, held: Held, needless: list[str]) -> Iterator[str]:
    home, there = home_of(place.family, place.table), now.held(place)
    moved = _moved(there, held)
    yield from _jumps(home, now.builtin.get(home), there, held, moved)
    coming = {name + STAGED for name in moved}  # also where an apply that was killed had left one
    old = [*(name for name in moved if name in there.chains), *(name for name in needless if name not in coming)]
    yield from (f"flush chain {home} {name}" for name in old)
    yield from (f"delete chain {home} {name}" for name in old)
    yield from (f"rename chain {home} {name}{STAGED} {name}" for name in moved)


def _jumps(
    home: str, chains: Mapping[str, NftChain] | None, there: Held, held: Held, moved: Mapping[str, tuple[str, ...]]
) -> Iterator[str]:
    if not (slipped(there, held) or any(leads(jump.rule) in moved for jump in held.jumps)):
        return
    if chains is None:
        yield f"add table {home}"
    handles: dict[str, list[int]] = {}
    for name, chain in (chains or {}).items():
        handles[name] = [handle for rule, handle in zip(chain.rules, chain.handles, strict=True) if not _ours(rule)]
        if not is_ours(name):
            yield from (f"delete rule {home} {name} handle {handle}"
                        for rule, handle in zip(chain.rules, chain.handles, strict=True) if _ours(rule))  # fmt: skip
    for hook, jumps in groupby(held.placed(there), lambda jump: jump.hook):
        if hook not in handles and hook in BASE:
            yield f"add chain {home} {hook} {{ type filter hook {BASE[hook]} priority {home.split()[1]}; }}"
        for before, jump in enumerate(jumps):
            if (rule := native(_led(jump.rule, moved))) is not None:
                index = jump.position - 1 - before  # among the rules of others
                ahead = handles.get(hook, [])[index : index + 1]
                yield (f"insert rule {home} {hook} handle {ahead[0]} {rule}" if ahead else
                       f"add rule {home} {hook} {rule}")  # fmt: skip


def _ours(rule: str) -> bool:
    return is_ours(nft_leads(rule))


def unspoken(now: RuleSets, target: RuleSets, family: Family) -> Iterator[str]:
    """iptables-nft-restore's lines for jumps that nft cannot write: those of an earlier version, coming back."""
    for table in TABLES:
        place = Place("nft", family, table)
        there, held = now.held(place), target.held(place)
        if slipped(there, held) and (
            left := [jump for jump in held.placed(there) if native(jump.rule) is None]
        ):  # the others stand by now
            yield from (f"*{table}", *(f"-I {jump.hook} {jump.position} {jump.rule}" for jump in left), "COMMIT")


def _gone(now: RuleSets, target: RuleSets) -> Iterator[str]:
    """Built-in chains that came with ours, if nothing has moved in since."""
    forgotten = now.made - target.made
    for family in FAMILIES:
        for table in TABLES:
            home = home_of(family, table)
            chains = now.builtin.get(home, {})
            going = [name for name, chain in chains.items() if memory(f"{home} {name}") in forgotten and _idle(chain)]
            yield from (f"delete chain {home} {name}" for name in going)
            going += stale(now, target, Place("nft", family, table))
            alone = home in now.builtin and home not in now.shared
            if alone and memory(home) in forgotten and len(going) == len(chains):
                yield f"delete table {home}"


def _idle(chain: NftChain) -> bool:
    """A base chain that does nothing, once the jumps to us are gone."""
    return "policy accept" in chain.hook and all(_ours(rule) for rule in chain.rules)
