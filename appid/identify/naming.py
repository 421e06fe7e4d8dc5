"""How strengths add up, and how a flow's name shifts.

In: the matches of each packet. Out: the flow's Identification so far.

How strengths add up: one conclusive signature makes a conclusive name, one strong signature a strong one; supporting
signatures name nothing alone, two different ones of the same application together name it with confidence "supporting",
if one of them at least is about more than addresses and ports. What rules an application out counts from the next
packet on, and against what only supports it at once.

How names shift: from a name to one that it `may_become`, directly or over others (stun -> turn -> facetime). Between
two names that lead nowhere to one another the stronger stays, and the earlier if both are equal.

Whether a named flow is worth watching depends on what named it: signatures of a generation whose signalling nobody can
read say so (docs/decisions/0012).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from appid.identify.application import Application
from appid.identify.identification import STRENGTHS, Because, Confidence, Identification
from appid.identify.match import ALWAYS, Match

_RANK: Final[Mapping[Confidence, int]] = {strength: rank for rank, strength in enumerate(STRENGTHS)}


class Lineage:
    """The `may_become` graph, closed: which names can follow which."""

    def __init__(self, applications: Mapping[str, Application]) -> None:
        self.descendants: dict[str, frozenset[str]] = {}
        for name in applications:
            reached: set[str] = set()
            frontier = [name]
            while frontier:
                for following in applications[frontier.pop()].may_become:
                    if following in applications and following not in reached:
                        reached.add(following)
                        frontier.append(following)
            self.descendants[name] = frozenset(reached - {name})

    def leads_to(self, name: str, other: str) -> bool:
        return other in self.descendants[name]

    def generality(self, name: str) -> int:
        return len(self.descendants[name])


class Naming:
    """What one flow has been called, and why. `overruled`: names that evidence of this strength spoke for in vain."""

    __slots__ = (
        "because", "confidence", "excluded", "identified_at", "name", "overruled", "path", "readable", "shifts",
        "supporting",
    )  # fmt: skip

    def __init__(self) -> None:
        self.name: str | None = None  # the last of `path`
        self.path: list[str] = []
        self.confidence: Confidence | None = None
        self.because: list[Because] = []
        self.shifts: list[tuple[int, str]] = []
        self.identified_at: int | None = None
        self.excluded: set[str] = set()
        self.supporting: dict[str, dict[str, Because]] = {}
        self.overruled: dict[str, Confidence] = {}
        self.readable: set[str] = set()

    @property
    def watchable(self) -> bool:
        """Whether a signature (or a call) whose signalling can be read spoke for the present name."""
        return self.name in self.readable

    def still_possible(self, lineage: Lineage) -> frozenset[str] | None:
        """Names that the flow may yet take; None: any. The present name is not among them."""
        if not self.path:
            return None
        descendants = lineage.descendants[self.path[-1]]
        return descendants - self.excluded if self.excluded else descendants

    def add(self, matches: Sequence[Match], packet: int, lineage: Lineage) -> bool:
        """Book the matches of one packet; True if the name changed."""
        if not matches:
            return False
        candidates: dict[str, tuple[Confidence, list[Because]]] = {}
        excluded = set()
        for match in matches:
            application, signature = match.application, match.signature
            if match.excludes:
                excluded.add(application)
                continue
            if signature.watch:
                self.readable.add(application)
            reason = Because(packet, signature.name, match.facts)
            if signature.strength == "supporting":
                reasons = self.supporting.setdefault(application, {})
                reasons.setdefault(signature.name, reason)
                if len(reasons) < 2 or not any(map(_beyond_the_tuple, reasons.values())):
                    continue
                self._candidate(candidates, application, "supporting", list(reasons.values()))
            else:
                self._candidate(candidates, application, signature.strength, [reason])
        for name in excluded & candidates.keys():
            if candidates[name][0] == "supporting":
                self._overrule(name, candidates.pop(name)[0])
        before = self.name
        order = sorted(candidates, key=lambda n: (-lineage.generality(n), n)) if len(candidates) > 1 else candidates
        for name in order:
            if name not in self.excluded:
                self._consider(name, *candidates[name], packet, lineage)
            else:
                self._overrule(name, candidates[name][0])
        self.excluded |= excluded  # from the next packet on: what this one shows of a name counts more
        return self.name != before

    @staticmethod
    def _candidate(
        candidates: dict[str, tuple[Confidence, list[Because]]], name: str, strength: Confidence, reasons: list[Because]
    ) -> None:
        known = candidates.get(name)
        if known is None:
            candidates[name] = (strength, reasons)
        else:
            stronger = max(known[0], strength, key=lambda s: _RANK[s])
            candidates[name] = (stronger, known[1] + reasons)

    def _consider(
        self, name: str, confidence: Confidence, reasons: list[Because], packet: int, lineage: Lineage
    ) -> None:
        current = self.name
        if name == current:
            if self.confidence is None or _RANK[confidence] > _RANK[self.confidence]:
                self.confidence = confidence
                self.because.extend(reasons)
            return
        if name in self.path:
            return  # where two names may become one another, the later one stays
        if current is not None and not lineage.leads_to(current, name):
            general = lineage.leads_to(name, current)
            if general:
                return
            if _RANK[confidence] <= _RANK[self.confidence or "supporting"]:
                self._overrule(name, confidence)
                return
            self._overrule(current, self.confidence or "supporting")
        self._call(name, confidence, reasons, packet)

    def _overrule(self, name: str, confidence: Confidence) -> None:
        self.overruled[name] = max(confidence, self.overruled.get(name, confidence), key=lambda s: _RANK[s])

    def take(self, name: str, confidence: Confidence, reasons: Iterable[Because], packet: int) -> None:
        """Call the flow `name` from `packet` on, because of what was read elsewhere: its call foresaw it."""
        self.readable.add(name)
        self._call(name, confidence, reasons, packet)

    def _call(self, name: str, confidence: Confidence, reasons: Iterable[Because], packet: int) -> None:
        if self.path:
            self.shifts.append((packet, name))
        self.path.append(name)
        self.name = name
        self.confidence = confidence
        self.because.extend(reasons)
        self.identified_at = packet

    def identification(self, otherwise: str) -> Identification:
        """The answer; `otherwise` is the state to report where there is no name."""
        if not self.path:
            return Identification(otherwise)
        return Identification(self.path[-1], self.confidence, tuple(self.because), tuple(self.path), tuple(self.shifts))


def _beyond_the_tuple(reason: Because) -> bool:
    """Whether it is about what packets hold; an address and a port are one circumstance, however often they are met."""
    return any(fact.name not in ALWAYS for fact in reason.facts)
