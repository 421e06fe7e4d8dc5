"""A small network for captures of one conversation: an inside client, an outside server, a clock."""

from __future__ import annotations

import random

from tests.corpus import stun_bytes as stun
from tests.corpus.writer import Capture, End, Tcp

CLIENT, SERVER, PEER = "172.16.42.187", "203.0.113.20", "198.51.100.9"


class Stage:
    def __init__(self, rng: random.Random, start: float = 1_425_300_000.0) -> None:
        self.rng = rng
        self.cap = Capture(start)
        self.cap.inside(CLIENT)

    def udp(self, src: End, dst: End, payload: bytes, after: float = 0.02) -> None:
        self.cap.now += after
        self.cap.udp(src, dst, payload)

    def exchange(self, a: End, b: End, request: bytes, *replies: bytes) -> None:
        self.udp(a, b, request)
        for reply in replies:
            self.udp(b, a, reply)

    def transaction(self) -> stun.Transaction:
        return stun.Transaction(stun.COOKIE, self.rng.randbytes(12))

    def tcp(self, server: End, handshake: bool = True) -> Tcp:
        client = End(CLIENT, self.rng.randint(49152, 65000))
        tcp = Tcp(self.cap, client, server, self.rng.randrange(1 << 31), self.rng.randrange(1 << 31))
        if handshake:
            for _ in tcp.open():
                self.cap.now += 0.01
        return tcp

    def talk(self, tcp: Tcp, *turns: bytes) -> None:
        """The client speaks first, then they take turns; then the client closes."""
        for at, data in enumerate(turns):
            self.cap.now += 0.02
            tcp.send(data, at % 2 == 0)
            tcp.ack(at % 2 == 1)
        tcp.fin(True)
        tcp.fin(False)
        tcp.ack(True)
