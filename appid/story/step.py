"""What a story is made of. Values only; frame numbers from 1, times in nanoseconds since 1970."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from appid.wire import Endpoint

Role = Literal["client", "relay", "router", "peer", "courier", "web"]


@dataclass(frozen=True, slots=True)
class Party:
    """Who takes part: a column of the ladder. `addresses` as text."""

    role: Role
    name: str
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Effect:
    """What a message changed. kind: named | decided | call | pinhole | translated | anomaly | media;
    reasons: (signature, the facts that counted, as text)."""

    kind: str
    text: str
    reasons: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """One message. `src` and `dst` are the packet's own ends (None: time alone did it); `via`: what is relayed goes
    on to, or comes from, this peer. `bytes`: of the IP packet."""

    frame: int
    time: int
    flow: int
    src: Endpoint | None
    dst: Endpoint | None
    via: Endpoint | None
    kind: str
    what: str
    details: tuple[str, ...] = ()
    effects: tuple[Effect, ...] = ()
    bytes: int = 0


@dataclass(slots=True)
class FoldLine:
    """Messages of one kind that went one way."""

    flow: int
    src: Endpoint
    dst: Endpoint
    via: Endpoint | None
    what: str
    first: int
    last: int
    first_time: int
    last_time: int
    count: int = 0
    bytes: int = 0
    types: set[str] = field(default_factory=set)
    frames: list[int] = field(default_factory=list)
    """The first of them."""


@dataclass(slots=True)
class Fold:
    """Repeated messages between two steps."""

    lines: dict[tuple[Any, ...], FoldLine] = field(default_factory=dict)

    @property
    def frame(self) -> int:
        return min(line.first for line in self.lines.values())

    @property
    def last(self) -> int:
        return max(line.last for line in self.lines.values())

    @property
    def time(self) -> int:
        return min(line.first_time for line in self.lines.values())

    @property
    def last_time(self) -> int:
        return max(line.last_time for line in self.lines.values())

    @property
    def count(self) -> int:
        return sum(line.count for line in self.lines.values())

    @property
    def bytes(self) -> int:
        return sum(line.bytes for line in self.lines.values())


@dataclass(frozen=True, slots=True)
class Stream:
    """One RTP stream: an SSRC on one path, one way. `lost` may be negative (duplicates), jitter in seconds, None where
    no clock rate is known (RFC 3550 sections 6.4.1, A.3, A.8). `clock_from`: sdp | static | estimated.
    `rates`: bytes of IP in each `bucket` nanoseconds from `first_time` on."""

    flow: int
    src: Endpoint
    dst: Endpoint
    via: Endpoint | None
    ssrc: int
    kind: str
    payload_types: tuple[int, ...]
    first: int
    last: int
    first_time: int
    last_time: int
    packets: int
    bytes: int
    expected: int
    lost: int
    clock: int | None
    clock_from: str
    jitter: float | None
    jitter_max: float | None
    jitter_mean: float | None
    bucket: int
    rates: tuple[int, ...]
    away: int = 0
    """Nanoseconds for which the source sent another way."""

    @property
    def seconds(self) -> float:
        """For which it went this way."""
        return (self.last_time - self.first_time - self.away) / 1e9

    @property
    def bits_per_second(self) -> float | None:
        """Of IP packets, while it went this way; None for one packet."""
        return self.bytes * 8 / self.seconds if self.seconds > 0 else None


@dataclass(frozen=True, slots=True)
class Description:
    """A session description as it was inflated; `encoding`: "", zlib, raw, gzip."""

    frame: int
    role: Literal["offer", "answer"]
    encoding: str
    text: str


@dataclass(slots=True)
class Tale:
    """The story of one call, or of one flow. `told` is its JSON line, as every other view has it."""

    told: dict[str, Any]
    parties: list[Party] = field(default_factory=list)
    items: list[Step | Fold] = field(default_factory=list)
    streams: list[Stream] = field(default_factory=list)
    descriptions: list[Description] = field(default_factory=list)
    flows: list[dict[str, Any]] = field(default_factory=list)
    pinholes: list[dict[str, Any]] = field(default_factory=list)
    lanes: dict[bytes, int] = field(default_factory=dict)
    """Packed address -> index into `parties`."""
    untold: int = 0
    """Messages beyond what one tale keeps: counted, not shown."""
    unseen: int = 0
    """Packets that the kernel of a running gateway let through alone: nobody read them."""

    @property
    def start(self) -> int:
        """Time of its first message, or 0."""
        return min((item.time for item in self.items), default=0)


@dataclass(slots=True)
class Story:
    """Everything: `capture` and `summary` are the JSON lines; `times`: of frames that a line names."""

    capture: dict[str, Any]
    tales: list[Tale]
    others: list[dict[str, Any]]
    summary: dict[str, Any]
    spans: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Flow -> times of its first and last packet."""
    times: dict[int, int] = field(default_factory=dict)
    pinholes: list[dict[str, Any]] = field(default_factory=list)

    def time_of(self, line: dict[str, Any], packet: int | None) -> int | None:
        """When a packet came that this line names. A gateway's line says it itself: each worker counts for itself."""
        if "times" in line:
            return next((round(seconds * 1e9) for number, seconds in line["times"] if number == packet), None)
        return self.times.get(packet) if packet is not None else None
