"""The policy file: policy.toml -> Policy (docs/reference/policy.md is the format, policy_tables.py its tables).

In: the file, and the applications that its rules may name. Out: a Policy with groups and filters expanded,
or RuleErrors with every fault of the file, and none that is only another one's consequence.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ValidationError

from appid.edge import toml_values
from appid.edge.errors import RuleError, RuleErrors, of_validation
from appid.edge.policy_tables import (
    DAYS,
    GROUPS,
    DefaultsTable,
    FilterTable,
    OverrideTable,
    RuleTable,
    ScheduleTable,
    ZoneTable,
    group_name,
)
from appid.edge.toml_values import read_toml
from appid.identify.application import Application
from appid.identify.identification import STATES
from appid.policy.rule import Network, Override, Policy, PolicyRule, Qos, Schedule, Service, Zone

UNNAMED = "(unnamed)"
RULE_NAMES = frozenset(STATES - {"not-applicable"})
"""The states that rules may name like applications (point 2)."""
_LOCAL_TIME = Path("/etc/localtime")
_TABLES: dict[str, type] = {"zones": dict, "defaults": dict, "groups": dict, "rule": list, "override": list}

_T = TypeVar("_T", bound=BaseModel)


class Loader:
    """One load: collects faults, resolves names. Each table is validated on its own, and a faulty one goes on by its
    sound keys, so that no fault hides another; the policy that comes of it is never used."""

    def __init__(self, file: str, applications: Mapping[str, Application], classes: int | None) -> None:
        self.file = file
        self.applications = applications
        self.classes = classes
        self.errors: list[RuleError] = []
        self.broken: set[str] = set()
        """Tables of whose content nothing is known."""
        self.zones: frozenset[str] = frozenset()
        self.timezone: tzinfo = UTC
        self.addresses: dict[str, tuple[Network, ...]] = {}
        self.faulty_filters: set[str] = set()
        self.named: dict[str, frozenset[str]] = {}
        """Groups and filters -> plain names."""
        self.sets: dict[tuple[str, ...], frozenset[str]] = {}
        self.lists: dict[tuple[str, ...], tuple[Network, ...]] = {}

    def fault(self, table: str, key: str, reason: str) -> None:
        self.errors.append(RuleError(self.file, table, key, reason))

    def policy(self, given: dict[str, Any]) -> Policy:
        tables = self.parts(given, _TABLES, "")
        zones = self.zones_of(tables["zones"])
        defaults, _ = self.table(DefaultsTable, "defaults", tables["defaults"], {})
        self.timezone = defaults.timezone or _local_timezone()
        self.groups(self.parts(tables["groups"], dict.fromkeys((*GROUPS, "filters"), dict), "groups"))
        rules = [self.rule(f"rule[{i}]", one) for i, one in enumerate(tables["rule"], 1)]
        self.same_names(rules)
        self.too_many(rules)
        overrides = [self.override(f"override[{i}]", one) for i, one in enumerate(tables["override"], 1)]
        return Policy(
            rules=tuple(rules),
            zones=zones,
            default_action=defaults.action,
            default_log=defaults.log,
            undecided_packets=defaults.undecided_packets,
            overrides=tuple(overrides),
            capture_unknown=defaults.capture_unknown,
        )

    def parts(self, given: dict[str, Any], kinds: Mapping[str, type], place: str) -> dict[str, Any]:
        """The tables of a table, those that are missing or no tables empty."""
        for key in given:
            if key not in kinds:
                self.fault(place, key, "no such key")
        found: dict[str, Any] = {}
        for key, kind in kinds.items():
            found[key] = given.get(key, kind())
            if not isinstance(found[key], kind):
                self.fault(place, key, "should be a table" if kind is dict else f"should be tables: [[{key}]]")
                found[key] = kind()
                self.broken |= {place, key}
        return found

    def table(self, model: type[_T], place: str, given: Any, least: dict[str, Any]) -> tuple[_T, set[str]]:
        """The model of one table, and its faulty keys, which have their defaults in it; `least` stands for those that
        have none."""
        try:
            return model.model_validate(given), set()
        except ValidationError as error:
            if not isinstance(given, dict):
                self.fault(place, "", "should be a table")
                return model.model_validate(least), set(model.model_fields)
            self.errors += of_validation(self.file, error, place)
            faulty = {str(item["loc"][0]) for item in error.errors(include_url=False) if item["loc"]}
        sound = {key: value for key, value in given.items() if key not in faulty}
        return model.model_validate({**least, **sound}), faulty

    # -- zones and groups ------------------------------------------------------------------------------------------

    def zones_of(self, given: dict[str, Any]) -> dict[str, Zone]:
        self.zones = frozenset(given)
        zones, taken = {}, dict[object, str]()
        for name, one in given.items():
            self.own_name("zones", name)
            zone, _ = self.table(ZoneTable, f"zones.{name}", one, {})
            networks = tuple(toml_values.network(text) for text in zone.networks)
            zones[name] = Zone(name, tuple(zone.interfaces), networks, zone.undecided_packets, zone.outside)
            for key, values in (("interfaces", zone.interfaces), ("networks", zone.networks)):
                for value in dict.fromkeys(values):
                    other = taken.setdefault((key, value), name)
                    if other != name:
                        self.fault(f"zones.{name}", key, f"{value} is in zone {other!r} already")
        return zones

    def own_name(self, table: str, name: str) -> None:
        try:
            group_name(name)
        except ValueError as error:
            self.fault(table, name, str(error))

    def groups(self, given: dict[str, dict[str, Any]]) -> None:
        sound: dict[str, dict[str, Any]] = {}
        for kind, groups in given.items():
            place, sound[kind] = f"groups.{kind}", {}
            for name, one in groups.items():
                self.own_name(place, name)
                if kind == "filters":
                    sound[kind][name], faulty = self.table(FilterTable, f"{place}.{name}", one, {})
                    self.faulty_filters |= {name} if faulty else set()
                    continue
                try:
                    sound[kind] |= GROUPS[kind].validate_python({name: one})
                except ValidationError as error:
                    self.errors += of_validation(self.file, error, place)
                    sound[kind][name] = []
        self.addresses = {n: tuple(map(toml_values.network, texts)) for n, texts in sound["addresses"].items()}
        self.expand(sound["applications"], sound["filters"])

    def expand(self, groups: dict[str, list[str]], filters: dict[str, FilterTable]) -> None:
        """Each group's applications. Groups may hold one another, in a ring even: what one gains is handed on."""
        for kind, names in (("groups.applications", groups), ("groups.filters", filters)):
            for name in names:
                if name in self.applications or name in STATES:
                    self.fault(kind, name, "is the name of an application")
                elif kind == "groups.filters" and name in groups:
                    self.fault(kind, name, "is the name of a group of applications")
        held = {name: {a.name for a in self.applications.values() if one.holds(a)} for name, one in filters.items()}
        for name, one in filters.items():
            self.known_traits(name, one)
        holders: dict[str, list[str]] = {}
        for name, members in groups.items():
            held[name] = set()
            for member in dict.fromkeys(members):
                if member in groups or member in filters:
                    holders.setdefault(member, []).append(name)
                elif member in self.applications or member in RULE_NAMES:
                    held[name].add(member)
                elif not self.broken & {"filters", "applications"}:
                    self.fault("groups.applications", name, f"no application, group or filter {member!r}")
        changed = list(held)
        while changed:
            member = changed.pop()
            for name in holders.get(member, ()):
                if not held[member] <= held[name]:
                    held[name] |= held[member]
                    changed.append(name)
        self.named = {name: frozenset(names) for name, names in held.items()}

    def known_traits(self, name: str, given: FilterTable) -> None:
        """What no application has is a slip of the pen; so is a filter of nothing, which would hold them all."""
        if not given.category and not given.risk and not given.characteristic and name not in self.faulty_filters:
            self.fault("groups.filters", name, "needs a category, a risk or a characteristic")
        known = self.applications.values()
        categories = sorted({each.category for each in known})
        characteristics = sorted({one for each in known for one in each.characteristics})
        for key, values, there in (
            ("category", given.category, categories),
            ("characteristic", given.characteristic, characteristics),
        ):
            for value in values or ():
                if value not in there:
                    self.fault(
                        f"groups.filters.{name}", key, f"no application has {value!r}; there are {', '.join(there)}"
                    )

    # -- rules and overrides ---------------------------------------------------------------------------------------

    def rule(self, place: str, given: Any) -> PolicyRule:
        rule, faulty = self.table(RuleTable, place, given, {"name": UNNAMED, "action": "allow"})
        if "zones" not in self.broken:
            for key, names in (("from", rule.from_), ("to", rule.to)):
                for zone in names:
                    if zone not in self.zones:
                        self.fault(place, key, f"no zone {zone!r}")
        applications = self.applications_of(place, rule.applications)
        useless = rule.implicit and (rule.action != "allow" or not rule.applications)
        if useless and not faulty & {"action", "applications"}:
            self.fault(place, "implicit", 'goes with action = "allow" and named applications only')
        service: Service = rule.service
        if service is None:
            service = "application-default" if rule.action == "allow" else "any"
        return PolicyRule(
            name=rule.name,
            action=rule.action,
            from_=tuple(rule.from_),
            to=tuple(rule.to),
            source=self.networks(place, "source", rule.source),
            destination=self.networks(place, "destination", rule.destination),
            applications=applications if rule.applications else None,
            service=service,
            schedule=self.schedule(place, rule.schedule),
            implicit=rule.implicit,
            alg=toml_values.alg_functions(rule.alg),
            log=rule.log,
            qos=Qos(rule.dscp, rule.mark) if rule.dscp is not None or rule.mark is not None else None,
            capture_unknown=rule.capture_unknown,
        )

    def override(self, place: str, given: Any) -> Override:
        override, faulty = self.table(OverrideTable, place, given, {"application": UNNAMED})
        if override.application not in self.applications and override.application != UNNAMED:
            self.fault(place, "application", f"no application {override.application!r}")
        everything = not override.source and not override.destination and not override.ports
        if everything and not faulty & {"source", "destination", "ports"}:
            self.fault(place, "", "needs a source, a destination or ports: without them it would rename every flow")
        source = self.networks(place, "source", override.source)
        destination = self.networks(place, "destination", override.destination)
        return Override(override.application, source, destination, tuple(override.ports))

    def schedule(self, place: str, given: ScheduleTable | None) -> Schedule | None:
        if given is None:
            return None
        if given.start == given.end or (given.start, given.end) == (24 * 60, 0):
            self.fault(f"{place}.schedule", "to", "is the time of `from`: it would never hold")
        days = frozenset(DAYS.index(day) for day in given.days)
        return Schedule(days, given.start, given.end, given.timezone or self.timezone)

    def networks(self, place: str, key: str, given: list[str]) -> tuple[Network, ...]:
        """Rules that list the same share one tuple."""
        texts = tuple(given)
        if texts in self.lists:
            return self.lists[texts]
        found: dict[Network, None] = {}
        faults = len(self.errors)
        for text in texts:
            try:
                found |= dict.fromkeys(self.addresses[text] if text in self.addresses else (toml_values.network(text),))
            except ValueError as error:
                if not {"groups", "addresses"} & self.broken:
                    named = toml_values.NAME.fullmatch(text) is not None
                    self.fault(place, key, f"no address group {text!r}, nor a network" if named else str(error))
        networks = tuple(found)
        if len(self.errors) == faults:
            self.lists[texts] = networks
        return networks

    def applications_of(self, place: str, given: list[str]) -> frozenset[str]:
        """Names of applications and states, groups and filters -> plain names; rules that list the same share one
        set."""
        names = tuple(given)
        if names in self.sets:
            return self.sets[names]
        found: set[str] = set()
        faults = len(self.errors)
        for name in names:
            if name in self.named:
                found |= self.named[name]
            elif name in self.applications or name in RULE_NAMES:
                found.add(name)
            elif not self.broken & {"groups", "applications", "filters"}:
                self.fault(place, "applications", f"no application, group or filter {name!r}")
        if len(self.errors) == faults:
            self.sets[names] = frozenset(found)
        return frozenset(found)

    def same_names(self, rules: Iterable[PolicyRule]) -> None:
        taken: dict[str, int] = {}
        for i, rule in enumerate(rules, 1):
            if rule.name != UNNAMED and taken.setdefault(rule.name, i) != i:
                self.fault(f"rule[{i}]", "name", f"{rule.name!r} is rule[{taken[rule.name]}]'s name already")

    def too_many(self, rules: Sequence[PolicyRule]) -> None:
        """The connmark has room for so many different values."""
        seen: set[Qos] = set()
        for i, rule in enumerate(rules, 1):
            if rule.qos is None or rule.qos in seen or self.classes is None:
                continue
            seen.add(rule.qos)
            if len(seen) > self.classes:
                key = "dscp" if rule.qos.dscp is not None else "mark"
                reason = f"the {len(seen)}th different value of dscp and mark; qos_mask has room for {self.classes}"
                self.fault(f"rule[{i}]", key, reason)


def load_policy(path: Path, applications: Mapping[str, Application], classes: int | None = None) -> Policy:
    """The policy that the file holds, or RuleErrors with every fault in it; nothing takes effect by halves. `classes`:
    how many different values of dscp and mark there is room for (Marks.classes); None: any number."""
    with uncollected():
        tables = read_toml(path)
        if isinstance(tables, RuleError):
            raise RuleErrors([tables])
        loader = Loader(str(path), applications, classes)
        policy = loader.policy(tables)
    if loader.errors:
        raise RuleErrors(loader.errors)
    return policy


@contextmanager
def uncollected() -> Iterator[None]:
    """All that is made while a file is read is kept: looking for garbage in it, again and again, is a tenth of it."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _HostsZone(ZoneInfo):
    """The host's time zone, where only a file says it. What the interpreter cannot pickle is read again."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _local_timezone, ()


def _local_timezone() -> tzinfo:
    try:
        with _LOCAL_TIME.open("rb") as file:
            return _HostsZone.from_file(file, key=str(_LOCAL_TIME))
    except (OSError, ValueError):
        return UTC
