"""RTP and RTCP of one call, both directions, due at their times (RFC 3550 sections 5.1, 6.4, 6.5).

Payload types are the report's: 104 AAC-ELD, 119 audio, 123 H.264. The payload is noise, as encrypted media is.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, field
from typing import NamedTuple


class Due(NamedTuple):
    time: float
    outgoing: bool
    kind: str
    """audio, video or rtcp"""
    data: bytes


@dataclass
class Stream:
    """One SSRC. `interval` seconds between packets, `step` RTP clock units."""

    payload_type: int
    outgoing: bool
    ssrc: int
    sequence: int
    timestamp: int
    interval: float
    step: int
    size: tuple[int, int]
    due: float
    other_type: int | None = None
    """Every 16th packet has this payload type instead."""
    count: int = 0
    octets: int = 0

    def packet(self, rng: random.Random) -> bytes:
        kind = self.payload_type
        if self.other_type is not None and self.count % 16 == 7:
            kind = self.other_type
        payload = rng.randbytes(rng.randint(*self.size))
        if self.payload_type == 123:  # the middle of a fragmented picture, FU-A (RFC 6184 5.8)
            payload = b"\x7c\x01" + payload[2:]
        marker = 0x80 if self.payload_type == 123 and self.count % 2 else 0
        head = struct.pack("!BBHII", 0x80, marker | kind, self.sequence, self.timestamp & 0xFFFFFFFF, self.ssrc)
        self.sequence = (self.sequence + 1) & 0xFFFF
        self.timestamp += self.step
        self.count += 1
        self.octets += len(payload)
        self.due += self.interval
        return head + payload


@dataclass
class Media:
    """Audio and video both ways, about 97 packets a second in all."""

    rng: random.Random
    start: float
    streams: list[Stream] = field(default_factory=list)
    reports: dict[bool, float] = field(default_factory=dict)
    """outgoing? -> when the next RTCP compound is due"""
    muted: set[bool] = field(default_factory=set)

    def __post_init__(self) -> None:
        for outgoing, offset in ((True, 0.001), (False, 0.006)):
            for kind, interval, step, size in ((104, 0.030, 480, (60, 110)), (123, 0.0665, 5985, (380, 980))):
                number, start = self.rng.randrange(1 << 32), self.rng.randrange(1 << 15)
                due = self.start + offset + (0.004 if kind == 123 else 0)
                stamp = self.rng.randrange(1 << 31)
                stream = Stream(kind, outgoing, number, start, stamp, interval, step, size, due)
                stream.other_type = 119 if kind == 104 else None
                self.streams.append(stream)
        self.reports = {True: self.start + 5.0, False: self.start + 2.6}

    def take(self) -> Due:
        """The packet that is due next."""
        stream = min((s for s in self.streams if s.outgoing not in self.muted), key=lambda s: s.due)
        report = min((o for o in self.reports if o not in self.muted), key=lambda o: self.reports[o])
        if self.reports[report] <= stream.due:
            return Due(self.reports[report], report, "rtcp", self.report(report))
        due = stream.due
        return Due(due, stream.outgoing, "video" if stream.payload_type == 123 else "audio", stream.packet(self.rng))

    def report(self, outgoing: bool) -> bytes:
        """SR with one report block, then SDES CNAME; the next of this side is due 5 s later."""
        self.reports[outgoing] += 5.0
        own, other = (next(s for s in self.streams if s.outgoing is side) for side in (outgoing, not outgoing))
        block = struct.pack("!IIIIII", other.ssrc, 0, other.sequence, 11, 0, 0)
        when = self.reports[outgoing] + 2208988800
        info = struct.pack(
            "!IIIII", int(when), int(when % 1 * (1 << 32)), own.timestamp & 0xFFFFFFFF, own.count, own.octets
        )
        sender = struct.pack("!BBHI", 0x81, 200, 12, own.ssrc) + info + block
        name = b"%08x@mobile" % own.ssrc
        chunk = struct.pack("!I", own.ssrc) + bytes([1, len(name)]) + name + b"\0"
        chunk += bytes(-len(chunk) % 4)
        return sender + struct.pack("!BBH", 0x81, 202, len(chunk) // 4) + chunk

    def mute(self, outgoing: bool) -> None:
        """That direction sends nothing until `unmute`."""
        self.muted.add(outgoing)

    def unmute(self, outgoing: bool, now: float) -> None:
        self.muted.discard(outgoing)
        for offset, stream in enumerate(s for s in self.streams if s.outgoing is outgoing):
            stream.due = max(stream.due, now + 0.0007 * (offset + 1))

    def pace(self, outgoing: bool, video_interval: float) -> None:
        """How often video of that direction is sent from now on; infinity: not at all."""
        stream = next(s for s in self.streams if s.outgoing is outgoing and s.payload_type == 123)
        stream.due += video_interval - stream.interval if video_interval == float("inf") else 0
        stream.interval = video_interval
