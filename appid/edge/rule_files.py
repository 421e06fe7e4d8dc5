"""Application files: rules/apps/*.toml -> Application (docs/reference/application-files.md is the format).

In: the shipped folder and the operator's, whose file of a name replaces the shipped one. Out: applications by name, or
RuleErrors with every fault of every file. A file that `extends` an application holds one generation of its signatures
(docs/decisions/0012).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from appid.edge import toml_values
from appid.edge.errors import RuleError, RuleErrors, of_validation
from appid.edge.toml_values import read_toml
from appid.identify.application import (
    AlgFunction,
    Application,
    Condition,
    Implicit,
    Operator,
    PortRange,
    Scope,
    Signature,
)
from appid.identify.identification import STATES, Confidence
from appid.wire import FactValue

OPERATORS_NUMBERS = range(0x8000, 0x10000)
"""Numbers of the operator's own applications; the lower half belongs to the shipped ones."""

Name = Annotated[str, AfterValidator(toml_values.name)]


def _port_text(text: str) -> str:
    toml_values.port_range(text)
    return text


Ports = list[Annotated[str, AfterValidator(_port_text)]]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Match(_Table):
    """{ fact = "stun.method", is = "allocate" }: a fact and exactly one operator."""

    model_config = ConfigDict(extra="allow", strict=True)
    fact: Annotated[str, Field(pattern=r"^[a-z0-9]+(\.[a-z0-9_]+)+$")]

    @model_validator(mode="after")
    def one_operator(self) -> _Match:
        self.conditions()
        return self

    def conditions(self) -> list[Condition]:
        """One condition; several alternatives if `within` lists networks."""
        given = self.__pydantic_extra__ or {}
        if len(given) != 1 or not set(given) <= set(_OPERATORS):
            raise ValueError(f"needs exactly one of {', '.join(_OPERATORS)} beside `fact`")
        ((operator, value),) = given.items()
        return [Condition(self.fact, _OPERATORS[operator], one) for one in _operands(operator, value)]


_OPERATORS: dict[str, Operator] = {
    "is": "is", "in": "in", "has": "has", "lacks": "lacks",
    "prefix": "prefix", "suffix": "suffix", "length": "length", "within": "within",
}  # fmt: skip


def _operands(operator: str, value: Any) -> list[FactValue]:
    if operator == "within":
        return _ranges(value)
    plain = _plain(value)
    if operator == "in" and (not isinstance(value, list) or not value):
        raise ValueError("`in` needs a list of values")
    if operator in ("prefix", "suffix") and (not isinstance(plain, str | bytes) or not plain):
        raise ValueError(f"`{operator}` needs text or {{ hex = ... }}")
    if operator == "length" and (isinstance(plain, bool) or not isinstance(plain, int)):
        raise ValueError("`length` needs a number")
    return [plain]


def _plain(value: Any) -> FactValue:
    if isinstance(value, list):
        return tuple(_plain(one) for one in value)
    if isinstance(value, dict):
        if set(value) != {"hex"} or not isinstance(value["hex"], str):
            raise ValueError('a table as value is { hex = "2112a442" }')
        return bytes.fromhex(value["hex"])
    if not isinstance(value, bool | int | str):
        raise ValueError(f"{value!r} is no value of a fact")
    return value


def _ranges(value: Any) -> list[FactValue]:
    if isinstance(value, str):
        return [toml_values.network(value)]
    if isinstance(value, list) and value and all(isinstance(one, str) for one in value):
        return [toml_values.network(one) for one in value]
    if isinstance(value, list) and len(value) == 2 and all(isinstance(one, int) for one in value):
        if value[0] > value[1]:
            raise ValueError("`within` runs from the lower to the higher number")
        return [(value[0], value[1])]
    raise ValueError("`within` needs [low, high], a network, or a list of networks")


