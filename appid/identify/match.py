"""Which signatures do these facts fulfil? Indexed: the cost follows a packet's facts, not the number of applications.

In: the facts of one packet, and the wider sets (flow, host, call) that scopes name. Out: Match values.

Each signature is filed under one condition, its anchor: the one that fewest other signatures share. Signatures wider
than a packet are filed under each positive condition, because any of them may be the last to come true.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import islice
from typing import Final, NamedTuple, final

from appid.evidence.ledger import FactSet
from appid.identify.application import Application, Condition, Operator, Scope, Signature
from appid.wire import Fact, FactValue, Value

_Anchor = tuple[str, str, FactValue]

ALWAYS: Final = frozenset(
    {"flow.proto", "flow.destination", "flow.destination_port", "flow.source", "flow.source_port"}
)
"""Facts that each packet has: an anchor among them would be met by every packet, so it is the last choice."""


WIDER: Final[tuple[Scope, ...]] = ("flow", "host", "call")


@final
class Match(Value):
    """A signature that holds, of an application that it names, or rules out; by these facts."""

    __slots__ = ("application", "excludes", "facts", "signature")
    __match_args__ = ("application", "signature", "facts", "excludes")

    def __init__(self, application: str, signature: Signature, facts: tuple[Fact, ...], excludes: bool) -> None:
        self.application: Final = application
        self.signature: Final = signature
        self.facts: Final = facts
        self.excludes: Final = excludes


class _Filed(NamedTuple):
    application: str
    signature: Signature
    excludes: bool


Candidates = Mapping[int, _Filed]
_NOBODY: Final[list[_Filed]] = []


class _Index:
    """The signatures filed under one fact name, by operator."""

    __slots__ = ("affix", "exact", "length", "network", "plain", "present", "range")

    def __init__(self) -> None:
        self.plain = True  # nothing is filed but by value, or by presence
        self.exact: dict[FactValue, list[_Filed]] = {}
        self.present: list[_Filed] = []
        self.affix: dict[tuple[str, int], dict[FactValue, list[_Filed]]] = {}
        self.length: dict[int, list[_Filed]] = {}
        self.range: dict[int, list[_Filed]] = {}
        self.network: dict[tuple[int, int], dict[int, list[_Filed]]] = {}

    def lookup(self, value: FactValue) -> list[_Filed]:
        """The signatures whose anchor this value may fulfil. Do not change the list."""
        found = self.exact.get(value) or _NOBODY
        if self.present:
            found = found + self.present
        return found if self.plain else found + self._inexact(value)

    def _inexact(self, value: FactValue) -> list[_Filed]:
        found: list[_Filed] = []
        if self.affix and isinstance(value, str | bytes):
            for (operator, size), table in self.affix.items():
                part = value[:size] if operator == "prefix" else value[-size:]
                found += table.get(part, _NOBODY)
        if self.length and isinstance(value, str | bytes | tuple):
            found += self.length.get(len(value), _NOBODY)
        if self.range and isinstance(value, int):
            found += self.range.get(value >> 8, _NOBODY)
        if self.network and isinstance(value, bytes):
            number = int.from_bytes(value, "big")
            for (width, bits), members in self.network.items():
                if width == len(value):
                    found += members.get(number >> (8 * width - bits), _NOBODY)
        return found

    def file(self, condition: Condition, entry: _Filed) -> None:
        operator, value = condition.operator, condition.value
        if operator == "has" and value is True:
            self.present.append(entry)
        elif operator in ("is", "has"):
            self.exact.setdefault(value, []).append(entry)
        elif operator == "in" and isinstance(value, tuple):
            for one in value:
                self.exact.setdefault(one, []).append(entry)
        else:
            self.plain = False
            self._file_inexact(operator, value, entry)

    def _file_inexact(self, operator: Operator, value: FactValue, entry: _Filed) -> None:
        if operator in ("prefix", "suffix") and isinstance(value, str | bytes):
            self.affix.setdefault((operator, len(value)), {}).setdefault(value, []).append(entry)
        elif operator == "length" and isinstance(value, int):
            self.length.setdefault(value, []).append(entry)
        elif operator == "within" and isinstance(value, tuple):
            self._file_within(value, entry)

    def _file_within(self, value: tuple[FactValue, ...], entry: _Filed) -> None:
        low, high = value
        if isinstance(low, bytes) and isinstance(high, int):
            number = int.from_bytes(low, "big") >> (8 * len(low) - high)
            self.network.setdefault((len(low), high), {}).setdefault(number, []).append(entry)
        elif isinstance(low, int) and isinstance(high, int):
            if high - low > 0xFFFF:
                self.present.append(entry)
                return
            for bucket in range(low >> 8, (high >> 8) + 1):
                self.range.setdefault(bucket, []).append(entry)


class Matcher:
    """All signatures of all applications, filed by anchor. `wide`: the facts that signatures of a scope ask for."""

    def __init__(self, applications: Iterable[Application]) -> None:
        filed = [
            _Filed(application.name, signature, excludes)
            for application in applications
            for excludes, signatures in ((False, application.signatures), (True, application.excluded_by))
            for signature in signatures
        ]
        self.wide: dict[Scope, frozenset[str]] = {
            scope: frozenset(c.fact for e in filed if e.signature.scope == scope for c in e.signature.conditions)
            for scope in WIDER
        }
        shared = Counter(anchor for entry in filed for c in entry.signature.conditions for anchor in _anchors(c))
        self._names: dict[str, _Index] = {}
        for entry in filed:
            for condition in _filing(entry.signature, shared):
                self._names.setdefault(condition.fact, _Index()).file(condition, entry)

        self._among = lru_cache(maxsize=8192)(self._asked)

    def always(self, facts: Iterable[Fact]) -> Candidates:
        """The same as `candidates` for facts that many flows share (ALWAYS): remembered for those seen last."""
        found: dict[int, _Filed] = {}
        for fact in facts:
            for entry in self._among(fact):
                found[id(entry)] = entry
        return found

    def _asked(self, fact: Fact) -> list[_Filed]:
        index = self._names.get(fact.name)
        return index.lookup(fact.value) if index is not None else _NOBODY

    def candidates(self, facts: Iterable[Fact]) -> dict[int, _Filed]:
        """The signatures whose anchor is among these facts."""
        found: dict[int, _Filed] = {}
        names = self._names
        for fact in facts:
            index = names.get(fact.name)
            if index is not None:
                for entry in index.lookup(fact.value):
                    found[id(entry)] = entry
        return found

    def match(
        self, facts: list[Fact], wider: Mapping[Scope, FactSet], always: Candidates | None = None, skip: int = 0
    ) -> list[Match]:
        """The signatures that hold with this packet; each at most once, in no promised order.

        `always`: the candidates of the first `skip` facts, for facts that are the same in each packet of a flow.
        """
        candidates = self.candidates(islice(facts, skip, None) if skip else facts)
        if always:
            candidates.update(always)
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


def _anchors(condition: Condition) -> list[_Anchor]:
    """What a condition would be filed under, for counting how many share it."""
    name, operator, value = condition.fact, condition.operator, condition.value
    if operator == "lacks":
        return []
    if operator == "in" and isinstance(value, tuple):
        return [(name, "is", one) for one in value]
    return [(name, "is" if operator == "has" else operator, value)]


def _common(fact: str) -> int:
    """How many packets have a fact, as far as its name says: a protocol is shared by more than an address or a port."""
    return 0 if fact not in ALWAYS else 2 if fact == "flow.proto" else 1


def _filing(signature: Signature, shared: Counter[_Anchor]) -> list[Condition]:
    positive = [c for c in signature.conditions if c.operator != "lacks"]
    if signature.scope != "packet" or len(positive) < 2:
        return positive
    return [min(positive, key=lambda c: (_common(c.fact), max(shared[a] for a in _anchors(c))))]


def holding(signature: Signature, facts: FactSet) -> tuple[Fact, ...] | None:
    """The facts by which the whole conjunction holds, or None."""
    reasons: list[Fact] = []
    table = facts.values
    for condition in signature.conditions:
        values = table.get(condition.fact)
        if condition.operator == "lacks":
            if values and (condition.value is True or any(_equal(value, condition.value) for value in values)):
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
        case "is":
            return _equal(value, wanted)
        case "has":
            return wanted is True or _equal(value, wanted)
        case "in":
            return isinstance(wanted, tuple) and value in wanted and any(_equal(value, one) for one in wanted)
        case "prefix":
            return isinstance(value, str | bytes) and value[: len(wanted)] == wanted  # type: ignore[arg-type]
        case "suffix":
            return isinstance(value, str | bytes) and value[-len(wanted) :] == wanted  # type: ignore[arg-type]
        case "length":
            return isinstance(value, str | bytes | tuple) and len(value) == wanted
        case "within":
            return _within(value, wanted)
    return False


def _equal(value: FactValue, wanted: FactValue) -> bool:
    """Equal, and of one kind: Python's True is 1, a signature's is not."""
    return value == wanted and isinstance(value, bool) == isinstance(wanted, bool)


def _within(value: FactValue, wanted: FactValue) -> bool:
    if not isinstance(wanted, tuple):
        return False
    low, high = wanted
    if isinstance(value, bytes) and isinstance(low, bytes) and isinstance(high, int):
        shift = 8 * len(low) - high
        return len(value) == len(low) and int.from_bytes(value, "big") >> shift == int.from_bytes(low, "big") >> shift
    if isinstance(value, bool) or not isinstance(value, int):
        return False
    return isinstance(low, int) and isinstance(high, int) and low <= value <= high
