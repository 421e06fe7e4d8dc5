"""The policy file: policy.toml -> Policy (docs/reference/policy.md is the format).

In: the file, and the applications that its rules may name. Out: a Policy with groups and filters expanded,
or RuleErrors with every fault of the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from appid.edge import toml_values
from appid.edge.errors import RuleError, RuleErrors, of_validation
from appid.edge.toml_values import read_toml
from appid.identify.application import Application
from appid.identify.identification import STATES
from appid.policy.rule import (
    UNDECIDED_PACKETS,
    Network,
    Override,
    PacketMark,
    Policy,
    PolicyRule,
    Qos,
    Schedule,
    Service,
    Zone,
)

ANY = "any"
UNNAMED = "(unnamed)"
RULE_NAMES = frozenset(STATES - {"not-applicable"})
"""The states that rules may name like applications (point 2)."""
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
_DAYS: tuple[Day, ...] = get_args(Day)
_LOCAL_TIME = Path("/etc/localtime")

Name = Annotated[str, AfterValidator(toml_values.name)]
Action = Literal["allow", "deny", "drop"]


def _listed(value: Any) -> Any:
    """`any`, or leaving the key out, is the empty list; one value is a list of one."""
    if value == ANY or value == [ANY]:
        return []
    return [value] if isinstance(value, str) else value


def _network_text(text: str) -> str:
    toml_values.network(text)
    return text


def _service(value: Any) -> Any:
    if value in (ANY, "application-default"):
        return value
    ports = [value] if isinstance(value, str) else value
    if not isinstance(ports, list) or not ports or not all(isinstance(port, str) for port in ports):
        raise ValueError('write "application-default", "any", or ports such as ["tcp/443", "udp/3478-3497"]')
    return tuple(toml_values.port_range(port) for port in ports)


def _minute(text: Any) -> Any:
    found = re.fullmatch(r"([01]\d|2[0-4]):([0-5]\d)", text) if isinstance(text, str) else None
    minute = int(found[1]) * 60 + int(found[2]) if found else -1
    if not 0 <= minute <= 24 * 60:
        raise ValueError(f"{text!r} is no time of day; write 08:00")
    return minute


def _timezone(text: Any) -> Any:
    try:
        return ZoneInfo(text)
    except (KeyError, OSError, ValueError, TypeError):
        raise ValueError(f"{text!r} is no time zone; write Europe/Berlin") from None


def _ports(value: Any) -> Any:
    listed = [value] if isinstance(value, str) else value
    return listed if listed == [] else _service(listed)


def _dscp(value: Any) -> Any:
    """A name of the registry (RFC 2474, 2597, 3246, 5865, 8622) or the number itself."""
    if isinstance(value, str) and value in DSCP:
        return DSCP[value]
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 63:
        raise ValueError(f"{value!r} is no DSCP: 0 to 63, or one of {', '.join(DSCP)}")
    return value


def _packet_mark(value: Any) -> Any:
    """ "0x10/0xf0", "0x10" or 16: bits to set, and which of them count (all)."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    try:
        given, _, masked = text.partition("/")
        mark = PacketMark(int(given, 0), int(masked or "0xffffffff", 0))
    except (AttributeError, ValueError):
        mark = PacketMark(-1, 0)
    if not (0 <= mark.value <= 0xFFFFFFFF and 0 < mark.mask <= 0xFFFFFFFF) or mark.value & ~mark.mask:
        raise ValueError(f'{value!r} is no mark; write "0x10/0xf0": a value within its mask, 32 bits')
    return mark