class _Signature(_Table):
    name: Name
    strength: Literal["conclusive", "strong", "supporting"]
    scope: Literal["packet", "flow", "host", "call"] = "packet"
    era: str | None = None
    date: str | None = None
    watch: bool | None = None
    source: str
    match: Annotated[list[_Match], Field(min_length=1)]

    @model_validator(mode="after")
    def something_present(self) -> _Signature:
        if all("lacks" in (match.__pydantic_extra__ or {}) for match in self.match):
            raise ValueError("a signature needs at least one condition that is not `lacks`")
        return self

    def signatures(self, file: _File) -> list[Signature]:
        """One, or several if a condition lists networks; what it does not say of its generation its file says."""
        strength: Confidence = self.strength
        scope: Scope = self.scope
        era, date = self.era or file.era or "", self.date or file.date or ""
        watch = self.watch if self.watch is not None else file.watch if isinstance(file, _Generation) else True
        return [
            Signature(self.name, strength, scope, conditions, self.source, era, date, watch)
            for conditions in product(*(match.conditions() for match in self.match))
        ]


class _Exclusion(_Signature):
    strength: Literal["conclusive", "strong", "supporting"] = "conclusive"


class _Implicit(_Table):
    application: Name
    ports: Ports = []
    provisional: bool = False


class _File(_Table):
    """What any file may say: its signatures, and of which generation they are unless one says otherwise."""

    name: Name
    era: str | None = None
    date: Annotated[str, Field(pattern=r"^\d{4}(-\d{2}(-\d{2})?)?$")] | None = None
    watch: bool = False
    references: list[str] = []
    signature: list[_Signature] = []
    excluded_by: list[_Exclusion] = []

    @model_validator(mode="after")
    def eras(self) -> _File:
        for one in (*self.signature, *self.excluded_by):
            if one.era is None and self.era is None:
                raise ValueError(f"{one.name!r} needs `era`, or the file for all of its signatures")
        return self


class _Generation(_File):
    """More signatures of the application that it extends. `watch`: whether this generation's signalling can be read."""

    extends: Name
    era: str


class _Application(_File):
    description: str
    category: str
    risk: Annotated[int, Field(ge=1, le=5)]
    number: Annotated[int, Field(ge=1, le=0xFFFF)] | None = None
    characteristics: list[str] = []
    may_become: list[Name] = []
    depends_on: list[Name] = []
    inbound: Literal["any", "foreseen"] = "any"
    kept_alive_by: list[Name] = []
    expect_from_channel_bind: bool = False
    alg: Annotated[bool | list[AlgFunction], BeforeValidator(toml_values.alg_given)] = True
    default_ports: Ports = []
    media_ports: Ports = []
    dialog_ports: Ports = []
    implicit: list[_Implicit] = []

    def application(self, number: int) -> Application:
        return Application(
            name=self.name,
            description=self.description,
            category=self.category,
            risk=self.risk,
            number=number,
            signatures=tuple(one for table in self.signature for one in table.signatures(self)),
            excluded_by=tuple(one for table in self.excluded_by for one in table.signatures(self)),
            may_become=tuple(self.may_become),
            depends_on=tuple(self.depends_on),
            implicit=tuple(Implicit(i.application, _port_ranges(i.ports), i.provisional) for i in self.implicit),
            characteristics=tuple(self.characteristics),
            inbound=self.inbound,
            default_ports=_port_ranges(self.default_ports),
            media_ports=_port_ranges(self.media_ports),
            dialog_ports=_port_ranges(self.dialog_ports),
            watch=self.watch,
            kept_alive_by=tuple(self.kept_alive_by),
            expect_from_channel_bind=self.expect_from_channel_bind,
            alg=toml_values.alg_functions(self.alg),
            references=tuple(self.references),
        )


def _port_ranges(ports: Iterable[str]) -> tuple[PortRange, ...]:
    return tuple(toml_values.port_range(text) for text in ports)


