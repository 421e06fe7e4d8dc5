"""Who is right, and what counts as missed."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.accuracy import targets
from tests.accuracy.compare import Pair, compare, outcome, shares
from tests.accuracy.labels import Label, Tuple
from tests.accuracy.oracle import Verdict
from tests.accuracy.ours import Flow, Run

KEY: Tuple = ("udp", "10.0.0.1 1", "10.0.0.2 2")


def pair(ours: set[str], theirs: str | None) -> Pair:
    label = Label(theirs or "Discord", theirs, None, False, False)
    return Pair("a.pcap", KEY, ("name",), frozenset(ours), frozenset(), label, 1)


@pytest.mark.parametrize(
    ("ours", "theirs", "verdict", "result"),
    [
        ({"STUN", "RTP"}, "RTP", None, "agreed"),
        ({"RTP"}, None, {"RTP": [3]}, "appid right"),
        ({"RTP"}, None, {}, "nDPI right"),
        (set(), "DNS", {"DNS": [3]}, "nDPI right"),
        (set(), "DNS", {}, "appid right"),
        ({"STUN"}, "RTP", {"STUN": [1], "RTP": [9]}, "both right"),
        ({"STUN"}, "RTP", {"DTLS": [1]}, "both wrong"),
    ],
)
def test_outcome(ours: set[str], theirs: str | None, verdict: Verdict | None, result: str) -> None:
    assert outcome(pair(ours, theirs), verdict) == result


def run(**flows: Flow) -> Run:
    named = {("udp", name, "10.0.0.9 9"): flow for name, flow in flows.items()}
    return Run("a.pcap", named, 10, 0.1, "", 0, None, None)


def test_false_names_and_missed_ones_are_labelled_flows() -> None:
    ours = run(ours=Flow(["rtp"], {"RTP"}), nobody=Flow(["unknown-udp"]))
    theirs = [
        (("udp", "theirs", "10.0.0.9 9"), Label("DNS", "DNS", None, False, False)),
        (("udp", "tunnel", "10.0.0.9 9"), Label("DNS", "DNS", "GTP", False, False)),
        (("udp", "empty", "10.0.0.9 9"), Label("TLS", "TLS", None, True, True)),
        (("udp", "nobody", "10.0.0.9 9"), Label("SSDP", None, None, False, False)),
    ]
    found = compare(ours, theirs)
    assert [(p.key[1], p.protocol) for p in found.pairs] == [("ours", "RTP"), ("theirs", "DNS")]
    assert found.left_out == Counter({"inside a tunnel": 1, "without payload": 1})


def test_each_missed_target_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {"STUN": Counter({"agreed": 90, "nDPI right": 2}), "TLS": Counter({"agreed": 99, "appid right": 1})}
    assert shares(counts)["total"].ours == 190
    monkeypatch.setattr(targets, "floor", lambda: {"TLS": 100.0, "total": 99.0})
    assert targets.missed(counts) == [
        "98.96 of 100 flows are right, not 99",
        "STUN: 90 right of 92, nDPI 92",
        "total: 190 right of 192, nDPI 191",
        "total: 98.96 of 100 are right, it was 99.00",
    ]
