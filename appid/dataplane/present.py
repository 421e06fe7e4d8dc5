"""What the host's programs print: iptables-save, `ipset save`, `nft -a -t list ruleset`. Out: parts of a RuleSets.

Only what bears our names is kept; of the rest, how many rules stand where, and which chains iptables-nft has made.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from appid.dataplane.jump import leads, nft_leads, spoken
from appid.dataplane.ruleset import At, Held, NftChain, NftTable, SetText, is_ours
from appid.dataplane.text import blanked, lines_of

_COUNTER = re.compile(r"counter packets \d+ bytes \d+")
_CHOSEN = re.compile(r" (hashsize|bucketsize|initval) \S+| forceadd")
_HEAD = re.compile(r"(\S[^{]*) \{(?: # handle \d+)?")
_HANDLE = re.compile(r" # handle (\d+)$")
_UNREADABLE = re.compile(r"^# Table `(\w+)' is incompatible", re.M)
PREFIX = "appid-"


def table_of(saved: str) -> Held:
    """iptables-save text of one table."""
    chains: dict[str, list[str]] = {}
    jumps: list[At] = []
    rules: Counter[str] = Counter()
    others: Counter[str] = Counter()
    for line, bare in lines_of(saved):
        if line.startswith(":"):
            name = line[1:].split()[0]
            if is_ours(name):
                chains[name] = []
        elif line.startswith("-A "):
            name, _, rule = line[3:].partition(" ")
            if is_ours(name):
                chains[name].append(rule)
                continue
            rules[name] += 1
            if is_ours(leads(bare)):
                jumps.append(At(name, rules[name], rule))
            else:
                others[name] += 1
    return Held({name: tuple(lines) for name, lines in chains.items()}, tuple(jumps), others)


def unreadable(saved: str) -> frozenset[str]:
    """Tables with rules made with nft itself that iptables-nft has no words for: it prints nothing of them."""
    return frozenset(_UNREADABLE.findall(saved))


def rules_of(listed: str) -> tuple[str, ...]:
    """What `iptables -S CHAIN` prints: that chain's rules."""
    return tuple(line.split(" ", 2)[2] for line, _ in lines_of(listed) if line.startswith("-A "))


def held_of(chains: Mapping[str, NftChain], ours: Mapping[str, tuple[str, ...]]) -> Held:
    """A table that iptables-save does not print, as nft lists it; the rules of `ours` as iptables prints them. A jump
    that iptables has no words for stays in nft's."""
    jumps: list[At] = []
    others: Counter[str] = Counter()
    for name, chain in chains.items():
        for position, rule in enumerate(chain.rules if not is_ours(name) else (), 1):
            if is_ours(nft_leads(rule)):
                jumps.append(At(name, position, spoken(rule) or rule))
            else:
                others[name] += 1
    return Held(ours, tuple(jumps), others)


def sets_of(saved: str) -> dict[str, SetText]:
    """`ipset save` text."""
    found: dict[str, tuple[str, list[str]]] = {}
    for line in saved.splitlines():
        word, _, rest = line.partition(" ")
        name, _, what = rest.partition(" ")
        if word == "create":
            found[name] = (what, [])
        elif word == "add":
            found[name][1].append(what)
    return {name: SetText(what, tuple(members)) for name, (what, members) in found.items()}


def chosen(create: str) -> str:
    """Type and options without what the kernel chose itself, or does not tell."""
    return _CHOSEN.sub("", create)


class Listing(NamedTuple):
    """Our inet tables by name; the tables of ip and ip6 with all their chains; which of these hold more than chains."""

    ours: dict[str, NftTable]
    builtin: dict[str, dict[str, NftChain]]
    shared: frozenset[str]


def ruleset_of(listing: str) -> Listing:
    """`nft -a -t list ruleset` text."""
    ours: dict[str, NftTable] = {}
    builtin: dict[str, dict[str, NftChain]] = {}
    shared: set[str] = set()
    for family, name, body in _tables(listing):
        blocks = dict(_blocks(body))
        chains = {key[6:]: _chain(lines) for key, lines in blocks.items() if key.startswith("chain ")}
        if family == "inet" and name.startswith(PREFIX):
            maps = {
                key[4:]: " ".join(f"{line};" for line in lines) for key, lines in blocks.items() if key[:4] == "map "
            }
            ours[name] = NftTable(maps, chains)
        elif family in ("ip", "ip6"):
            builtin[f"{family} {name}"] = chains
            if len(chains) < len(blocks):
                shared.add(f"{family} {name}")
    return Listing(ours, builtin, frozenset(shared))


def _tables(listing: str) -> Iterator[tuple[str, str, list[str]]]:
    head: list[str] = []
    body: list[str] = []
    for line in listing.splitlines():
        if line.startswith("table "):
            head, body = line.split(), []
        elif line == "}" and len(head) > 2:
            yield head[1], head[2], body
        elif line.startswith("\t"):
            body.append(line[1:])


def _blocks(body: list[str]) -> Iterator[tuple[str, list[str]]]:
    name, lines = "", list[str]()
    for line in body:
        if (head := _HEAD.fullmatch(line)) is not None:
            name, lines = head[1], []
        elif line == "}":
            yield name, lines
        elif line.startswith("\t"):
            lines.append(_COUNTER.sub("counter", line.strip()))


def _chain(lines: list[str]) -> NftChain:
    """A rule ends with its handle: nft breaks some over several lines."""
    if lines and lines[0].startswith("comment "):
        lines = lines[1:]
    hook = lines[0] if lines and lines[0].startswith("type ") else ""
    rules, handles, rule = list[str](), list[int](), ""
    for line in lines[1:] if hook else lines:
        rule += f" {line}" if rule else line
        if (end := _HANDLE.search(blanked(line, "nft"))) is not None:
            rules.append(rule[: end.start() - len(line)])
            handles.append(int(end[1]))
            rule = ""
    return NftChain(hook, tuple(rules), tuple(handles))
