"""What an operator should know of this host before, and while, the gateway runs. In: a Plan. Out: Findings.

What stands in the way of the rule sets (preflight.py), what passes without being inspected (policy point 11: the
gateway's own traffic, bridged frames that do not pass FORWARD, flows that hardware or a flowtable has taken over), what
the kernel aggregates before we see it, what other firewalls of the host stop though policy allows it, and whether the
host forwards at all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from pyroute2 import Ethtool, IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from appid.dataplane.chain import FAMILIES
from appid.dataplane.converge import program
from appid.dataplane.diff import differences
from appid.dataplane.foreign import stopping
from appid.dataplane.ruleset import NOTHING, Variant, wanted
from appid.edge import iptables, preflight, turn
from appid.edge.netlink import KernelError
from appid.edge.plan import Plan

Weight = Literal["problem", "warning", "note"]
AGGREGATION = ("rx-udp-gro-forwarding", "rx-gro-list")
"""Receive offloads that show several datagrams as one packet: only the first one's bytes are looked at."""
_FULL = 0.8
_OURS = re.compile("ip6? filter chain FORWARD")
"""Where ours accept what policy allows, with iptables-nft."""


class Finding(NamedTuple):
    """`problem`: the gateway would not start. `warning`: it would see less than policy supposes. `note`: so it is."""

    weight: Weight
    about: str
    text: str


def examine(plan: Plan, root: Path = Path("/proc/sys/net")) -> list[Finding]:
    """All there is to say."""
    found = list(_rules(plan))
    names = tuple(dict.fromkeys(name for zone in plan.policy.zones.values() for name in zone.interfaces))
    found += _elsewhere(iptables.variant_of(plan.config.iptables))
    found += _interfaces(names, root)
    found += _offloads(names)
    found += _taken_over()
    found += _host(root)
    found.append(Finding("note", "not inspected", "the gateway's own traffic: only what is forwarded passes FORWARD"))
    return sorted(found, key=lambda finding: ("problem", "warning", "note").index(finding.weight))


def _rules(plan: Plan) -> Iterator[Finding]:
    try:
        topology, variant = plan.topology(), iptables.variant_of(plan.config.iptables)
        for problem in preflight.problems(topology, variant, starting=False):
            yield Finding("problem", problem.kind, problem.text)
        now = iptables.read()
    except KernelError as error:
        yield Finding("problem", "kernel", str(error))
        return
    different = len(differences(wanted(topology, variant), now))
    if now == NOTHING or not now.sets:
        text = f"not in the kernel; `appid run` or `appid rules apply` puts them there ({variant})"
        if turn.gateway_runs(plan.config.control):
            yield Finding("problem", "rules", "not in the kernel, though a gateway runs: reload it")
        else:
            yield Finding("note", "rules", text)
    elif different:
        yield Finding("warning", "rules", f"not as configured: `appid rules diff` lists {different} differences")
    else:
        yield Finding("note", "rules", f"in the kernel as configured ({variant})")


def _elsewhere(ours: Variant) -> Iterator[Finding]:
    """Chains that drop what nobody accepted in them: a packet has to please each chain of the FORWARD hook, and ours
    accept it in the tables of one variant of iptables alone."""
    where = []
    try:
        for family in FAMILIES if ours == "nft" else ():
            if ":FORWARD DROP" in iptables.saved("legacy", family, "filter"):
                where.append(f"{program(family, 'legacy', '')} (FORWARD's policy)")
        listing = json.loads(iptables.run(["nft", "-j", "-t", "list", "ruleset"]))["nftables"]
        where += [f"nft, {each}" for each in stopping(listing) if ours != "nft" or not _OURS.fullmatch(each)]
    except KernelError:  # a program that is missing is told of elsewhere
        pass
    for each in where:
        yield Finding("warning", "stopped", f"{each}: drops what it does not accept itself, also what policy allows")


def _interfaces(names: tuple[str, ...], root: Path) -> Iterator[Finding]:
    """Zones' interfaces that are not there; and bridges, whose own frames pass FORWARD only by br_netfilter."""
    with IPRoute() as netlink:
        links = {str(link.get("ifname")): link for link in netlink.get_links()}
    masters = {link["index"]: name for name, link in links.items()}
    for name in names:
        link = links.get(name)
        if link is None:
            yield Finding("warning", "interface", f"{name}: a zone names it, but there is none")
            continue
        if (bridge := masters.get(link.get("master") or 0)) is not None:
            yield Finding("warning", "interface", f"{name} is a port of {bridge}: name that, packets arrive there")
        information = link.get("linkinfo")
        if information is not None and information.get("kind") == "bridge" and not _bridged(root):
            yield Finding("warning", "not inspected", f"frames bridged by {name}: they do not pass FORWARD "
                          "(sysctl net.bridge.bridge-nf-call-iptables=1 changes that)")  # fmt: skip


def _bridged(root: Path) -> bool:
    return _number(root / "bridge/bridge-nf-call-iptables") == 1


def _offloads(names: tuple[str, ...]) -> Iterator[Finding]:
    with Ethtool() as ethtool:
        for name in names:
            try:
                features = ethtool.get_features(name).features
            except (NetlinkError, OSError, KeyError, NotImplementedError):
                continue
            on = {
                feature
                for feature in (*AGGREGATION, "hw-tc-offload")
                if feature in features and features[feature].enable
            }
            for feature in AGGREGATION:
                if feature in on:
                    yield Finding("warning", "aggregation", f"{name}: {feature} hides datagrams behind the first one: "
                                  f"ethtool -K {name} {feature} off")  # fmt: skip
            if "hw-tc-offload" in on:
                yield Finding("note", "not inspected", f"flows that {name} itself has taken over (hw-tc-offload)")


def _taken_over() -> Iterator[Finding]:
    """Flowtables forward what they took over ahead of FORWARD."""
    try:
        listing = iptables.run(["nft", "list", "flowtables"])
    except KernelError:
        return
    names = [line.split()[1] for line in listing.splitlines() if line.strip().startswith("flowtable ")]
    for name in names:
        yield Finding("warning", "not inspected", f"flows that flowtable {name} has taken over, ahead of FORWARD")


def _host(root: Path) -> Iterator[Finding]:
    for name, what in (("ipv4/ip_forward", "IPv4"), ("ipv6/conf/all/forwarding", "IPv6")):
        if _number(root / name) == 0:
            sysctl = "net." + name.replace("/", ".")
            yield Finding("warning", "forwarding", f"{what} is not forwarded: sysctl {sysctl}=1")
    used, room = (_number(root / "netfilter" / f"nf_conntrack_{name}") for name in ("count", "max"))
    if used is not None and room and used > _FULL * room:
        yield Finding("warning", "conntrack", f"{used} of {room} flows: sysctl net.netfilter.nf_conntrack_max")


def _number(place: Path) -> int | None:
    try:
        return int(place.read_text())
    except (OSError, ValueError):
        return None
