"""A call by sockets that stay: what passes at any time of it.

In: a Town, a place in it. Out: whether media goes in and out now; messages as the test wants them.
"""

from __future__ import annotations

import socket
import time

from tests.netns.net import received
from tests.sip.attacks import FAR, Victim, body
from tests.sip.sipp import SIP, host_port
from tests.sip.town import Place, Town


class Talk:
    """A call with early media that flows both ways, by sockets that stay."""

    def __init__(self, where: Town, number: int, status: str = "200 OK", v6: bool = False) -> None:
        """`asked`: the INVITE as it came out. `status` of its first answer, which describes unless it is a 180."""
        self.victim = v = Victim(where, Place.numbered(number, v6), 20000 + 40 * number, f"ends-{number}")
        self.mine, self.theirs = v.udp(where.client, v.phone), v.udp(where.peer, v.place.peer)
        self.asked, self.source = v.heard(self.mine, self.theirs, v.invite())
        self.answer(status, b"" if status.startswith("180") else body(v.place.peer, FAR))
        self.inner, self.outer = v.udp(where.client, v.phone, v.port), v.udp(where.peer, v.place.peer, FAR)

    def request(self, method: str, cseq: int, to_tag: str) -> bytes:
        start = f"{method} sip:b@{host_port(self.victim.place.peer, SIP)} SIP/2.0"
        return self.victim.message(start, f"{cseq} {method}", (";tag=a", to_tag))

    def answer(self, status: str, content: bytes) -> None:
        """Of the far end, to the INVITE that came last."""
        self.theirs.sendto(self.victim.answer(self.asked, content, status), self.source)
        self.mine.recvfrom(65535)

    def ask(self, request: bytes, answered: bool) -> None:
        asked, source = self.victim.heard(self.mine, self.theirs, request)
        if answered:
            self.theirs.sendto(self.victim.answer(asked, b""), source)
            self.mine.recvfrom(65535)

    def offer(self, cseq: int, host: str, port: int) -> None:
        """Another offer within the dialog, answered and acknowledged (RFC 3264 section 8)."""
        v = self.victim
        self.offered(cseq, host, port)
        self.answer("200 OK", body(host if host == v.place.held else v.place.peer, FAR if port else 0))

    def offered(self, cseq: int, host: str, port: int) -> None:
        """The offer alone."""
        v = self.victim
        start = f"INVITE sip:b@{host_port(v.place.peer, SIP)} SIP/2.0"
        request = v.message(start, f"{cseq} INVITE", (";tag=a", ";tag=b"), body(host, port))
        self.asked, self.source = v.heard(self.mine, self.theirs, request)

    def passes(self) -> tuple[bool, bool]:
        """Whether media goes in, and out, now."""
        v = self.victim
        return self.comes(self.inner, v.port), self._one(self.inner, self.outer, (v.place.peer, FAR))

    def comes(self, sink: socket.socket, port: int) -> bool:
        """Whether what the far end sends to this port of the outside comes to `sink`."""
        return self._one(self.outer, sink, (self.victim.target, port))

    def close(self) -> None:
        self.victim.close()

    @staticmethod
    def _one(source: socket.socket, sink: socket.socket, to: tuple[str, int]) -> bool:
        text = b"\x80" + bytes(11) + str(time.monotonic()).encode()
        source.sendto(text, to)
        return text in received(sink)
