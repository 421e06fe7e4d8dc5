"""Packets changed at random through the engine, as a gateway with a policy and NAT has it: nothing is raised, nothing
takes long. `python -m tests.corpus.fuzz --packets 1000000` prints what was done, and what it cost.

In: IP packets of the five sessions, and of the shared captures where they are. Each is changed behind its network
header (bits, bytes, cuts, repetitions, tails of others), half of them with lengths that fit again. Out: a Fuzzed.
The program is imported late: `prefer_compiled` has to come first.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from appid import prefer_compiled

LIVE = 20_000
"""Packets that one engine sees."""
EACH = 60
"""First packets of a capture that are taken."""
SLOW = 0.5
"""Seconds of CPU that no packet may take."""
PATIENCE = 4096
"""What a packet may hold at most, bytes."""
PUBLIC = "71.15.163.132"
CAPTURES = Path(__file__).parents[3] / "shared" / "captures"


@dataclass
class Fuzzed:
    """`faults`: what was raised, each kind once, with the packet in hex."""

    packets: int = 0
    worst: float = 0.0
    seconds: float = 0.0
    faults: dict[str, str] = field(default_factory=dict)

    @property
    def held(self) -> bool:
        return not self.faults and self.worst < SLOW

    def __str__(self) -> str:
        return (
            f"{self.packets} packets changed at random: {len(self.faults)} faults; "
            f"{self.seconds / max(self.packets, 1) * 1e6:.0f} us each, the worst {self.worst * 1e3:.0f} ms"
        )


def packets_of(path: Path, most: int) -> Iterator[bytes]:
    from appid.edge.capture import CaptureError, frames
    from appid.packet import strip
    from appid.wire import DecodeError

    try:
        for number, (_, _, link, frame) in enumerate(frames(path)):
            if number >= most:
                return
            data = strip(link, frame)
            if data is not None and len(data) >= 28:
                yield bytes(data)
    except (CaptureError, DecodeError):
        return


def seeds(folder: Path) -> list[bytes]:
    """The packets to begin with; `folder` takes the sessions' captures."""
    from tests.corpus import sessions

    found: list[bytes] = []
    for number in sessions.BUILDERS:
        place = folder / f"fuzz-{number}.pcap"
        sessions.build(number).capture.save(place)
        found += packets_of(place, 400)
    for path in sorted(CAPTURES.glob("*/*.pcap*")) if CAPTURES.is_dir() else ():
        found += packets_of(path, EACH)
    return found


def changed(data: bytes, other: bytes, draw: Random) -> bytes:
    """One to four changes behind the network header."""
    start = 40 if data[0] >> 4 == 6 else 4 * (data[0] & 15)
    raw = bytearray(data)
    if draw.random() < 0.5:  # a flow of its own: what is decided already is read no more
        raw[start : start + 2] = draw.randbytes(2)
    for _ in range(draw.randrange(1, 5)):
        if len(raw) <= start + 8:
            break
        at = draw.randrange(start + (8 if draw.random() < 0.9 else 0), len(raw))
        match draw.randrange(7):
            case 0:
                raw[at] ^= 1 << draw.randrange(8)
            case 1:
                raw[at] = draw.choice((0, 1, 0x7F, 0x80, 0xFF, 0x0A, 0x20))
            case 2:
                raw[at : at + 2] = draw.choice((b"\0\0", b"\xff\xff", b"\x7f\xff", b"\0\1", b"\r\n"))
            case 3:
                del raw[at:]
            case 4:
                del raw[at : at + draw.randrange(1, 9)]
            case 5:
                raw[at:at] = raw[at : at + draw.randrange(1, 200)] * draw.randrange(1, 4)
            case _:
                raw[at:] = other[start + 8 :][-draw.randrange(1, 600) :]
    return _fitted(raw[:PATIENCE]) if draw.random() < 0.5 else bytes(raw[:PATIENCE])


def _fitted(raw: bytearray) -> bytes:
    """Lengths of the IP and UDP headers as the packet is now."""
    six = raw[0] >> 4 == 6
    start = 40 if six else 4 * (raw[0] & 15)
    if len(raw) >= start + 8:
        place = slice(4, 6) if six else slice(2, 4)
        raw[place] = (len(raw) - (40 if six else 0)).to_bytes(2, "big")
        if raw[6 if six else 9] == 17:
            raw[start + 4 : start + 6] = (len(raw) - start).to_bytes(2, "big")
    return bytes(raw)


def fuzz(count: int, seed: int, begin: list[bytes]) -> Fuzzed:
    from appid.alg.host import Host
    from appid.wire import Endpoint, FlowKey, packed
    from tests.engine.play import Play, settings

    class Translating(Host):
        def mapped(self, key: FlowKey) -> Endpoint | None:
            return Endpoint(packed(PUBLIC), key.sport)

    draw, told = Random(seed), Fuzzed()
    house, host = settings(default="allow", outside=PUBLIC), Translating()
    while told.packets < count:
        play, now = Play(house), 0.0
        at = draw.randrange(len(begin))
        for number in range(min(LIVE, count - told.packets)):
            seen = begin[(at + number) % len(begin)]  # in their order, so that flows and calls come about
            data = changed(seen, draw.choice(begin), draw) if draw.random() < 0.7 else seen
            now += 0.001
            before = time.process_time()
            try:
                play.now = now
                play.queue(data, host)
                if number % 100 == 0:
                    play.tick(now)
            except Exception:  # whatever it is, it is what is looked for
                told.faults.setdefault(traceback.format_exc(limit=-2), data.hex())
            spent = time.process_time() - before
            play.commands.clear()
            told.seconds += spent
            told.worst = max(told.worst, spent)
            told.packets += 1
    return told


def main() -> int:
    parser = argparse.ArgumentParser(prog="fuzz", description="Packets changed at random through the engine.")
    parser.add_argument("--packets", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--text", action="store_true", help="from the text also where compiled modules are")
    given = parser.parse_args()
    if not given.text:
        prefer_compiled()
    with TemporaryDirectory() as folder:
        begin = seeds(Path(folder))
    told = fuzz(given.packets, given.seed, begin)
    print(f"{told}; from {Path(str(sys.modules['appid.wire'].__file__)).suffix} modules")
    for fault, data in told.faults.items():
        print(f"{fault}  packet {data}")
    return 0 if told.held else 1


if __name__ == "__main__":
    sys.exit(main())
