"""Findings about a policy that loads: dependencies, rules that never decide anything.

In: a policy, the applications. Out: Finding, in the order of the rules. A rule is called shadowed or contradicted only
where that is certain: taking it away changes no decision about any packet (what is uncertain is not told).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from appid.identify.application import Application
from appid.identify.identification import STATES
from appid.policy.box import boxes
from appid.policy.dependencies import Survey, with_defaults
from appid.policy.index import cover, merged
from appid.policy.mask import mask_of, rows_of
from appid.policy.overrides import idle_overrides
from appid.policy.places import empty_zones, known_sides, with_sides
from appid.policy.rule import Policy, PolicyRule
from appid.policy.space import PATIENCE, Remainder, Space, Spaces

Kind = Literal["zones", "dependency", "shadowed", "contradiction", "unreachable"]
_EMPTY = "it has neither interfaces nor networks, and what is in no zone's is in another"
_TRIED = 64
"""Rules with ports of their own that are looked at, one by one, for one that shadows alone."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A warning about `rule` ("" for zones; `override[2]` for the second override). `others`: the missing names of a
    dependency; the rules or overrides that shadow it; the zones in doubt.

    zones          which of them is outside is not known; or no packet is ever in one
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
    """Every finding: of zones, then by rule, a rule's dependencies last; the defaults come after, overrides at the
    end."""
    spaces = Spaces(with_defaults(policy))
    shade, survey = _Shade(spaces, applications), Survey(spaces, applications)
    dead = _Dead(policy, applications)
    found = _sides(policy)
    found += (Finding("zones", "", f"no packet is ever in zone {zone!r}: {_EMPTY}", (zone,)) for zone in dead.empty)
    for row, rule in enumerate(spaces.rules):
        space = Space(spaces, row)
        finding = (dead.finding(rule) or shade.finding(space)) if row < len(policy.rules) else None
        if finding is not None:
            found.append(finding)
            continue  # it never decides: what it allows depends on nothing
        found += (Finding("dependency", lack.rule, str(lack), lack.names) for lack in survey.missing(space))
    return found + list(_overrides(policy))


def _sides(policy: Policy) -> list[Finding]:
    names = tuple(zone.name for zone in with_sides(policy).zones.values() if zone.outside is None)
    if not names:
        return []
    said = f"which of the zones {', '.join(names)} is outside only a default route can tell: write outside = true"
    return [Finding("zones", "", said, names)]


def _overrides(policy: Policy) -> Iterable[Finding]:
    for row, others in idle_overrides(policy.overrides):
        application = policy.overrides[row].application
        name, by = f"override[{row + 1}]", tuple(f"override[{other + 1}]" for other in others)
        against = next((other for other in others if policy.overrides[other].application != application), None)
        said = f"{name} ({application}) never counts: "
        if not others:
            yield Finding("unreachable", name, f"{said}its source and destination are of different IP versions")
        elif against is None:
            yield Finding("shadowed", name, f"{said}shadowed by {', '.join(by)}", by)
        else:
            first = policy.overrides[against].application
            yield Finding("contradiction", name, f"{said}contradicts {', '.join(by)} before it ({first})", by)


class _Dead:
    """Rules that nothing can match, whatever the others are."""

    def __init__(self, policy: Policy, applications: Mapping[str, Application]) -> None:
        self.empty = empty_zones(policy)
        self.outside, self.inside = known_sides(policy)
        self.foreseen = {name for name, each in applications.items() if each.inbound == "foreseen"}

    def finding(self, rule: PolicyRule) -> Finding | None:
        reason = self._reason(rule)
        return None if reason is None else Finding("unreachable", rule.name, f"rule {rule.name!r} {reason}")

    def _reason(self, rule: PolicyRule) -> str | None:
        if rule.applications is not None and not rule.applications:
            return "names filters or groups that hold no application"
        if next(boxes(rule.source, rule.destination), None) is None:
            return "has a source and a destination of different IP versions: nothing matches it"
        for zones in (rule.from_, rule.to):
            if zones and all(zone in self.empty for zone in zones):
                return f"is for zones where no packet ever is ({', '.join(zones)}): nothing matches it"
        begun_outside = (
            rule.from_ and rule.to and self.outside.issuperset(rule.from_) and self.inside.issuperset(rule.to)
        )
        if begun_outside and _allows_by_name(rule) and self.foreseen.issuperset(rule.applications or ()):
            names = ", ".join(sorted(rule.applications or ()))
            return f"allows {names} from outside, which passes as its call does or not at all: it never decides"
        return None


