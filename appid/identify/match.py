"""Which signatures do these facts fulfil? Indexed: the cost follows a packet's facts, not the number of applications.

In: the facts of one packet, and the wider sets (flow, host, call) that scopes name. Out: Match values.

Each signature is filed under one condition, its anchor: the one that fewest other signatures share. Signatures wider
than a packet are filed under each positive condition, because any of them may be the last to come true.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from appid.evidence.ledger import FactSet
from appid.identify.application import Application, Condition, Scope, Signature
from appid.wire import Fact, FactValue

_Anchor = tuple[str, str, FactValue]


class Match(NamedTuple):
    application: str
    signature: Signature
    facts: tuple[Fact, ...]
    excludes: bool


class _Filed(NamedTuple):
    application: str
    signature: Signature
    excludes: bool


class Matcher:
    """All signatures of all applications, filed by anchor."""

    def __init__(self, applications: Iterable[Application]) -> None:
        filed = [
            _Filed(application.name, signature, excludes)
            for application in applications
            for excludes, signatures in ((False, application.signatures), (True, application.excluded_by))
            for signature in signatures
        ]
        shared = Counter(anchor for entry in filed for c in entry.signature.conditions for anchor in _anchors(c))
        self._exact: dict[tuple[str, FactValue], list[_Filed]] = {}
        self._present: dict[str, list[_Filed]] = {}
        self._affix: dict[str, dict[tuple[str, int], dict[FactValue, list[_Filed]]]] = {}
        self._length: dict[str, dict[int, list[_Filed]]] = {}
        self._range: dict[str, dict[int, list[_Filed]]] = {}
        self._network: dict[str, dict[tuple[int, int], dict[int, list[_Filed]]]] = {}
        for entry in filed:
            for condition in _filing(entry.signature, shared):
                self._file(condition, entry)

    def match(self, facts: list[Fact], wider: Mapping[Scope, FactSet]) -> list[Match]:
        """The signatures that hold with this packet; each at most once, in no promised order."""
        candidates: dict[int, _Filed] = {}
        for fact in facts:
            for entries in self._lookup(fact):
                for entry in entries:
                    candidates[id(entry)] = entry
        if not candidates:
            return []
        packet = FactSet(facts)
        found = []
        for application, signature, excludes in candidates.values():
            scope = packet if signature.scope == "packet" else wider.get(signature.scope)
            if scope is None:
                continue
            reasons = holding(signature, scope)
            if reasons is not None:
                found.append(Match(application, signature, reasons, excludes))
        return found

    def _lookup(self, fact: Fact) -> Iterator[list[_Filed]]:
        name, value = fact
        if (entries := self._exact.get((name, value))) is not None:
            yield entries
        if (entries := self._present.get(name)) is not None:
            yield entries
        if isinstance(value, str | bytes):
            for (operator, size), table in self._affix.get(name, {}).items():
                part = value[:size] if operator == "prefix" else value[-size:]
                if (entries := table.get(part)) is not None:
                    yield entries
            if (lengths := self._length.get(name)) and (entries := lengths.get(len(value))) is not None:
                yield entries
        elif isinstance(value, tuple) and (entries := self._length.get(name, {}).get(len(value))) is not None:
            yield entries
        if isinstance(value, int) and (entries := self._range.get(name, {}).get(value >> 8)) is not None:
            yield entries
        if isinstance(value, bytes) and (networks := self._network.get(name)):
            number = int.from_bytes(value, "big")
            for (width, bits), members in networks.items():
                if width == len(value) and (entries := members.get(number >> (8 * width - bits))) is not None:
                    yield entries

    def _file(self, condition: Condition, entry: _Filed) -> None:
        name, operator, value = condition.fact, condition.operator, condition.value
        if operator in ("is", "has") and value is True:
            self._present.setdefault(name, []).append(entry)
        elif operator in ("is", "has"):
            self._exact.setdefault((name, value), []).append(entry)
        elif operator == "in" and isinstance(value, tuple):
            for one in value:
                self._exact.setdefault((name, one), []).append(entry)
        elif operator in ("prefix", "suffix") and isinstance(value, str | bytes):
            table = self._affix.setdefault(name, {}).setdefault((operator, len(value)), {})
            table.setdefault(value, []).append(entry)
        elif operator == "length" and isinstance(value, int):
            self._length.setdefault(name, {}).setdefault(value, []).append(entry)
        elif operator == "within" and isinstance(value, tuple):
            self._file_within(name, value, entry)

    def _file_within(self, name: str, value: tuple[FactValue, ...], entry: _Filed) -> None:
        low, high = value
        if isinstance(low, bytes) and isinstance(high, int):
            number = int.from_bytes(low, "big") >> (8 * len(low) - high)
            members = self._network.setdefault(name, {}).setdefault((len(low), high), {})
            members.setdefault(number, []).append(entry)
        elif isinstance(low, int) and isinstance(high, int):
            if high - low > 0xFFFF:
                self._present.setdefault(name, []).append(entry)
                return
            for bucket in range(low >> 8, (high >> 8) + 1):
                self._range.setdefault(name, {}).setdefault(bucket, []).append(entry)


def _anchors(condition: Condition) -> list[_Anchor]:
    """What a condition would be filed under, for counting how many share it."""
    name, operator, value = condition.fact, condition.operator, condition.value
    if operator == "lacks":
        return []
    if operator == "in" and isinstance(value, tuple):
        return [(name, "is", one) for one in value]
    return [(name, "is" if operator == "has" else operator, value)]


def _filing(signature: Signature, shared: Counter[_Anchor]) -> list[Condition]:
    positive = [c for c in signature.conditions if c.operator != "lacks"]
    if signature.scope != "packet" or len(positive) < 2:
        return positive
    return [min(positive, key=lambda c: max(shared[a] for a in _anchors(c)))]


def holding(signature: Signature, facts: FactSet) -> tuple[Fact, ...] | None:
    """The facts by which the whole conjunction holds, or None."""
    reasons: list[Fact] = []
    for condition in signature.conditions:
        values = facts.get(condition.fact)
        if condition.operator == "lacks":
            if values and (condition.value is True or condition.value in values):
                return None
            continue
        if not values:
            return None
        for value in values:
            if fulfils(condition, value):
                reasons.append(Fact(condition.fact, value))
                break
        else:
            return None
    return tuple(reasons)


def fulfils(condition: Condition, value: FactValue) -> bool:
    """One value against one positive condition (identify/application.py says what each operator means)."""
    wanted = condition.value
    match condition.operator:
        case "is" | "has":
            return wanted is True or (value == wanted and isinstance(value, bool) == isinstance(wanted, bool))
        case "in":
            return isinstance(wanted, tuple) and value in wanted
        case "prefix":
            return isinstance(value, str | bytes) and value[: len(wanted)] == wanted  # type: ignore[arg-type]
        case "suffix":
            return isinstance(value, str | bytes) and value[-len(wanted) :] == wanted  # type: ignore[arg-type]
        case "length":
            return isinstance(value, str | bytes | tuple) and len(value) == wanted
        case "within":
            return _within(value, wanted)
    return False


def _within(value: FactValue, wanted: FactValue) -> bool:
    if not isinstance(wanted, tuple):
        return False
    low, high = wanted
    if isinstance(value, bytes) and isinstance(low, bytes) and isinstance(high, int):
        shift = 8 * len(low) - high
        return len(value) == len(low) and int.from_bytes(value, "big") >> shift == int.from_bytes(low, "big") >> shift
    return isinstance(value, int) and isinstance(low, int) and isinstance(high, int) and low <= value <= high