DSCP = {
    "cs0": 0, "cs1": 8, "cs2": 16, "cs3": 24, "cs4": 32, "cs5": 40, "cs6": 48, "cs7": 56,
    "af11": 10, "af12": 12, "af13": 14, "af21": 18, "af22": 20, "af23": 22, "af31": 26, "af32": 28, "af33": 30,
    "af41": 34, "af42": 36, "af43": 38, "ef": 46, "va": 44, "le": 1,
}  # fmt: skip
_TEXT: dict[str, Any] = {"type": "string"}
_PORTS: dict[str, Any] = {"type": "string", "pattern": "^(tcp|udp)/[0-9]{1,5}(-[0-9]{1,5})?$"}
_PORT_LIST: dict[str, Any] = {"anyOf": [_PORTS, {"type": "array", "items": _PORTS}]}
_TIME: dict[str, Any] = {"type": "string", "pattern": "^([01][0-9]|2[0-4]):[0-5][0-9]$"}

Names = Annotated[
    list[str],
    BeforeValidator(_listed),
    WithJsonSchema({"anyOf": [_TEXT, {"type": "array", "items": _TEXT}]}),
]
Minute = Annotated[int, BeforeValidator(_minute), WithJsonSchema(_TIME)]
TimeZone = Annotated[Any, BeforeValidator(_timezone), WithJsonSchema(_TEXT)]
ServiceText = Annotated[
    Any,
    BeforeValidator(_service),
    WithJsonSchema({"anyOf": [{"enum": [ANY, "application-default"]}, *_PORT_LIST["anyOf"]]}),
]
Dscp = Annotated[
    Any,
    BeforeValidator(_dscp),
    WithJsonSchema({"anyOf": [{"enum": list(DSCP)}, {"type": "integer", "minimum": 0, "maximum": 63}]}),
]
Mark = Annotated[
    Any,
    BeforeValidator(_packet_mark),
    WithJsonSchema(
        {"anyOf": [{"type": "integer"}, {"type": "string", "pattern": "^(0x)?[0-9a-f]+(/(0x)?[0-9a-f]+)?$"}]}
    ),
]
Ports = Annotated[Any, BeforeValidator(_ports), WithJsonSchema(_PORT_LIST)]
Budget = Annotated[int, Field(ge=0, le=1000)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, populate_by_name=False)


class _Zone(_Table):
    interfaces: list[str] = []
    networks: list[Annotated[str, AfterValidator(_network_text)]] = []
    undecided_packets: Budget | None = None


class _Defaults(_Table):
    action: Action = "deny"
    undecided_packets: Budget = UNDECIDED_PACKETS
    log: bool = True
    capture_unknown: bool = True
    timezone: TimeZone = None


class _Filter(_Table):
    category: list[str] = []
    risk: list[Annotated[int, Field(ge=1, le=5)]] = []
    characteristic: list[str] = []

    def holds(self, application: Application) -> bool:
        return (
            (not self.category or application.category in self.category)
            and (not self.risk or application.risk in self.risk)
            and (not self.characteristic or bool(set(self.characteristic) & set(application.characteristics)))
        )


class _Schedule(_Table):
    days: Annotated[list[Day], Field(min_length=1)] = list(_DAYS)
    start: Annotated[Minute, Field(alias="from")] = 0
    end: Annotated[Minute, Field(alias="to")] = 24 * 60
    timezone: TimeZone = None


class _Rule(_Table):
    name: Annotated[str, Field(min_length=1)]
    action: Action
    from_: Annotated[Names, Field(alias="from")] = []
    to: Names = []
    source: Names = []
    destination: Names = []
    applications: Names = []
    service: ServiceText = None  # left out: application-default to allow, any to refuse
    schedule: _Schedule | None = None
    implicit: bool = False
    alg: bool = True
    log: bool = True
    dscp: Dscp = None
    mark: Mark = None
    capture_unknown: bool = True


class _Override(_Table):
    application: str
    source: Names = []
    destination: Names = []
    ports: Ports = []

    @model_validator(mode="after")
    def bounded(self) -> _Override:
        if not self.destination and not self.ports and not self.source:
            raise ValueError("needs a source, a destination or ports: without them it would rename every flow")
        return self


class _Groups(_Table):
    addresses: dict[Name, list[Annotated[str, AfterValidator(_network_text)]]] = {}
    applications: dict[Name, list[str]] = {}
    filters: dict[Name, _Filter] = {}


