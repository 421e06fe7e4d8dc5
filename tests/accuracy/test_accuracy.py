"""All shared captures, as `make accuracy` runs them: targets, failures, the same bytes again, no false FaceTime."""

from __future__ import annotations

import csv
from argparse import Namespace
from collections.abc import Iterator

import pytest

from tests.accuracy import __main__ as harness
from tests.accuracy import oracle, ours, targets, verdicts
from tests.accuracy.ours import Run

pytestmark = pytest.mark.skipif(not harness.CAPTURES.exists(), reason="the captures are not part of the repository")

PATHS = harness.all_captures()
QUIET = Namespace(captures=[], differ=False, wrong=False)
AGAIN = PATHS[::16]
"""Run a second time here; `make accuracy` does all."""


@pytest.fixture(scope="module")
def first() -> list[Run]:
    return harness.runs(PATHS)


def test_no_capture_makes_it_fail(first: list[Run]) -> None:
    assert [run.failure for run in first if run.failure is not None] == []


def test_the_accuracy_that_was_reached_stays(first: list[Run], capsys: pytest.CaptureFixture[str]) -> None:
    compared = harness.labelled(PATHS, first)
    assert harness.report(compared, harness.judge(compared, refresh=False), QUIET) == []
    assert "total" in capsys.readouterr().out


def test_two_runs_give_the_same_bytes(first: list[Run]) -> None:
    """In other processes, with other hash seeds."""
    told = dict(zip(PATHS, first, strict=True))
    assert [
        run.capture for path, run in zip(AGAIN, harness.runs(AGAIN), strict=True) if run.digest != told[path].digest
    ] == []


def test_what_the_engine_keeps_is_bounded(first: list[Run]) -> None:
    assert max(run.records for run in first) <= targets.MAX_RECORDS
    assert 0 < max(run.memory for run in first) <= targets.MAX_MEMORY


def named_facetime() -> Iterator[tuple[str, str, frozenset[str]]]:
    """capture, protocol, both ends; `*` is any port."""
    with (harness.CAPTURES / "facetime_flows.tsv").open() as file:
        for row in csv.DictReader(file, delimiter="\t"):
            if row["label"] == "facetime":
                ends = frozenset(row[side].replace(":", " ") for side in ("side_a", "side_b"))
                yield row["capture"], row["proto"], ends


def test_facetime_is_nowhere_but_where_it_is(first: list[Run]) -> None:
    true = set(named_facetime())
    assert len(true) > 5
    said = {
        (run.capture, proto, frozenset(ends))
        for run in first
        for (proto, *ends), flow in run.flows.items()
        if "facetime" in flow.applications
    }
    assert said - true == set()


def test_the_verdicts_of_people_are_few_and_proven() -> None:
    assert 0 < len(verdicts.by_hand()) <= verdicts.MOST_BY_HAND


@pytest.mark.parametrize("name", ["jabber.pcap", "stun.pcap", "discord.pcap", "1kxun.pcap"])
def test_recorded_verdicts_can_be_derived_again(name: str) -> None:
    recorded = {key: verdict for (capture, key), verdict in verdicts.load().items() if capture == name}
    (path,) = (path for path in PATHS if path.name == name and path.parent.name == "ndpi")
    assert oracle.verdicts(path, recorded) == recorded


@pytest.mark.parametrize(
    ("capture", "application"),
    [
        pytest.param("smtp-starttls.pcap", "ssl", id="STARTTLS"),
        pytest.param("rdp_over_tls.pcap", "ssl", id="TLS after RDP's negotiation"),
        pytest.param("quic_sh.pcap", "quic", id="QUIC in mid-connection"),
        pytest.param("netbios.pcap", "netbios-ns", id="NetBIOS names are not DNS"),
        pytest.param("netbios_wildcard_dns_query.pcap", "dns", id="NetBIOS's format asked of a DNS server"),
    ],
)
def test_what_once_was_wrong(capture: str, application: str) -> None:
    run = ours.run(harness.CAPTURES / "ndpi" / capture)
    assert application in {name for flow in run.flows.values() for name in flow.applications}
