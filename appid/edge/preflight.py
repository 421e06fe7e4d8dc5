"""What stands in the way of our rule sets on this host, found before anything is changed.

In: Topology, variant of iptables. Out: Problems: a kernel feature that is missing, mark bits or queues that others use,
an active SIP helper of the kernel. `check` refuses with all of them named.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pyroute2 import IPRoute

from appid.dataplane.chain import CLEAR_TABLE, FAMILIES, NAT_TABLE, Family, Topology
from appid.dataplane.converge import program, restoring
from appid.dataplane.foreign import Use, collides, free_mask, nft_uses, uses
from appid.dataplane.present import unreadable
from appid.dataplane.render import clear_text, nat_text
from appid.dataplane.ruleset import VARIANTS, Variant, home_of, is_ours
from appid.dataplane.text import lines_of
from appid.edge import privileges
from appid.edge.iptables import run
from appid.edge.netlink import KernelError, Socket, attribute

PROBE = "appid-probe"
_OURS = ("inet " + CLEAR_TABLE, "inet " + NAT_TABLE)
OF_IPTABLES = re.compile(r"ip6? (raw|mangle|nat|filter|security)\b")
"""Tables of nft that are iptables-nft's."""
_CONNTRACK, _QUEUE = 1, 3
_GET_STATS, _CONFIG, _PF_BIND = 5, 2, 3

OLDEST = (1, 8, 8)
"""The first iptables-nft that compares marks without xt_mark."""
MATCHES = {
    "xt_mark": "-m mark --mark 0x1/0x1 -j MARK --set-xmark 0x0/0x0",
    "xt_connmark": "-m connmark --mark 0x1/0x1 -j CONNMARK --save-mark --nfmask 0x1 --ctmask 0x1",
    "xt_conntrack": "-m conntrack --ctstate INVALID,UNTRACKED -j RETURN",
    "xt_bpf": '-m bpf --bytecode "1,6 0 0 0" -j RETURN',
    "xt_comment": "-m comment --comment blind -j RETURN",
    "xt_set": f"-m set --match-set {PROBE}{{family}} dst,dst,src "
    f"-j SET --map-set {PROBE}{{family}} dst,dst,src --map-mark",
    "xt_NFQUEUE": "-j NFQUEUE --queue-num 0 --queue-bypass",
    "xt_DSCP": "-j DSCP --set-dscp 0x2e",
}
"""Kernel modules, and a rule of mangle that needs them."""


class Problem(NamedTuple):
    kind: Literal["privilege", "feature", "mark", "queue", "helper"]
    text: str

    def __str__(self) -> str:
        return self.text


class UnfitError(KernelError):
    """The host cannot take our rule sets as it is; `problems` says why, all of it."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("preflight", "; ".join(map(str, problems)))
        self.problems = problems


def check(topology: Topology, variant: Variant, starting: bool = True) -> None:
    """UnfitError if there is any problem."""
    if found := problems(topology, variant, starting):
        raise UnfitError(found)


def problems(topology: Topology, variant: Variant, starting: bool = True) -> list[Problem]:
    """`starting`: no process may listen on our queues; else a gateway of ours may."""
    if found := list(_capabilities()):
        return found
    found = list(_features(variant, topology))
    if missing := [problem for problem in found if problem.text.startswith("no program")]:
        return missing
    rules = list(_rules())
    found += _marks(topology, rules)
    found += _queues(topology, rules)
    found += _listeners(topology, starting)
    found += _helpers(rules)
    return found


# -- features -----------------------------------------------------------------------------------------------------


def _capabilities() -> Iterator[Problem]:
    """Without them the programs speak of missing modules."""
    held = privileges.held("thread-self", "CapPrm")
    names = {privileges.NET_ADMIN: "CAP_NET_ADMIN", privileges.NET_RAW: "CAP_NET_RAW"}
    if missing := [name for number, name in names.items() if number not in held]:
        yield Problem("privilege", f"this process lacks {' and '.join(missing)}: start it as root, or with both")


def _features(variant: Variant, topology: Topology, root: Path = Path("/proc/sys/net/netfilter")) -> Iterator[Problem]:
    """One --test of everything; only if that fails is each looked at alone."""
    for family in FAMILIES:
        if shutil.which(save := program(family, variant, "save")) is None:
            yield Problem("feature", f"no program {save}: install it")
    try:
        _make_probes()
    except KernelError as error:
        yield _missing("ip_set, ip_set_hash_ipportip", error)
    yield from _age(variant)
    try:
        yield from _matches(variant)
    finally:
        _drop_probes()
    for name, text in (("nf_tables inet", clear_text(topology.marks)), ("nft_nat, nf_tables maps", nat_text())):
        try:
            run(["nft", "-c", "-f", "-"], text.replace(CLEAR_TABLE, PROBE).replace(NAT_TABLE, PROBE))
        except KernelError as error:
            yield _missing(name, error)
    yield from _subsystems()
    for name in ("nf_conntrack_acct", "nf_conntrack_events"):
        if not (root / name).exists():
            yield Problem("feature", f"the kernel lacks {name} (sysctl net.netfilter.{name})")


def _matches(variant: Variant) -> Iterator[Problem]:
    for family in FAMILIES:
        each = {name: rule.format(family=family) for name, rule in MATCHES.items()}
        if _refusal(variant, family, "mangle", *each.values()) is None:
            continue
        for name, rule in each.items():
            if (refusal := _refusal(variant, family, "mangle", rule)) is not None:
                yield _missing(name, refusal)
    for family in FAMILIES:
        reject = "icmp-admin-prohibited" if family == 4 else "icmp6-adm-prohibited"
        if (refusal := _refusal(variant, family, "filter", f"-j REJECT --reject-with {reject}")) is not None:
            yield _missing("ipt_REJECT" if family == 4 else "ip6t_REJECT", refusal)


def _age(variant: Variant) -> Iterator[Problem]:
    """iptables-nft has to read the jumps that nft writes (dataplane/switch.py): marks compared in nft's own words."""
    if variant != "nft":
        return
    try:
        told = run(["iptables-nft", "--version"])
    except KernelError as error:
        yield _missing("iptables-nft", error)
        return
    found = re.search(r"v(\d+)\.(\d+)\.(\d+)", told)
    if found is not None and tuple(map(int, found.groups())) < OLDEST:
        text = (
            f"iptables-nft {found[0]} does not read what nft writes: {'.'.join(map(str, OLDEST))}, or iptables-legacy"
        )
        yield Problem("feature", text)


