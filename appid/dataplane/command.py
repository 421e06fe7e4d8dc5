"""Commands: what the engine asks of the edge, in the order in which they must reach the kernel.

The edge carries out a list front to back and only then goes on: OpenPinhole and BindNat stand before the SetVerdict
of the packet that caused them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, final

from appid.alg.expectation import Expectation
from appid.dataplane.rewrite import Numbers
from appid.flow.key import FlowKey
from appid.wire import Value


@final
class SetVerdict(Value):
    """Answer the queued packet `packet`: "repeat" with these mark bits (within the operator's mask), or "drop"."""

    __slots__ = ("mark", "packet", "verdict")
    __match_args__ = ("packet", "verdict", "mark")

    def __init__(self, packet: int, verdict: Literal["repeat", "drop"], mark: int) -> None:
        self.packet: Final = packet
        self.verdict: Final = verdict
        self.mark: Final = mark


@dataclass(frozen=True, slots=True)
class Postpone:
    """Put the queued packet `packet` to the chains again after `seconds`, without a mark: as if it came then."""

    packet: int
    seconds: float


@dataclass(frozen=True, slots=True)
class SetMark:
    """Give the conntrack entry of `key` this connmark (SAVED bits); create=True where no packet will confirm one."""

    key: FlowKey
    mark: int
    create: bool


@dataclass(frozen=True, slots=True)
class KeepFlow:
    """The conntrack entry of `key` lives `timeout` seconds more, however long nothing moves."""

    key: FlowKey
    timeout: int


@dataclass(frozen=True, slots=True)
class CutFlow:
    """Delete the conntrack entry of `key`, if there is one: its next packet begins anew."""

    key: FlowKey


@dataclass(frozen=True, slots=True)
class OpenPinhole:
    """Put the expectation into the pinhole set with `mark` as its skbmark and (expires - now) as its timeout."""

    id: int
    expectation: Expectation
    mark: int
    timeout: int


@dataclass(frozen=True, slots=True)
class ClosePinhole:
    """Take it out, then delete the conntrack entries between its two hosts on its port."""

    id: int
    expectation: Expectation


@dataclass(frozen=True, slots=True)
class BindNat:
    """outside:outside_port <-> inside:port, towards `peer` only. `peer_ports`: the peer's ports of flows that may stand
    between the two under another mapping, and begin anew; None: nobody knows, look for them."""

    proto: int
    inside: bytes
    port: int
    outside: bytes
    outside_port: int
    peer: bytes
    timeout: int
    peer_ports: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class UnbindNat:
    """Remove the binding that the same fields of BindNat made."""

    proto: int
    inside: bytes
    port: int
    outside: bytes
    outside_port: int
    peer: bytes


@dataclass(frozen=True, slots=True)
class RewritePayload:
    """Replace the transport payload of queued packet `packet`, and TCP's `numbers`; the edge fixes lengths and
    checksums."""

    packet: int
    payload: bytes
    numbers: Numbers | None = None


@dataclass(frozen=True, slots=True)
class RelaxTcp:
    """Tell conntrack not to hold the connection of `key` to its window: its two sides number their bytes each in their
    own way from now on. Its connmark shows it (marks.passing, a packet's bit elsewhere): what the engine has not seen
    of it must not pass."""

    key: FlowKey


@dataclass(frozen=True, slots=True)
class ReplaceChains:
    """Converge the kernel to newly rendered rule sets."""


class Report(NamedTuple):
    """Something worth telling: for events, metrics, tables. Never reaches the kernel."""

    kind: Literal["flow", "call", "pinhole", "decision", "anomaly", "config", "translation", "exception"]
    body: Any


Command = (
    SetVerdict
    | Postpone
    | SetMark
    | KeepFlow
    | CutFlow
    | OpenPinhole
    | ClosePinhole
    | BindNat
    | UnbindNat
    | RewritePayload
    | RelaxTcp
    | ReplaceChains
    | Report
)
