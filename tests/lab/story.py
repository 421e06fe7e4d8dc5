"""Session 1 as a table, and the journal in which a run's actors write what they did.

In: notes of the actors. Out: the order of steps with times; events that the orchestration waits for.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import dataclass

CALLER, CALLEE, RELAY = "caller", "callee", "relay"


@dataclass(frozen=True)
class Step:
    """`packet` is the number in the report's capture, "" where it has none."""

    name: str
    packet: str
    who: str
    text: str


STEPS = (
    Step("snatmap", "<60", CALLER, "UDP 16403, 16 bytes padded with 0xFF"),
    Step("allocate", "60", CALLER, "TURN Allocate with XOR-RELAYED-ADDRESS and RESERVATION-TOKEN, LIFETIME 60"),
    Step("web", "64", CALLER, "GET /connectivity.txt"),
    Step("allocated", "82", RELAY, "Allocate success"),
    Step("push", "110/120", CALLER, "signalling, TLS on TCP 5223"),
    Step("bind", "121", CALLER, "ChannelBind to the peer's public address"),
    Step("check", "122", CALLER, "ChannelData at once: a Binding request"),
    Step("bind-again", "156", CALLER, "ChannelBind repeated"),
    Step("bound", "158", RELAY, "ChannelBind answered"),
    Step("checked", "160", CALLEE, "Binding response in ChannelData, USERNAME reversed"),
    Step("check-local", "161", CALLER, "direct check to the peer's local address"),
    Step("peer-check", "162", CALLEE, "Binding request in ChannelData, ICE-CONTROLLED"),
    Step("nominate", "164", CALLER, "Binding request with USE-CANDIDATE: the relayed path is up"),
    Step("invite", "169", CALLER, "SIP INVITE, compact names, deflated SDP"),
    Step("trying", "170", CALLEE, "100"),
    Step("ringing", "171", CALLEE, "180"),
    Step("answered", "172", CALLEE, "200 with the SDP answer"),
    Step("ack", "173", CALLER, "ACK"),
    Step("relayed", "175-279", CALLER, "RTP and RTCP in ChannelData"),
    Step("peer-direct", "280", CALLEE, "check from the peer's public address"),
    Step("direct-answer", "281", CALLER, "its answer"),
    Step("direct-nominate", "283", CALLER, "own check with USE-CANDIDATE"),
    Step("direct", "299", CALLEE, "reply: media moves to the direct path"),
    Step("bye", "5786", CALLER, "BYE through the relay"),
    Step("bye-answered", "5790", CALLEE, "200 to the BYE"),
    Step("released", "5791", CALLER, "Refresh with LIFETIME 0"),
)
NAMES = tuple(step.name for step in STEPS)


class CallFailedError(Exception):
    """The call ended at `step`, before its time."""

    def __init__(self, step: str, reason: str) -> None:
        super().__init__(f"{step}: {reason}")
        self.step = step
        self.reason = reason


class Journal:
    """When each step first happened (seconds of the monotonic clock), in the order in which it happened."""

    def __init__(self) -> None:
        self.times: dict[str, float] = {}
        self._events = {name: asyncio.Event() for name in NAMES}

    def note(self, name: str) -> None:
        self.times.setdefault(name, time.monotonic())
        self._events[name].set()

    def has(self, name: str) -> bool:
        return name in self.times

    async def reached(self, name: str) -> None:
        await self._events[name].wait()

    def out_of_order(self) -> list[str]:
        """Steps that came before one that the table puts ahead of them, and steps that never came."""
        seen = [name for name in NAMES if name in self.times]
        late = [b for a, b in itertools.pairwise(seen) if self.times[b] < self.times[a]]
        return late + [name for name in NAMES if name not in self.times]
