"""What the edge may leave out of an event."""

from __future__ import annotations

from appid.engine import RulesLoaded
from appid.engine.event import nowhere
from tests.engine.play import ALL


def test_a_reload_needs_settings_only() -> None:
    event = RulesLoaded(ALL)
    assert (event.kept, event.restarted, event.interface_of) == ((), False, nowhere)
    assert event.interface_of(bytes(4)) == "", "zones by address alone"
