"""RTP per stream: packets, loss and jitter as tshark's `-z rtp,streams` has them, and the cases of RFC 3550 A.1."""

from __future__ import annotations

import random
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from appid.story.rtp import BUCKETS, Counting, next_of_stream
from appid.story.step import Stream
from appid.wire import Endpoint
from tests.corpus.writer import Capture, End
from tests.story import tell

A, B = Endpoint(b"\x0a\0\0\2", 4000), Endpoint(b"\xc6\x33\x64\x09", 5000)
SECOND = 1_000_000_000


@dataclass(frozen=True)
class Sender:
    """How a source behaves: packets, seconds and clock units between two, the most a packet is late, share lost."""

    name: str
    kind: int
    packets: int
    interval: float
    step: int
    late: float
    lost: float
    sequence: int = 1
    seed: int = 1


SENDERS = (
    Sender("in time", 0, 300, 0.020, 160, 0.0, 0.0),
    Sender("late and lossy, over the wrap", 0, 900, 0.020, 160, 0.015, 0.05, 65_000),
    Sender("reordered", 8, 500, 0.020, 160, 0.055, 0.0, 100, 4),
    Sender("H.263 at 90 kHz", 34, 400, 0.033, 3000, 0.020, 0.02, 7, 5),
)


def write(sender: Sender, path: Path) -> None:
    rng = random.Random(sender.seed)
    start = 1_700_000_000.0
    sent = [
        (start + n * sender.interval + rng.random() * sender.late, (sender.sequence + n) & 0xFFFF, n * sender.step)
        for n in range(sender.packets)
        if n < 20 or rng.random() >= sender.lost
    ]
    capture = Capture(start)
    for when, sequence, timestamp in sorted(sent):
        capture.now = when
        header = struct.pack("!BBHII", 0x80, sender.kind, sequence, timestamp & 0xFFFFFFFF, 0xABCD)
        capture.udp(End("10.0.0.2", 4000), End("198.51.100.9", 5000), header + bytes(160))
    capture.save(path)


def tshark(path: Path) -> dict[str, float]:
    """The one row of `-z rtp,streams`: packets, lost, mean and largest jitter in ms."""
    command = ["tshark", "-r", str(path), "-q", "-d", "udp.port==5000,rtp", "-z", "rtp,streams"]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    words = next(line for line in out.splitlines() if "0x0000ABCD" in line).replace("(", " ").split()
    at = words.index("0x0000ABCD")
    numbers = [float(word.rstrip("%)")) for word in words[at + 2 : at + 11]]
    return {"packets": numbers[0], "lost": numbers[1], "mean": numbers[7], "max": numbers[8]}


@pytest.mark.parametrize("sender", SENDERS, ids=lambda s: s.name)
def test_tshark_counts_the_same(sender: Sender, tmp_path: Path) -> None:
    path = tmp_path / "rtp.pcap"
    write(sender, path)
    (stream,) = tell.of_file(path, flow=1).tales[0].streams
    oracle = tshark(path)
    assert stream.jitter_mean is not None
    assert stream.jitter_max is not None
    assert (stream.packets, stream.lost) == (oracle["packets"], oracle["lost"])
    assert stream.jitter_mean * 1000 == pytest.approx(oracle["mean"], abs=0.0015)
    assert stream.jitter_max * 1000 == pytest.approx(oracle["max"], abs=0.0015)


def test_the_sessions_direct_video_is_as_tshark_has_it(tmp_path: Path) -> None:
    """Session 1 from frame 300 on: payload type 123 has its clock rate from the description (a=rtpmap, 90 kHz)."""
    from tests.corpus import sessions

    path = tmp_path / "session1.pcap"
    sessions.build(1).capture.save(path)
    command = ["tshark", "-r", str(path), "-q", "-d", "udp.port==16402,rtp", "-z", "rtp,streams"]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = {line.split()[6]: line.split() for line in out.splitlines() if " 0x" in line}
    direct = [s for s in tell.session(1).tales[0].streams if s.via is None and s.first >= 300]
    assert len(direct) == 4
    for stream in direct:
        row = rows[f"0x{stream.ssrc:08X}"]
        assert str(stream.packets) in row
        assert stream.lost == 0
        if stream.kind == "video":
            assert (stream.clock, stream.clock_from) == (90000, "sdp")
            assert float(row[-1]) == pytest.approx((stream.jitter_max or 0) * 1000, abs=0.0015)
        else:
            assert (stream.clock, stream.clock_from) == (16000, "estimated")


