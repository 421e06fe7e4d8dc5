"""What to do when blind."""

from __future__ import annotations

from appid.policy.exception import CAUSES, DEFAULTS, ExceptionPolicy


def test_every_cause_has_a_default_and_the_operator_may_turn_each() -> None:
    assert set(DEFAULTS) == set(CAUSES)
    for cause in CAUSES:
        assert ExceptionPolicy().failure(cause) == DEFAULTS[cause]
        assert ExceptionPolicy({cause: "open"}).opens(cause)
        assert not ExceptionPolicy({cause: "closed"}).opens(cause)


def test_a_gateway_without_its_engine_stops_traffic_unless_told_otherwise() -> None:
    assert not ExceptionPolicy().opens("engine-down")
    assert not ExceptionPolicy().opens("queue-full")
