"""Large policies: ten times the rules load in at most twelve times the time, whatever their shape, and judge a flow in
at most twice the time."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from appid.edge.config import Config
from appid.edge.plan import Plan, load_plan
from appid.flow.key import FlowKey
from appid.policy.evaluate import Situation
from appid.wire import UDP, packed
from tests.policy.shapes import SHAPES

RELAY = packed("17.173.254.35")
KEYS = [FlowKey(UDP, packed(f"10.{i >> 8}.{i & 255}.7"), 16402, RELAY, 3478) for i in range(1000)]


def loaded(folder: Path, text: str) -> tuple[Plan, float]:
    """As the gateway does it: read, checked, linted, compiled; and the seconds of it."""
    path = folder / "policy.toml"
    path.write_text(text)
    begun = time.process_time()
    plan = load_plan(Config(policy=path, rules=folder / "none"))
    assert plan.judge is not None
    return plan, time.process_time() - begun


def judged(plan: Plan, flows: int) -> float:
    begun = time.process_time()
    judge = plan.judge
    for key in KEYS[:flows]:
        at = Situation(key, judge.zone_of(key.src, "lan0"), judge.zone_of(key.dst, "wan0"))
        judge.overridden(key)
        judge.judge(at, None, None, 1)
        judge.judge(at, "facetime", frozenset(), 2)
    return time.process_time() - begun


def ratios(folder: Path, shape: str, fewer: int, more: int, turns: int) -> tuple[float, float]:
    """In turns, so that what else the machine does falls on both; the least of each is the cost."""
    texts = [SHAPES[shape](count) for count in (fewer, more)]
    runs = []
    for _ in range(turns):
        run: list[float] = []
        for text in texts:
            plan, seconds = loaded(folder, text)
            run += [seconds, judged(plan, fewer)]
        runs.append(run)
    load, judge, load_more, judge_more = (min(run[i] for run in runs) for i in range(4))
    return load_more / load, judge_more / judge


@pytest.mark.parametrize("shape", SHAPES)
def test_two_thousand_rules_of_any_shape(tmp_path: Path, shape: str) -> None:
    loading, judging = ratios(tmp_path, shape, 200, 2_000, 2)
    assert loading < 12
    assert judging < 3


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("shape", SHAPES)
def test_ten_thousand_rules_load_in_twelve_times_and_judge_in_twice_the_time_of_a_thousand(
    tmp_path: Path, shape: str
) -> None:
    loading, judging = ratios(tmp_path, shape, 1_000, 10_000, 5)
    print(f"{shape}: ten times the rules load in {loading:.1f} times and judge in {judging:.2f} times the time")
    assert loading < 12
    assert judging < 2
