"""The tables of the policy file, each for itself: which keys they have and how their values are written
(docs/reference/policy.md). What names mean from one table to another is policy_file.py's.

In: a table of TOML. Out: a model of it, or pydantic's faults; the JSON Schema of all of them.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, get_args
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, WithJsonSchema

from appid.edge import toml_values
from appid.identify.application import AlgFunction, Application, PortRange
from appid.policy.evaluate import IMPLICIT
from appid.policy.rule import DEFAULTS, UNDECIDED_PACKETS, PacketMark

ANY = "any"
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = get_args(Day)

_INTERFACE = r"""(?![-!]|\.\.?$)[!#-&(-*,-.0-9;-\[\]-~]{1,15}"""
"""What the kernel takes as a name and iptables as one word."""
_UNSEEN = (
    r"\u0000-\u001f\u007f-\u00a0\u00ad\u061c\u1680\u180e\u2000-\u200f\u2028-\u202f"
    r"\u205f-\u206f\u3000\ufeff\ufff9-\ufffb"
)
_RULE_NAME = rf"(?!defaults$|implicit: )[^\s{_UNSEEN}]([^{_UNSEEN}]*[^\s{_UNSEEN}])?"
"""Nothing that does not show, or that turns what follows around."""

Action = Literal["allow", "deny", "drop"]


def group_name(text: str) -> str:
    if text == ANY:
        raise ValueError("'any' is everything; choose another name")
    return toml_values.name(text)


_NAME = toml_values.NAME.pattern


def _listed(value: Any) -> Any:
    """`any`, or leaving the key out, is the empty list; one value is a list of one."""
    if value == ANY or value == [ANY]:
        return []
    if value == []:
        raise ValueError('is empty; leave it out, or write "any", where everything is meant')
    return [value] if isinstance(value, str) else value


def _network_text(text: str) -> str:
    toml_values.network(text)
    return text


def _rule_name(text: str) -> str:
    if text == DEFAULTS or text.startswith(IMPLICIT):
        raise ValueError(f"{text!r} is how decisions of others are told; choose another name")
    if text and re.fullmatch(_RULE_NAME, text) is None:
        raise ValueError(f"{text!r} is no name: printable text, without blanks at its ends")
    return text


def _interface(text: str) -> str:
    if re.fullmatch(_INTERFACE, text) is None:
        raise ValueError(f"{text!r} is no interface: at most 15 ASCII characters, no blanks, no / : + or quotes")
    return text


def _service(value: Any) -> Any:
    if value in (ANY, "application-default"):
        return value
    return _port_ranges(value, 'write "application-default", "any", or ports such as ["tcp/443", "udp/3478-3497"]')


def _ports(value: Any) -> Any:
    return () if value == ANY else _port_ranges(value, 'write ports such as ["tcp/443", "udp/3478-3497"]')


def _port_ranges(value: Any, instead: str) -> tuple[PortRange, ...]:
    ports = [value] if isinstance(value, str) else value
    if not isinstance(ports, list) or not ports or not all(isinstance(port, str) for port in ports):
        raise ValueError(instead)
    found, faults = list[PortRange](), list[str]()
    for port in ports:
        try:
            found.append(toml_values.port_range(port))
        except ValueError as error:
            faults.append(str(error))
    if faults:
        raise ValueError("; ".join(faults))
    return tuple(found)


def _minute(text: Any) -> Any:
    if not isinstance(text, str) or re.fullmatch(_TIME_OF_DAY, text) is None:
        raise ValueError(f"{text!r} is no time of day; write 08:00")
    return int(text[:2]) * 60 + int(text[3:])


def _timezone(text: Any) -> Any:
    try:
        return ZoneInfo(text)
    except (KeyError, OSError, ValueError, TypeError):
        raise ValueError(f"{text!r} is no time zone; write Europe/Berlin") from None


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
    mark = PacketMark(-1, 0)
    if isinstance(text, str) and re.fullmatch(_MARK, text):
        given, _, masked = text.partition("/")
        mark = PacketMark(int(given, 0), int(masked or "0xffffffff", 0))
    if not (0 <= mark.value <= 0xFFFFFFFF and 0 < mark.mask <= 0xFFFFFFFF) or mark.value & ~mark.mask:
        raise ValueError(f'{value!r} is no mark; write "0x10/0xf0": a value within its mask, 32 bits')
    return mark


DSCP = {
    "cs0": 0, "cs1": 8, "cs2": 16, "cs3": 24, "cs4": 32, "cs5": 40, "cs6": 48, "cs7": 56,
    "af11": 10, "af12": 12, "af13": 14, "af21": 18, "af22": 20, "af23": 22, "af31": 26, "af32": 28, "af33": 30,
    "af41": 34, "af42": 36, "af43": 38, "ef": 46, "va": 44, "le": 1,
}  # fmt: skip
_NUMBER = "(0[xX][0-9a-fA-F]{1,8}|[1-9][0-9]{0,9}|0)"
_MARK = f"{_NUMBER}(/{_NUMBER})?"
_TIME_OF_DAY = "([01][0-9]|2[0-3]):[0-5][0-9]|24:00"
_PORT = "([0-9]{1,4}|[0-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
_ADDRESS = (
    r"[0-9]{1,3}(\.[0-9]{1,3}){3}(/[0-9]{1,2})?"  # IPv4
    "|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*(/[0-9]{1,3})?"
)


# What an editor can tell of a value by itself: not that host bits are zero, or ports in order, or that a name is known.


def _pattern(expression: str) -> dict[str, Any]:
    return {"type": "string", "pattern": f"^({expression})$"}


def _one_or_more(item: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [item, {"type": "array", "items": item, "minItems": 1}]}


_PORT_LIST = _one_or_more(_pattern(f"(tcp|udp)/{_PORT}(-{_PORT})?"))

Names = Annotated[list[str], BeforeValidator(_listed), WithJsonSchema(_one_or_more(_pattern(_NAME)))]
Places = Annotated[list[str], BeforeValidator(_listed), WithJsonSchema(_one_or_more(_pattern(f"{_NAME}|{_ADDRESS}")))]
Minute = Annotated[int, BeforeValidator(_minute), WithJsonSchema(_pattern(_TIME_OF_DAY))]
TimeZone = Annotated[Any, BeforeValidator(_timezone), WithJsonSchema(_pattern("[A-Za-z0-9_+/-]+"))]
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
        {
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": 0xFFFFFFFF},
                _pattern(_MARK),
            ]
        }
    ),
]
Ports = Annotated[Any, BeforeValidator(_ports), WithJsonSchema({"anyOf": [{"enum": [ANY]}, *_PORT_LIST["anyOf"]]})]
Name = Annotated[str, AfterValidator(group_name), WithJsonSchema(_pattern(f"(?!{ANY}$){_NAME}"))]
Network = Annotated[str, AfterValidator(_network_text), WithJsonSchema(_pattern(_ADDRESS))]
Interface = Annotated[str, AfterValidator(_interface), WithJsonSchema(_pattern(_INTERFACE))]
RuleName = Annotated[
    str,
    Field(min_length=1, max_length=100),
    AfterValidator(_rule_name),
    WithJsonSchema({**_pattern(_RULE_NAME), "maxLength": 100}),
]
NetworkList = Annotated[list[Network], Field(min_length=1)]
"""Of an address group: an empty one would make a rule hold everywhere."""
Budget = Annotated[int, Field(ge=0, le=1000)]


