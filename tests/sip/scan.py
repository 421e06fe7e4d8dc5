"""A scan of UDP ports: what is open, and to whom.

In: a Town, who scans, what. Out: the probes that came through to the inside, whoever it was that they reached there.
"""

from __future__ import annotations

import itertools
import socket
import struct
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from tests.netns.net import until
from tests.sip.town import Town

SOURCE = 40000
"""The scanner's port: no pinhole minds."""
PAUSE_EVERY, PAUSE = 500, 0.01
_MARK = b"scan "


class Probe(NamedTuple):
    """One packet: from which address of the outside, to which address and port."""

    scanner: str
    target: str
    port: int


def scan(where: Town, scanner: str, target: str, ports: Iterable[int]) -> set[int]:
    """One packet to each port of `target`."""
    return {probe.port for probe in arrived(where, [Probe(scanner, target, port) for port in ports])}


def arrived(where: Town, probes: list[Probe]) -> set[Probe]:
    """Which of them come through."""
    inside = [where.witnesses[space] for space in (where.client, where.other)]
    before = [len(witness.seen) for witness in inside]
    by_text = {_MARK + str(number).encode().rjust(8): probe for number, probe in enumerate(probes)}
    where.peer.call(lambda: _send(by_text))
    until(_Quiet(where).now, 30)
    time.sleep(0.1)
    seen = itertools.chain(*(witness.seen[start:] for witness, start in zip(inside, before, strict=True)))
    return {by_text[s.payload] for s in seen if s.arriving and s.payload in by_text}


def _send(by_text: dict[bytes, Probe]) -> None:
    sockets: dict[str, socket.socket] = {}
    for number, (text, (scanner, target, port)) in enumerate(by_text.items(), 1):
        if scanner not in sockets:
            v6 = ":" in scanner
            sock = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            if v6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_CHECKSUM, 6)
            sock.bind((scanner, 0))
            sockets[scanner] = sock
        sockets[scanner].sendto(struct.pack(">HHHH", SOURCE, port, 8 + len(text), 0) + text, (target, 0))
        if number % PAUSE_EVERY == 0:
            time.sleep(PAUSE)
    for sock in sockets.values():
        sock.close()


class _Quiet:
    """Until the gateway has worked off what it was sent."""

    def __init__(self, where: Town) -> None:
        self.where, self.last = where, -1

    def now(self) -> bool:
        seen = len(self.where.witnesses[self.where.client].seen)
        still, self.last = seen == self.last, seen
        time.sleep(0.1)
        return still and self.where.gateway.call(_waiting) == 0


def _waiting() -> int:
    """Packets in the queues of the calling thread's namespace (nfnetlink_queue's third column)."""
    table = Path("/proc/thread-self/net/netfilter/nfnetlink_queue")
    return sum(int(line.split()[2]) for line in table.read_text().splitlines()) if table.exists() else 0
