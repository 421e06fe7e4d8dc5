"""Whose source the host translates on the way out, as its own rules say. In: the outside interfaces; the text of
iptables-save and of `nft list ruleset`. Out: networks.

A call's first packet has no conntrack entry that would tell: only rules can. A rule counts if it may apply on an
outside interface; what it asks beside interface and source address is taken as given.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Collection, Iterable, Iterator
from ipaddress import ip_network
from pathlib import Path

from appid.dataplane.chain import NAT_TABLE
from appid.dataplane.text import blanked, lines_of
from appid.policy.rule import Network

_PROGRAMS = {4: ("iptables-nft-save", "iptables-legacy-save"), 6: ("ip6tables-nft-save", "ip6tables-legacy-save")}
_IPTABLES = re.compile(r"^-A \S+ (.*)-j (?:MASQUERADE|SNAT)\b")
_OUT = re.compile(r"(! )?-o (\S+)")
_SOURCE = re.compile(r"(! )?-s (\S+)")
_NFT = re.compile(r"\b(?:masquerade|snat)\b")
_NFT_OUT = re.compile(r'\boif(?:name)? (!= )?(\{[^}]*\}|"[^"]*"|\S+)')
_NFT_SOURCE = re.compile(r"\bip6? saddr (!= )?(\{[^}]*\}|\S+)")
_NFT_TABLE = re.compile(r"^table (\S+) (\S+)")
_EVERYTHING = {4: "0.0.0.0/0", 6: "::/0"}


def masqueraded(outside: Collection[str]) -> tuple[Network, ...]:
    """Read the rules of this network namespace; programs that are not there have none."""
    found: set[Network] = set()
    for family, text in saved():
        found.update(of_iptables(text, family, outside))
    found.update(of_nft(ruleset(), outside))
    return tuple(sorted(found))


def saved() -> Iterator[tuple[int, str]]:
    """The nat tables of all variants of iptables: family and text."""
    for family, programs in _PROGRAMS.items():
        for program in programs:
            if "legacy" not in program or _loaded(family):
                yield family, _text(program, "-t", "nat")


def ruleset() -> str:
    """All of nft's tables; those of iptables-nft show their statements here as well."""
    return _text("nft", "-n", "list", "ruleset")


def _loaded(family: int) -> bool:
    """Whether the old nat table is in use: looking into it would make it."""
    place = Path(f"/proc/thread-self/net/ip{'6' if family == 6 else ''}_tables_names")
    try:
        return "nat" in place.read_text().split()
    except OSError:
        return False


def _text(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=30, start_new_session=True
    )  # no signal to our group ends it: half of the rules would be taken for all
    return done.stdout


def of_iptables(text: str, family: int, outside: Collection[str]) -> Iterator[Network]:
    """From the nat table as iptables-save prints it."""
    for _, bare in lines_of(text):
        rule = _IPTABLES.match(bare)
        if rule is None:
            continue
        out, source = _OUT.search(rule[1]), _SOURCE.search(rule[1])
        if out is not None and not applies(out[1], [out[2]], outside):
            continue
        named = source[2] if source is not None and source[1] is None else _EVERYTHING[family]
        yield from _networks([named])


def of_nft(text: str, outside: Collection[str]) -> Iterator[Network]:
    """From nft's own tables, ours left out."""
    for family, line in nft_rules(text, _NFT):
        out, source = _NFT_OUT.search(line), _NFT_SOURCE.search(line)
        if out is not None and not applies(out[1], words(out[2]), outside):
            continue
        if source is not None and source[1] is None:
            yield from _networks(words(source[2]))
        else:
            yield from _networks([net for number, net in _EVERYTHING.items() if family in ("inet", _of(number))])


def nft_rules(text: str, statement: re.Pattern[str]) -> Iterator[tuple[str, str]]:
    """The rules of others with such a statement: their table's family, and the line."""
    family, ours = "", False
    for line in text.splitlines():
        table = _NFT_TABLE.match(line)
        if table is not None:
            family, ours = table[1], table[2] == NAT_TABLE
        if not ours and "hook" not in line and statement.search(blanked(line, "nft").partition("#")[0]) is not None:
            yield family, line


def _of(family: int) -> str:
    return "ip" if family == 4 else "ip6"


def applies(negated: str | None, interfaces: list[str], outside: Collection[str]) -> bool:
    """Whether the rule may hold on one of our outside interfaces; "ppp+" and "ppp*" mean any that begin so."""
    names = [re.escape(name).replace(r"\+", ".*").replace(r"\*", ".*") for name in interfaces]
    matching = [one for one in outside if any(re.fullmatch(name, one) for name in names)]
    return len(matching) < len(outside) if negated else bool(matching)


def words(text: str) -> list[str]:
    """Of a set, or the one word."""
    return [word.strip().strip('"') for word in text.strip("{}").split(",") if word.strip()]


def _networks(words: Iterable[str]) -> Iterator[Network]:
    for word in words:
        try:
            network = ip_network(word, strict=False)
        except ValueError:  # a range, or a set's name: it may be anything
            continue
        yield network.network_address.packed, network.prefixlen