class _File(_Table):
    """Each part is validated on its own, so that a fault in one does not hide those of the others."""

    zones: dict[Name, dict[str, Any]] = {}
    defaults: dict[str, Any] = {}
    groups: dict[str, Any] = {}
    rule: list[dict[str, Any]] = []
    override: list[dict[str, Any]] = []


_T = TypeVar("_T", bound=BaseModel)


class _Loader:
    """One load: collects faults, resolves names."""

    def __init__(self, file: str, applications: Mapping[str, Application]) -> None:
        self.file = file
        self.applications = applications
        self.errors: list[RuleError] = []
        self.zones: set[str] = set()
        self.groups = _Groups()
        self.timezone: tzinfo = UTC
        self.sets: dict[tuple[str, ...], frozenset[str]] = {}

    def fault(self, table: str, key: str, reason: str) -> None:
        self.errors.append(RuleError(self.file, table, key, reason))

    def table(self, model: type[_T], place: str, given: Any) -> _T | None:
        try:
            return model.model_validate(given)
        except ValidationError as error:
            self.errors += of_validation(self.file, error, place)
            return None

    def policy(self, tables: dict[str, Any]) -> Policy:
        file = self.table(_File, "", tables)
        if file is None:
            return Policy()
        zones = {n: self.table(_Zone, f"zones.{n}", given) for n, given in file.zones.items()}
        self.zones = set(zones)
        defaults = self.table(_Defaults, "defaults", file.defaults) or _Defaults()
        self.timezone = defaults.timezone or _local_timezone()
        self.groups = self.table(_Groups, "groups", file.groups) or _Groups()
        for name in self.groups.applications:
            self.application_names("groups.applications", name, self.groups.applications[name])
        rules = [self.rule(f"rule[{i}]", given) for i, given in enumerate(file.rule, 1)]
        self.same_names(rules)
        overrides = [self.override(f"override[{i}]", given) for i, given in enumerate(file.override, 1)]
        return Policy(
            rules=tuple(rules),
            zones={
                name: Zone(
                    name,
                    tuple(zone.interfaces),
                    tuple(toml_values.network(n) for n in zone.networks),
                    zone.undecided_packets,
                )
                for name, zone in zones.items()
                if zone is not None
            },
            default_action=defaults.action,
            default_log=defaults.log,
            undecided_packets=defaults.undecided_packets,
            overrides=tuple(override for override in overrides if override is not None),
            capture_unknown=defaults.capture_unknown,
        )

    def rule(self, place: str, given: dict[str, Any]) -> PolicyRule:
        rule = self.table(_Rule, place, given) or self.without_faults(given)
        for key, names in (("from", rule.from_), ("to", rule.to)):
            for zone in names:
                if zone not in self.zones:
                    self.fault(place, key, f"no zone {zone!r}")
        applications = self.applications_of(place, rule.applications)
        if rule.implicit and (rule.action != "allow" or not rule.applications):
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
            schedule=self.schedule(rule.schedule),
            implicit=rule.implicit,
            alg=rule.alg,
            log=rule.log,
            qos=Qos(rule.dscp, rule.mark) if rule.dscp is not None or rule.mark is not None else None,
            capture_unknown=rule.capture_unknown,
        )

    def override(self, place: str, given: dict[str, Any]) -> Override | None:
        override = self.table(_Override, place, given)
        if override is None:
            return None
        if override.application not in self.applications:
            self.fault(place, "application", f"no application {override.application!r}")
        return Override(
            override.application,
            self.networks(place, "source", override.source),
            self.networks(place, "destination", override.destination),
            tuple(override.ports),
        )

    def without_faults(self, given: dict[str, Any]) -> _Rule:
        """A faulty rule by its sound keys, so that the faults of those are told of too. Its policy is never used."""
        sound: dict[str, Any] = {"name": UNNAMED, "action": "allow"}
        for key, value in given.items():
            try:
                _Rule.model_validate({"name": UNNAMED, "action": "allow", key: value})
            except ValidationError:
                continue
            sound[key] = value
        return _Rule.model_validate(sound)

    def schedule(self, given: _Schedule | None) -> Schedule | None:
        if given is None:
            return None
        days = frozenset(_DAYS.index(day) for day in given.days)
        return Schedule(days, given.start, given.end, given.timezone or self.timezone)

    def networks(self, place: str, key: str, given: Iterable[str]) -> tuple[Network, ...]:
        found: list[Network] = []
        for text in given:
            try:
                found += [toml_values.network(n) for n in self.groups.addresses.get(text, [text])]
            except ValueError as error:
                self.fault(place, key, f"{error}; nor is it an address group")
        return tuple(dict.fromkeys(found))

    def applications_of(self, place: str, given: list[str]) -> frozenset[str]:
        """A rule's own list; rules that list the same share one set."""
        key = tuple(given)
        if key not in self.sets:
            faults = len(self.errors)
            names = frozenset(self.application_names(place, "applications", given))
            if len(self.errors) > faults:
                return names
            self.sets[key] = names
        return self.sets[key]

    def application_names(self, place: str, key: str, given: Sequence[str]) -> set[str]:
        """Names of applications and states, groups (also of groups) and filters -> plain names."""
        found: set[str] = set()
        seen: set[str] = set()
        frontier = list(given)
        while frontier:
            name = frontier.pop()
            if name in seen:
                continue
            seen.add(name)
            if name in self.groups.applications:
                frontier += self.groups.applications[name]
            elif (chosen := self.groups.filters.get(name)) is not None:
                found |= {one.name for one in self.applications.values() if chosen.holds(one)}
            elif name in self.applications or name in RULE_NAMES:
                found.add(name)
            elif name in given:  # a fault inside a group is told of at the group
                self.fault(place, key, f"no application, group or filter {name!r}")
        return found

    def same_names(self, rules: Iterable[PolicyRule]) -> None:
        taken: dict[str, int] = {}
        for i, rule in enumerate(rules, 1):
            if rule.name != UNNAMED and taken.setdefault(rule.name, i) != i:
                self.fault(f"rule[{i}]", "name", f"{rule.name!r} is rule[{taken[rule.name]}]'s name already")
        for kind, names in (("groups.applications", self.groups.applications), ("groups.filters", self.groups.filters)):
            for name in names:
                if name in self.applications or name in STATES:
                    self.fault(kind, name, "is the name of an application")