def counted(*packets: tuple[float, int, int], clocks: dict[int, int] | None = None) -> Stream:
    """(seconds, sequence, timestamp) each."""
    stream = Counting(1, A, B, None, 7)
    for frame, (when, sequence, timestamp) in enumerate(packets, 1):
        stream.add(frame, int(when * SECOND), 96, sequence, timestamp, 100, clocks or {})
    return stream.done({96: "audio"})


def test_jitter_is_the_standard_s_sum() -> None:
    """A.8 by hand at 8 kHz: the second packet 10 ms late (D = 80), the third in time again (D = 80): 80/16 = 5, then
    5 + (80 - 5) / 16 = 9.6875 clock units."""
    stream = counted((0, 1, 0), (0.030, 2, 160), (0.040, 3, 320), clocks={96: 8000})
    assert stream.jitter == pytest.approx(9.6875 / 8000)
    assert stream.kind == "audio"


def test_a_wrap_is_no_loss_and_a_repeat_a_negative_one() -> None:
    assert counted((0, 65535, 0), (1, 0, 160), (2, 1, 320)).lost == 0
    assert counted((0, 5, 0), (1, 6, 160), (2, 6, 160)).lost == -1  # A.3: "negative when there are duplicates"
    assert counted((0, 5, 0), (1, 8, 160)).lost == 2


def test_a_far_jump_is_another_beginning() -> None:
    """A.1: MAX_DROPOUT 3000."""
    assert counted((0, 5, 0), (1, 40_000, 160), (2, 40_001, 320)).lost == 0


def test_no_clock_no_jitter() -> None:
    """Eight packets whose timestamps fit no usual clock rate."""
    stream = counted(*((n * 0.02, n, n * 7) for n in range(1, 9)))
    assert (stream.clock, stream.jitter) == (None, None)


def test_what_went_another_way_is_not_lost() -> None:
    stream = Counting(1, A, B, None, 7)
    stream.add(1, 0, 96, 10, 0, 100, {})
    stream.resume(500, 60 * SECOND)
    stream.add(2, 60 * SECOND, 96, 500, 0, 100, {})
    assert stream.done({}).lost == 0


def test_a_rate_is_of_the_time_that_went_this_way() -> None:
    """Fifty packets of 100 bytes in a second, a minute another way, the same again: 40 kbit/s, not 1.3."""
    stream = Counting(1, A, B, None, 7)
    for begin in (0, 61 * SECOND):
        if begin:
            stream.resume(3000, begin)
        for n in range(51):
            stream.add(n, begin + n * SECOND // 50, 0, n, n * 160, 100, {})
    assert stream.done({}).bits_per_second == pytest.approx(40_800, rel=0.001)


def test_what_went_another_way_is_not_late() -> None:
    """A minute's silence while the timestamps stood still, as where a source's clock is its encoder's."""
    stream = Counting(1, A, B, None, 7)
    for frame, (when, sequence) in enumerate(((0.0, 1), (0.02, 2), (60.0, 9), (60.02, 10)), 1):
        if frame == 3:
            stream.resume(sequence, int(when * SECOND))
        stream.add(frame, int(when * SECOND), 0, sequence, (frame - 1) * 160, 100, {})
    done = stream.done({})
    assert (done.jitter_max, done.lost) == (0, 0)


def test_rates_are_bounded_and_whole() -> None:
    """A day at one packet a second: buckets double, bytes do not vanish."""
    stream = Counting(1, A, B, None, 7)
    for n in range(86_400):
        stream.add(n + 1, n * SECOND, 96, n & 0xFFFF, n, 100, {96: 1})
    done = stream.done({})
    assert len(done.rates) <= BUCKETS
    assert sum(done.rates) == done.bytes == 8_640_000
    assert done.bucket == 512 * SECOND
    assert done.bits_per_second == pytest.approx(800, rel=0.001)


def test_a_header_is_read_as_the_standard_draws_it() -> None:
    """RFC 3550 section 5.1: V=2, M=1, PT=123, sequence 0x0102, timestamp 3, SSRC 0xDEADBEEF."""
    layer = next_of_stream(memoryview(bytes.fromhex("80fb 0102 00000003 deadbeef".replace(" ", ""))))
    assert {fact.name: fact.value for fact in layer.facts} == {
        "rtp.payload_type": 123, "rtp.ssrc": 0xDEADBEEF, "rtp.sequence": 0x0102, "rtp.timestamp": 3, "rtp.marker": True,
    }  # fmt: skip
