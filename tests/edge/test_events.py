"""Events in the shape of Suricata's EVE: one JSON line each, with one object named as the event type."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from appid.alg.expectation import Expectation
from appid.dataplane.command import Report
from appid.edge.events import Events, event
from appid.engine import AnomalyReport, CallReport, DecisionReport, FlowReport, PinholeReport
from appid.flow.key import FlowKey
from appid.identify.identification import Identification
from appid.policy import Decision
from appid.wire import UDP, packed

CLIENT, RELAY, PEER = packed("172.16.42.187"), packed("17.173.254.35"), packed("71.230.89.52")
KEY = FlowKey(UDP, CLIENT, 16402, RELAY, 3478)
WANTED = Expectation(UDP, CLIENT, 16402, PEER, None, None, 16402, "facetime", 1, "sdp-answer", 172, 9.0)
REPORTS = {
    "flow": Report("flow", FlowReport(7, KEY, Identification("facetime", "strong"), 60, Decision("allow", "calls"), 1,
                                      False, 60, 1)),
    "call": Report("call", CallReport(1, "facetime", "id", CLIENT, None, 169, 172, None, "open", (1,), ())),
    "pinhole": Report("pinhole", PinholeReport(1, WANTED, None)),
    "anomaly": Report("anomaly", AnomalyReport(7, 90, "stun", "truncated")),
    "config": Report("config", {"warning": "dependency", "text": "sip is missing"}),
}  # fmt: skip
KINDS = {"flow", "call", "pinhole", "decision", "anomaly", "config"}


@pytest.mark.parametrize("kind", sorted(REPORTS))
def test_each_event_has_a_time_a_type_and_an_object_of_that_name(kind: str) -> None:
    told = json.loads(json.dumps(event(REPORTS[kind], 1447068000.25)))
    assert told["timestamp"] == "2015-11-09T11:20:00.250000+00:00"
    assert told["event_type"] == kind
    assert isinstance(told[kind], dict)
    assert KINDS & told.keys() == {kind}


def test_a_flow_event_has_eves_keys() -> None:
    told = event(REPORTS["flow"], 0.0)
    assert (told["src_ip"], told["src_port"]) == ("172.16.42.187", 16402)
    assert (told["dest_ip"], told["dest_port"]) == ("17.173.254.35", 3478)
    assert (told["proto"], told["app_proto"], told["flow_id"]) == ("UDP", "facetime", 7)
    assert told["community_id"].startswith("1:")
    assert told["flow"]["decision"] == {"action": "allow", "rule": "calls"}


@pytest.mark.parametrize("kind", sorted(set(REPORTS) - {"config"}))
def test_each_event_of_traffic_has_eves_keys(kind: str) -> None:
    keys = {"timestamp", "flow_id", "event_type", "src_ip", "src_port", "dest_ip", "dest_port", "proto", "app_proto",
            "community_id"}  # fmt: skip
    assert keys < event(REPORTS[kind], 0.0).keys()


def test_an_anomaly_names_its_flow() -> None:
    told = event(Report("anomaly", AnomalyReport(7, 90, "stun", "truncated", KEY)), 0.0)
    assert (told["src_ip"], told["dest_port"], told["app_proto"]) == ("172.16.42.187", 3478, "stun")
    assert told["community_id"] == event(REPORTS["flow"], 0.0)["community_id"]


def test_a_pinhole_event_names_both_ends() -> None:
    told = event(REPORTS["pinhole"], 0.0)
    assert (told["src_ip"], told["dest_ip"], told["dest_port"]) == ("71.230.89.52", "172.16.42.187", 16402)
    assert told["app_proto"] == "facetime"


def test_events_are_lines_of_a_file_also_after_its_rotation(tmp_path: Path) -> None:
    path = tmp_path / "log" / "eve.json"
    events = Events(str(path))
    for report in REPORTS.values():
        events.write(report, 1.0)
    assert [json.loads(line)["event_type"] for line in path.read_text().splitlines()] == list(REPORTS)
    os.rename(path, path.with_suffix(".1"))
    events.reopen()
    events.write(REPORTS["flow"], 2.0)
    events.close()
    assert len(path.read_text().splitlines()) == 1
    again = Events(str(path))
    again.write(REPORTS["flow"], 3.0)
    again.close()
    assert len(path.read_text().splitlines()) == 2, "what was there is kept"


def test_standard_output_and_nowhere(capfd: pytest.CaptureFixture[str]) -> None:
    events = Events("-")
    events.write(REPORTS["flow"], 1.0)
    events.close()
    assert json.loads(capfd.readouterr().out)["event_type"] == "flow"
    print("standard output is still open")
    nowhere = Events(None)
    nowhere.write(REPORTS["flow"], 1.0)
    assert nowhere.lost == 0


WRITER = """
import sys
from appid.dataplane.command import Report
from appid.edge.events import Events
from appid.engine import AnomalyReport
events = Events(sys.argv[1])
for number in range(20_000):
    events.write(Report("anomaly", AnomalyReport(1, number, "sip", "x" * 1000)), 1.0)
