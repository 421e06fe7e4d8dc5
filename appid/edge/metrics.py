"""Prometheus metrics. In: reports, commands, counts. Out: the metrics of docs/reference/metrics.md, for who asks.

No label is unbounded: applications, rules, actions and causes come from files, never from packets. Several processes
share a directory (prometheus_client's multiprocess mode): what one of them counted outlives it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server, values
from prometheus_client.core import Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from appid import __version__
from appid.dataplane.command import Command, Report, SetVerdict
from appid.dataplane.marks import Marks
from appid.engine import (
    AnomalyReport,
    CallReport,
    DecisionReport,
    ExceptionReport,
    FlowEnded,
    FlowReport,
    PinholeReport,
    TranslationReport,
)
from appid.policy import Decision
from appid.wire import UDP

REMEMBERED = 1 << 16
"""Flows and calls whose reports are known to repeat."""
KINDS = ("audio", "video")
RESULTS = ("translated", "unparseable", "integrity", "too-long", "no-port", "partial")
"""Of a translation (engine/nat.py); each is there from the beginning, at 0: the first one is an increase."""
SHARED = "shared"
"""The media kind of a port that carries audio and video alike, or of which nobody said."""


class Metrics:
    """All counters of one process. Where several share a directory, `share` comes before."""

    def __init__(self, marks: Marks, applications: Mapping[int, str]) -> None:
        self.registry = CollectorRegistry()
        self.live = CollectorRegistry()  # gauges: appid_flows and the counter appid_flows_total would collide in one
        self.marks = marks
        self.applications = applications
        self._decided: dict[int, Decision] = {}
        self._ended: set[int] = set()
        made: dict[str, Any] = {"registry": self.registry}
        self.packets = Counter("appid_packets", "Packets that userspace answered", ["verdict"], **made)
        self.flows = Counter("appid_flows", "Flows decided", ["application", "action", "confidence"], **made)
        self.identify = Histogram(
            "appid_identify_packets", "Packets in userspace when a flow was decided",
            buckets=(1, 2, 3, 5, 8, 11, 20), **made,
        )  # fmt: skip
        self.verdict = Histogram(
            "appid_verdict_duration_seconds", "From a packet's arrival in userspace to its verdict",
            buckets=(0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.25), **made,
        )  # fmt: skip
        self.calls = Counter("appid_calls", "Calls ended", ["application", "end"], **made)
        self.opened = Counter("appid_pinholes_opened", "Pinholes opened", ["application"], **made)
        self.media = Counter(
            "appid_media_bytes", "Bytes of ended media flows of calls", ["application", "kind"], **made
        )
        self.translations = Counter("appid_nat_translations", "Addresses translated in payloads", ["result"], **made)
        for result in RESULTS:
            self.translations.labels(result)
        self.errors = Counter("appid_decode_errors", "Packets that broke their protocol", ["protocol"], **made)
        self.decisions = Counter("appid_policy_decisions", "Decisions", ["rule", "action"], **made)
        self.dropped = Counter("appid_queue_dropped", "Packets lost in the queue", ["queue", "reason"], **made)
        self.exceptions = Counter("appid_exceptions", "Exception policy applied", ["cause", "action"], **made)
        self.refused = Counter("appid_refused_packets", "Packets that the kernel chains refused", ["action"], **made)
        self.restarts = Counter("appid_worker_restarts", "Workers that ended and were started again", **made)
        self.mended = Counter("appid_rules_mended", "Rule sets that others had changed, put back", **made)
        self.failures = Counter("appid_command_failures", "Changes that the kernel refused", **made)
        self.unwritten = Counter("appid_state_unwritten", "Changes of calls that could not be written down", **made)
        self.events_lost = Counter("appid_events_lost", "Events that no reader took", **made)
        self._gauges()

    def _gauges(self) -> None:
        live: dict[str, Any] = {"registry": self.live, "multiprocess_mode": "livesum"}
        self.following = Gauge("appid_flows", "Flows that userspace follows", **live)
        self.open_calls = Gauge("appid_calls", "Calls that are open", **live)
        self.pinholes = Gauge("appid_pinholes", "Pinholes in the kernel", ["family"], **live)
        # The supervisor's; what others leave at 0 changes nothing.
        one: dict[str, Any] = {"registry": self.live, "multiprocess_mode": "max"}
        self.workers = Gauge("appid_workers", "Workers that serve", **one)
        self.in_force = Gauge("appid_rules_in_force", "0 where an admin took the rules away beside it", **one)
        self.warnings = Gauge("appid_policy_warnings", "Warnings about the policy that is loaded", **one)
        self.reloaded = Gauge("appid_config_reload_success", "1 if the last load succeeded", **one)
        self.reload_time = Gauge("appid_config_last_reload_timestamp_seconds", "When the last load succeeded", **one)
        Gauge("appid_build_info", "The program", ["version"], **one).labels(__version__).set(1)

    @property
    def words(self) -> dict[tuple[str, str], str]:
        """(name, kind) -> what it counts: files that processes share do not hold it."""
        families = (*self.registry.collect(), *self.live.collect())
        return {(family.name, family.type): family.documentation for family in families}

    def loaded(self, applications: Mapping[int, str], warnings: int, now: float) -> None:
        """Another policy and other applications are in force."""
        self.applications = applications
        self.warnings.set(warnings)
        self.reloaded.set(1)
        self.reload_time.set(now)

    def gauges(self, flows: int, calls: int, pinholes: Mapping[str, int]) -> None:
        """The sizes of one engine's tables, pinholes by family."""
        self.following.set(flows)
        self.open_calls.set(calls)
        for family in ("ipv4", "ipv6"):
            self.pinholes.labels(family).set(pinholes.get(family, 0))

    def commands(self, commands: list[Command]) -> None:
        for command in commands:
            if isinstance(command, SetVerdict):
                action = self.marks.decode(command.mark).action
                verdict = "drop" if command.verdict == "drop" else action or "pass"
                self.packets.labels(verdict).inc()

    def report(self, report: Report) -> None:
        match report.body:
            case FlowReport() as flow if flow.decision is not None:
                self._decision(flow)
            case DecisionReport() as judged if judged.decision is not None:
                self.decisions.labels(judged.decision.rule, judged.decision.action).inc()
            case CallReport() as call if call.end not in ("open", "joined"):
                self._call(call)
            case PinholeReport() as pinhole if pinhole.closed_at is None:
                self.opened.labels(pinhole.expectation.application).inc()
            case ExceptionReport() as exception:
                self.exceptions.labels(exception.cause, exception.failure).inc()
            case AnomalyReport() as anomaly:
                self.errors.labels(anomaly.protocol).inc()
            case TranslationReport() as translation:
                self.translations.labels(translation.result).inc()
            case _:
                pass

    def _decision(self, flow: FlowReport) -> None:
        """Told of again, with its end or its call: a decision counts when it is made."""
        assert flow.decision is not None
        before = self._decided.get(flow.flow)
        if flow.decision == before:
            return
        if len(self._decided) > REMEMBERED:
            self._decided.clear()
        self._decided[flow.flow] = flow.decision
        self.decisions.labels(flow.decision.rule, flow.decision.action).inc()
        if before is None:
            named = flow.identification
            self.flows.labels(named.application, flow.decision.action, named.confidence or "none").inc()
            self.identify.observe(flow.userspace_packets)

    def _call(self, call: CallReport) -> None:
        """A call ends once: its BYE is told of, and its answer again."""
        if call.call not in self._ended:
            self.counted(Report("call", call))
            self.calls.labels(call.application, call.end).inc()

    def counted(self, report: Report) -> None:
        """The end that this tells of was counted before, by a process that is gone."""
        if isinstance(report.body, CallReport) and report.body.end != "open":
            if len(self._ended) > REMEMBERED:
                self._ended.clear()
            self._ended.add(report.body.call)

    def name_of(self, mark: int) -> str:
        """The application in a connmark; "unknown" where it holds none."""
        return self.applications.get(self.marks.decode(mark).application, "unknown")

    def ended(self, event: FlowEnded, media: frozenset[str], medium: tuple[str, str] | None = None) -> None:
        """A flow's final counters; over UDP it counts as media if a call's pinhole let it in, or if its application is
        one of `media`. `medium`: the call's application, and what its description said of the port; that is the
        sender's word, so no other becomes a label."""
        name = self.applications.get(self.marks.decode(event.mark).application)
        if event.key.proto != UDP or (medium is None and name not in media):
            return
        application, kind = medium or (name, SHARED)
        self.media.labels(application, kind if kind in KINDS else SHARED).inc(sum(event.bytes))