class _Shade:
    def __init__(self, spaces: Spaces, applications: Mapping[str, Application]) -> None:
        self.rules = spaces.rules
        self.applications = applications
        self.index = spaces.index
        self._granting = mask_of(row for row, rule in enumerate(self.rules) if rule.implicit and rule.action == "allow")
        self._alike: dict[frozenset[str] | None, list[str]] = {}

    def finding(self, space: Space) -> Finding | None:
        """Whether the rules before this one leave anything to it."""
        rule = space.rule
        if rule.implicit and not self._granted(space):
            return None  # it grants implicit use even where it matches nothing itself
        if not all(space.before & place for place in islice(space.witnesses(), 1)):
            return None
        earlier = space.before & self.index.always_or(rule.schedule) & self._same_ports(rule)
        shading: set[int] = set()
        for name in self._names(rule.applications):
            candidates = earlier & self.index.naming(name) & self._deciding(space, name)
            rows = candidates and (self._alone(space, candidates) or self._together(space, candidates))
            if not rows:
                return None
            shading |= rows
        return self._told(rule, [self.rules[i] for i in sorted(shading)])

    def _granted(self, space: Space) -> bool:
        """Whether one rule before this one grants all that it grants implicitly (point 8): in all its space, at all its
        times, for all its applications."""
        rule = space.rule
        always = space.before & space.covering & self.index.always_or(rule.schedule)
        for row in islice(rows_of(always & self._granting), _TRIED):
            mine, theirs = rule.applications, self.rules[row].applications
            if mine == theirs or (mine is not None and theirs is not None and mine <= theirs):
                return True
        return False

    def _names(self, given: frozenset[str] | None) -> list[str]:
        """One of each kind of names that the rules treat alike; None: of all names. Those that few rules name come
        first: most rules decide something, and it shows there."""
        kinds = self._alike.get(given)
        if kinds is None:
            found: dict[tuple[object, ...], str] = {}
            for name in sorted({*STATES, *self.applications} if given is None else given):
                one = self.applications.get(name)
                traits = (one.default_ports, one.inbound) if one is not None else ()
                found.setdefault((self.index.naming(name), traits), name)
            kinds = self._alike[given] = sorted(found.values(), key=lambda name: name in self.index.named)
        return kinds

    def _same_ports(self, rule: PolicyRule) -> int:
        """The rules whose service may hold all of this one's."""
        index = self.index
        if isinstance(rule.service, str):
            return index.named_service
        explicit = -1
        for ports in rule.service:
            explicit &= index.ports.at(ports.proto, ports.first) & index.ports.at(ports.proto, ports.last)
        return index.named_service | explicit

    def _deciding(self, space: Space, name: str) -> int:
        """The rules that hold for every service and origin for which this one does, for flows of this name; of rules
        with ports of their own, all that may."""
        index, rule = self.index, space.rule
        mask = -1
        application = self.applications.get(name)
        standard = application.default_ports if application is not None else ()
        if standard and rule.service != "application-default":
            within = rule.service != "any" and cover(merged(standard), index.ports.merged[space.row])
            mask = mask if within else ~index.default_service
        if application is not None and application.inbound == "foreseen" and rule.action != "allow":
            mask &= ~index.allowing  # point 3: what began outside is left to `rule`
        return mask

    def _alone(self, space: Space, candidates: int) -> set[int] | None:
        """The first candidate that holds all of it."""
        for other in islice(rows_of(candidates & space.covering), _TRIED):
            if self._holds_ports(other, space.row):
                return {other}
        return None

    def _together(self, space: Space, candidates: int) -> set[int] | None:
        """The candidates that leave nothing of it; None if something is left, or may be."""
        if not all(candidates & place for place in space.witnesses()):
            return None
        rest, used = Remainder(space.spaces.boxes, space.row), set[int]()
        for other in islice(rows_of(candidates & space.meeting), PATIENCE):
            if self._holds_ports(other, space.row) and rest.take(other):
                used.add(other)
            if rest.given_up or not rest.pieces:
                break
        return None if rest.given_up or rest.pieces else used

    def _holds_ports(self, other: int, row: int) -> bool:
        """Of a rule with ports of its own: whether they hold all of this one's. application-default also holds for
        foreseen flows, on any port (point 4), so ports never cover it."""
        ports = self.index.ports.merged
        return other not in ports or (row in ports and cover(ports[other], ports[row]))

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
