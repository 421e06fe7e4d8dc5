"""Findings about a policy that loads: dependencies, rules that never decide anything.

In: a policy, the applications. Out: Finding, in the order of the rules. A rule is called shadowed or contradicted only
where that is certain: taking it away changes no decision about any packet (what is uncertain is not told).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Literal

from appid.identify.application import Application
from appid.identify.identification import STATES
from appid.policy.box import MAX_PIECES, boxes, subtract
from appid.policy.dependencies import covers, missing
from appid.policy.index import RuleIndex, rows_of
from appid.policy.rule import Policy, PolicyRule

Kind = Literal["dependency", "shadowed", "contradiction", "unreachable"]


@dataclass(frozen=True, slots=True)
class Finding:
    """A warning about `rule`. `others`: the missing names of a dependency; the rules that shadow it.

    shadowed       rules before it decide all that it would, as it would
    contradiction  rules before it decide all that it would, some of it otherwise
    unreachable    nothing can match it
    """

    kind: Kind
    rule: str
    reason: str
    others: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.reason


def lint(policy: Policy, applications: Mapping[str, Application]) -> list[Finding]:
    """Every finding, by rule, a rule's dependencies last."""
    shade = _Shade(policy, applications)
    found: dict[str, list[Finding]] = {}
    for row, rule in enumerate(policy.rules):
        finding = _unreachable(rule) or shade.finding(row, rule)
        if finding is not None:
            found.setdefault(rule.name, []).append(finding)
    for lack in missing(policy, applications):
        found.setdefault(lack.rule, []).append(Finding("dependency", lack.rule, str(lack), lack.names))
    return [finding for rule in policy.rules for finding in found.get(rule.name, ())]


def _unreachable(rule: PolicyRule) -> Finding | None:
    if rule.applications is not None and not rule.applications:
        return Finding("unreachable", rule.name, f"rule {rule.name!r} names filters or groups that hold no application")
    if not boxes(rule.source, rule.destination):
        reason = f"rule {rule.name!r} has a source and a destination of different IP versions: nothing matches it"
        return Finding("unreachable", rule.name, reason)
    return None


class _Shade:
    def __init__(self, policy: Policy, applications: Mapping[str, Application]) -> None:
        self.policy = policy
        self.applications = applications
        self.index = RuleIndex(policy.rules)
        self.every_name = (*sorted(STATES), *applications)

    def finding(self, row: int, rule: PolicyRule) -> Finding | None:
        """Whether the rules before `row` leave anything to it."""
        if rule.implicit:
            return None  # it grants implicit use even where it matches nothing itself
        earlier = (1 << row) - 1
        earlier &= self.index.source.overlapping(rule.source) & self.index.destination.overlapping(rule.destination)
        earlier &= self._same_ports(rule)
        if not earlier:
            return None
        zones = (*self.policy.zones, None)
        shading: set[int] = set()
        for from_zone, to_zone in product(rule.from_ or zones, rule.to or zones):
            between = earlier & self.index.between(from_zone, to_zone)
            for name in self.every_name if rule.applications is None else sorted(rule.applications):
                rows = self._covering(rule, name, between & self.index.naming(name))
                if rows is None:
                    return None
                shading |= rows
        return self._told(rule, [self.policy.rules[i] for i in sorted(shading)])

    def _same_ports(self, rule: PolicyRule) -> int:
        """The rules whose service may hold all of this one's."""
        if isinstance(rule.service, str) or not rule.service:
            return -1
        first = rule.service[0]
        explicit = self.index.ports.find(first.proto, self.index.ports.stretch(first.proto, first.first))
        return self.index.any_service | self.index.default_service | explicit

    def _covering(self, rule: PolicyRule, name: str, candidates: int) -> set[int] | None:
        """The rules that leave nothing of flows of this name to `rule`; None if something is left, or may be."""
        pieces, used = boxes(rule.source, rule.destination), set()
        for row in rows_of(candidates):
            other = self.policy.rules[row]
            if other.schedule not in (None, rule.schedule) or not self._decides(other, rule, name):
                continue
            for box in boxes(other.source, other.destination):
                left = subtract(pieces, box)
                if left != pieces:
                    used.add(row)
                pieces = left
            if not pieces:
                return used
            if len(pieces) > MAX_PIECES:
                return None
        return None

    def _decides(self, other: PolicyRule, rule: PolicyRule, name: str) -> bool:
        """Whether `other` holds for every service and origin for which `rule` holds, for flows of this name."""
        application = self.applications.get(name)
        foreseen_only = application is not None and application.inbound == "foreseen"
        if foreseen_only and _allows_by_name(other) and not _allows_by_name(rule):
            return False  # point 3: what began outside is left to `rule`
        if other.service == "any":
            return True
        standard = application.default_ports if application is not None else ()
        if other.service == "application-default":
            if not standard or rule.service == "application-default":
                return True
            return not isinstance(rule.service, str) and all(covers(standard, ports) for ports in rule.service)
        # application-default also holds for foreseen flows, on any port (point 4), so explicit ports never cover it.
        return not isinstance(rule.service, str) and all(covers(other.service, ports) for ports in rule.service)

    def _told(self, rule: PolicyRule, others: Iterable[PolicyRule]) -> Finding:
        names = tuple(other.name for other in others)
        by = ", ".join(repr(name) for name in names)
        against = [other for other in others if other.action != rule.action]
        if against:
            said = f"rule {rule.name!r} ({rule.action}) never decides: contradicts {by} before it ({against[0].action})"
            return Finding("contradiction", rule.name, said, names)
        return Finding("shadowed", rule.name, f"rule {rule.name!r} never decides: shadowed by {by}", names)


def _allows_by_name(rule: PolicyRule) -> bool:
    return rule.action == "allow" and rule.applications is not None
