"""RTP per stream: rate, loss and jitter, packet by packet (RFC 3550).

Loss is appendix A.3: the extended highest sequence number tells how many were due. Jitter is section 6.4.1 and A.8:
J += (|D| - J) / 16, D from arrival and RTP timestamps. The clock rate is the description's (a=rtpmap), the payload
type's own (RFC 3551 section 6), or, where neither is known, estimated from the first packets.
"""

from __future__ import annotations

from collections.abc import Mapping
from struct import Struct

from appid.story.step import Stream
from appid.wire import Endpoint, Fact, Layer

BUCKETS = 240
SECOND = 1_000_000_000
GUESSED_FROM = 64
"""Packets after which a clock rate is estimated."""
CLOCKS = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 90000)
STATIC = {
    0: 8000, 3: 8000, 4: 8000, 5: 8000, 6: 16000, 7: 8000, 8: 8000, 9: 8000, 10: 44100, 11: 44100, 12: 8000, 13: 8000,
    14: 90000, 15: 8000, 16: 11025, 17: 22050, 18: 8000, 25: 90000, 26: 90000, 28: 90000, 31: 90000, 32: 90000,
    33: 90000, 34: 90000,
}  # fmt: skip
"""RFC 3551 section 6, tables 4 and 5."""
MAX_DROPOUT = 3000
"""A.1: a jump forward of more is another beginning, and so is one back by more than MAX_MISORDER."""
MAX_MISORDER = 100


_HEADER = Struct(">xBHII")


def next_of_stream(data: memoryview) -> Layer:
    """At least twelve bytes that are known to be RTP, since their stream is (section 5.1)."""
    kind, sequence, timestamp, ssrc = _HEADER.unpack_from(data)
    values = (kind & 0x7F, ssrc, sequence, timestamp, kind >= 0x80)
    names = ("rtp.payload_type", "rtp.ssrc", "rtp.sequence", "rtp.timestamp", "rtp.marker")
    return Layer("rtp", tuple(map(Fact, names, values)), len(data))


class Jitter:
    """A.8, in units of the RTP clock; seconds when asked."""

    __slots__ = ("_last", "clock", "count", "highest", "now", "total")

    def __init__(self, clock: int) -> None:
        self.clock = clock
        self.now = self.highest = self.total = 0.0
        self.count = 0
        self._last: tuple[int, int] | None = None

    def pause(self) -> None:
        """The next packet does not follow the last one."""
        self._last = None

    def add(self, time: int, timestamp: int) -> None:
        if self._last is not None:
            arrived, stamped = self._last
            step = (timestamp - stamped) & 0xFFFFFFFF
            step -= (step & 0x80000000) << 1
            difference = abs((time - arrived) * self.clock / SECOND - step)
            self.now += (difference - self.now) / 16
            self.highest = max(self.highest, self.now)
            self.total += self.now
        self.count += 1
        self._last = (time, timestamp)


class Counting:
    """One stream while it runs."""

    def __init__(self, flow: int, src: Endpoint, dst: Endpoint, via: Endpoint | None, ssrc: int) -> None:
        self.flow, self.src, self.dst, self.via, self.ssrc = flow, src, dst, via, ssrc
        self.types: dict[int, int] = {}
        self.first = self.last = self.first_time = self.last_time = self.packets = self.bytes = 0
        self.base = self.highest = self.due_before = 0
        self.bucket = SECOND
        self.rates: list[int] = []
        self.jitter: Jitter | None = None
        self.clock_from = ""
        self.away = 0
        """ns for which the source sent another way."""
        self._early: list[tuple[int, int]] = []

    def add(
        self, frame: int, time: int, kind: int, sequence: int, timestamp: int, size: int, clocks: Mapping[int, int]
    ) -> None:
        """One packet of `size` bytes of IP; `clocks`: payload type -> clock rate as described."""
        if not self.packets:
            self.first, self.first_time, self.base, self.highest = frame, time, sequence, sequence
        else:
            self._follow(sequence)
        self.last, self.last_time = frame, time
        self.packets += 1
        self.bytes += size
        if kind in self.types or len(self.types) < 128:
            self.types[kind] = self.types.get(kind, 0) + 1
        self._rate(time, size)
        if self.jitter is None and not self._settle(kind, clocks):
            self._early.append((time, timestamp))
            if len(self._early) >= GUESSED_FROM:
                self._guess()
        elif self.jitter is not None:
            self.jitter.add(time, timestamp)

    def resume(self, sequence: int, time: int) -> None:
        """The source sent another way meanwhile: what went there is neither lost nor late here."""
        self._begin_at(sequence)
        self.away += max(time - self.last_time, 0)
        if self.jitter is not None:
            self.jitter.pause()

    def _begin_at(self, sequence: int) -> None:
        self.due_before += self.highest - self.base + 1
        self.base = self.highest = sequence

    def _follow(self, sequence: int) -> None:
        """A.1: an extended highest sequence number; a far jump counts as a beginning of its own."""
        step = (sequence - self.highest) & 0xFFFF
        if step < MAX_DROPOUT:
            self.highest += step
        elif step <= 0x10000 - MAX_MISORDER:
            self._begin_at(sequence)

    def _rate(self, time: int, size: int) -> None:
        at = max(time - self.first_time, 0) // self.bucket
        while at >= BUCKETS:
            self.rates = [sum(self.rates[n : n + 2]) for n in range(0, len(self.rates), 2)]
            self.bucket *= 2
            at = max(time - self.first_time, 0) // self.bucket
        self.rates.extend([0] * (at + 1 - len(self.rates)))
        self.rates[at] += size

    def _settle(self, kind: int, clocks: Mapping[int, int]) -> bool:
        """Take the clock that is known; what came before counts with it."""
        clock = clocks.get(kind) or STATIC.get(kind)
        if not clock:
            return False
        self.clock_from = "sdp" if kind in clocks else "static"
        self._begin(clock)
        return True

    def _guess(self) -> None:
        (begin, stamped), (end, last) = self._early[0], self._early[-1]
        elapsed, ticks = (end - begin) / SECOND, (last - stamped) & 0xFFFFFFFF
        rate = ticks / elapsed if elapsed > 0 else 0.0
        clock = min(CLOCKS, key=lambda c: abs(c - rate))
        if abs(clock - rate) <= clock * 0.05:
            self.clock_from = "estimated"
            self._begin(clock)
        else:
            self._early = self._early[GUESSED_FROM // 2 :]

    def _begin(self, clock: int) -> None:
        self.jitter = Jitter(clock)
        for early in self._early:
            self.jitter.add(*early)
        self._early = []

    def done(self, kinds: Mapping[int, str]) -> Stream:
        """`kinds`: payload type -> audio, video."""
        if self.jitter is None and len(self._early) >= 8:
            self._guess()
        expected = self.due_before + self.highest - self.base + 1
        jitter = self.jitter if self.jitter is not None and self.jitter.count > 1 else None
        types = tuple(sorted(self.types))
        kind = next((kinds[t] for t in sorted(types, key=lambda t: -self.types[t]) if t in kinds), "")
        return Stream(
            self.flow, self.src, self.dst, self.via, self.ssrc, kind, types, self.first, self.last, self.first_time,
            self.last_time, self.packets, self.bytes, expected, expected - self.packets,
            self.jitter.clock if self.jitter else None, self.clock_from,
            jitter.now / jitter.clock if jitter else None, jitter.highest / jitter.clock if jitter else None,
            jitter.total / (jitter.count - 1) / jitter.clock if jitter else None, self.bucket, tuple(self.rates),
            self.away,
        )  # fmt: skip