class _Document(_Table):
    """The policy file of appid. Names of zones, groups and applications are checked when it is loaded."""

    zones: dict[Name, _Zone] = {}
    defaults: _Defaults = _Defaults()
    groups: _Groups = _Groups()
    rule: list[_Rule] = []
    override: list[_Override] = []


def schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of the policy file, made from what reads it."""
    made = _Document.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_plain(made), "title": "appid policy"}


def _plain(value: Any) -> Any:
    """Without pydantic's titles (names of classes and keys again) and its nulls: TOML has none."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if not isinstance(value, dict):
        return value
    kinds = [one for one in value.get("anyOf", ()) if one != {"type": "null"}]
    if len(kinds) == 1:
        value = {**{key: one for key, one in value.items() if key != "anyOf"}, **kinds[0]}
    return {
        key: _plain(one)
        for key, one in value.items()
        if not (key == "title" and isinstance(one, str)) and not (key == "default" and one is None)
    }


def load_policy(path: Path, applications: Mapping[str, Application]) -> Policy:
    """The policy that the file holds, or RuleErrors with every fault in it; nothing takes effect by halves."""
    tables = read_toml(path)
    if isinstance(tables, RuleError):
        raise RuleErrors([tables])
    loader = _Loader(str(path), applications)
    policy = loader.policy(tables)
    if loader.errors:
        raise RuleErrors(loader.errors)
    return policy


def _local_timezone() -> tzinfo:
    try:
        with _LOCAL_TIME.open("rb") as file:
            return ZoneInfo.from_file(file, key=str(_LOCAL_TIME))
    except (OSError, ValueError):
        return UTC
