"""Established flows under a new policy: what the kernel holds as decided is judged again, by its connmark.

In: Kept flows (5-tuple and connmark), the settings before and now. Out: per flow the mark that it should have from now
on. Two kinds begin anew (undecided): a flow that was refused before it had its final name, and now might become
something allowed; one whose name is that of an override which is gone. All others are judged by the name in their mark,
as policy.md point 1 says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from appid.dataplane.command import Command, Report, SetMark
from appid.engine.event import Kept, RulesLoaded
from appid.engine.kept_stream import torn
from appid.engine.record import FlowRecord, Settings
from appid.engine.report import DecisionReport
from appid.flow.key import FlowKey
from appid.identify.application import Application
from appid.identify.identification import UNKNOWN_IP
from appid.identify.naming import Lineage
from appid.policy import Decision
from appid.policy.evaluate import UNKNOWN, Judge, Situation
from appid.wire import TCP

if TYPE_CHECKING:
    from appid.engine.core import Engine


class Judged(NamedTuple):
    """`mark` from now on, and as it `was`. `name` and `decision` are None where the flow begins anew."""

    key: FlowKey
    was: int
    mark: int
    name: str | None
    decision: Decision | None


class Reload:
    """One change of settings. `interface_of` tells the interface that leads to an address ("" where unknown)."""

    def __init__(
        self, before: Settings, now: Settings, lineage: Lineage, outside: Callable[[bytes, bool | None], bool],
        interface_of: Callable[[bytes], str], time: float,
    ) -> None:  # fmt: skip
        self.before, self.now = before, now
        self.lineage = lineage
        self.outside = outside
        self.interface_of = interface_of
        self.time = time
        self.zone_of = lru_cache(maxsize=65536)(self._zone_of)
        room = before.marks.application >> before.marks.application_shift
        self.crowded = any(each.number > room for each in before.applications.values())  # their marks hold no name
        self.names = {application.number: name for name, application in before.applications.items()}

    def _zone_of(self, address: bytes) -> str | None:
        judge = self.now.judge
        return judge.zone_of(address, self.interface_of(address)) if judge is not None else None

    def situation(self, key: FlowKey, began: float | None = None) -> Situation:
        """Where a flow stands under the new policy, its first packet long gone. `began`: the time of that; if it is not
        known, schedules count from now."""
        from_zone, to_zone = self.zone_of(key.src), self.zone_of(key.dst)
        judge = self.now.judge
        from_outside = self.outside(key.src, judge.outside(from_zone) if judge is not None else None)
        to_outside = self.outside(key.dst, judge.outside(to_zone) if judge is not None else None)
        now = self.time if began is None else began
        return Situation(key, from_zone, to_zone, begun_outside=from_outside and not to_outside, now=now)

    def moved(self, situation: Situation) -> Situation:
        """The same flow, its zones as the new policy has them; where those did not change, as they were."""
        old, new = self.before.judge, self.now.judge
        if old is not None and new is not None and old.policy.zones == new.policy.zones:
            return situation
        placed = self.situation(situation.key)
        return situation._replace(
            from_zone=placed.from_zone, to_zone=placed.to_zone, begun_outside=placed.begun_outside
        )

    def judged(
        self, kept: Iterable[Kept], calls: Mapping[FlowKey, Decision | None], restarted: bool
    ) -> Iterator[Judged]:
        """Each decided flow. `calls`: the decision of the call that foresaw a flow. After a restart nobody knows what
        was foreseen: what may only come foreseen and was allowed is taken for that."""
        for flow in kept:
            mark = self.before.marks.decode(flow.mark)
            if mark.action is None:
                continue
            name = self.names.get(mark.application)
            judge = self.now.judge
            lost = self.crowded and not mark.application and mark.action == "allow"
            if (mark.application and name not in self.now.applications) or judge is None or lost:
                yield Judged(flow.key, flow.mark, 0, None, None)
                continue
            call = calls.get(flow.key)
            application = self.now.applications[name] if name is not None else None
            spared = restarted and application is not None and application.inbound == "foreseen"
            foreseen = call is not None or (spared and mark.action == "allow")
            situation = self.situation(flow.key, flow.began)._replace(foreseen=foreseen, call=call)
            override = judge.overridden(flow.key)
            gone = override is None and call is None and self._was_overridden(flow.key, name)
            refused = override is None and mark.action != "allow"
            if gone or (refused and self._may_begin_anew(situation, name, judge)):
                yield Judged(flow.key, flow.mark, 0, None, None)
                continue
            final = override or name or UNKNOWN.get(flow.key.proto, UNKNOWN_IP)
            decision = call or judge.first_match(situation, final)
            yield Judged(flow.key, flow.mark, self._mark(flow.mark, final, decision), final, decision)

    def _was_overridden(self, key: FlowKey, name: str | None) -> bool:
        """Whether the name is what an [[override]] of the policy before said, whatever the flow showed."""
        old = self.before.judge
        return old is not None and name is not None and old.overridden(key) == name

    def _may_begin_anew(self, situation: Situation, name: str | None, judge: Judge) -> bool:
        """Refused at once by the policy of before, let pass for the time being by this one."""
        possible = self.lineage.descendants[name] if name is not None else None
        old = self.before.judge
        if possible is not None and not possible:
            return False
        if judge.judge(situation, name, possible, 0) is not None:
            return False
        if old is None or (name is not None and name not in old.applications):
            return True
        return old.judge(situation, name, possible, 0) is not None

    def _mark(self, mark: int, name: str, decision: Decision) -> int:
        settings = self.now
        action = "allow" if settings.monitor else decision.action
        application = settings.applications.get(name)
        was = self.before.marks.decode(mark)
        watch = application is not None and application.watch and (was.watch or was.action != "allow")
        qos = settings.judge.qos_of(decision) if settings.judge is not None else 0
        number = application.number if application is not None else 0
        return settings.marks.encode(action, number, watch=watch and action == "allow", qos=qos)


def reload(engine: Engine, event: RulesLoaded, now: float) -> Iterator[Command]:
    """New settings: what userspace follows, what calls opened, and what the kernel holds is judged again."""
    before, settings = engine.settings, event.settings
    calls = {f.key: found[1].call for f in event.kept if (found := engine.calls.book.foreseen(f.key)) is not None}
    engine.take(settings)
    known = settings.applications
    for record in [r for r in engine.flows.values() if _anew(engine, r, known)]:
        engine.forget(record)  # its next packet begins anew
    change = Reload(before, settings, engine.lineage, engine.topology.outside, event.interface_of, now)
    refused: dict[int, Decision] = {}
    yield from engine.calls.reload(settings, engine.topology, change.moved, refused)
    cut = {key for key, call in calls.items() if call in refused}  # their entries went with the call's pinholes
    spliced = settings.marks.passing if event.restarted else 0
    kept = [
        flow for flow in event.kept
        if engine.record_of(flow.key)[0] is None and not (flow.mark & spliced and flow.key.proto == TCP)
    ]  # fmt: skip
    if event.restarted:
        yield from torn(engine, event.kept)
    for record in list(engine.flows.values()):
        yield from _again(engine, record, change, now, record.key in cut or record.key.reversed() in cut)
    decisions = {key: refused.get(call) or engine.calls.decisions.get(call) for key, call in calls.items()}
    began = {flow.key: flow.began for flow in event.kept} if len(engine.stamps) else {}
    stamps = [Kept(key, mark, began.get(key)) for key, mark in engine.stamps]
    engine.stamps.clear()
    for judged in change.judged(stamps, {}, False):
        if judged.mark:
            engine.stamps.put(judged.key, judged.mark, now)
    for judged in change.judged(kept, decisions, event.restarted):
        changed = bool((judged.mark ^ judged.was) & settings.marks.saved)
        if changed:
            yield SetMark(judged.key, judged.mark, create=judged.key in cut)
            if judged.key in cut:
                engine.stamps.put(judged.key, judged.mark, now)
        yield Report("decision", DecisionReport(judged.key, judged.name, judged.decision, changed))


def _anew(engine: Engine, record: FlowRecord, known: Mapping[str, Application]) -> bool:
    """Its name is gone from the rules, or the operator knows better now."""
    if any(name not in known for name in record.naming.path):
        return True
    judge = engine.settings.judge
    return judge is not None and record.foreseen is None and judge.overridden(record.key) is not None


def _again(engine: Engine, record: FlowRecord, change: Reload, now: float, create: bool) -> Iterator[Command]:
    """A flow that userspace follows, under new settings. One without a decision is judged at its next packet."""
    situation = record.situation
    record.situation = change.moved(situation) if situation is not None else change.situation(record.key)
    if record.foreseen is not None and record.call is not None:
        decision = engine.calls.decisions.get(record.call)
        record.situation = record.situation._replace(foreseen=True, call=decision)
    if record.decision is None:
        return
    was, mark = record.decision, record.mark
    record.decision = engine.decide(record)
    record.mark = engine.mark_of(record)
    if (record.mark ^ mark) & engine.settings.marks.saved:
        yield SetMark(record.key, record.mark, create)
    if record.decision != was:
        yield engine.report_of(record, record.first_packet)
    if record.decision is not None and not record.watch:
        engine.forget(record)
        engine.stamps.put(record.key, record.mark, now, record.foreseen)
