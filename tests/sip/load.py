"""Many calls at once: signalling, and one media packet for each pinhole and direction.

In: a Town, how many calls, how many a second, of how many phones. Out: a Load: who got what, and what each hundred cost
the gateway. All phones use the same ports, two phones a peer, so that under NAT every other one cannot keep its own.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.netns.live import Live
from tests.netns.net import Namespace, until
from tests.sip.attacks import body as described
from tests.sip.sipp import SIP, host_port
from tests.sip.town import PLACES, Place, Town

T1 = 0.5
"""Seconds until an INVITE is sent again (RFC 3261 section 17.1.1.2)."""
MEDIA = 20000
STEP = 100
"""Calls whose cost is measured together."""
_CALL_ID = re.compile(rb"^Call-ID: call-(\d+)\r", re.MULTILINE)
_PORT = re.compile(rb"^m=audio (\d+) .*", re.MULTILINE)
_RTCP = re.compile(rb"^a=rtcp:(\d+)", re.MULTILINE)
_HOST = re.compile(rb"^c=IN IP[46] (\S+)\r", re.MULTILINE)
Ends = tuple[str, int]


def cpu(process: int) -> float:
    """Seconds that a process and its children, also ended ones, have used."""
    ticks = os.sysconf("SC_CLK_TCK")
    total = 0.0
    for child in (process, *_children(process)):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()
            total += sum(int(n) for n in fields[11:13]) / ticks
    return total


def _children(process: int) -> Iterable[int]:
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{process}/task/{process}/children").read_text().split():
            yield int(child)
            yield from _children(int(child))


@dataclass
class Call:
    """`told`: where each side sends its media, as the other's description said when it arrived."""

    number: int
    phone: Ends
    peer: Ends
    port: int
    asked: float = 0.0
    answered: float = 0.0
    tries: int = 0
    up: bool = False
    over: bool = False
    told: dict[str, tuple[Ends, Ends]] = field(default_factory=dict)
    got: set[bytes] = field(default_factory=set)

    @property
    def whole(self) -> bool:
        return self.up and len(self.got) == 4


@dataclass
class Load:
    """`cost`: CPU seconds of the gateway for each STEP calls, as they came up."""

    calls: list[Call]
    cost: list[float] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def each(self) -> float:
        """CPU seconds of a call."""
        return sum(self.cost) / len(self.cost) / STEP

    @property
    def growth(self) -> float:
        return self.cost[-1] / self.cost[0] if self.cost and self.cost[0] else 0.0

    def __str__(self) -> str:
        whole, tries = sum(call.whole for call in self.calls), sum(call.tries - 1 for call in self.calls)
        rate = len(self.calls) / self.seconds if self.seconds else 0
        return (
            f"{len(self.calls)} calls, {whole} whole, {sum(c.over for c in self.calls)} ended by BYE, {tries} INVITEs "
            f"sent again, {rate:.0f} calls a second; CPU of the gateway by hundreds: "
            f"{' '.join(f'{c:.2f}' for c in self.cost)} s, last to first {self.growth:.2f}"
        )


