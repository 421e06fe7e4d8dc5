"""The service: files and kernel put together around one engine. `appid run` is little more than this.

In: a Config. Out: rule sets in the kernel, a loop that serves the queue, events, the control socket. On stop all of
it is taken back.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import time
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

from appid.dataplane.chain import Topology
from appid.dataplane.command import Command, Report
from appid.dataplane.marks import Marks
from appid.edge import iptables, telling
from appid.edge.config import Config
from appid.edge.control import ControlSocket
from appid.edge.errors import RuleError, RuleErrors
from appid.edge.events import Events
from appid.edge.gateway import Gateway, GatewayOptions
from appid.edge.links import addresses, interfaces
from appid.edge.metrics import Metrics
from appid.edge.netlink import KernelError
from appid.edge.policy_file import load_policy
from appid.edge.rule_files import load_applications
from appid.edge.unknown import UnknownFlows
from appid.engine import (
    CallReport,
    DecisionReport,
    Engine,
    Event,
    FlowEnded,
    FlowReport,
    Kept,
    PinholeReport,
    RulesLoaded,
    Settings,
)
from appid.engine.calls import CALL
from appid.engine.event import nowhere
from appid.engine.record import DEFAULT_INSIDE
from appid.identify.application import Application
from appid.packet import flow_id, id_of, reversed_id
from appid.policy import Decision
from appid.policy.evaluate import Judge
from appid.policy.lint import Finding, lint
from appid.policy.rule import Policy, PolicyRule, Qos
from appid.wire import packed, text

REMEMBERED = 4096
"""Flows, calls and pinholes that the control socket can still tell of."""

log = logging.getLogger("appid")


class Told:
    """What was reported last of flows, calls and pinholes, and how often userspace saw each flow; bounded."""

    def __init__(self) -> None:
        self.flows: OrderedDict[bytes, FlowReport] = OrderedDict()
        self.calls: OrderedDict[int, CallReport] = OrderedDict()
        self.pinholes: OrderedDict[int, PinholeReport] = OrderedDict()
        self.userspace: OrderedDict[bytes, int] = OrderedDict()
        self.ended: OrderedDict[bytes, FlowEnded] = OrderedDict()
        self.counts: Counter[str] = Counter()

    def report(self, report: Report) -> None:
        self.counts[report.kind] += 1
        match report.body:
            case FlowReport() as flow:
                _remember(self.flows, id_of(flow.key), flow)
            case CallReport() as call:
                _remember(self.calls, call.call, call)
            case PinholeReport() as pinhole:
                _remember(self.pinholes, pinhole.pinhole, pinhole)

    def judged(self, report: DecisionReport) -> bool:
        """Take over a decision about a flow known already; whether that is news."""
        known = self.flows.get(id_of(report.key)) or self.flows.get(id_of(report.key.reversed()))
        if known is None or known.decision == report.decision:
            return report.changed
        self.flows[id_of(known.key)] = known._replace(decision=report.decision)
        return True

    def end(self, event: FlowEnded) -> None:
        """The last counters of a flow that was told of."""
        identity = id_of(event.key)
        back = reversed_id(identity)
        if identity in self.flows or back in self.flows:
            _remember(self.ended, identity if identity in self.flows else back, event)

    def saw(self, data: bytes) -> None:
        identity = flow_id(data)
        if identity is not None:
            if identity not in self.userspace:
                back = reversed_id(identity)
                identity = back if back in self.userspace else identity
            _remember(self.userspace, identity, self.userspace.get(identity, 0) + 1)


def _remember(table: OrderedDict[Any, Any], key: Any, value: Any) -> None:
    table[key] = value
    table.move_to_end(key)
    while len(table) > REMEMBERED:
        table.popitem(last=False)


class _Counted:
    """The engine, with its answers counted."""

    def __init__(self, engine: Engine, metrics: Metrics, told: Told, media: frozenset[str]) -> None:
        self.engine = engine
        self.metrics = metrics
        self.told = told
        self.media = media

    @property
    def deadline(self) -> float | None:
        return self.engine.deadline

    def handle(self, event: Event, now: float) -> list[Command]:
        commands = self.engine.handle(event, now)
        self.metrics.commands(commands)
        if isinstance(event, FlowEnded):
            self.metrics.ended(event, self.media)
            self.told.end(event)
        return commands


def media_applications(applications: Mapping[str, Application]) -> frozenset[str]:
    """Names whose UDP flows are media of calls."""
    return frozenset(name for name, each in applications.items() if CALL in each.characteristics)


class Service:
    """One running gateway. `with Service(config) as service: service.run()`."""

    def __init__(self, config: Config, monitor: bool = False) -> None:
        self.config = config
        self.monitor = monitor or config.monitor
        self.marks = Marks(config.mark_mask, config.qos_mask)
        self.applications = load_applications(config.rules if config.rules.is_dir() else None)
        self.policy = self._load_policy(config.policy, self.applications)
        self.warnings: list[Finding] = lint(self.policy, self.applications)
        self.told = Told()
        self.unknown = UnknownFlows(config.unknown, config.unknown_bytes) if config.unknown is not None else None
        self._applied: Topology | None = None
        self._opened = ExitStack()
        self._stop_signal: int | None = None

    def __enter__(self) -> Service:
        with ExitStack() as opened:
            self.events = Events(self.config.events, enforced=not self.monitor)
            opened.callback(self.events.close)
            self._warn()
            self.engine = Engine(self._settings())
            topology, variant = self._topology(), self._variant()
            self._attach(opened)
            iptables.apply(topology, variant)
            self._applied = topology
            opened.callback(lambda: _quietly(iptables.remove, self._applied or topology, variant))
            self._guard(topology)
            self._judge_again(restarted=True)
            self._opened = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def _attach(self, opened: ExitStack) -> None:
        self.metrics = self._metrics(opened)
        self._counted = _Counted(self.engine, self.metrics, self.told, media_applications(self.applications))
        self.gateway = Gateway(
            self._counted, self._options(),
            on_report=self._report, on_verdict=self._verdict, on_tick=lambda _: self.control.expire(),
        )  # fmt: skip
        opened.callback(self.gateway.close)
        self._hangup = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        opened.callback(os.close, self._hangup)
        self.gateway.register(self._hangup, self._reload)
        self.control = ControlSocket(self.config.control, self.gateway, self.answer)
        opened.callback(self.control.close)

    def _metrics(self, opened: ExitStack) -> Metrics:
        metrics = Metrics(self.marks, _numbers(self.applications), self.config.first_queue)
        metrics.warnings.set(len(self.warnings))
        metrics.reloaded.set(1)
        metrics.reload_time.set(time.time())
        metrics.watch(self._gauges)
        if self.config.metrics is not None:
            opened.callback(metrics.serve(self.config.metrics))
        return metrics

    def run(self) -> int | None:
        """Serve until SIGTERM or SIGINT; returns which. SIGHUP loads the files again."""
        before = signal.set_wakeup_fd(self.gateway.wakeup_fd, warn_on_full_buffer=False)
        handlers = {each: signal.signal(each, self._stop) for each in (signal.SIGTERM, signal.SIGINT)}
        handlers[signal.SIGHUP] = signal.signal(signal.SIGHUP, lambda *_: os.eventfd_write(self._hangup, 1))
        try:
            log.info("ready")
            self.gateway.run()
        finally:
            for each, handler in handlers.items():
                signal.signal(each, handler)
            signal.set_wakeup_fd(before)
        return self._stop_signal

    def _stop(self, number: int, _frame: object) -> None:
        self._stop_signal = number
        self.gateway.stop()

    # -- another policy ------------------------------------------------------------------------------------------

    def _reload(self) -> None:
        """SIGHUP: the files again, and the log's file anew (it may have been rotated)."""
        os.eventfd_read(self._hangup)
        self.events.reopen()
        self.load()

    def load(self, path: Path | None = None) -> list[dict[str, Any]]:
        """The policy at `path` (None: the configured one) and the applications' files take the place of the old ones:
        wholly, or, if there is any fault, not at all. Out: one answer `loaded`, or an answer `error` for each fault."""
        place = path or self.config.policy
        before = self.applications, self.policy, self.warnings
        try:
            applications = load_applications(self.config.rules if self.config.rules.is_dir() else None)
            policy = self._load_policy(place, applications)
            self.applications, self.policy, self.warnings = applications, policy, lint(policy, applications)
            self._change()
        except (RuleErrors, KernelError) as error:
            self.applications, self.policy, self.warnings = before
            return self._refused(place, error)
        self.metrics.loaded(_numbers(applications), len(self.warnings), time.time())
        self._counted.media = media_applications(applications)
        answer = {"type": "loaded", "policy": str(place), "rules": len(policy.rules), "warnings": len(self.warnings)}
        log.info("policy loaded: %s, %d rules", place, len(policy.rules))
        self.events.write(Report("config", {"loaded": str(place), "rules": len(policy.rules)}), time.time())
        self._warn()
        return [answer]

    def _change(self) -> None:
        """Chains first: what they let pass meanwhile is judged a moment later. KernelError: nothing has changed."""
        topology = self._topology()
        if topology != self._applied:
            iptables.apply(topology, self._variant())
            self._applied = topology
            self._guard(topology)
        self._judge_again()

    def _guard(self, topology: Topology) -> None:
        if topology.outside and not self.monitor:
            first, last = topology.media
            self.gateway.execute.bindings.guard(range(first, last + 1), self._outside_addresses())

    def _judge_again(self, restarted: bool = False) -> None:
        kept = tuple(
            Kept(entry.key, entry.mark)
            for entry in self.gateway.execute.conntrack.entries()
            if entry.mark & self.marks.state
        )
        with interfaces() as interface_of:
            several = sum(not zone.networks for zone in self.policy.zones.values()) > 1
            event = RulesLoaded(self._settings(), kept, interface_of if several else nowhere, restarted)
            self.gateway.handle(event)

    def _refused(self, place: Path, error: RuleErrors | KernelError) -> list[dict[str, Any]]:
        self.metrics.reloaded.set(0)
        faults = [str(fault) for fault in error.errors] if isinstance(error, RuleErrors) else [str(error)]
        for fault in faults:
            log.error("not loaded, the old policy stays: %s", fault)
        self.events.write(Report("config", {"refused": str(place), "faults": faults}), time.time())
        fault_of = "kernel" if isinstance(error, KernelError) else "file"
        return [{"type": "error", "fault": fault_of, "reason": fault} for fault in faults]

    def _warn(self) -> None:
        for warning in self.warnings:
            log.warning("policy: %s: %s", warning.kind, warning)
            self.events.write(Report("config", {"warning": warning.kind, "text": str(warning)}), time.time())

    # -- what the files say --------------------------------------------------------------------------------------

    def _load_policy(self, place: Path, applications: Mapping[str, Application]) -> Policy:
        policy = load_policy(place, applications)
        if len(policy.qos) > self.marks.classes:
            reason = f"{len(policy.qos)} different dscp and mark values; qos_mask has room for {self.marks.classes}"
            raise RuleErrors([RuleError(str(place), "rule", "dscp", reason)])
        return policy

    def _settings(self) -> Settings:
        inside = tuple(network for zone in self.policy.zones.values() for network in zone.networks)
        return Settings(
            self.applications, Judge(self.policy, self.applications), inside or DEFAULT_INSIDE,
            self._outside_addresses(), self.marks, self.monitor,
        )  # fmt: skip

    def _outside_interfaces(self) -> tuple[str, ...]:
        return tuple(name for zone in self.policy.zones.values() if not zone.networks for name in zone.interfaces)

    def _outside_addresses(self) -> frozenset[bytes]:
        """As configured, else those of the outside zones' interfaces."""
        configured = frozenset(packed(address) for address in self.config.nat_outside)
        return configured or addresses(self._outside_interfaces())

    def _topology(self) -> Topology:
        zones = self.policy.zones.values()
        blind: Literal["DROP", "ACCEPT"] = "ACCEPT" if self._opens_blind() else "DROP"
        return Topology(
            outside=self._outside_interfaces(),
            inside=tuple(f"{text(network)}/{prefix}" for zone in zones for network, prefix in zone.networks),
            queues=(self.config.first_queue,), blind=blind, media=_media_range(self.applications), marks=self.marks,
            monitor=self.monitor, qos=self._qos(),
        )  # fmt: skip

    def _qos(self) -> tuple[Qos, ...] | None:
        """Once there is a chain for it, it stays, empty if need be: others may have put rules behind it."""
        had = self._applied is not None and self._applied.qos is not None
        return self.policy.qos or (() if had else None)

    def _options(self) -> GatewayOptions:
        exceptions = self.config.exceptions
        queued = str(self.config.queued) if self.config.queued is not None else None
        return GatewayOptions(
            queue=self.config.first_queue, length=self.config.queue_length, record=queued, marks=self.marks,
            fail_open=exceptions.opens("queue-full"),
            on_error="pass" if self.monitor or exceptions.opens("internal-error") else "drop",
        )  # fmt: skip

    def _opens_blind(self) -> bool:
        return self.monitor or self.config.exceptions.opens("engine-down")

    def _variant(self) -> Literal["nft", "legacy"]:
        if self.config.iptables != "auto":
            return self.config.iptables
        program = shutil.which("iptables")
        if program is None:
            raise KernelError("iptables", "not installed")
        return "nft" if "nf_tables" in iptables.run([program, "--version"]) else "legacy"

    # -- what is asked -------------------------------------------------------------------------------------------

    def _verdict(self, data: bytes, seconds: float) -> None:
        self.told.saw(data)
        if self.unknown is not None:
            self.unknown.saw(data, time.time_ns())
        self.metrics.verdict.observe(seconds)

    def _gauges(self) -> dict[str, Any]:
        """For a scrape, from its thread: sizes only, no iteration over what the loop changes."""
        families = Counter(
            "ipv6" if len(e.inside) == 16 else "ipv4" for e in list(self.engine.calls.book.open.values())
        )
        return {
            "flows": len(self.engine.flows),
            "calls": len(self.engine.calls.calls.open),
            "pinholes": {family: families[family] for family in ("ipv4", "ipv6")},
        }

    def _report(self, report: Report) -> None:
        if isinstance(report.body, DecisionReport) and not self.told.judged(report.body):
            return
        self.metrics.report(report)
        self.told.report(report)
        if self.unknown is not None and isinstance(report.body, FlowReport):
            self.unknown.report(report.body, self._wanted)
        if self._logged(report.body):
            self.events.write(report, time.time())
        if isinstance(report.body, FlowReport) and report.body.decision is not None:
            self.told.counts[f"decision {report.body.decision.action}"] += 1

    def _rule(self, made: Decision | None) -> PolicyRule | None:
        judge = self.engine.settings.judge
        return judge.rule_of(made) if judge is not None and made is not None else None

    def _logged(self, body: object) -> bool:
        """Whether the rule that decided wants it told (`log`)."""
        if not isinstance(body, FlowReport | DecisionReport) or body.decision is None:
            return True
        rule = self._rule(body.decision)
        return rule.log if rule is not None else self.policy.default_log

    def _wanted(self, made: Decision | None) -> bool:
        """Whether the rule that decided wants unknown flows captured."""
        rule = self._rule(made)
        return rule.capture_unknown if rule is not None else self.policy.capture_unknown

    def answer(self, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """One answer of the control socket."""
        match request.get("ask"):
            case "flows":
                yield from self._flows()
            case "calls":
                for call in self.told.calls.values():
                    yield telling.call(call, list(call.flows))
            case "pinholes":
                yield from (telling.pinhole(pinhole) for pinhole in self.told.pinholes.values())
            case "stats":
                yield self._stats()
            case "load":
                given = request.get("policy")
                yield from self.load(Path(given) if isinstance(given, str) else None)
            case other:
                yield {"type": "error", "reason": f"{other!r} is nothing to ask for"}

    def _flows(self) -> Iterator[dict[str, Any]]:
        entries = {id_of(entry.key): entry for entry in self.gateway.execute.conntrack.entries()}
        for identity, report in list(self.told.flows.items()):
            entry = entries.pop(identity, None) or entries.pop(reversed_id(identity), None)
            yield self._flow(report, entry)
        for entry in entries.values():
            foreseen = self.engine.glance(entry.key, 0) if entry.mark & self.marks.state else None
            if foreseen is not None:
                yield self._flow(foreseen, entry)

    def _flow(self, report: FlowReport, entry: Any) -> dict[str, Any]:
        identity = id_of(report.key)
        seen = self.told.userspace.get(identity) or self.told.userspace.get(reversed_id(identity), 0)
        counted = entry if entry is not None else self.told.ended.get(identity)
        return {
            "type": "flow", "id": report.flow, **telling.addresses(counted.key if counted is not None else report.key),
            "packets": sum(counted.packets) if counted is not None else seen,
            "bytes": sum(counted.bytes) if counted is not None else None,
            **telling.identification(report, ""), "userspace_packets": seen, "call": report.call,
            "community_id": telling.community_id(report.key), "alive": entry is not None,
            "decision": telling.decision(report.decision, not self.monitor),
        }  # fmt: skip

    def _stats(self) -> dict[str, Any]:
        stats = self.gateway.stats
        return {
            "type": "stats", "packets": stats.packets, "errors": stats.errors, "rescued": stats.rescued,
            "command_failures": stats.command_failures, "flows_ended": stats.ended,
            "flows": len(self.engine.flows), "calls": len(self.engine.calls.calls.open),
            "pinholes": len(self.engine.calls.book.open), "events_lost": self.events.lost,
            "policy_warnings": [str(warning) for warning in self.warnings], "monitor": self.monitor,
            "reports": dict(self.told.counts),
        }  # fmt: skip


def _numbers(applications: Mapping[str, Application]) -> dict[int, str]:
    return {application.number: name for name, application in applications.items()}


def _media_range(applications: Mapping[str, Application]) -> tuple[int, int]:
    """The ports that unforeseen packets from outside may not take first: the media ports of foreseen applications."""
    ranges = [r for a in applications.values() if a.inbound == "foreseen" for r in a.media_ports if r.first > 1024]
    return (min((r.first for r in ranges), default=16384), max((r.last for r in ranges), default=16402))


def _quietly(remove: Any, topology: Topology, variant: Any) -> None:
    try:
        remove(topology, variant)
    except KernelError as error:
        log.error("%s", error)


__all__ = ["Policy", "Service"]
