"""Networks and schedules."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from appid.policy.rule import Schedule, holds
from appid.wire import packed

BERLIN = ZoneInfo("Europe/Berlin")


def test_a_network_never_holds_an_address_of_the_other_family() -> None:
    assert holds((packed("0.0.0.0"), 0), packed("1.2.3.4"))
    assert not holds((packed("0.0.0.0"), 0), packed("::1"))


@pytest.mark.parametrize(
    ("when", "active"),
    [
        ("2026-11-20 22:00", True),  # a Friday
        ("2026-11-20 21:59", False),
        ("2026-11-21 05:59", True),  # its night goes on into Saturday
        ("2026-11-21 06:00", False),
        ("2026-11-21 22:30", False),  # Saturday's night is not listed
        ("2026-11-20 05:00", False),  # nor is Thursday's
    ],
)
def test_a_schedule_over_midnight(when: str, active: bool) -> None:
    friday_night = Schedule(frozenset({4}), 22 * 60, 6 * 60, BERLIN)
    assert friday_night.active(datetime.fromisoformat(when).replace(tzinfo=BERLIN).timestamp()) is active


def test_a_schedule_is_local_time_in_summer_and_in_winter() -> None:
    breaks = Schedule(start=12 * 60, end=13 * 60, timezone=BERLIN)
    for day in ("2026-01-15", "2026-07-15"):
        noon = datetime.fromisoformat(f"{day} 12:00").replace(tzinfo=BERLIN).timestamp()
        assert [breaks.active(noon + minutes * 60) for minutes in (-1, 0, 59, 60)] == [False, True, True, False]
