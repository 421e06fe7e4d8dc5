"""Ports of the gateway that the host's own rules send elsewhere. In: the outside interfaces; the text of iptables-save
and of `nft list ruleset`. Out: Forward values.

A call's binding stands before such a rule: it must not take the port away from whom the rule means. A rule counts if it
names ports and may apply on an outside interface; what else it asks is taken as given. One that sends on every port
gives way to calls, as it does to the kernel's helpers.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from appid.alg.host import Forward
from appid.dataplane.text import lines_of
from appid.edge.source_nat import applies, nft_rules, ruleset, saved, words
from appid.wire import TCP, UDP, packed

_RULE = re.compile(r"^-A (?!OUTPUT\b)\S+ (.*)-j (DNAT|REDIRECT)\b(.*)")
_IN = re.compile(r"(! )?-i (\S+)")
_PROTO = re.compile(r"(?<!! )-p (tcp|udp)\b")
_PORTS = re.compile(r"(! )?--dports? (\S+)")
_TARGET = re.compile(r"--to-destination (\S+)")
_NFT = re.compile(r"\b(?:dnat|redirect)\b")
_NFT_IN = re.compile(r'\biif(?:name)? (!= )?(\{[^}]*\}|"[^"]*"|\S+)')
_NFT_PORTS = re.compile(r"\b(tcp|udp|th) dport (\{[^}]*\}|[\d-]+)")
_NFT_MAP = re.compile(r"\bto (tcp|udp|th) dport map \{([^}]*)\}")
_NFT_TARGET = re.compile(r"\bdnat(?: ip6?)? to (\S+)")
_NUMBERS = {"tcp": TCP, "udp": UDP}


def forwarded(outside: Collection[str]) -> tuple[Forward, ...]:
    """Read the rules of this network namespace."""
    found = {each for _, text in saved() for each in of_iptables(text, outside)}
    found.update(of_nft(ruleset(), outside))
    return tuple(sorted(found, key=str))


def of_iptables(text: str, outside: Collection[str]) -> Iterator[Forward]:
    """From the nat table as iptables-save prints it."""
    for _, bare in lines_of(text):
        rule = _RULE.match(bare)
        if rule is None:
            continue
        came, ports, proto = _IN.search(rule[1]), _PORTS.search(rule[1]), _PROTO.search(rule[1])
        if ports is None or ports[1] is not None or (came and not applies(came[1], [came[2]], outside)):
            continue
        target = _TARGET.search(rule[3])
        for first, last in _spans(ports[2].replace(":", "-").split(",")):
            yield Forward(_NUMBERS[proto[1]] if proto else None, first, last, _address(target[1]) if target else None)


def of_nft(text: str, outside: Collection[str]) -> Iterator[Forward]:
    """From nft's own tables, ours left out."""
    for _, line in nft_rules(text, _NFT):
        came = _NFT_IN.search(line)
        if came is None or applies(came[1], words(came[2]), outside):
            yield from _of_rule(line)


def _of_rule(rule: str) -> Iterator[Forward]:
    mapped = _NFT_MAP.search(rule)
    if mapped is not None:
        for pair in mapped[2].split(","):
            port, _, target = pair.partition(":")
            for first, last in _spans([port.strip()]):
                yield Forward(_NUMBERS.get(mapped[1]), first, last, _address(target.split(" . ")[0].strip()))
        return
    ports, to = _NFT_PORTS.search(rule), _NFT_TARGET.search(rule)
    for first, last in _spans(words(ports[2])) if ports else ():
        yield Forward(_NUMBERS.get(ports[1]) if ports else None, first, last, _address(to[1]) if to else None)


def _spans(named: list[str]) -> Iterator[tuple[int, int]]:
    for each in named:
        first, _, last = each.partition("-")
        if first.isdigit() and (last or first).isdigit():
            yield int(first), int(last or first)


def _address(named: str) -> bytes | None:
    """Of a target; None where it is the gateway itself, or several."""
    bare = named[1:].partition("]")[0] if named.startswith("[") else named
    bare = bare.partition(":")[0] if bare.count(":") == 1 else bare
    try:
        return packed(bare)
    except ValueError:
        return None
