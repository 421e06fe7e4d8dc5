"""The answer of the identify room: Identification, and the states where no name is due."""

from __future__ import annotations

from typing import Literal, NamedTuple

from appid.wire import Fact

Confidence = Literal["conclusive", "strong", "supporting"]
STRENGTHS: tuple[Confidence, ...] = ("supporting", "strong", "conclusive")

INCOMPLETE = "incomplete"
"""A TCP flow without a byte of payload."""
INSUFFICIENT_DATA = "insufficient-data"
"""Payload was seen, too little of it to name or to rule out."""
UNKNOWN_UDP = "unknown-udp"
UNKNOWN_TCP = "unknown-tcp"
UNKNOWN_IP = "unknown-ip"
STATES = frozenset({INCOMPLETE, INSUFFICIENT_DATA, UNKNOWN_UDP, UNKNOWN_TCP, UNKNOWN_IP, "not-applicable"})


class Because(NamedTuple):
    """One reason: the packet that showed it, the signature (or "foreseen by call N"), the facts that matched."""

    packet: int
    signature: str
    facts: tuple[Fact, ...]


class Identification(NamedTuple):
    """`application` is a name of rules/apps or one of STATES; `confidence` is None for a state.

    path    the names so far, general to specific, the last is `application`; empty for a state.
    shifts  (packet, application), in order.
    """

    application: str
    confidence: Confidence | None = None
    because: tuple[Because, ...] = ()
    path: tuple[str, ...] = ()
    shifts: tuple[tuple[int, str], ...] = ()
