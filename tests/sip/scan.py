"""A scan of UDP ports while calls are up: what is open, and to whom.

In: a Town whose calls are up, who scans. Out: the ports at which his packets came through to the inside.
"""

from __future__ import annotations

import socket
import struct
import time

from tests.netns.net import until
from tests.sip.town import Town

SOURCE = 40000
"""The scanner's port: no pinhole minds."""
PAUSE_EVERY, PAUSE = 500, 0.01


def scan(where: Town, scanner: str, target: str, ports: range) -> set[int]:
    """One packet to each port of `target`."""
    witness = where.witnesses[where.client]
    mark = f"scan by {scanner} ".encode()
    before = len(witness.seen)

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            sock.bind((scanner, 0))
            for port in ports:
                data = mark + str(port).encode()
                sock.sendto(struct.pack(">HHHH", SOURCE, port, 8 + len(data), 0) + data, (target, 0))
                if port % PAUSE_EVERY == 0:
                    time.sleep(PAUSE)

    where.peer.call(send)
    quiet = _Quiet(where)
    until(quiet.now, 30)
    time.sleep(0.1)
    return {int(s.payload[len(mark) :]) for s in witness.seen[before:] if s.arriving and s.payload.startswith(mark)}


class _Quiet:
    """Until the gateway has worked off what it was sent."""

    def __init__(self, where: Town) -> None:
        self.where, self.last = where, -1

    def now(self) -> bool:
        seen = len(self.where.witnesses[self.where.client].seen)
        still, self.last = seen == self.last, seen
        time.sleep(0.1)
        return still
