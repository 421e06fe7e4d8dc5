"""Rule sets as text. In: ChainSet, Topology. Out: what iptables-restore --noflush, ipset restore and nft -f take.

Only our own chains, sets and tables are named; jumps that are present already are not made twice.
"""

from __future__ import annotations

from collections.abc import Collection

from appid.dataplane.chain import CLEAR_TABLE, NAT_TABLE, ChainSet, IpSet, Jump
from appid.dataplane.marks import Marks

TABLES = ("mangle", "filter")


def restore_text(rules: ChainSet, present: Collection[Jump] = ()) -> str:
    """iptables-restore --noflush input: our chains emptied and filled, the jumps not `present` put first."""
    lines = [f"# appid, IPv{rules.family}"]
    for table in TABLES:
        chains = [chain for chain in rules.chains if chain.table == table]
        lines.append(f"*{table}")
        lines += [f":{chain.name} - [0:0]" for chain in chains]
        lines += [f"-A {chain.name} {rule}" for chain in chains for rule in chain.rules]
        lines += [f"-I {jump}" for jump in rules.jumps if jump.table == table and jump not in present]
        lines.append("COMMIT")
    return "\n".join(lines) + "\n"


def removal_text(rules: ChainSet, present: Collection[Jump]) -> str:
    """iptables-restore --noflush input: out with the jumps in `present` (each as often as it occurs) and our chains."""
    lines = []
    for table in TABLES:
        chains = [chain.name for chain in rules.chains if chain.table == table]
        lines.append(f"*{table}")
        lines += [f":{name} - [0:0]" for name in chains]  # emptied, so that no chain refers to another
        lines += [f"-D {jump}" for jump in present if jump.table == table]
        lines += [f"-X {name}" for name in chains]
        lines.append("COMMIT")
    return "\n".join(lines) + "\n"


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
    """nft -f input: forget mark bits that others set, just before mangle (NF_REPEAT re-enters only the mangle hook)."""
    kept = ~marks.mask & 0xFFFFFFFF
    chain = f"inet {CLEAR_TABLE} early"
    return (
        f"add table inet {CLEAR_TABLE}\n"
        f"add chain {chain} {{ type filter hook forward priority mangle - 1; policy accept; }}\n"
        f"flush chain {chain}\n"
        f"add rule {chain} meta mark & {marks.mask:#010x} != 0 counter meta mark set meta mark & {kept:#010x}\n"
    )


def nat_text() -> str:
    """nft -f input: the binding maps and the chains that read them, ahead of the host's own NAT. Elements stay."""
    lines = [f"add table inet {NAT_TABLE}"]
    for family, address in ((4, "ipv4_addr"), (6, "ipv6_addr")):
        for kind in ("dnat", "snat"):
            key = f"inet_proto . {address} . inet_service . {address} : {address} . inet_service"
            lines.append(f"add map inet {NAT_TABLE} {kind}{family} {{ type {key}; flags timeout; size 65536; }}")
    for chain, hook in (("pre", "prerouting priority dstnat - 10"), ("post", "postrouting priority srcnat - 10")):
        lines.append(f"add chain inet {NAT_TABLE} {chain} {{ type nat hook {hook}; policy accept; }}")
        lines.append(f"flush chain inet {NAT_TABLE} {chain}")
    for family, ip in ((4, "ip"), (6, "ip6")):
        inbound = f"meta l4proto . {ip} daddr . th dport . {ip} saddr"
        outbound = f"meta l4proto . {ip} saddr . th sport . {ip} daddr"
        lines.append(f"add rule inet {NAT_TABLE} pre dnat {ip} to {inbound} map @dnat{family}")
        lines.append(f"add rule inet {NAT_TABLE} post snat {ip} to {outbound} map @snat{family}")
    return "\n".join(lines) + "\n"
