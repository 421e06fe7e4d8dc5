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
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

from appid.dataplane.chain import Topology
from appid.dataplane.command import Report
from appid.edge import iptables
from appid.edge.answers import Answers
from appid.edge.config import Config
from appid.edge.control import ControlSocket
from appid.edge.errors import RuleErrors
from appid.edge.events import Events
from appid.edge.gateway import Gateway
from appid.edge.links import interfaces
from appid.edge.metrics import Metrics
from appid.edge.netlink import KernelError
from appid.edge.plan import load_plan
from appid.edge.told import Counted, Told, media_applications
from appid.edge.unknown import UnknownFlows
from appid.engine import DecisionReport, Engine, FlowReport, Kept, RulesLoaded
from appid.engine.event import nowhere

log = logging.getLogger("appid")


class Service:
    """One running gateway. `with Service(config) as service: service.run()`."""

    def __init__(self, config: Config, monitor: bool = False) -> None:
        self.config = config
        self.plan = load_plan(config, monitor)
        self.told = Told()
        self.unknown = UnknownFlows(config.unknown, config.unknown_bytes) if config.unknown is not None else None
        self._applied: Topology | None = None
        self._opened = ExitStack()
        self._stop_signal: int | None = None

    def __enter__(self) -> Service:
        with ExitStack() as opened:
            self.events = Events(self.config.events, enforced=not self.plan.monitor)
            opened.callback(self.events.close)
            self._warn()
            self.engine = Engine(self.plan.settings())
            topology, variant = self.plan.topology(), self._variant()
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
        self._counted = Counted(self.engine, self.metrics, self.told, media_applications(self.plan.applications))
        self.gateway = Gateway(
            self._counted, self.plan.options(),
            on_report=self._report, on_verdict=self._verdict, on_tick=lambda _: self.control.expire(),
        )  # fmt: skip
        opened.callback(self.gateway.close)
        self.answers = Answers(self.engine, self.gateway, self.told, enforced=not self.plan.monitor)
        self._hangup = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        opened.callback(os.close, self._hangup)
        self.gateway.register(self._hangup, self._reload)
        self.control = ControlSocket(self.config.control, self.gateway, self.answer, self.config.group)
        opened.callback(self.control.close)

    def _metrics(self, opened: ExitStack) -> Metrics:
        metrics = Metrics(self.plan.marks, self.plan.numbers, self.config.first_queue)
        metrics.warnings.set(len(self.plan.warnings))
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
        place, before = path or self.config.policy, self.plan
        try:
            self.plan = load_plan(self.config, before.monitor, place)
            self._change()
        except (RuleErrors, KernelError) as error:
            self.plan = before
            return self._refused(place, error)
        rules, warnings = len(self.plan.policy.rules), len(self.plan.warnings)
        self.metrics.loaded(self.plan.numbers, warnings, time.time())
        self._counted.media = media_applications(self.plan.applications)
        log.info("policy loaded: %s, %d rules", place, rules)
        self.events.write(Report("config", {"loaded": str(place), "rules": rules}), time.time())
        self._warn()
        return [{"type": "loaded", "policy": str(place), "rules": rules, "warnings": warnings}]

    def _change(self) -> None:
        """Chains first: what they let pass meanwhile is judged a moment later. KernelError: nothing has changed."""
        topology = self.plan.topology(self._applied)
        if topology != self._applied:
            iptables.apply(topology, self._variant())
            self._applied = topology
            self._guard(topology)
        self._judge_again()

    def _guard(self, topology: Topology) -> None:
        if topology.outside and not self.plan.monitor:
            first, last = topology.media
            self.gateway.execute.bindings.guard(range(first, last + 1), self.plan.outside_addresses())

    def _judge_again(self, restarted: bool = False) -> None:
        kept = tuple(
            Kept(entry.key, entry.mark)
            for entry in self.gateway.execute.conntrack.entries()
            if entry.mark & self.plan.marks.state
        )
        with interfaces() as interface_of:
            several = sum(not zone.networks for zone in self.plan.policy.zones.values()) > 1
            event = RulesLoaded(self.plan.settings(), kept, interface_of if several else nowhere, restarted)
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
        for warning in self.plan.warnings:
            log.warning("policy: %s: %s", warning.kind, warning)
            self.events.write(Report("config", {"warning": warning.kind, "text": str(warning)}), time.time())

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
            self.unknown.report(report.body, self.plan.wanted)
        if self.plan.logged(report.body):
            self.events.write(report, time.time())

    def answer(self, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """One answer of the control socket."""
        match request.get("ask"):
            case "load":
                given = request.get("policy")
                yield from self.load(Path(given) if isinstance(given, str) else None)
            case "stats":
                warnings = [str(warning) for warning in self.plan.warnings]
                more = {"events_lost": self.events.lost, "policy_warnings": warnings, "monitor": self.plan.monitor}
                yield {**self.answers.stats(), **more}
            case _:
                yield from self.answers.answer(request)


def _quietly(remove: Any, topology: Topology, variant: Any) -> None:
    try:
        remove(topology, variant)
    except KernelError as error:
        log.error("%s", error)