def shipped_rules() -> Path:
    """The folder that came with the program: appid/shipped in a wheel, rules/ in a source tree."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "shipped"
    return installed if installed.is_dir() else package.parent / "rules"


def load_applications(operators: Path | None = None, shipped: Path | None = None) -> dict[str, Application]:
    """Applications by name, sorted: the shipped files, then the operator's, which add and override by name.

    An operator's folder that does not exist adds nothing. RuleErrors names every fault of every file.
    """
    errors: list[RuleError] = []
    folders = [shipped or shipped_rules() / "apps"]
    if operators is not None and operators.is_dir():
        folders.append(operators)
    stems = {path.stem for folder in folders for path in folder.glob("*.toml")}
    generations: dict[str, tuple[str, _Generation]] = {}
    files = _read_folder(folders[0], errors, generations)
    vendor = {name: table.number for name, (_, table) in files.items()}
    own = _read_folder(folders[1], errors, generations) if len(folders) > 1 else {}
    files |= own
    applications: dict[str, Application] = {}
    for name, (file, table) in sorted(files.items()):
        number = table.number or vendor.get(name)
        if number is None:
            if name not in own:
                errors.append(RuleError(file, "", "number", "a shipped application needs a number"))
            number = _number_of(name)
        applications[name] = table.application(number)
    for _, (file, generation) in sorted(generations.items()):
        errors += _extend(applications, file, generation, stems)
    errors += _unknown_names(files, stems | set(files))
    errors += _shared_numbers(applications, files)
    if errors:
        raise RuleErrors(errors)
    return applications


def _extend(
    applications: dict[str, Application], file: str, generation: _Generation, known: set[str]
) -> list[RuleError]:
    """Add a generation's signatures to its application. `known`: names of broken files too, which are told of once."""
    base = applications.get(generation.extends)
    if base is None:
        there = generation.extends in known and generation.extends != generation.name
        return [] if there else [RuleError(file, "", "extends", f"no application {generation.extends!r}")]
    signatures = tuple(one for table in generation.signature for one in table.signatures(generation))
    excluded_by = tuple(one for table in generation.excluded_by for one in table.signatures(generation))
    taken = {one.name for one in (*base.signatures, *base.excluded_by)}
    named = dict.fromkeys(one.name for one in (*signatures, *excluded_by))
    applications[base.name] = replace(
        base,
        signatures=base.signatures + signatures,
        excluded_by=base.excluded_by + excluded_by,
        references=base.references + tuple(generation.references),
    )
    return [
        RuleError(file, name, "name", f"{base.name!r} has a signature of this name") for name in named if name in taken
    ]


def _read_folder(
    folder: Path, errors: list[RuleError], generations: dict[str, tuple[str, _Generation]]
) -> dict[str, tuple[str, _Application]]:
    """The applications of a folder; its files of single generations are added to `generations`."""
    found: dict[str, tuple[str, _Application]] = {}
    for path in sorted(folder.glob("*.toml")):
        tables = read_toml(path)
        if isinstance(tables, RuleError):
            errors.append(tables)
            continue
        kind: type[_Application | _Generation] = _Generation if "extends" in tables else _Application
        try:
            table = kind.model_validate(tables)
        except ValidationError as error:
            errors += of_validation(str(path), error)
            continue
        if table.name in STATES:
            errors.append(RuleError(str(path), "", "name", f"{table.name!r} is the name of a state"))
        elif table.name != path.stem:
            errors.append(RuleError(str(path), "", "name", f"is {table.name!r}; the file's name says {path.stem!r}"))
        elif isinstance(table, _Generation):
            generations[table.name] = (str(path), table)
        else:
            found[table.name] = (str(path), table)
    return found


def _number_of(name: str) -> int:
    """The operator's applications have stable numbers without writing any: a hash of the name."""
    digest = hashlib.sha256(name.encode()).digest()
    return OPERATORS_NUMBERS[int.from_bytes(digest[:4], "big") % len(OPERATORS_NUMBERS)]


def _unknown_names(files: dict[str, tuple[str, _Application]], known: set[str]) -> list[RuleError]:
    """`known` holds the names of broken files too: they are told of once."""
    errors = []
    for file, table in files.values():
        places = [("", "may_become", table.may_become), ("", "depends_on", table.depends_on)]
        places.append(("", "kept_alive_by", table.kept_alive_by))
        places += [(f"implicit[{i}]", "application", [row.application]) for i, row in enumerate(table.implicit, 1)]
        for place, key, names in places:
            errors += [RuleError(file, place, key, f"no application {n!r}") for n in names if n not in known]
    return errors


def _shared_numbers(
    applications: dict[str, Application], files: dict[str, tuple[str, _Application]]
) -> list[RuleError]:
    errors, taken = [], dict[int, str]()
    for name, application in applications.items():
        other = taken.setdefault(application.number, name)
        if other != name:
            file = files[name][0]
            reason = f"{application.number} is taken by {other!r}; write another one"
            errors.append(RuleError(file, "", "number", reason))
    return errors
