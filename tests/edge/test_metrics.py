"""Metrics: what a scrape reads after known reports; names and labels are those of docs/reference/metrics.md."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from urllib.request import urlopen

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from appid import __version__
from appid.alg.expectation import Expectation
from appid.dataplane.command import Report, SetVerdict
from appid.dataplane.marks import Marks
from appid.edge import metrics as room
from appid.edge.metrics import Metrics
from appid.engine import AnomalyReport, CallReport, FlowEnded, FlowReport, PinholeReport
from appid.flow.key import FlowKey
from appid.identify.identification import Identification
from appid.policy import Decision
from appid.wire import TCP, UDP, packed

MARKS = Marks()
KEY = FlowKey(UDP, packed("10.0.0.2"), 16402, packed("192.0.2.1"), 3478)
REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "metrics.md"


@pytest.fixture
def metrics() -> Metrics:
    made = Metrics(MARKS, {7: "facetime"})
    made.gauges(3, 1, {"ipv4": 2})
    return made


def scrape(registry: CollectorRegistry) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Over real HTTP, as Prometheus does."""
    end = room.serve(("127.0.0.1", 19466), registry)
    try:
        with urlopen("http://127.0.0.1:19466/metrics", timeout=5) as answer:
            text = answer.read().decode()
    finally:
        end()
    families = text_string_to_metric_families(text)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def labels(**given: str) -> frozenset[tuple[str, str]]:
    return frozenset(given.items())


def flow(number: int, action: str, confidence: str | None = "conclusive") -> Report:
    named = Identification("facetime", confidence)  # type: ignore[arg-type]
    decision = Decision(action, "calls")  # type: ignore[arg-type]
    return Report("flow", FlowReport(number, KEY, named, 1, decision, 1, False, 1, 4))


def test_a_scrape_tells_what_was_reported(metrics: Metrics) -> None:
    wanted = Expectation(UDP, KEY.src, 16402, KEY.dst, None, None, 16402, "facetime", 1, "sdp-answer", 9, 100.0)
    call = CallReport(1, "facetime", "x", None, None, 1, 2, 3, "bye", (1,), ())
    for report in (
        flow(1, "allow"), flow(1, "allow"), flow(2, "deny"),
        Report("pinhole", PinholeReport(1, wanted, None)), Report("pinhole", PinholeReport(1, wanted, 12)),
        Report("call", call), Report("call", replace(call, ended_at=4)),
        Report("anomaly", AnomalyReport(1, 5, "stun", "truncated")),
    ):  # fmt: skip
        metrics.report(report)
    metrics.commands([SetVerdict(1, "repeat", MARKS.passing), SetVerdict(2, "repeat", MARKS.encode("allow", 7))])
    metrics.ended(FlowEnded(KEY, MARKS.encode("allow", 7), (10, 5), (1000, 500)), frozenset({"facetime"}))
    metrics.ended(FlowEnded(KEY, MARKS.encode("allow", 8), (10, 5), (1000, 500)), frozenset({"facetime"}))
    rtp = FlowEnded(KEY, MARKS.encode("allow", 8), (10, 5), (700, 500))
    metrics.ended(rtp, frozenset({"facetime"}), ("sip", "audio"))
    metrics.ended(rtp._replace(key=KEY._replace(proto=TCP)), frozenset({"facetime"}), ("sip", "audio"))
    metrics.ended(rtp, frozenset({"facetime"}), ("sip", "x" * 40))
    read = scrape(metrics.registry)
    allowed = labels(application="facetime", action="allow", confidence="conclusive")
    assert read["appid_flows_total", allowed] == 1
    assert read["appid_policy_decisions_total", labels(rule="calls", action="deny")] == 1
    assert read["appid_policy_decisions_total", labels(rule="calls", action="allow")] == 1, "told twice, made once"
    assert read["appid_pinholes_opened_total", labels(application="facetime")] == 1
    assert read["appid_calls_total", labels(application="facetime", end="bye")] == 1
    assert read["appid_decode_errors_total", labels(protocol="stun")] == 1
    assert read["appid_packets_total", labels(verdict="pass")] == 1
    assert read["appid_packets_total", labels(verdict="allow")] == 1
    assert read["appid_media_bytes_total", labels(application="facetime", kind="shared")] == 1500
    assert read["appid_media_bytes_total", labels(application="sip", kind="audio")] == 1200
    assert read["appid_media_bytes_total", labels(application="sip", kind="shared")] == 1200, "no sender makes labels"
    live = scrape(metrics.live)
    assert live["appid_pinholes", labels(family="ipv4")] == 2
    assert live["appid_calls", labels()] == 1


def test_names_are_those_of_the_reference(metrics: Metrics) -> None:
    documented = set(re.findall(r"^\| (appid_\w+) ", REFERENCE.read_text(), re.M))
    offered = set()
    for family in (*metrics.registry.collect(), *metrics.live.collect()):
        offered.add(family.name + {"counter": "_total", "info": "_info"}.get(family.type, ""))
    assert offered == documented


COUNTING = """
import os, sys
from pathlib import Path
from appid.edge import metrics
from appid.dataplane.marks import Marks

directory, name, calls = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
metrics.share(directory, name)
made = metrics.Metrics(Marks(), {})
made.packets.labels("allow").inc(calls)
made.gauges(calls, calls, {"ipv4": calls})
if name == "supervisor":
    made.loaded({}, 2, 1000.0)
os.kill(os.getpid(), 9)  # whatever ends a process, what it counted stays
"""


def test_what_several_processes_counted_is_told_as_one(tmp_path: Path) -> None:
    directory = tmp_path / "metrics"
    room.clear(directory)
    for name, calls in (("supervisor", "0"), ("w0", "5"), ("w1", "7"), ("w0", "3")):
        subprocess.run([sys.executable, "-c", COUNTING, str(directory), name, calls], check=False)
    read = scrape(room.merged(directory, {}))
    assert read["appid_packets_total", labels(verdict="allow")] == 15, "one that began anew goes on counting"
    assert read["appid_calls", labels()] == 10, "a gauge is what the last one of that name said"
    assert read["appid_policy_warnings", labels()] == 2
    assert read["appid_config_reload_success", labels()] == 1
    assert read["appid_build_info", labels(version=__version__)] == 1
    words = Metrics(MARKS, {}).words
    told = {family.name: family.documentation for family in room.merged(directory, words).collect()}
    assert told["appid_packets"] == "Packets that userspace answered"
    room.gone(directory, "w1")
    read = scrape(room.merged(directory, {}))
    assert read["appid_packets_total", labels(verdict="allow")] == 15, "counts outlive their process"
    assert read["appid_calls", labels()] == 3, "gauges do not"
    room.clear(directory)
    assert scrape(room.merged(directory, {})) == {}
