"""The engine's time goes on as time does, whatever the host's clock is set to."""

from __future__ import annotations

import pytest

from appid.edge.clock import STEP, Clock


class Hands:
    """Of the two clocks."""

    wall, steady = 1_000.0, 50.0

    def passes(self, seconds: float, drift: float = 0.0) -> None:
        self.wall += seconds + drift
        self.steady += seconds


@pytest.mark.parametrize("step", [3600.0, -3600.0, 1.7e9])
def test_a_clock_that_is_set_moves_nothing(step: float, caplog: pytest.LogCaptureFixture) -> None:
    hands = Hands()
    clock = Clock(lambda: hands.wall, lambda: hands.steady)
    hands.passes(10.0)
    assert clock.now() == pytest.approx(1010.0)
    hands.wall += step
    hands.passes(1.0)
    assert clock.now() == pytest.approx(1011.0)
    assert clock.now() + clock.skew == pytest.approx(hands.wall), "the time of day, for schedules"
    assert caplog.text.count("the clock was set by") == 1
    hands.wall -= step
    assert clock.now() == pytest.approx(1011.0)


def test_a_clock_that_drifts_is_followed() -> None:
    hands = Hands()
    clock = Clock(lambda: hands.wall, lambda: hands.steady)
    for _ in range(100):
        hands.passes(1.0, STEP / 10)
        clock.now()
    assert clock.now() == pytest.approx(hands.wall)
    assert clock.skew == 0.0
