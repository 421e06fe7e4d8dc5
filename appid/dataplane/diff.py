"""What differs between the rule sets that are wanted and those that are there. In: two RuleSets. Out: Differences, "-"
for what the kernel has and should not, "+" for what it lacks. Chains, sets and jumps of others are not looked at, nor
are the elements that the running gateway puts in.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from appid.dataplane.present import chosen
from appid.dataplane.ruleset import LAST, LIVE, MADE, Held, NftTable, Place, RuleSets, SetText

_SPACES = re.compile(r"\s+")
_HEX = re.compile(r"\b0x0*([0-9a-f]+)\b")


class Difference(NamedTuple):
    """`where` names the table or set, `text` the rule, element or chain in it."""

    sign: Literal["-", "+"]
    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.sign} {self.where}: {self.text}"


def normal(line: str) -> str:
    """One rule in the spelling that both variants' iptables-save share: no counters, leading zeros, quotes or doubled
    protocol matches."""
    line = re.sub(r"^\[\d+:\d+\] ", "", line.strip())
    line = _HEX.sub(lambda match: f"0x{match[1]}", line.replace('"', ""))
    line = re.sub(r"-p (udp|tcp|icmp|ipv6-icmp) -m \1\b", r"-p \1", line)
    return _SPACES.sub(" ", line)


def differences(target: RuleSets, now: RuleSets) -> list[Difference]:
    """Empty if the kernel holds exactly these rule sets, every jump once and first."""
    found: list[Difference] = []
    for name in sorted({*target.sets, *now.sets}):
        found += _set(name, target.sets.get(name), now.sets.get(name))
    for name in sorted({*target.nft, *now.nft}):
        found += _nft(name, target.nft.get(name), now.nft.get(name))
    for place in sorted({*target.tables, *now.tables}):
        found += _table(place, target.held(place), now.held(place))
    return found


def _set(name: str, wanted: SetText | None, there: SetText | None) -> Iterator[Difference]:
    where = "ipset"
    if wanted is None or there is None or chosen(wanted.create) != chosen(there.create):
        if there is not None:
            yield Difference("-", where, f"create {name} {chosen(there.create)}")
        if wanted is not None:
            yield Difference("+", where, f"create {name} {chosen(wanted.create)}")
    if wanted is not None and name not in LIVE:
        has = there.members if there is not None else ()
        yield from _lines(where, f"add {name} ", sorted(wanted.members), sorted(has))


def _nft(name: str, wanted: NftTable | None, there: NftTable | None) -> Iterator[Difference]:
    where = f"nft inet {name}"
    if wanted is None or there is None:
        yield Difference("-" if wanted is None else "+", where, "table")
        return
    for each in sorted({*wanted.maps, *there.maps}):
        told, due = (table.maps.get(each, "").partition(";")[0] for table in (there, wanted))
        if told != due:
            yield from (Difference("-", where, f"map {each} {{ {told} }}") for _ in told[:1])
            yield from (Difference("+", where, f"map {each} {{ {due} }}") for _ in due[:1])
    for each in sorted({*wanted.chains, *there.chains}):
        if each.startswith(MADE):
            continue
        if (each in wanted.chains) != (each in there.chains):
            yield Difference("-" if each in there.chains else "+", where, f"chain {each}")
        if each in wanted.chains:
            rules = there.chains[each].rules if each in there.chains else ()
            yield from _lines(where, f"{each}: ", wanted.chains[each].rules, rules)


def _table(place: Place, wanted: Held, there: Held) -> Iterator[Difference]:
    program = "iptables" if place.family == 4 else "ip6tables"
    where = f"{program}-{place.variant} {place.table}"
    for name in [*wanted.chains, *(each for each in there.chains if each not in wanted.chains)]:
        if (name in wanted.chains) != (name in there.chains):
            yield Difference("-" if name in there.chains else "+", where, f"-N {name}")
        yield from _lines(where, f"-A {name} ", wanted.chains.get(name, ()), there.chains.get(name, ()))
    yield from _jumps(where, wanted, there)


def _jumps(where: str, wanted: Held, there: Held) -> Iterator[Difference]:
    left = list(there.placed(there))
    ends = {
        hook: there.others.get(hook, 0) + sum(each.hook == hook for each in left) for hook in {j.hook for j in left}
    }
    for jump in wanted.jumps:
        same = [each for each in left if each.hook == jump.hook and normal(each.rule) == normal(jump.rule)]
        rule = f"{jump.hook} {jump.rule}"
        if not same:
            yield Difference("+", where, f"{'-A' if jump.position == LAST else '-I'} {rule}")
            continue
        left.remove(same[0])
        if same[0].position != (ends[jump.hook] if jump.position == LAST else jump.position):
            yield Difference("-", where, f"-A {rule} as rule {same[0].position}")
            place = "as the last rule" if jump.position == LAST else f"as rule {jump.position}"
            yield Difference("+", where, f"-A {rule} {place}")
    yield from (Difference("-", where, f"-A {jump.hook} {jump.rule}") for jump in left)


def _lines(where: str, head: str, wanted: Sequence[str], there: Sequence[str]) -> Iterator[Difference]:
    should, has = [normal(line) for line in wanted], [normal(line) for line in there]
    if should == has:
        return
    yield from (Difference("-", where, head + line) for line in has if line not in should)
    yield from (Difference("+", where, head + line) for line in should if line not in has)
    if set(should) == set(has):
        yield Difference(
            "-", where, head + ("order of the rules" if sorted(should) == sorted(has) else "rules doubled")
        )
