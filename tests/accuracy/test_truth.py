"""FaceTime of 2023 on its own two captures, and what our confidence is worth; the whole set is `make accuracy`."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import cache

import pytest

from tests.accuracy import confidence, ours, truth
from tests.accuracy.labels import tuple_of
from tests.accuracy.ours import Flow, Named, Run

MISSING = not truth.FILE.exists()
CALLER = "facetime_wifi_2023_caller.pcapng"
RELAY = tuple_of("udp", "10.239.19.254", 16393, "17.249.172.142", 3482)
pytestmark = pytest.mark.skipif(MISSING, reason="the shared captures are not here")


@cache
def runs() -> tuple[Run, ...]:
    return tuple(ours.run(path) for path in truth.of_captures())


def test_every_flow_of_the_table_is_right_from_its_first_packet() -> None:
    assert {run.capture for run in runs()} == {one.capture for one in truth.read()}
    assert truth.missed(runs()) == []
    facetime = [one for one in truth.read() if one.label == truth.FACETIME]
    named = [key for run in runs() for key, flow in run.flows.items() if truth.FACETIME in flow.applications]
    assert len(named) == len(facetime) == 9


def test_a_decided_flow_of_2023_is_the_kernels_and_opens_nothing() -> None:
    """Nothing of its signalling can be read: one packet each comes to userspace, and no pinhole is asked for."""
    from appid.dataplane.model import Kernel
    from appid.edge.replay import Replay
    from appid.engine import Engine

    settings, _ = ours.settings()
    for path in truth.of_captures():
        done = Replay(Engine(settings), Kernel(settings.marks, "pass")).run(path)
        calls = [life for life in done.lives if life.report and life.report.identification.application == "facetime"]
        assert calls
        assert {life.queued for life in calls} == {1}
        assert not done.pinholes


def test_the_check_itself_sees_what_is_wrong() -> None:
    run = next(run for run in runs() if run.capture == CALLER)
    late = replace(run, flows=run.flows | {RELAY: Flow(["facetime"], lives=[Named("facetime", "strong", 120, 118)])})
    other = tuple_of("udp", "10.0.0.1", 1, "10.0.0.2", 2)
    false = replace(run, flows=run.flows | {other: Flow(["facetime"], lives=[Named("facetime", "strong", 1, 1)])})
    lost = replace(run, flows={key: flow for key, flow in run.flows.items() if key != RELAY})
    assert [len(truth.missed([one])) for one in (late, false, lost)] == [1, 1, 1]


def test_the_share_of_right_names_must_fall_with_confidence() -> None:
    def counted(right: int, wrong: int) -> Counter[bool]:
        return Counter({True: right, False: wrong})

    fine = {"conclusive": counted(99, 1), "strong": counted(9, 1), "supporting": counted(1, 1)}
    certain = dict.fromkeys(fine, counted(9, 0))
    assert not confidence.unordered(fine, fine)
    assert not confidence.unordered(certain, fine), "nothing given may be wrong; what evidence says must differ"
    assert confidence.unordered(fine | {"supporting": counted(95, 5)}, fine)
    assert confidence.unordered(fine, fine | {"strong": counted(99, 1)})
    assert confidence.unordered(fine, certain)
    assert confidence.share(fine["strong"]) == 0.9
    # Wilson's interval of 9 in 10: 0.5958 to 0.9821
    assert round(confidence.least(fine["strong"]), 4) == 0.5958


def test_evidence_counts_for_each_name_that_it_spoke_for() -> None:
    """FaceTime's relay: conclusive for its name; what a single address said of another is a claim, and wrong."""
    run = next(run for run in runs() if run.capture == CALLER)
    assert run.flows[RELAY].spoken["facetime"] == "conclusive"
    said = replace(run.flows[RELAY], spoken={"facetime": "conclusive", "zoom": "supporting"})
    counts, wrong = confidence.evidence([replace(run, flows={RELAY: said})], {}, {}, {})
    assert counts == {"conclusive": {True: 1}, "strong": {}, "supporting": {False: 1}}
    assert [line.split()[-1] for line in wrong] == ["zoom"]


def test_facetime_elsewhere_counts_as_wrong() -> None:
    run = Run("other.pcap", {}, 0, 0.0, "", 0, None, None)
    life = Named("facetime", "supporting", 1, 1)
    assert confidence.judge(run, RELAY, life, None, None, {}, truth.read()) is False
