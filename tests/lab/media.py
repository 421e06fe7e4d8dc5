"""One side's media: 30 frames a second of several packets (PT 123), audio every 480 samples (PT 104), RTCP every 5 s.

In: a send function, a clock. Out: packets, and counters: which sequence numbers went out by which path, which came in.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from tests.lab.scenario import Identity
from tests.lab.wire_call import AUDIO, VIDEO, rtp, sender_report

AUDIO_STEP = 0.02
"""480 samples at 24 kHz (a=fmtp:AAC SamplesPerBlock 480)."""
VIDEO_STEP = 1 / 30
RTCP_STEP = 5.0


@dataclass
class Ledger:
    """Packets of one direction, by (ssrc, sequence): when and by which path sent, and which arrived by which."""

    sent: dict[tuple[int, int], tuple[float, str]] = field(default_factory=dict)
    arrived: dict[tuple[int, int], str] = field(default_factory=dict)
    rtcp_sent: int = 0
    rtcp_arrived: int = 0

    def arrive(self, packet: bytes, path: str) -> None:
        sequence, ssrc = struct.unpack_from(">2xH4xI", packet)
        self.arrived.setdefault((ssrc, sequence), path)

    def lost(self) -> list[tuple[float, str]]:
        """When and by which path each lost packet was sent."""
        return sorted(entry for key, entry in self.sent.items() if key not in self.arrived)

    def by_path(self, path: str) -> int:
        return sum(1 for used in self.arrived.values() if used == path)


class Sender:
    """Sends media until cancelled; `send` picks the path and says which it was."""

    def __init__(self, identity: Identity, ledger: Ledger, send: Callable[[bytes], str]) -> None:
        self.identity = identity
        self.ledger = ledger
        self.send = send
        self.rng = Random(identity.audio_ssrc)
        self.noise = self.rng.randbytes(4096)
        self.sequences = {AUDIO: self.rng.randrange(60000), VIDEO: self.rng.randrange(60000)}
        self.octets = 0

    async def run(self) -> None:
        """Keep to a schedule: what is late is sent at once, so the count does not depend on the machine's load."""
        start = time.monotonic()
        due = {"audio": 0.0, "video": 0.0, "rtcp": RTCP_STEP / 2}
        while True:
            now = time.monotonic() - start
            while (what := min(due, key=due.__getitem__)) and due[what] <= now:
                due[what] += getattr(self, f"_{what}")(due[what])
            await asyncio.sleep(max(0.0, min(due.values()) - (time.monotonic() - start)))

    def _audio(self, at: float) -> float:
        self._rtp(AUDIO, int(at * 24000), self.identity.audio_ssrc, self.rng.randrange(60, 120), False)
        return AUDIO_STEP

    def _video(self, at: float) -> float:
        count = self.rng.choice((2, 2, 3, 3, 4))
        for index in range(count):
            last = index == count - 1
            size = self.rng.randrange(200, 900) if last else 1100
            self._rtp(VIDEO, int(at * 90000), self.identity.video_ssrc, size, last)
        return VIDEO_STEP

    def _rtcp(self, at: float) -> float:
        i = self.identity
        report = sender_report(i.video_ssrc, time.time(), int(at * 90000), len(self.ledger.sent), self.octets, i.user)
        self.send(report)
        self.ledger.rtcp_sent += 1
        return RTCP_STEP

    def _rtp(self, payload_type: int, timestamp: int, ssrc: int, size: int, marker: bool) -> None:
        sequence = self.sequences[payload_type]
        self.sequences[payload_type] = (sequence + 1) & 0xFFFF
        offset = self.rng.randrange(len(self.noise) - size)
        path = self.send(rtp(payload_type, sequence, timestamp, ssrc, self.noise[offset : offset + size], marker))
        self.ledger.sent[(ssrc, sequence)] = (time.monotonic(), path)
        self.octets += size
