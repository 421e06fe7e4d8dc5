"""What a policy lacks for the applications that it allows (policy.md point 7).

In: a policy, the applications. Out: Missing, per rule and application: the names that it depends on and that are not
allowed for the same zones, source and destination. A warning; it grants nothing.

Answers are exact over zones and addresses. A rule for explicit ports counts as allowing a name where it holds all its
standard ports, and as refusing it where it holds any.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from itertools import product
from typing import NamedTuple

from appid.identify.application import Application, PortRange
from appid.policy.box import MAX_PIECES, boxes, intersection, subtract
from appid.policy.index import RuleIndex, rows_of
from appid.policy.rule import Policy, PolicyRule


class Missing(NamedTuple):
    """`rule` allows `application`, which needs each of `names`."""

    rule: str
    application: str
    names: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"rule {self.rule!r} allows {self.application}, which depends on {', '.join(self.names)}: not allowed there"
        )


def missing(policy: Policy, applications: Mapping[str, Application]) -> list[Missing]:
    """In the order of the rules, then of names."""
    survey = _Survey(policy, applications)
    found = []
    for rule in policy.rules:
        if rule.action != "allow" or rule.applications is None:
            continue
        for name in sorted(rule.applications):
            application = applications.get(name)
            if application is None or not application.depends_on:
                continue
            implicit = {entry.application for entry in application.implicit} if rule.implicit else set()
            names = survey.lacking(rule, application.depends_on, implicit)
            if names:
                found.append(Missing(rule.name, name, names))
    return found


class _Survey:
    def __init__(self, policy: Policy, applications: Mapping[str, Application]) -> None:
        self.policy = policy
        self.applications = applications
        self.index = RuleIndex(policy.rules)
        self.known: dict[tuple[object, ...], dict[tuple[str, bool], bool]] = {}

    def lacking(self, rule: PolicyRule, names: Iterable[str], implicit: Container[str]) -> tuple[str, ...]:
        """Those of the names that are not allowed wherever `rule` holds; `implicit` ones are, where no rule matches."""
        space = (rule.from_, rule.to, rule.source, rule.destination, rule.schedule)
        known = self.known.setdefault(space, {})
        wanted = [(name, name in implicit or self.policy.default_action == "allow") for name in names]
        if any(one not in known for one in wanted):
            zones = (*self.policy.zones, None)
            rows = self.index.source.overlapping(rule.source) & self.index.destination.overlapping(rule.destination)
            between = {
                rows & self.index.between(from_zone, to_zone)
                for from_zone, to_zone in product(rule.from_ or zones, rule.to or zones)
            }
            for name, otherwise in wanted:
                naming = self.index.naming(name)
                known[name, otherwise] = all(
                    self._allowed_between(rule, name, otherwise, candidates & naming) for candidates in between
                )
        return tuple(name for name, otherwise in wanted if not known[name, otherwise])

    def _allowed_between(self, rule: PolicyRule, name: str, otherwise: bool, candidates: int) -> bool:
        """`otherwise`: what holds where none of the candidates decides."""
        if not candidates:
            return otherwise
        application = self.applications.get(name)
        ports = application.default_ports if application is not None else ()
        pieces = boxes(rule.source, rule.destination)
        for row in rows_of(candidates):
            other = self.policy.rules[row]
            if other.action == "allow":
                if other.schedule in (None, rule.schedule) and _holds_all(other, ports):
                    for box in boxes(other.source, other.destination):
                        pieces = subtract(pieces, box)
            elif _holds_any(other, ports) and any(
                intersection(piece, box) for box in boxes(other.source, other.destination) for piece in pieces
            ):
                return False
            if not pieces:
                return True
            if len(pieces) > MAX_PIECES:
                return False
        return otherwise


def _holds_all(rule: PolicyRule, ports: Iterable[PortRange]) -> bool:
    if isinstance(rule.service, str):
        return True
    return all(covers(rule.service, port) for port in ports)


def _holds_any(rule: PolicyRule, ports: Iterable[PortRange]) -> bool:
    if isinstance(rule.service, str):
        return True
    return any(
        held.proto == port.proto and held.first <= port.last and port.first <= held.last
        for held in rule.service
        for port in ports
    )


def covers(ranges: Iterable[PortRange], wanted: PortRange) -> bool:
    """Whether the ranges together hold every port of `wanted`."""
    first = wanted.first
    for held in sorted(r for r in ((r.first, r.last) for r in ranges if r.proto == wanted.proto)):
        if held[0] <= first:
            first = max(first, held[1] + 1)
    return first > wanted.last