events.close()
print(events.lost, file=sys.stderr)
"""


def test_a_reader_that_does_not_read_loses_events_counted_and_holds_up_nothing() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, "-"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        assert writer.stderr is not None
        lost = int(writer.stderr.readline())  # it ended, and nobody had read a line
        lines = writer.stdout.read().splitlines()
    whole = [json.loads(line)["anomaly"]["packet"] for line in lines[:-1]]  # the last one may be cut
    assert whole == list(range(len(whole)))
    assert lost > 0
    assert len(whole) + lost in (20_000, 19_999), "each line was written or counted"


def test_standard_output_may_be_a_socket() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        done = subprocess.run(
            [sys.executable, "-c", WRITER, "-"], stdout=theirs.fileno(), stderr=subprocess.PIPE, check=True
        )
        assert int(done.stderr) > 0
        assert json.loads(ours.recv(1 << 20).splitlines()[0])["event_type"] == "anomaly"


def test_datagrams_each_hold_an_event_and_the_reader_may_come_late(tmp_path: Path) -> None:
    path = tmp_path / "events.sock"
    events = Events(f"unix:{path}")
    events.write(REPORTS["flow"], 1.0)
    assert events.lost == 1, "nobody was there"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as reader:
        reader.bind(str(path))
        events.write(REPORTS["flow"], 1.0)
        events.write(REPORTS["call"], 1.0)
        assert [json.loads(reader.recv(65536))["event_type"] for _ in range(2)] == ["flow", "call"]
        for _ in range(10_000):
            events.write(REPORTS["flow"], 1.0)
        reader.setblocking(False)
        read = 0
        while True:
            try:
                assert json.loads(reader.recv(65536))["event_type"] == "flow"
            except BlockingIOError:
                events.flush()
                try:
                    reader.recv(65536)
                except BlockingIOError:
                    break
            read += 1
    assert read + events.lost == 10_001
    assert events.lost > 1
    events.close()


def test_a_named_pipe_waits_for_no_reader(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    events = Events(str(path))
    events.write(REPORTS["flow"], 1.0)
    with open(path, "rb", buffering=0) as reader:
        events.write(REPORTS["call"], 1.0)
        lines = reader.read(65536).splitlines()
    assert [json.loads(line)["event_type"] for line in lines] == ["flow", "call"]
    events.close()


def test_a_place_that_is_gone_at_rotation_leaves_the_old_file_open(tmp_path: Path) -> None:
    path = tmp_path / "log" / "eve.json"
    events = Events(str(path))
    path.rename(tmp_path / "old.json")
    path.mkdir()
    with pytest.raises(OSError, match="directory"):
        events.reopen()
    events.write(REPORTS["flow"], 1.0)
    events.close()
    assert len((tmp_path / "old.json").read_text().splitlines()) == 1


def test_a_full_disk_loses_lines_and_counts_them() -> None:
    events = Events("/dev/full")
    events.write(REPORTS["flow"], 1.0)
    events.write(REPORTS["flow"], 1.0)
    assert events.lost == 2


def test_text_of_the_senders_cannot_break_a_line(tmp_path: Path) -> None:
    path = tmp_path / "eve.json"
    events = Events(str(path))
    events.write(Report("anomaly", AnomalyReport(1, 2, "sip", 'a\n{"event_type": "flow"}\n\u2028\ud800')), 1.0)
    events.close()
    (line,) = path.read_text().splitlines()
    assert json.loads(line)["event_type"] == "anomaly"


def test_a_decision_event_and_what_monitor_mode_adds() -> None:
    key = FlowKey(UDP, packed("172.16.42.9"), 5000, packed("192.0.2.53"), 53)
    report = Report("decision", DecisionReport(key, "dns", Decision("deny", "no lookups"), True))
    told = event(report, 0.0)
    assert (told["event_type"], told["src_ip"], told["dest_port"]) == ("decision", "172.16.42.9", 53)
    assert told["app_proto"] == "dns"
    assert told["decision"] == {"action": "deny", "rule": "no lookups"}
    assert event(report, 0.0, enforced=False)["decision"] == {"action": "deny", "rule": "no lookups", "enforced": False}
    undecided = event(Report("decision", DecisionReport(key, None, None, True)), 0.0)
    assert undecided["decision"] is None
