"""Events: all that the edge may tell the engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, final

from appid.alg.host import NOBODY, Host
from appid.dataplane.command import Command
from appid.flow.key import FlowKey
from appid.packet import Packet
from appid.wire import Value

if TYPE_CHECKING:
    from appid.engine.kept import KeptCall
    from appid.engine.kept_stream import KeptStream
    from appid.engine.record import Settings
    from appid.engine.registered import KeptRegistration


@final
class PacketQueued(Value):
    """A packet that the kernel chains queued: `data` is the IP packet as seen in mangle/FORWARD, `mark` its packet
    mark, `packet` the edge's running number (a capture's frame number when replaying).

    parsed  `data`, if the edge has parsed it already
    host    what the gateway's own kernel knows, should it be asked
    """

    __slots__ = ("data", "host", "indev", "mark", "outdev", "packet", "parsed")
    __match_args__ = ("packet", "data", "mark", "indev", "outdev", "parsed", "host")

    def __init__(
        self,
        packet: int,
        data: memoryview,
        mark: int = 0,
        indev: str = "",
        outdev: str = "",
        parsed: Packet | None = None,
        host: Host = NOBODY,
    ) -> None:
        self.packet: Final = packet
        self.data: Final = data
        self.mark: Final = mark
        self.indev: Final = indev
        self.outdev: Final = outdev
        self.parsed: Final = parsed
        self.host: Final = host


class FlowEnded(NamedTuple):
    """A conntrack entry is gone. `key` is its original direction as the inside sees it (before source NAT);
    packets and bytes are (original, reply); `seconds` is how long it lived, 0 where the kernel did not say."""

    key: FlowKey
    mark: int
    packets: tuple[int, int]
    bytes: tuple[int, int]
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Activity:
    """A flow moved without the engine seeing it: when last (seconds), with which packet (0: not known), and by how many
    packets since that was last told."""

    key: FlowKey
    time: float
    packet: int = 0
    packets: int = 0


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed. `packet` is the last packet number before it; `active` are flows of calls that moved since; `short`:
    the process has nearly the memory that it may; None: it has not, or no longer; `unheard`: watched flows in which
    something passed while nobody listened."""

    packet: int = 0
    active: tuple[Activity, ...] = ()
    short: bool | None = None
    unheard: tuple[FlowKey, ...] = ()


class Kept(NamedTuple):
    """A flow that the kernel holds: its original direction as the inside sees it, its connmark, and the time of its
    first packet (None where the kernel keeps no times)."""

    key: FlowKey
    mark: int
    began: float | None = None


def nowhere(_address: bytes) -> str:
    return ""


@dataclass(frozen=True, slots=True)
class RulesLoaded:
    """New applications, policy or topology; flows are judged again.

    kept          the flows that the kernel holds with a connmark of ours
    interface_of  the interface that leads to an address; "" where that is not known or does not matter
    restarted     the marks are those of an engine that is gone: what it foresaw is not known any more
    """

    settings: Settings
    kept: tuple[Kept, ...] = ()
    interface_of: Callable[[bytes], str] = nowhere
    restarted: bool = False


@dataclass(frozen=True, slots=True)
class Restored:
    """Calls, spliced streams and registrations of an engine that is gone: this one goes on with them."""

    calls: tuple[KeptCall, ...]
    streams: tuple[KeptStream, ...] = ()
    registrations: tuple[KeptRegistration, ...] = ()


@dataclass(frozen=True, slots=True)
class CommandFailed:
    """The host's fault: the edge could not carry `command` out."""

    command: Command
    reason: str


Event = PacketQueued | FlowEnded | Tick | RulesLoaded | Restored | CommandFailed
