"""The service without a kernel: what it answers. With one: tests/netns."""

from __future__ import annotations

from pathlib import Path

import pytest

from appid.edge.config import Config
from appid.edge.errors import RuleErrors
from appid.edge.service import Service
from tests.edge.test_plan import SHIPPED


def test_a_missing_policy_is_refused_before_the_kernel_is_touched(tmp_path: Path) -> None:
    with pytest.raises(RuleErrors, match=r"none\.toml"):
        Service(Config(policy=tmp_path / "none.toml", rules=tmp_path / "none"))
    assert Service(Config(policy=SHIPPED, rules=tmp_path / "none")).plan.place == SHIPPED
