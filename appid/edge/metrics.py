"""Prometheus metrics. In: reports, commands, counts. Out: the metrics of docs/reference/metrics.md, for who asks.

No label is unbounded: applications, rules, actions and causes come from files, never from packets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from appid import __version__
from appid.dataplane.command import Command, Report, SetVerdict
from appid.dataplane.marks import Marks
from appid.engine import (
    AnomalyReport,
    CallReport,
    DecisionReport,
    FlowEnded,
    FlowReport,
    PinholeReport,
    TranslationReport,
)
from appid.policy import Decision
from appid.wire import UDP

QUEUES = Path("/proc/net/netfilter/nfnetlink_queue")
REMEMBERED = 1 << 16
"""Flows and calls whose reports are known to repeat."""
SHARED = "shared"
"""The media kind of a port that carries audio and video alike."""
_DROPS = {5: "full", 6: "user"}
"""Fields of a line of nfnetlink_queue: packets dropped because the queue, or the socket's buffer, was full."""


class Metrics:
    """All counters of one gateway process. `serve` answers scrapes from a thread of its own."""

    def __init__(self, marks: Marks, applications: Mapping[int, str], queue: int) -> None:
        self.registry = CollectorRegistry()
        self.marks = marks
        self.applications = applications
        self._queue = queue
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
        self.errors = Counter("appid_decode_errors", "Packets that broke their protocol", ["protocol"], **made)
        self.decisions = Counter("appid_policy_decisions", "Decisions", ["rule", "action"], **made)
        self.warnings = Gauge("appid_policy_warnings", "Warnings about the policy that is loaded", **made)
        self.exceptions = Counter("appid_exceptions", "Exception policy applied", ["cause", "action"], **made)
        self.reloaded = Gauge("appid_config_reload_success", "1 if the last load succeeded", **made)
        self.reload_time = Gauge("appid_config_last_reload_timestamp_seconds", "When the last load succeeded", **made)
        Info("appid_build", "The program", **made).info({"version": __version__})

    def serve(self, listen: tuple[str, int]) -> Callable[[], None]:
        """Answer at (address, port) from now on; returns what ends it. OSError if the address is taken."""
        server, thread = start_http_server(listen[1], listen[0], self.registry)

        def end() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        return end

    def loaded(self, applications: Mapping[int, str], warnings: int, now: float) -> None:
        """Another policy and other applications are in force."""
        self.applications = applications
        self.warnings.set(warnings)
        self.reloaded.set(1)
        self.reload_time.set(now)

    def watch(self, gauges: Callable[[], dict[str, Any]]) -> None:
        """`gauges()` -> flows, calls, pinholes by family: asked at each scrape."""
        self.registry.register(_Live(gauges, self._queue))

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
            case CallReport() as call if call.end != "open":
                self._call(call)
            case PinholeReport() as pinhole if pinhole.closed_at is None:
                self.opened.labels(pinhole.expectation.application).inc()
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
            if len(self._ended) > REMEMBERED:
                self._ended.clear()
            self._ended.add(call.call)
            self.calls.labels(call.application, call.end).inc()

    def ended(self, event: FlowEnded, media: frozenset[str]) -> None:
        """A flow's final counters; it counts as media if its application is one of calls and it went over UDP."""
        name = self.applications.get(self.marks.decode(event.mark).application)
        if name in media and event.key.proto == UDP:
            self.media.labels(name, SHARED).inc(sum(event.bytes))


class _Live:
    """What is read at the moment of a scrape."""

    def __init__(self, gauges: Callable[[], dict[str, Any]], queue: int) -> None:
        self._gauges = gauges
        self._queue = queue

    def collect(self) -> Iterator[Metric]:
        told = self._gauges()
        yield GaugeMetricFamily("appid_flows", "Flows that userspace follows", value=told["flows"])
        yield GaugeMetricFamily("appid_calls", "Calls that are open", value=told["calls"])
        pinholes = GaugeMetricFamily("appid_pinholes", "Pinholes in the kernel", labels=["family"])
        for family, count in told["pinholes"].items():
            pinholes.add_metric([family], count)
        yield pinholes
        dropped = CounterMetricFamily("appid_queue_dropped", "Packets lost in the queue", labels=["queue", "reason"])
        for reason, count in queue_drops(self._queue).items():
            dropped.add_metric([str(self._queue), reason], count)
        yield dropped


def queue_drops(queue: int, place: Path = QUEUES) -> dict[str, int]:
    """reason -> packets that the kernel dropped before userspace had them."""
    try:
        lines = place.read_text().splitlines()
    except OSError:
        return {}
    for line in lines:
        fields = line.split()
        if fields and int(fields[0]) == queue:
            return {reason: int(fields[at]) for at, reason in _DROPS.items()}
    return dict.fromkeys(_DROPS.values(), 0)