def clear(directory: Path) -> None:
    """An empty directory for the processes of a new start."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)


def share(directory: Path, name: str) -> None:
    """From now on this process counts in files of `directory` under `name`, going on from where one of that name
    stopped. Before its Metrics are made."""
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(directory)
    values.ValueClass = values.MultiProcessValue(lambda: name)  # type: ignore[no-untyped-call]


def gone(directory: Path, name: str) -> None:
    """The process of that name has ended: its gauges say nothing any more, its counts stay."""
    mark_process_dead(name, str(directory))  # type: ignore[no-untyped-call]


class _Merged(Collector):
    def __init__(self, directory: Path, words: Mapping[tuple[str, str], str]) -> None:
        self._directory = directory
        self._words = words

    def collect(self) -> Iterator[Metric]:
        files = [str(path) for path in self._directory.glob("*.db")]
        for gauges in (True, False):
            wanted = [path for path in files if Path(path).name.startswith("gauge_") == gauges]
            for family in MultiProcessCollector.merge(wanted):  # type: ignore[no-untyped-call]
                family.documentation = self._words.get((family.name, family.type), family.documentation)
                yield family


def merged(directory: Path, words: Mapping[tuple[str, str], str]) -> CollectorRegistry:
    """What all processes of the directory counted; `words`: Metrics.words."""
    registry = CollectorRegistry()
    registry.register(_Merged(directory, words))
    return registry


def serve(listen: tuple[str, int], registry: CollectorRegistry) -> Callable[[], None]:
    """Answer at (address, port) from now on, in a thread; returns what ends it. OSError if the address is taken."""
    server, thread = start_http_server(listen[1], listen[0], registry)

    def end() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return end
