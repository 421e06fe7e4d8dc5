"""What a policy lacks for the applications that it allows (policy.md point 7).

In: a policy, the applications. Out: Missing, per rule and application: the names that it depends on and that are not
allowed for the same zones, source and destination. A warning; it grants nothing.

A rule for any application allows each one of which it holds all standard ports; so do the defaults, as a last rule.
Where an application is refused, it needs nothing. Answers are exact over zones and addresses, but for policies so
entangled that it would take too long: then the warning is given. Of rules for ports of their own, those count as
allowing a name that hold all its standard ports, and as refusing it that hold any.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from appid.identify.application import Application
from appid.policy.index import cover, merged
from appid.policy.mask import lowest, rows_of
from appid.policy.rule import DEFAULTS, Policy, PolicyRule
from appid.policy.space import Remainder, Space, Spaces


class Missing(NamedTuple):
    """`rule` (or the defaults) allows `application`, which needs each of `names`."""

    rule: str
    application: str
    names: tuple[str, ...]

    def __str__(self) -> str:
        by = "the defaults allow" if self.rule == DEFAULTS else f"rule {self.rule!r} allows"
        return f"{by} {self.application}, which depends on {', '.join(self.names)}: not allowed there"


def missing(policy: Policy, applications: Mapping[str, Application]) -> list[Missing]:
    """In the order of the rules, the defaults last, then of names."""
    spaces = Spaces(with_defaults(policy))
    survey = Survey(spaces, applications)
    return [lack for row in range(len(spaces.rules)) for lack in survey.missing(Space(spaces, row))]


def with_defaults(policy: Policy) -> tuple[PolicyRule, ...]:
    """The rules, and what the defaults allow as one more."""
    if policy.default_action != "allow":
        return policy.rules
    return (*policy.rules, PolicyRule(DEFAULTS, "allow", service="any"))


class _Holding(NamedTuple):
    """The rules for flows of a name: on all of its standard ports, on some; of the first that allow, of the others that
    refuse."""

    every: int
    some: int
    allowing: int
    refusing: int


class Survey:
    """Of the rules of `spaces`, the defaults among them."""

    def __init__(self, spaces: Spaces, applications: Mapping[str, Application]) -> None:
        self.applications = applications
        self.dependent = [each for each in applications.values() if each.depends_on]
        self.index = spaces.index
        self.known: dict[str, _Holding] = {}

    def missing(self, space: Space) -> Iterator[Missing]:
        """What this rule's applications lack, by their names."""
        if space.rule.action == "allow":
            for application in self.allowed(space):
                known: dict[tuple[int, bool], bool] = {}
                names = tuple(name for name in application.depends_on if self._lacks(space, application, name, known))
                if names:
                    yield Missing(space.rule.name, application.name, names)

    def allowed(self, space: Space) -> Iterator[Application]:
        """The applications with dependencies that a rule which allows is for, by name."""
        rule = space.rule
        for application in self.dependent:
            if rule.applications is not None:
                if application.name in rule.applications:
                    yield application
            elif isinstance(rule.service, str) or cover(
                self.index.ports.merged[space.row], merged(application.default_ports)
            ):
                yield application

    def _lacks(self, space: Space, application: Application, name: str, known: dict[tuple[int, bool], bool]) -> bool:
        """The same for names that the same rules are for (`known`)."""
        implicit = space.rule.implicit and any(entry.application == name for entry in application.implicit)
        wanted = self._holding(name)
        key = id(wanted), implicit
        if key not in known:
            known[key] = self.lacks(space, application, wanted, implicit)
        return known[key]

    def lacks(self, space: Space, application: Application, wanted: _Holding, implicit: bool) -> bool:
        """Whether the application, where this rule allows it, must do without what is `wanted`, somewhere. `implicit`:
        it is granted where no rule matches."""
        rule, index = space.rule, self.index
        allowing = wanted.allowing & space.meeting & index.always_or(rule.schedule)
        if not allowing and not implicit:
            return True
        whole = allowing & space.covering
        refusing = wanted.refusing & space.meeting
        if not refusing and (whole or implicit):
            return False
        # Rules after the first that allows it everywhere do not matter.
        within = (1 << lowest(whole)) - 1 if whole else -1
        refusing &= within
        needless = refusing & space.before & self._holding(application.name).some  # they refuse both
        if refusing == needless and (whole or implicit):
            return False
        if self._seen(space, application, allowing | refusing, implicit):
            return True
        asleep = needless & ~index.always_or(None)  # whenever they refuse it, they refuse the application
        deciding = (allowing & (within | whole)) | (refusing & ~asleep)
        rest = self._needed(space, application)
        for other in rows_of(deciding):
            if (index.allowing | needless) >> other & 1:
                rest.take(other)
            elif rest.meets(other):
                return True
            if rest.given_up or not rest.pieces:
                return rest.given_up
        return not implicit

    def _seen(self, space: Space, application: Application, deciding: int, implicit: bool) -> bool:
        """Whether one place shows it: this rule is the first rule for the application there, and refusal or nothing
        decides about what it depends on."""
        some = self._holding(application.name).some
        for place in space.witnesses():
            first, decided = place & some, place & deciding
            if first and lowest(first) == space.row:
                if not decided and not implicit:
                    return True
                if decided and not self.index.allowing >> lowest(decided) & 1:
                    return True
        return False

    def _needed(self, space: Space, application: Application) -> Remainder:
        """The space without what earlier rules decide about the application."""
        rest = Remainder(space.spaces.boxes, space.row)
        earlier = space.meeting & space.before & self._holding(application.name).every
        for other in rows_of(earlier & self.index.always_or(space.rule.schedule)):
            rest.take(other)
            if rest.given_up:
                return Remainder(space.spaces.boxes, space.row)
        return rest

    def _holding(self, name: str) -> _Holding:
        known = self.known.get(name)
        if known is None:
            index = self.index
            every, some = -1, 0
            application = self.applications.get(name)
            for ports in application.default_ports if application is not None else ():
                held = index.ports.holding(ports)
                some, every = some | held[0], every & held[1]
            naming = index.naming(name)
            every, some = naming & (every | index.named_service), naming & (some | index.named_service)
            made = _Holding(every, some, every & index.allowing, some & ~index.allowing)
            known = self.known[name] = next((one for one in self.known.values() if one == made), made)
        return known
