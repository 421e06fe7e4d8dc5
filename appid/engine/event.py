"""Events: all that the edge may tell the engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from appid.dataplane.command import Command
from appid.flow.key import FlowKey
from appid.packet import Packet

if TYPE_CHECKING:
    from appid.engine.record import Settings


@dataclass(frozen=True, slots=True)
class PacketQueued:
    """A packet that the kernel chains queued: `data` is the IP packet as seen in mangle/FORWARD, `mark` its packet
    mark, `packet` the edge's running number (a capture's frame number when replaying)."""

    packet: int
    data: memoryview
    mark: int = 0
    indev: str = ""
    outdev: str = ""
    parsed: Packet | None = None
    """`data`, if the edge has parsed it already."""


@dataclass(frozen=True, slots=True)
class FlowEnded:
    """A conntrack entry is gone. `key` is its original direction as the inside sees it (before source NAT);
    packets and bytes are (original, reply)."""

    key: FlowKey
    mark: int
    packets: tuple[int, int]
    bytes: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Activity:
    """A flow moved without the engine seeing it: when last (seconds), and with which packet (0: not known)."""

    key: FlowKey
    time: float
    packet: int = 0


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed. `packet` is the last packet number before it; `active` are flows of calls that moved since."""

    packet: int = 0
    active: tuple[Activity, ...] = ()


@dataclass(frozen=True, slots=True)
class RulesLoaded:
    """New applications, policy or topology; flows are judged again."""

    settings: Settings


@dataclass(frozen=True, slots=True)
class CommandFailed:
    """The host's fault: the edge could not carry `command` out."""

    command: Command
    reason: str


Event = PacketQueued | FlowEnded | Tick | RulesLoaded | CommandFailed
