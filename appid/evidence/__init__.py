"""Evidence: facts with their place and time, kept per flow in a bounded ledger."""

from __future__ import annotations

from typing import NamedTuple

from appid.wire import Fact


class Evidence(NamedTuple):
    """A fact, the flow and packet it came from, and when (seconds)."""

    fact: Fact
    flow: int
    packet: int
    time: float
