"""The service without a kernel: what it answers. With one: tests/netns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from appid.edge.config import Config
from appid.edge.errors import RuleErrors
from appid.edge.events import Events
from appid.edge.metrics import Metrics
from appid.edge.netlink import KernelError
from appid.edge.service import Service
from tests.edge.test_plan import SHIPPED


def test_a_missing_policy_is_refused_before_the_kernel_is_touched(tmp_path: Path) -> None:
    with pytest.raises(RuleErrors, match=r"none\.toml"):
        Service(Config(policy=tmp_path / "none.toml", rules=tmp_path / "none"))
    assert Service(Config(policy=SHIPPED, rules=tmp_path / "none")).plan.place == SHIPPED


@pytest.mark.parametrize("fault", [RuntimeError("a bug"), KernelError("ip route", "not allowed"), RecursionError()])
def test_any_fault_of_a_load_is_a_refusal_and_the_old_plan_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    service = Service(Config(policy=SHIPPED, rules=tmp_path / "none"))
    service.metrics, service.events = Metrics(service.plan.marks, service.plan.numbers), Events(None)
    service.metrics.reloaded.set(1)
    before = service.plan

    def failing(*_: object) -> None:
        raise fault

    monkeypatch.setattr("appid.edge.service.load_plan", failing)
    answers: list[dict[str, Any]] = []
    service.load(None, answers.extend)
    (answer,) = answers
    assert answer["type"] == "error"
    assert answer["fault"] == ("kernel" if isinstance(fault, KernelError) else "appid")
    assert service.plan is before
    (sample,) = (s for family in service.metrics.reloaded.collect() for s in family.samples)
    assert sample.value == 0