def _make_probes() -> None:
    lines = [f"create {PROBE}{family} hash:ip,port,ip family inet{'6' if family == 6 else ''} timeout 1 skbinfo\n"
             for family in FAMILIES]  # fmt: skip
    run(["ipset", "-exist", "restore"], "".join(lines))


def _drop_probes() -> None:
    for family in FAMILIES:
        try:
            run(["ipset", "destroy", f"{PROBE}{family}"])
        except KernelError:
            continue  # it was never made


def _refusal(variant: Variant, family: Family, table: str, *rules: str) -> KernelError | None:
    """Why the kernel or the program would not take these rules. Nothing is changed. KernelError where another holds the
    lock."""
    lines = [f"*{table}", ":APPID-PROBE - [0:0]", *(f"-A APPID-PROBE {rule}" for rule in rules), "COMMIT", ""]
    try:
        run([*restoring(family, variant), "--test"], "\n".join(lines))
    except KernelError as error:
        if "xtables lock" in error.reason:
            raise
        return error
    return None


def _missing(what: str, error: KernelError) -> Problem:
    if "No such file or directory" in error.reason and error.command.split()[0] in error.reason:
        return Problem("feature", f"no program {error.command.split()[0]}: install it")
    return Problem("feature", f"the kernel lacks {what} ({error.command.split()[0]}: {error.reason})")


def _subsystems() -> Iterator[Problem]:
    socket = Socket()
    try:
        bind = attribute(1, struct.pack(">BBH", _PF_BIND, 0, 2))
        if answer := socket.ask(_QUEUE, _CONFIG, 0, 0, bind):
            yield Problem("feature", f"the kernel lacks nfnetlink_queue ({os.strerror(answer)})")
        if answer := socket.ask(_CONNTRACK, _GET_STATS, 0, 0):
            yield Problem("feature", f"the kernel lacks nf_conntrack_netlink ({os.strerror(answer)})")
    finally:
        socket.close()


# -- rules of others ----------------------------------------------------------------------------------------------


class Foreign(NamedTuple):
    where: str
    use: Use


def _rules() -> Iterator[Foreign]:
    """What the rules of others use, wherever they stand."""
    for variant in VARIANTS:
        for family in FAMILIES:
            yield from _iptables_rules(variant, family)
    for table in run(["nft", "list", "tables"]).splitlines():
        name = table.removeprefix("table ").strip()
        if name not in _OURS and not OF_IPTABLES.fullmatch(name):
            yield from (Foreign(f"nft: {where}", use) for where, use in nft_uses(_listed(name)))
    with IPRoute() as netlink:
        for rule in netlink.get_rules():
            if mark := rule.get("fwmark"):
                mask = rule.get("fwmask") or 0xFFFFFFFF
                what = f"ip rule {rule.get('priority')}: fwmark {mark:#x}/{mask:#x}"
                yield Foreign(what, Use("reads", mask))


def _listed(table: str) -> list[dict[str, Any]]:
    objects: list[dict[str, Any]] = json.loads(run(["nft", "-j", "-t", "list", "table", *table.split()]))["nftables"]
    return objects


