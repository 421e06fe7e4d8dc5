"""A rule set for a gateway without the engine: an application's documented ports, opened for good. For comparison.

In: its port ranges, a Topology. Out: a ChainSet in filter, and in words what it opens, and to whom. What clients
receive media on must be open from outside at any time; with the engine it is open to one peer while a call lasts.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_network

from appid.dataplane.chain import MAIN, Chain, ChainRule, ChainSet, Family, Jump, Topology
from appid.identify.application import Application, PortRange
from appid.wire import TCP, UDP

_NAMES = {TCP: "tcp", UDP: "udp"}
_MULTIPORT = 15  # what one multiport match holds; a range counts twice


def static_set(application: Application, topology: Topology, family: Family) -> ChainSet:
    """filter/FORWARD: replies, the default ports outwards, those of them that receive media also inwards; else DROP."""
    networks = [each for each in topology.inside if (":" in each) == (family == 6)]
    rules = [
        ChainRule(("-m conntrack --ctstate INVALID",), "DROP"),
        ChainRule(("-m conntrack --ctstate RELATED,ESTABLISHED",), "ACCEPT"),
    ]
    for network in networks:
        for outside in topology.outside or ("",):
            to, since = (f"-o {outside}", f"-i {outside}") if outside else ("", "")
            rules += _ports((f"-s {network}", to), application.default_ports)
            rules += _ports((f"-d {network}", since), inward(application))
    rules.append(ChainRule((), "DROP"))
    return ChainSet(family, (Chain("filter", MAIN, tuple(rules)),), (Jump("filter", "FORWARD", MAIN),), ())


def inward(application: Application) -> tuple[PortRange, ...]:
    """The default ports on which clients receive media, from whomever."""
    return tuple(
        ports for ports in application.default_ports
        if any(m.proto == ports.proto and m.first <= ports.first and ports.last <= m.last
               for m in application.media_ports)
    )  # fmt: skip


def opens(application: Application, topology: Topology) -> list[str]:
    """What this opens, in words."""
    hosts = {family: sum(ip_network(each, strict=False).num_addresses for each in topology.inside
                         if (":" in each) == (family == 6)) for family in (4, 6)}  # fmt: skip
    inside = " and ".join(f"{_count(number)} IPv{family}" for family, number in hosts.items() if number)
    lines = [
        f"{application.name} by its documented ports, without the engine. Any program may use what is open here.",
        f"outward {_total(application.default_ports)}: from {inside or 'no'} inside addresses to every address, always",
    ]
    if through := inward(application):
        lines += [
            f"inward {_total(through)}: from every address to {inside or 'no'} inside addresses, always",
            "(where IPv4 is translated, each of these ports can also be given to one inside host only, by a DNAT rule)",
        ]
    lines.append("closed: all else that would be forwarded, name servers included")
    lines.append("with the engine: none; a call's own ports, to its peer alone, while it lasts")
    return lines


def _ports(ends: tuple[str, ...], ranges: Iterable[PortRange]) -> list[ChainRule]:
    rules = []
    for proto, name in _NAMES.items():
        words = [str(each.first) if each.first == each.last else f"{each.first}:{each.last}"
                 for each in ranges if each.proto == proto]  # fmt: skip
        for start in range(0, len(words), _MULTIPORT // 2):
            chosen = ",".join(words[start : start + _MULTIPORT // 2])
            matches = (*ends, f"-p {name}", f"-m multiport --dports {chosen}")
            rules.append(ChainRule(tuple(match for match in matches if match), "ACCEPT"))
    return rules


def _total(ranges: Iterable[PortRange]) -> str:
    chosen = list(ranges)
    counts = {name: sum(each.last - each.first + 1 for each in chosen if each.proto == proto)
              for proto, name in _NAMES.items()}  # fmt: skip
    return " and ".join(f"{count} {name} ports" for name, count in counts.items() if count)


def _count(number: int) -> str:
    return str(number) if number < 1 << 24 else f"2^{number.bit_length() - 1}"