_IMPLICIT: dict[str, Any] = {"properties": {"implicit": {"const": True}}, "required": ["implicit"]}
_IMPLICIT_NEEDS: dict[str, Any] = {"properties": {"action": {"const": "allow"}}, "required": ["applications"]}


class Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, populate_by_name=False)


class ZoneTable(Table):
    interfaces: list[Interface] = []
    outside: bool | None = None
    networks: list[Network] = []
    undecided_packets: Budget | None = None


class DefaultsTable(Table):
    action: Action = "deny"
    undecided_packets: Budget = UNDECIDED_PACKETS
    log: bool = True
    capture_unknown: bool = True
    timezone: TimeZone = None


class FilterTable(Table):
    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    category: Annotated[list[str], Field(min_length=1)] | None = None
    risk: Annotated[list[Annotated[int, Field(ge=1, le=5)]], Field(min_length=1)] | None = None
    characteristic: Annotated[list[str], Field(min_length=1)] | None = None

    def holds(self, application: Application) -> bool:
        return (
            (not self.category or application.category in self.category)
            and (not self.risk or application.risk in self.risk)
            and (not self.characteristic or bool(set(self.characteristic) & set(application.characteristics)))
        )


class ScheduleTable(Table):
    days: Annotated[list[Day], Field(min_length=1)] = list(DAYS)
    start: Annotated[Minute, Field(alias="from")] = 0
    end: Annotated[Minute, Field(alias="to")] = 24 * 60
    timezone: TimeZone = None