def _iptables_rules(variant: Variant, family: Family) -> Iterator[Foreign]:
    save = program(family, variant, "save")
    names = Path(f"/proc/thread-self/net/{'ip' if family == 4 else 'ip6'}_tables_names")
    if variant == "legacy" and not (names.exists() and names.read_text().strip()):
        return
    try:
        text = run([save])
    except KernelError:
        return  # that variant is not installed
    table = ""
    for line, _ in lines_of(text):
        if line.startswith("*"):
            table = line[1:]
        yield from _of_line(save, table, line)
    for table in sorted(unreadable(text)):
        yield from _unprinted(save, table, home_of(family, table))


def _of_line(save: str, table: str, line: str) -> Iterator[Foreign]:
    if line.startswith("-A ") and not is_ours(line.split()[1]):
        hidden = table == "raw" and line.startswith("-A OUTPUT ")  # the gateway's own traffic
        where = f"{save.removesuffix('-save')} -t {table} {line}"
        yield from (Foreign(where, use) for use in uses(line) if not (hidden and use.kind == "helper"))


def _unprinted(save: str, table: str, home: str) -> Iterator[Foreign]:
    """A table with rules that were made with nft itself: iptables prints those of its chains that have none."""
    listed = _listed(home)
    for name in [each["chain"]["name"] for each in listed if "chain" in each]:
        if is_ours(name):
            continue
        try:
            lines = lines_of(run([save.removesuffix("-save"), "-t", table, "-S", name]))
        except KernelError:
            rules = [each for each in listed if each.get("rule", {}).get("chain", name) == name]
            unread = f"nft: {{}} (which {save.removesuffix('-save')} cannot read)"
            yield from (Foreign(unread.format(where), use) for where, use in nft_uses(rules))
            continue
        for line, _ in lines:
            yield from _of_line(save, table, line)


def _marks(topology: Topology, rules: list[Foreign]) -> Iterator[Problem]:
    ours = topology.marks.mask
    bad = [rule for rule in rules if collides(rule.use, ours)]
    if not bad:
        return
    taken = reduce(lambda bits, rule: bits | rule.use.bits, (rule for rule in rules), 0)
    free = free_mask(taken)
    advice = f"mark_mask = {free:#010x} and qos_mask = 0 are free" if free is not None else (
        "write it with a mask (VALUE/MASK) that leaves bits free")  # fmt: skip
    for where in dict.fromkeys(rule.where for rule in bad):
        bits = reduce(lambda found, rule: found | rule.use.bits, (rule for rule in bad if rule.where == where), 0)
        yield Problem(
            "mark", f"mark bits {bits & ours:#010x} of ours ({ours:#010x}) are used by others: {where}; {advice}"
        )


def _queues(topology: Topology, rules: list[Foreign]) -> Iterator[Problem]:
    for where, use in rules:
        taken = [number for number in topology.queues if use.kind == "queue" and use.first <= number <= use.last]
        if taken:
            yield Problem("queue", f"queue {taken[0]} is used by others: {where}; choose another first_queue")


def _helpers(rules: list[Foreign], modules: Path = Path("/sys/module")) -> Iterator[Problem]:
    for where, use in rules:
        if use.kind == "helper":
            yield Problem("helper", f"the kernel's SIP helper is active, and would open and drop beside us: {where}")
    automatic = Path("/proc/sys/net/netfilter/nf_conntrack_helper")
    if automatic.exists() and automatic.read_text().strip() == "1" and (modules / "nf_conntrack_sip").exists():
        advice = "sysctl net.netfilter.nf_conntrack_helper=0, or unload nf_conntrack_sip"
        yield Problem("helper", f"the kernel's SIP helper is active on port 5060 by itself: {advice}")


# -- who listens --------------------------------------------------------------------------------------------------


def _listeners(topology: Topology, starting: bool) -> Iterator[Problem]:
    place = Path("/proc/thread-self/net/netfilter/nfnetlink_queue")
    for line in place.read_text().splitlines() if place.exists() else ():
        number, port = (int(word) for word in line.split()[:2])
        if number not in topology.queues:
            continue
        process, name = _owner(port)
        if starting or "appid" not in name:
            yield Problem("queue", f"queue {number} has a listener already: {name} (process {process})")


def _owner(port: int) -> tuple[int, str]:
    """The process that has the netfilter netlink socket with this port, and its command line; (0, "?") if unknown."""
    inodes = set()
    for line in Path("/proc/thread-self/net/netlink").read_text().splitlines()[1:]:
        words = line.split()
        if words[1] == "12" and int(words[2]) == port:
            inodes.add(f"socket:[{words[9]}]")
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if any(os.readlink(each) in inodes for each in (folder / "fd").iterdir()):
                name = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                return int(folder.name), name or (folder / "comm").read_text().strip()
        except OSError:
            continue
    return 0, "?"
