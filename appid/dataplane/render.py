"""Rule sets as text. In: ChainSet, Topology. Out: what iptables-restore --noflush, ipset restore and nft -f take.

Only our own chains, sets and tables are named. This is the text for a kernel that has none of them; converge.py has
the steps from any state to another.
"""

from __future__ import annotations

from collections.abc import Collection

from appid.dataplane.chain import CLEAR_TABLE, NAT_TABLE, ChainSet, IpSet
from appid.dataplane.converge import nft_lines
from appid.dataplane.marks import Marks
from appid.dataplane.ruleset import LAST, TABLES, At, clear_table, nat_table, positions


def restore_text(rules: ChainSet, jumps: bool = True) -> str:
    """iptables-restore --noflush input: our chains emptied and filled, the jumps to them put in their places."""
    lines = [f"# appid, IPv{rules.family}"]
    for table in TABLES:
        chains = [chain for chain in rules.chains if chain.table == table]
        lines.append(f"*{table}")
        lines += [f":{chain.name} - [0:0]" for chain in chains]
        lines += [f"-A {chain.name} {rule}" for chain in chains for rule in chain.rules]
        if jumps:
            lines += map(_inserted, positions([jump for jump in rules.jumps if jump.table == table]))
        lines.append("COMMIT")
    return "\n".join(lines) + "\n"


def _inserted(jump: At) -> str:
    if jump.position == LAST:
        return f"-A {jump.hook} {jump.rule}"
    return f"-I {jump.hook} {'' if jump.position == 1 else f'{jump.position} '}{jump.rule}"


def ipset_text(sets: Collection[IpSet]) -> str:
    """`ipset -exist restore` input: sets are made if missing; members are replaced where the set has fixed ones."""
    lines = []
    for each in sets:
        lines.append(f"create {each.name} {each.type} {each.options}")
        if each.members:
            lines.append(f"flush {each.name}")
            lines += [f"add {each.name} {member}" for member in each.members]
    return "\n".join(lines) + "\n"


def clear_text(marks: Marks) -> str:
    """nft -f input: the table that forgets the mark bits that others set."""
    return "\n".join(nft_lines(CLEAR_TABLE, clear_table(marks))) + "\n"


def nat_text() -> str:
    """nft -f input: the binding maps and the chains that read them. Elements that are there stay."""
    return "\n".join(nft_lines(NAT_TABLE, nat_table())) + "\n"
