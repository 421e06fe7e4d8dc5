"""Media that can be told apart: pcaps for sipp to play, and what of them a witness saw.

In: who speaks and which phase of the call. Out: G.711 packets (RFC 3551) whose payload says so and counts.
"""

from __future__ import annotations

import struct
from pathlib import Path

from tests.sip.steps import PACKETS

_INTERVAL = 0.01
_PADDING = b"\xd5" * 140
"""G.711 A-law silence."""


def payload(who: str, phase: int, number: int) -> bytes:
    return f"{who}-{phase}-{number:04d};".encode().ljust(20, b"-") + _PADDING


def packet(who: str, phase: int, number: int) -> bytes:
    """RTP (RFC 3550 section 5.1), payload type 0."""
    ssrc = sum(who.encode()) << 8 | phase
    return struct.pack(">BBHII", 0x80, 0, 1000 + number, 160 * number, ssrc) + payload(who, phase, number)


def write(folder: Path, who: str, phase: int, count: int = PACKETS) -> Path:
    """A capture of `count` packets for play_pcap_audio, which puts in addresses and ports of its own."""
    path = folder / f"{who}-{phase}.pcap"
    with path.open("wb") as out:
        out.write(struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        for number in range(count):
            data = packet(who, phase, number)
            udp = struct.pack(">HHHH", 6000, 6000, 8 + len(data), 0) + data
            ip = struct.pack(
                ">BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), number, 0, 64, 17, 0, b"\x7f\0\0\1", b"\x7f\0\0\1"
            )
            frame = bytes(12) + b"\x08\0" + ip + udp
            at = number * _INTERVAL
            out.write(struct.pack("=IIII", int(at), round(at % 1 * 1e6), len(frame), len(frame)) + frame)
    return path