class RuleTable(Table):
    model_config = ConfigDict(json_schema_extra={"if": _IMPLICIT, "then": _IMPLICIT_NEEDS})

    name: RuleName
    action: Action
    from_: Annotated[Names, Field(alias="from")] = []
    to: Names = []
    source: Places = []
    destination: Places = []
    applications: Names = []
    service: ServiceText = None  # left out: application-default to allow, any to refuse
    schedule: ScheduleTable | None = None
    implicit: bool = False
    alg: Annotated[bool | list[AlgFunction], BeforeValidator(toml_values.alg_given)] = True
    log: bool = True
    dscp: Dscp = None
    mark: Mark = None
    capture_unknown: bool = True


class OverrideTable(Table):
    model_config = ConfigDict(
        json_schema_extra={"anyOf": [{"required": [key]} for key in ("source", "destination", "ports")]}
    )

    application: Annotated[str, WithJsonSchema(_pattern(_NAME))]
    source: Places = []
    destination: Places = []
    ports: Ports = []


class GroupsTable(Table):
    addresses: dict[Name, NetworkList] = {}
    applications: dict[Name, list[Annotated[str, WithJsonSchema(_pattern(_NAME))]]] = {}
    filters: dict[Name, FilterTable] = {}


_STRICT = ConfigDict(strict=True)
GROUPS: dict[str, TypeAdapter[dict[str, Any]]] = {
    "addresses": TypeAdapter(dict[str, NetworkList], config=_STRICT),
    "applications": TypeAdapter(dict[str, list[str]], config=_STRICT),
}
"""What the tables of groups hold, but filters, which are tables themselves."""


class Document(Table):
    """The policy file of appid. Names of zones, groups and applications are checked when it is loaded."""

    zones: dict[Name, ZoneTable] = {}
    defaults: DefaultsTable = DefaultsTable()
    groups: GroupsTable = GroupsTable()
    rule: list[RuleTable] = []
    override: list[OverrideTable] = []


def schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of the policy file, made from what reads it."""
    made = Document.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_plain(made), "title": "appid policy"}


def _plain(value: Any) -> Any:
    """Without pydantic's titles (names of classes and keys again) and its nulls: TOML has none."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if not isinstance(value, dict):
        return value
    if "patternProperties" in value:  # pydantic's way to say it lets all other names through
        ((pattern, one),) = value.pop("patternProperties").items()
        value |= {"propertyNames": {"pattern": pattern}, "additionalProperties": one}
    kinds = [one for one in value.get("anyOf", ()) if one != {"type": "null"}]
    if len(kinds) == 1:
        value = {**{key: one for key, one in value.items() if key != "anyOf"}, **kinds[0]}
    return {
        key: _plain(one)
        for key, one in value.items()
        if not (key == "title" and isinstance(one, str)) and not (key == "default" and one is None)
    }
