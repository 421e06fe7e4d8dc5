"""The one place that knows the whole sentence: handle(event, now) -> commands.

In: events from the edge. Out: commands, in the order in which they must be carried out. No clock, no socket, no file.
"""

from __future__ import annotations

from dataclasses import dataclass

from appid.dataplane.command import Command
from appid.flow.key import FlowKey


@dataclass(frozen=True, slots=True)
class PacketQueued:
    """A packet that the kernel chains queued: `data` is the IP packet as seen in mangle/FORWARD, `mark` its packet mark,
    `packet` the edge's running number (a capture's frame number when replaying)."""

    packet: int
    data: memoryview
    mark: int = 0
    indev: str = ""
    outdev: str = ""


@dataclass(frozen=True, slots=True)
class FlowEnded:
    """A conntrack entry is gone. `key` is its original direction as the inside sees it (before source NAT)."""

    key: FlowKey
    mark: int
    packets: tuple[int, int]
    bytes: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed."""


@dataclass(frozen=True, slots=True)
class CommandFailed:
    """The host's fault: the edge could not carry `command` out."""

    command: Command
    reason: str


Event = PacketQueued | FlowEnded | Tick | CommandFailed
