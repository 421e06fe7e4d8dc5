"""Packets for the engine, written by the corpus's own writer, and what comes out of it in the fewest words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeVar

from appid.alg.host import NOBODY, Host
from appid.dataplane.command import Command, Report, SetVerdict
from appid.edge.rule_files import load_applications
from appid.engine import Engine, PacketQueued, Settings, Tick
from appid.engine.event import Activity
from appid.flow.key import FlowKey
from appid.identify.application import Application
from appid.policy.evaluate import Judge
from appid.policy.rule import Policy, PolicyRule, Zone
from appid.wire import packed
from tests.corpus.sip_bytes import Dialog, Party
from tests.corpus.writer import UDP, End, ip6_packet, ip_packet, tcp_segment, udp_segment

CLIENT, PEER, STRANGER = End("172.16.42.187", 16402), End("71.230.89.52", 16402), End("198.51.100.66", 16402)
PUBLIC = "71.15.163.132"
"""The gateway's own outside address: what source NAT shows of the client."""
ZONES = {"inside": Zone("inside", networks=((packed("172.16.42.0"), 24),)), "outside": Zone("outside")}
T = TypeVar("T")


@lru_cache(maxsize=1)
def applications() -> dict[str, Application]:
    return dict(load_applications())


def udp(src: End, dst: End, payload: bytes) -> bytes:
    segment = udp_segment(src, dst, payload)
    if ":" in src.host:
        return ip6_packet(src.host, dst.host, UDP, segment, 64)
    return ip_packet(src.host, dst.host, UDP, segment, 1, 64)


def tcp(src: End, dst: End, seq: int, flags: int, payload: bytes = b"") -> bytes:
    return ip_packet(src.host, dst.host, 6, tcp_segment(src, dst, seq, 0, flags, payload), 1, 64)


def settings(*rules: PolicyRule, default: str = "deny", monitor: bool = False, outside: str | None = None) -> Settings:
    """With rules, or a default that is not `none`, a policy; else everything is allowed."""
    known = applications()
    judge = None
    if default != "none":
        judge = Judge(Policy(rules, ZONES, default), known)  # type: ignore[arg-type]
    own = frozenset({packed(outside)}) if outside else frozenset()
    return Settings(known, judge, ((packed("172.16.42.0"), 24),), own, monitor=monitor)


ALL = settings(default="none")


@dataclass
class Play:
    """An engine and its clock (seconds); packets are numbered from 1."""

    settings: Settings = ALL
    now: float = 0.0
    number: int = 0
    commands: list[Command] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.engine = Engine(self.settings)

    def queue(self, data: bytes, host: Host = NOBODY) -> list[Command]:
        self.number += 1
        found = self.engine.handle(PacketQueued(self.number, memoryview(data), host=host), self.now)
        self.commands += found
        return found

    def tick(self, now: float, *active: Activity, unheard: tuple[FlowKey, ...] = ()) -> list[Command]:
        self.now = now
        found = self.engine.handle(Tick(self.number, tuple(active), None, unheard), now)
        self.commands += found
        return found

    def call(self, caller: End = CLIENT, callee: End = PEER, **changes: str) -> FaceTime:
        return FaceTime(self, caller, callee, **changes)


@dataclass
class FaceTime:
    """One direct call, signalled between `caller` and `callee`; `shown` is how the caller's SDP names itself."""

    play: Play
    caller: End
    callee: End
    shown: str = ""
    answered_as: str = ""
    call_id: str = "8d3c-call"

    def __post_init__(self) -> None:
        a = Party(self.shown or self.caller.host, self.caller.port, self.caller.port, "alice", "tag-a")
        b = Party(self.answered_as or self.callee.host, self.callee.port, self.callee.port, "bob", "tag-b")
        self.dialog = Dialog(a, b, self.call_id, "branch", 1, 77, "zlib", True, "Viceroy 1.7.0/GK")

    def out(self, message: bytes) -> list[Command]:
        return self.play.queue(udp(self.caller, self.callee, message))

    def back(self, message: bytes) -> list[Command]:
        return self.play.queue(udp(self.callee, self.caller, message))

    def invite(self) -> list[Command]:
        return self.out(self.dialog.invite())

    def answer(self) -> list[Command]:
        return self.back(self.dialog.response(200, "OK", answer=True))

    def connect(self) -> list[Command]:
        self.invite()
        self.back(self.dialog.response(180, "Ringing"))
        answered = self.answer()
        self.out(self.dialog.ack())
        return answered

    def bye(self) -> list[Command]:
        return self.out(self.dialog.bye())

    def bye_answer(self) -> list[Command]:
        return self.back(self.dialog.bye_answer())


def of(commands: Iterable[Command], kind: type[T]) -> list[T]:
    return [command for command in commands if isinstance(command, kind)]


def bodies(commands: Iterable[Command], kind: type[T]) -> list[T]:
    """Bodies of reports."""
    return [c.body for c in commands if isinstance(c, Report) and isinstance(c.body, kind)]


def verdict(commands: Sequence[Command]) -> SetVerdict:
    (one,) = of(commands, SetVerdict)
    return one
