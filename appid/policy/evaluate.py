"""What a policy says of a flow (docs/reference/policy.md, point by point).

In: where the flow's first packet stood (Situation), the flow's name, the names that it may still take. Out: a Decision,
or None: provisional, let this packet pass. A policy is compiled once; then a flow costs about the same under 10 rules
as under 10,000.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from appid.flow.key import FlowKey
from appid.identify.application import ALG, AlgFunction, Application, Implicit, PortRange
from appid.identify.identification import INCOMPLETE, INSUFFICIENT_DATA, UNKNOWN_IP, UNKNOWN_TCP, UNKNOWN_UDP
from appid.policy import Decision
from appid.policy.index import PortIndex, RuleIndex
from appid.policy.mask import lowest, mask_of
from appid.policy.overrides import Overrides
from appid.policy.places import Zones
from appid.policy.rule import DEFAULTS, Policy, PolicyRule
from appid.wire import TCP, UDP

UNKNOWN = {UDP: UNKNOWN_UDP, TCP: UNKNOWN_TCP}
_STATES = {UDP: (UNKNOWN_UDP, INSUFFICIENT_DATA), TCP: (UNKNOWN_TCP, INSUFFICIENT_DATA, INCOMPLETE)}
_MAX_PLACES = 0x10000
_MAX_CLASSES = 0x1000
_MINUTE = 60
IMPLICIT = "implicit: "
"""Before the rule's name, in a decision of point 8."""


Provisional = bool | frozenset[str]
"""Whether a name is judged while it may still shift: to any name (True), to one of these, or not at all."""


class Situation(NamedTuple):
    """What point 1 asks of a flow: everything is that of its first packet.

    key            its 5-tuple, from the side that sent the first packet
    from_zone, to_zone   Judge.zone_of of its two sides
    begun_outside  the first packet came from outside
    foreseen       an expectation of a call foresaw it
    call           that call's decision, where foreseen (point 4)
    now            seconds since the epoch, for schedules
    """

    key: FlowKey
    from_zone: str | None = None
    to_zone: str | None = None
    begun_outside: bool = False
    foreseen: bool = False
    call: Decision | None = None
    now: float = 0.0


class _Place(NamedTuple):
    """A situation as the compiled policy sees it: equal places get equal decisions for every name. `call`: of a flow
    begun outside that no call foresaw, where its inside host would stand as the one who began."""

    rules: int
    proto: int
    stretch: int
    call: _Place | None
    foreseen: bool


class _Grant(NamedTuple):
    """One [[implicit]] entry of an application, and the rules with `implicit = true` that name the application."""

    serves: str
    rules: int
    ports: tuple[PortRange, ...]
    provisional: bool
    foreseen_only: bool


