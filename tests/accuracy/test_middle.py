"""FaceTime's own captures from the middle of their flows, and what the comparison would not let pass."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from tests.accuracy import middle, ours, truth
from tests.accuracy.ours import Flow, Named, Run

pytestmark = pytest.mark.skipif(not truth.FILE.is_file(), reason="the shared captures are not here")


@cache
def whole() -> list[Run]:
    return [ours.run(path) for path in truth.of_captures()]


@pytest.mark.parametrize("gone", middle.GONE)
def test_facetime_of_2023_is_known_from_the_middle_of_its_flows(gone: int) -> None:
    parts = [middle.run(path, gone) for path in truth.of_captures()]
    agree, differ, wrong = middle.compare(whole(), parts)
    assert wrong == []
    assert differ == []
    assert agree[True] > 5
    named = {key for part in parts for key, flow in part.flows.items() if flow.applications == ["facetime"]}
    assert len([key for key in named if any("17.249.172.142 3482" in end for end in key)]) == 3, "the relay's"


def test_what_is_missed_and_what_is_too_much_are_told() -> None:
    run = whole()[0]
    key = next(key for key, flow in run.flows.items() if flow.applications == ["facetime"])
    other = ("udp", "192.0.2.1 1", "192.0.2.2 2")
    lost = replace(run, flows={key: Flow(["quic"], {"QUIC"}, lives=[Named("quic", "strong", 1, 1)])})
    false = replace(run, flows={other: Flow(["facetime"], lives=[Named("facetime", "strong", 1, 1)])})
    assert [len(middle.compare([run], [part])[2]) for part in (lost, false, replace(run, failure="it fell"))] == [
        1,
        1,
        1,
    ]
    known = replace(run, flows={other: Flow(["dns"], {"DNS"}, lives=[Named("dns", "conclusive", 1, 1)])})
    named = replace(run, flows={other: Flow(["rtp"], {"RTP"}, lives=[Named("rtp", "strong", 1, 1)])})
    assert middle.compare([known], [named])[0] == {False: 1}
