"""What differs between a rule set and the kernel. In: ChainSet, iptables-save text of its tables. Out: lines, "-" for
what the kernel has and should not, "+" for what it lacks. Chains and jumps of others are not looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from appid.dataplane.chain import ChainSet
from appid.dataplane.render import TABLES

_SPACES = re.compile(r"\s+")
_HEX = re.compile(r"\b0x0*([0-9a-f]+)\b")


def normal(line: str) -> str:
    """One rule in the spelling that both variants' iptables-save share: no counters, leading zeros, quotes or doubled
    protocol matches."""
    line = re.sub(r"^\[\d+:\d+\] ", "", line.strip())
    line = _HEX.sub(lambda match: f"0x{match[1]}", line.replace('"', ""))
    line = re.sub(r"-p (udp|tcp|icmp|ipv6-icmp) -m \1\b", r"-p \1", line)
    return _SPACES.sub(" ", line)


def tables_of(saved: str) -> dict[str, list[str]]:
    """iptables-save text -> the -A lines of each table, normal."""
    tables: dict[str, list[str]] = {}
    current: list[str] = []
    for line in saved.splitlines():
        if line.startswith("*"):
            current = tables.setdefault(line[1:].strip(), [])
        elif "-A " in line[:40] and not line.startswith("#"):
            current.append(normal(line))
    return tables


def differences(rules: ChainSet, saved: str) -> Iterator[str]:
    """Empty if the kernel holds exactly this rule set, every jump once."""
    tables = tables_of(saved)
    for table in TABLES:
        lines = tables.get(table, [])
        for chain in rules.chains:
            if chain.table != table:
                continue
            wanted = [normal(f"-A {chain.name} {rule}") for rule in chain.rules]
            present = [line for line in lines if line.startswith(f"-A {chain.name} ")]
            if wanted != present:
                yield from (f"- {table}: {line}" for line in present if line not in wanted)
                yield from (f"+ {table}: {line}" for line in wanted if line not in present)
                if sorted(wanted) == sorted(present):
                    yield f"- {table}: order of {chain.name}"
        for jump in rules.jumps:
            if jump.table == table:
                count = lines.count(f"-A {jump}")
                if count == 0:
                    yield f"+ {table}: -A {jump}"
                yield from (f"- {table}: -A {jump}" for _ in range(count - 1))