class Judge:
    """A policy, compiled. Not changed by use, but for caches of bounded size."""

    def __init__(self, policy: Policy, applications: Mapping[str, Application]) -> None:
        self.policy = policy
        self.applications = applications
        rules = policy.rules
        self._decisions = [Decision(rule.action, rule.name) for rule in rules]
        self._rules = {rule.name: rule for rule in rules}
        self._default = Decision(policy.default_action, DEFAULTS)
        self._index = RuleIndex(rules, (ports for a in applications.values() for ports in _ports_of(a)))
        self._defaults = _stretches(applications, self._index.ports)
        self._scheduled = [(mask, each) for each, mask in self._index.schedules.items() if each is not None]
        self._grants = _grants(policy, applications, self._index.named)
        self._granting = mask_of(i for i, rule in enumerate(rules) if rule.implicit)
        self._asleep: dict[int, int] = {}
        self._classes: dict[int, int] = {}
        self._class_rules: list[int] = []
        self._cleared = 0
        self._places: dict[tuple[object, ...], int] = {}
        self._cache: dict[tuple[object, ...], Decision] = {}
        self._passing: dict[tuple[object, ...], bool] = {}
        self.zone_of = Zones(policy.zones.values()).of
        self.overridden = Overrides(policy).of
        self._outside = {name: zone.outside for name, zone in policy.zones.items()}
        self._budgets = {zone: policy.budget(zone) for zone in policy.zones}
        self._alg = {rule.name: rule.alg for rule in rules if rule.alg != ALG}
        classes = {qos: number for number, qos in enumerate(policy.qos, 1)}
        self._qos = {rule.name: classes[rule.qos] for rule in rules if rule.qos is not None}

    def budget(self, zone: str | None) -> int:
        """Policy.budget."""
        return self._budgets.get(zone, self.policy.undecided_packets)  # type: ignore[arg-type]

    def outside(self, zone: str | None) -> bool | None:
        """Whether the zone is outside; None where only addresses tell."""
        return self._outside.get(zone)  # type: ignore[arg-type]

    def alg(self, decision: Decision) -> frozenset[AlgFunction]:
        """What the ALG may do for calls under this decision."""
        return self._alg.get(decision.rule.removeprefix(IMPLICIT), ALG) if self._alg else ALG

    def qos_of(self, decision: Decision) -> int:
        """The QoS class of the flows that get this decision; 0: none."""
        return self._qos.get(decision.rule.removeprefix(IMPLICIT), 0) if self._qos else 0

    def first_match(self, situation: Situation, name: str, provisional: bool = False) -> Decision:
        """The decision for a flow of this name: the first rule that matches, else implicit use, else the defaults."""
        return self._first(self._place(situation), name, provisional)

    def judge(
        self, situation: Situation, name: str | None, still_possible: frozenset[str] | None, payload_packets: int
    ) -> Decision | None:
        """After each packet that userspace sees (point 2): a Decision, which stands; None: provisional, it passes.

        name             the last name of the flow's path, a state, or None where nothing is known yet
        still_possible   names that it may yet take; None: any; empty: the name stands
        payload_packets  those with payload so far, both directions, this one included; bare TCP handshakes do not count
        """
        if situation.foreseen and situation.call is not None:
            return situation.call
        place = self._place(situation)
        unnamed = name is None
        final = name or UNKNOWN.get(place.proto, UNKNOWN_IP)
        settled = still_possible is not None and not still_possible
        settled |= (
            unnamed and place.proto not in UNKNOWN
        )  # other protocols are named by their number, at once (point 9)
        if settled or payload_packets > self.budget(situation.from_zone):
            return self._first(place, final, False)
        key = (place, name, still_possible)
        passes = self._passing.get(key)
        if passes is None:
            candidates: Iterable[str] = self.applications if still_possible is None else still_possible
            own = _STATES[place.proto] if unnamed else (final,)
            open_to = True if still_possible is None else still_possible
            passes = any(self._first(place, one, open_to).action == "allow" for one in (*own, *candidates))
            if len(self._passing) >= _MAX_PLACES:
                self._passing.clear()
            self._passing[key] = passes
        return None if passes else self._first(place, final, False)

    def rule_of(self, decision: Decision) -> PolicyRule | None:
        """The rule behind a decision, also an implicit one; None for the defaults."""
        return self._rules.get(decision.rule.removeprefix(IMPLICIT))

    def _place(self, situation: Situation) -> _Place:
        key, cleared = situation.key, self._cleared
        call = self._place(_of_call(situation)) if situation.begun_outside and not situation.foreseen else None
        asleep = self._sleeping(situation.now) if self._scheduled else 0
        where = (situation.from_zone, situation.to_zone, key.src, key.dst, asleep)
        number = self._places.get(where)
        if number is None:
            number = self._classify(situation, asleep)
            if len(self._places) >= _MAX_PLACES:
                self._places.clear()
            self._places[where] = number
        if self._cleared != cleared:
            return self._place(situation)  # what `call` says holds no longer
        stretch = self._index.ports.stretch(key.proto, key.dport)
        return _Place(number, key.proto, stretch, call, situation.foreseen)

    def _classify(self, situation: Situation, asleep: int) -> int:
        """The rules that zones, addresses and schedule leave, as a small number."""
        key = situation.key
        rules = self._index.between(situation.from_zone, situation.to_zone)
        rules &= self._index.source.find(key.src)
        rules &= self._index.destination.find(key.dst) & ~asleep
        number = self._classes.get(rules)
        if number is None:
            if len(self._classes) >= _MAX_CLASSES:
                for cache in (self._classes, self._places, self._cache, self._passing):
                    cache.clear()
                self._class_rules.clear()
                self._cleared += 1
            number = self._classes[rules] = len(self._class_rules)
            self._class_rules.append(rules)
        return number

    def _sleeping(self, now: float) -> int:
        """The rules whose schedule is not active; schedules change by the minute."""
        minute = int(now // _MINUTE)
        mask = self._asleep.get(minute)
        if mask is None:
            mask = 0
            for rules, schedule in self._scheduled:
                if not schedule.active(now):
                    mask |= rules
            if len(self._asleep) >= _MAX_CLASSES:
                self._asleep.clear()
            self._asleep[minute] = mask
        return mask

    def _first(self, place: _Place, name: str, provisional: Provisional) -> Decision:
        key = (place, name, provisional)
        decision = self._cache.get(key)
        if decision is None:
            decision = self._decide(place, name, provisional)
            if len(self._cache) >= _MAX_PLACES:
                self._cache.clear()
            self._cache[key] = decision
        return decision

    def _decide(self, place: _Place, name: str, provisional: Provisional) -> Decision:
        rules = self._class_rules[place.rules]
        service = self._index.any_service | self._index.ports.find(place.proto, place.stretch)
        if place.foreseen or self._on_default_port(place, name):
            service |= self._index.default_service
        matching = rules & service & self._index.naming(name)
        unforeseen = place.call is not None and self._foreseen_only(name)
        if unforeseen:
            matching &= ~self._index.allowing  # point 3: no rule allows it; one that refuses it still does (point 6)
        if matching:
            return self._decisions[lowest(matching)]
        if rules & self._granting:
            granting = self._granted(place, name, provisional) & rules
            if granting:
                return Decision("allow", IMPLICIT + self.policy.rules[lowest(granting)].name)
        if unforeseen and place.call is not None and self._default.action == "allow":
            of_call = self._decide(place.call, name, provisional)
            if of_call.action != "allow":
                return of_call  # point 6: what is refused to a call is refused to the flows that its peer begins
        return self._default

    def _on_default_port(self, place: _Place, name: str) -> bool:
        """Point 5. What has no standard ports (a state, icmp) cannot be off them."""
        stretches = self._defaults.get(name)
        return stretches is None or (place.proto, place.stretch) in stretches

    def _foreseen_only(self, name: str) -> bool:
        application = self.applications.get(name)
        return application is not None and application.inbound == "foreseen"

    def _granted(self, place: _Place, name: str, provisional: Provisional) -> int:
        """Point 8: the rules with `implicit = true` that a flow of this name serves, here. What is granted only while
        provisional is granted no longer once the flow cannot become the application that it would serve."""
        rules = 0
        for grant in self._grants.get(name, ()):
            serves = provisional if isinstance(provisional, bool) else grant.serves in provisional
            if (grant.provisional and not serves) or (grant.foreseen_only and place.call is not None):
                continue
            if not grant.ports or any(
                ports.proto == place.proto
                and self._index.ports.stretch(ports.proto, ports.first) <= place.stretch
                and place.stretch < self._index.ports.stretch(ports.proto, ports.last + 1)
                for ports in grant.ports
            ):
                rules |= grant.rules
        return rules


def _of_call(at: Situation) -> Situation:
    """The flow as one of a call that its inside host began."""
    return at._replace(key=at.key.reversed(), from_zone=at.to_zone, to_zone=at.from_zone, foreseen=True, call=None)


def first_match(
    policy: Policy, applications: Mapping[str, Application], situation: Situation, name: str, provisional: bool = False
) -> Decision:
    """One question to a policy that is not compiled yet."""
    return Judge(policy, applications).first_match(situation, name, provisional)


def _ports_of(application: Application) -> Iterable[PortRange]:
    yield from application.default_ports
    for entry in application.implicit:
        yield from entry.ports


def _stretches(applications: Mapping[str, Application], ports: PortIndex) -> dict[str, frozenset[tuple[int, int]]]:
    return {
        name: frozenset(
            (r.proto, stretch)
            for r in application.default_ports
            for stretch in range(ports.stretch(r.proto, r.first), ports.stretch(r.proto, r.last + 1))
        )
        for name, application in applications.items()
        if application.default_ports
    }


def _grants(
    policy: Policy, applications: Mapping[str, Application], named: Mapping[str | None, int]
) -> dict[str, list[_Grant]]:
    granting = mask_of(i for i, rule in enumerate(policy.rules) if rule.implicit)
    naming = granting & ~named[None]
    grants: dict[str, list[_Grant]] = {}
    for name, application in applications.items():
        rules = named.get(name, 0) & naming
        if rules:
            for entry in application.implicit:
                grants.setdefault(entry.application, []).append(_grant(rules, entry, application))
    return grants


def _grant(rules: int, entry: Implicit, application: Application) -> _Grant:
    return _Grant(application.name, rules, entry.ports, entry.provisional, application.inbound == "foreseen")
