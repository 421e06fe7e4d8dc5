"""What passes on a wire: a packet socket in a namespace, kept in memory.

In: a namespace and its device. Out: Seen packets in the order of their passing, and a pcap file for tshark.
"""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from tests.netns.net import Namespace

_ETH_P_ALL, _PACKET_OUTGOING = 3, 4
_TCP, _UDP = 6, 17


@dataclass(frozen=True)
class Seen:
    """A UDP datagram or TCP segment with payload; `arriving`: it came to the witness's host."""

    at: float
    arriving: bool
    proto: str
    src: str
    sport: int
    dst: str
    dport: int
    payload: bytes


def read(frame: bytes, at: float, arriving: bool) -> Seen | None:
    """None for what is no UDP or TCP, a fragment, or empty."""
    kind = frame[12:14]
    if kind == b"\x08\x00":
        ip = frame[14 : 14 + struct.unpack_from(">H", frame, 16)[0]]
        proto, start, family = ip[9], (ip[0] & 15) * 4, socket.AF_INET
        if struct.unpack_from(">H", ip, 6)[0] & 0x3FFF:
            return None
        ends = ip[12:16], ip[16:20]
    elif kind == b"\x86\xdd":
        ip = frame[14 : 54 + struct.unpack_from(">H", frame, 18)[0]]
        proto, start, family, ends = ip[6], 40, socket.AF_INET6, (ip[8:24], ip[24:40])
    else:
        return None
    if proto not in (_TCP, _UDP) or len(ip) < start + 8:
        return None
    sport, dport = struct.unpack_from(">HH", ip, start)
    body = ip[start + (8 if proto == _UDP else (ip[start + 12] >> 4) * 4) :]
    if not body:
        return None
    src, dst = (socket.inet_ntop(family, end) for end in ends)
    return Seen(at, arriving, "udp" if proto == _UDP else "tcp", src, sport, dst, dport, bytes(body))


class Witness:
    """Sees until the `with` ends."""

    def __init__(self, space: Namespace, device: str) -> None:
        self.space, self.device = space, device
        self.frames: list[tuple[float, bytes]] = []
        self.seen: list[Seen] = []
        self._ended = threading.Event()

    def __enter__(self) -> Witness:
        def listen() -> socket.socket:
            made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 << 20)
            made.bind((self.device, _ETH_P_ALL))
            return made

        self._socket = self.space.call(listen)
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._socket.close()

    def _watch(self) -> None:
        while True:
            if not select.select([self._socket], [], [], 0.05)[0]:
                if self._ended.is_set():
                    return
                continue
            frame, (_, _, kind, _, _) = self._socket.recvfrom(65535)
            now = time.time()
            self.frames.append((now, frame))
            seen = read(frame, now, kind != _PACKET_OUTGOING)
            if seen is not None:
                self.seen.append(seen)

    def write(self, path: Path) -> Path:
        """A pcap file of all frames."""
        with path.open("wb") as out:
            out.write(struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1))
            for at, frame in self.frames:
                out.write(struct.pack("=IIII", int(at), int(at % 1 * 1e6), len(frame), len(frame)) + frame)
        return path