class Generator:
    """All phones and all peers, in one loop."""

    def __init__(
        self, where: Town, calls: int, process: int | None = None, v6: bool = False, phones: int = PLACES
    ) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (16384, max(16384, resource.getrlimit(resource.RLIMIT_NOFILE)[1])))
        self.where, self.process = where, process
        places = [Place.numbered(number, v6) for number in range(PLACES)]
        self.calls = [
            Call(n, (places[n % phones].phones[0], SIP), (places[n % PLACES // 2].peer, SIP), MEDIA + 4 * (n // phones))
            for n in range(calls)
        ]
        self.load = Load(self.calls)
        self.selector = selectors.DefaultSelector()
        self.sockets: dict[Ends, socket.socket] = {}
        self._open(
            where.client, {c.phone for c in self.calls} | {e for c in self.calls for e in self._media(c, "phone")}
        )
        self._open(where.peer, {c.peer for c in self.calls} | {e for c in self.calls for e in self._media(c, "peer")})

    def close(self) -> None:
        for sock in self.sockets.values():
            sock.close()
        self.selector.close()

    @staticmethod
    def _media(call: Call, side: str) -> tuple[Ends, Ends]:
        """RTP and RTCP; a peer has one pair for each of its calls."""
        port = call.port if side == "phone" else MEDIA + 4 * call.number
        host = (call.phone if side == "phone" else call.peer)[0]
        return (host, port), (host, port + 1)

    def _open(self, space: Namespace, ends: set[Ends]) -> None:
        def make() -> list[tuple[Ends, socket.socket]]:
            made = []
            for end in sorted(ends):
                sock = socket.socket(socket.AF_INET6 if ":" in end[0] else socket.AF_INET, socket.SOCK_DGRAM)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)
                sock.bind(end)
                sock.setblocking(False)
                made.append((end, sock))
            return made

        for end, sock in space.call(make):
            self.sockets[end] = sock
            self.selector.register(sock, selectors.EVENT_READ, end)

    # -- the loop

    def run(self, due: Callable[[float], None], done: Callable[[], bool], patience: float) -> None:
        """Until `done`, or `patience` seconds; `due` sends what is due."""
        end = time.monotonic() + patience
        while not done() and (now := time.monotonic()) < end:
            due(now)
            for key, _ in self.selector.select(0.002):
                with contextlib.suppress(OSError):
                    while True:
                        data, source = self.sockets[key.data].recvfrom(4096)
                        self._arrived(key.data, data, source[:2])

    def set_up(self, rate: float) -> None:
        waiting, pending = deque(self.calls), deque[Call]()
        start = time.monotonic()
        used = cpu(self.process) if self.process else 0.0
        measured = 0

        def due(now: float) -> None:
            nonlocal used, measured
            while waiting and now >= start + waiting[0].number / rate:
                call = waiting.popleft()
                self._invite(call, now)
                pending.append(call)
            while pending and now >= pending[0].asked + T1:
                call = pending.popleft()
                if not call.answered and call.tries < 7:
                    self._invite(call, now)
                    pending.append(call)
            up = sum(call.up for call in self.calls[measured : measured + STEP])
            if self.process and up == STEP:
                total = cpu(self.process)
                self.load.cost.append(total - used)
                used, measured = total, measured + STEP

        self.run(due, lambda: all(call.whole for call in self.calls), len(self.calls) / rate + 20)
        due(time.monotonic())
        self.load.seconds = time.monotonic() - start

    def hang_up(self, rate: float) -> None:
        waiting = deque(self.calls)
        start = time.monotonic()
        said: dict[int, float] = {}

        def due(now: float) -> None:
            while waiting and now >= start + waiting[0].number / rate:
                call = waiting.popleft()
                said[call.number] = now
                self._send(call.phone, call.peer, self._text("BYE", call, 2))
            for number, at in list(said.items()):
                if self.calls[number].over:
                    del said[number]
                elif now > at + T1:
                    said[number] = now
                    self._send(
                        self.calls[number].phone, self.calls[number].peer, self._text("BYE", self.calls[number], 2)
                    )

        self.run(due, lambda: all(call.over for call in self.calls), len(self.calls) / rate + 20)

    # -- messages

    def _send(self, own: Ends, to: Ends, data: bytes) -> None:
        with contextlib.suppress(BlockingIOError):
            self.sockets[own].sendto(data, to)

    @staticmethod
    def _text(start: str, call: Call, cseq: int, body: str = "", own: Ends | None = None, method: str = "") -> bytes:
        own = own or call.phone
        head = start if start.startswith("SIP/2.0") else f"{start} sip:callee@{host_port(call.peer[0], SIP)} SIP/2.0"
        lines = [
            head,
            f"Via: SIP/2.0/UDP {host_port(*call.phone)};branch=z9hG4bK-{call.number}-{cseq}",
            f"From: <sip:caller@{host_port(*call.phone)}>;tag=a{call.number}",
            f"To: <sip:callee@{host_port(*call.peer)}>" + (f";tag=b{call.number}" if start not in ("INVITE",) else ""),
            f"Call-ID: call-{call.number}",
            f"CSeq: {cseq} {method or start}",
            f"Contact: <sip:user@{host_port(own[0], SIP)}>",
            "Max-Forwards: 70",
            *(["Content-Type: application/sdp"] if body else []),
            f"Content-Length: {len(body)}",
        ]
        return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()

    @staticmethod
    def _description(end: Ends) -> str:
        return described(*end).decode()

    def _invite(self, call: Call, now: float) -> None:
        call.asked, call.tries = now, call.tries + 1
        body = self._description(self._media(call, "phone")[0])
        self._send(call.phone, call.peer, self._text("INVITE", call, 1, body))

    def _arrived(self, at: Ends, data: bytes, source: Ends) -> None:
        if data[:1] == b"\x80":
            number, what = data[12:].split(b" ")
            self.calls[int(number)].got.add(what)
            return
        named = _CALL_ID.search(data)
        if named is None:
            return
        call = self.calls[int(named[1])]
        if data.startswith(b"INVITE"):
            call.told["peer"] = _told(data)
            body = self._description(self._media(call, "peer")[0])
            self._answer(call, source, data, body)
        elif data.startswith(b"BYE"):
            self._answer(call, source, data, "")
        elif data.startswith(b"ACK"):
            if not call.up:
                self._media_out(call, "peer")
            call.up = True
        elif b"\r\nCSeq: 1 INVITE" in data:
            self._send(call.phone, call.peer, self._text("ACK", call, 1))  # each 200: RFC 3261 section 13.2.2.4
            if not call.answered:
                call.answered = time.monotonic()
                call.told["phone"] = _told(data)
                self._media_out(call, "phone")
        elif b"\r\nCSeq: 2 BYE" in data:
            call.over = True

    def _answer(self, call: Call, to: Ends, request: bytes, body: str) -> None:
        """Via, From and To as they came (RFC 3261 section 8.2.6.2)."""
        kept = [
            line for line in request.split(b"\r\n") if line.startswith((b"Via:", b"From:", b"To:", b"Call-ID", b"CSeq"))
        ]
        tagged = [
            line + b";tag=b%d" % call.number if line[:3] == b"To:" and b";tag" not in line else line for line in kept
        ]
        more = [f"Contact: <sip:callee@{host_port(*call.peer)}>", *(["Content-Type: application/sdp"] if body else []),
                f"Content-Length: {len(body)}"]  # fmt: skip
        text = (
            b"\r\n".join([b"SIP/2.0 200 OK", *tagged, *(line.encode() for line in more)]) + b"\r\n\r\n" + body.encode()
        )
        self._send(call.peer, to, text)

    def _media_out(self, call: Call, side: str) -> None:
        for own, to, kind in zip(self._media(call, side), call.told[side], ("rtp", "rtcp"), strict=True):
            payload_type = 0 if kind == "rtp" else 201
            self._send(own, to, bytes([0x80, payload_type]) + bytes(10) + f"{call.number} {kind}-of-{side}".encode())


def _told(data: bytes) -> tuple[Ends, Ends]:
    """Where RTP and RTCP shall go, by a description as it arrived (RFC 8866, 3605)."""
    host, port, rtcp = _HOST.search(data), _PORT.search(data), _RTCP.search(data)
    address, first = (host[1].decode() if host else "0.0.0.0"), int(port[1]) if port else 0
    return (address, first), (address, int(rtcp[1]) if rtcp else first + 1)


@contextlib.contextmanager
def calls_up(
    where: Town, calls: int, rate: float, process: int | None = None, v6: bool = False, phones: int = PLACES
) -> Iterator[Generator]:
    """All up inside the `with`, all down after it."""
    generator = Generator(where, calls, process, v6, phones)
    try:
        generator.set_up(rate)
        yield generator
        generator.hang_up(rate)
    finally:
        generator.close()


def bound(where: Town, v6: bool) -> set[tuple[Ends, str, Ends]]:
    """Media bindings in the kernel's own maps: the outside end, the peer's address, the inside end."""
    table = re.sub(r"\s+", " ", where.gateway.run("nft", "list", "map", "inet", "appid-nat", f"dnat{6 if v6 else 4}"))
    found = re.findall(r"udp \. (\S+) \. (\d+) \. (\S+) [^,}]*? : (\S+) \. (\d+)", table)
    return {((out, int(port)), peer, (to, int(at))) for out, port, peer, to, at in found if int(at) != SIP}


def left(where: Town, gateway: Live) -> list[str]:
    """Pinholes and bindings that are still in the kernel or in the engine's book, waited for while they go."""

    def found() -> list[str]:
        told = [str(p) for p in gateway.ask("pinholes") if p["closed_at"] is None]
        table = where.gateway.run("nft", "list", "table", "inet", "appid-nat")
        told += re.findall(r"(?:udp|tcp) \. [^,}]+ : [^,}]+", re.sub(r"\s+", " ", table))
        return told + [line for line in where.gateway.run("ipset", "list").splitlines() if ",udp:" in line]

    until(lambda: not found(), 14)  # a binding of signalling stays for 10 s
    return found()
