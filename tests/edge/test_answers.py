"""What one worker answers: from what was reported; whole answers of a running gateway are in tests/netns."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from appid.edge.answers import Answers
from appid.edge.gateway import Gateway
from appid.edge.told import Told
from appid.engine import Engine, Settings
from tests.edge.test_events import REPORTS


@pytest.fixture
def answers() -> Answers:
    told = Told()
    for report in REPORTS.values():
        told.report(report)
    return Answers(Engine(Settings({})), cast("Gateway", SimpleNamespace()), told)


def test_calls_and_pinholes_are_answered_from_what_was_reported(answers: Answers) -> None:
    (call,) = answers.answer({"ask": "calls"})
    (pinhole,) = answers.answer({"ask": "pinholes"})
    assert (call["type"], call["caller"], call["end"]) == ("call", "172.16.42.187", "open")
    assert (pinhole["type"], pinhole["peer"], pinhole["closed_at"]) == ("pinhole", "71.230.89.52", None)


@pytest.mark.parametrize("request_", [{}, {"ask": "passwords"}, {"ask": ["flows"]}, {"ask": None}])
def test_what_nobody_can_answer_is_an_error(answers: Answers, request_: dict[str, Any]) -> None:
    (told,) = answers.answer(request_)
    assert told["type"] == "error"
