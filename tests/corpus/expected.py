"""What must be said about a generated capture: flows, calls, pinholes. Plain data; frame numbers from 1.

Where the report leaves more than one reading, every reading is listed, the preferred one first.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tests.corpus.writer import Capture, FlowId


@dataclass(frozen=True)
class FlowTruth:
    """applications   names that are right at the end of the flow, preferred first
    identified_by     the frame at which the (first) name must stand; None: any time, or never
    frames            the frame number of each of its packets
    call              index into Expected.calls of the call this flow serves; None: of none
    """

    flow: FlowId
    applications: tuple[str, ...]
    frames: tuple[int, ...]
    identified_by: int | None = None
    call: int | None = None

    @property
    def first_packet(self) -> int:
        return self.frames[0]

    @property
    def last_packet(self) -> int:
        return self.frames[-1]


@dataclass(frozen=True)
class CallTruth:
    """started_at, ended_at: accepted frames, preferred first; answered_at: the first 200's frame (None: unanswered).

    ended_at is empty where the capture ends before the call does.
    """

    call_id: str | None
    application: str
    caller: str
    callee: str
    started_at: tuple[int, ...]
    answered_at: int | None
    ended_at: tuple[int, ...]
    end: str


@dataclass(frozen=True)
class PinholeTruth:
    """For `inside`:`port`, from `peer` only.

    opens_from..opens_by    it opens not before and not after (frames)
    closes_from..closes_by  it closes not before the BYE, not after its answer + 5 s, or 32 s after an unanswered BYE
    may_stay_open           that time lies beyond the capture's end
    """

    inside: str
    port: int
    peer: str
    opens_from: int
    opens_by: int
    closes_from: int
    closes_by: int
    may_stay_open: bool
    call: int
    required: bool = True


@dataclass(frozen=True)
class Expected:
    flows: tuple[FlowTruth, ...]
    calls: tuple[CallTruth, ...] = ()
    pinholes: tuple[PinholeTruth, ...] = ()
    not_applications: tuple[str, ...] = ()
    """Names that no flow of this capture may get, ever."""


@dataclass(frozen=True)
class Case:
    """A capture and the truth about it."""

    name: str
    capture: Capture
    expected: Expected

    def from_frame(self, start: int) -> Case:
        """The same capture begun later: frame `start` becomes frame 1, flows that ended before are gone.

        A flow whose telling packet is gone may get any name its remaining packets support, facetime included;
        calls and pinholes that began before are dropped from the truth.
        """
        cut = Capture(self.capture.now, self.capture.frames[start - 1 :], macs=self.capture.macs)
        shift = start - 1
        flows = tuple(_cut(f, shift, self.capture.replies) for f in self.expected.flows if f.last_packet > shift)
        calls = tuple(_cut_call(c, shift) for c in self.expected.calls if c.started_at[0] > shift)
        kept = bool(calls) and len(calls) == len(self.expected.calls)
        pinholes = tuple(_cut_pinhole(p, shift) for p in self.expected.pinholes) if kept else ()
        return Case(f"{self.name} from {start}", cut, Expected(flows, calls, pinholes, self.expected.not_applications))


def _cut(truth: FlowTruth, shift: int, replies: set[int]) -> FlowTruth:
    names, by = truth.applications, truth.identified_by
    if by is not None and by <= shift:
        by = None
        if "facetime" in names:
            names = (
                "facetime",
                "turn",
                "rtp",
                "sip",
                "stun",
                "insufficient-data",
                "unknown-udp",
                "unknown-tcp",
                "web-browsing",
            )
    kept, flow = [n for n in truth.frames if n > shift], truth.flow
    if kept[0] in replies:
        flow = FlowId(flow.proto, flow.dst, flow.src)
    frames = tuple(n - shift for n in kept)
    return replace(
        truth, flow=flow, applications=names, frames=frames, identified_by=None if by is None else by - shift, call=None
    )


def _cut_call(call: CallTruth, shift: int) -> CallTruth:
    return replace(
        call,
        started_at=tuple(n - shift for n in call.started_at),
        answered_at=None if call.answered_at is None else call.answered_at - shift,
        ended_at=tuple(n - shift for n in call.ended_at),
    )


def _cut_pinhole(p: PinholeTruth, shift: int) -> PinholeTruth:
    return replace(
        p,
        opens_from=p.opens_from - shift,
        opens_by=p.opens_by - shift,
        closes_from=p.closes_from - shift,
        closes_by=p.closes_by - shift,
    )


__all__ = ["CallTruth", "Case", "Expected", "FlowTruth", "PinholeTruth"]
