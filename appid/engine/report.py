"""Reports: what the engine tells people. They ride in Report commands and never reach the kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from appid.alg.expectation import Expectation
from appid.alg.translate import Result
from appid.dataplane.command import Report
from appid.flow.call import Call, CallMedia, End
from appid.flow.key import FlowKey
from appid.identify.identification import Identification
from appid.policy import Decision
from appid.policy.exception import Cause, Failure


class FlowReport(NamedTuple):
    """A flow's name or decision changed. `decision` is None while it is provisional."""

    flow: int
    key: FlowKey
    identification: Identification
    identified_at: int | None
    decision: Decision | None
    call: int | None
    foreseen: bool
    packet: int
    userspace_packets: int


@dataclass(frozen=True, slots=True)
class DecisionReport:
    """What a new policy says of a flow that the kernel holds. `application` and `decision` are None where the flow is
    undecided again: its next packet is asked about."""

    key: FlowKey
    application: str | None
    decision: Decision | None
    changed: bool
    """Whether its connmark changes."""


@dataclass(frozen=True, slots=True)
class CallReport:
    """A call began, changed or ended. Addresses are packed; packet numbers are the edge's."""

    call: int
    application: str
    call_id: str | None
    caller: bytes | None
    callee: bytes | None
    started_at: int
    answered_at: int | None
    ended_at: int | None
    end: End
    flows: tuple[int, ...]
    media: tuple[CallMedia, ...]
    into: int | None = None
    """With end "joined": the call that this one is part of, and always was."""
    tag: str = ""
    """The caller's: with the Call-ID it tells the call from any other."""


@dataclass(frozen=True, slots=True)
class PinholeReport:
    """An expectation was handed to the kernel (closed_at None) or taken back."""

    pinhole: int
    expectation: Expectation
    closed_at: int | None


@dataclass(frozen=True, slots=True)
class TranslationReport:
    """NAT in a packet's payload: what came of it (alg/translate.py)."""

    flow: int
    packet: int
    result: Result


@dataclass(frozen=True, slots=True)
class ExceptionReport:
    """The exception policy was applied: to a packet (undecodable) or a flow."""

    cause: Cause
    failure: Failure


@dataclass(frozen=True, slots=True)
class AnomalyReport:
    """A packet that broke its protocol, or an ALG message that was refused, and why."""

    flow: int
    packet: int
    protocol: str
    reason: str
    key: FlowKey | None = None


def told_call(call: Call, into: int | None = None) -> Report:
    return Report(
        "call",
        CallReport(
            call.id,
            call.application,
            call.call_id,
            call.caller,
            call.callee,
            call.started_at,
            call.answered_at,
            call.ended_at,
            call.end,
            tuple(call.flows),
            call.media,
            into,
            call.tag,
        ),
    )
