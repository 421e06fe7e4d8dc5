"""What caller and callee share: one UDP socket, STUN transactions, media by whichever path is nominated.

In: datagrams of one socket. Out: datagrams; a Ledger each way. Caller and callee say how the relayed path is framed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

from tests.lab.media import Ledger, Sender
from tests.lab.net import Lab
from tests.lab.scenario import RELAYED, Identity, Scenario
from tests.lab.story import Journal
from tests.lab.wire_call import kind
from tests.lab.wire_facetime import (
    BINDING,
    SUCCESS,
    USERNAME,
    Address,
    Stun,
    check,
    checked,
    read_stun,
)

Send = Callable[[bytes], None]


class Agent:
    """One side. `own`: the media socket's local address; `out` counts what this side sends, `into` what it receives."""

    controlling = False

    def __init__(
        self, lab: Lab, place: str, scenario: Scenario, own: Address, journal: Journal, out: Ledger, into: Ledger
    ) -> None:
        self.lab = lab
        self.place = place
        self.scenario = scenario
        self.own = own
        self.journal = journal
        self.out = out
        self.into = into
        self.rng = Random(f"{scenario.token.hex()}/{place}")
        self.path = "relayed"
        self.direct: Address | None = None
        self.identity: Identity = scenario.caller if self.controlling else scenario.callee
        self.other: Identity = scenario.callee if self.controlling else scenario.caller
        self.pending: dict[bytes, asyncio.Future[Stun]] = {}
        self.tasks: set[asyncio.Task[Any]] = set()
        self.media: asyncio.Task[None] | None = None
        self.sock = lab.udp(place, *own)
        asyncio.get_running_loop().add_reader(self.sock, self._readable)

    def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        asyncio.get_running_loop().remove_reader(self.sock)
        self.sock.close()

    def start(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    # -- sending

    def send_to(self, payload: bytes, where: Address) -> None:
        with contextlib.suppress(OSError):  # a full buffer or an ICMP error: lost, as on any network
            self.sock.sendto(payload, where)

    def send_relayed(self, payload: bytes) -> None:
        raise NotImplementedError

    def send_media(self, payload: bytes) -> str:
        """By the nominated path; says which."""
        if self.direct is not None:
            self.send_to(payload, self.direct)
            return "direct"
        self.send_relayed(payload)
        return "relayed"

    def start_media(self) -> None:
        if self.media is None:
            self.media = self.start(Sender(self.identity, self.out, self.send_media).run())

    def stop_media(self) -> None:
        if self.media is not None:
            self.media.cancel()

    # -- STUN

    def transaction(self) -> bytes:
        return self.rng.randbytes(12)

    async def transact(
        self, message: bytes, send: Send, interval: float = 0.1, tries: int = 30, sent: bool = False
    ) -> Stun | None:
        """Send until answered, each time with the same transaction id; None after `tries`."""
        future = self.pending.setdefault(message[8:20], asyncio.get_running_loop().create_future())
        for attempt in range(tries):
            if attempt or not sent:
                send(message)
            done, _ = await asyncio.wait([future], timeout=interval)
            if done:
                return future.result()
        return None

    def start_transaction(
        self, message: bytes, send: Send, interval: float = 0.1, tries: int = 30
    ) -> asyncio.Task[Stun | None]:
        """`transact` in a task; its first packet is out when this returns."""
        send(message)
        task = asyncio.get_running_loop().create_task(self.transact(message, send, interval, tries, sent=True))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def username(self, candidate: int) -> bytes:
        return self.other.fragments[candidate] + self.identity.fragments[candidate]

    def make_check(self, candidate: int, use_candidate: bool = False) -> bytes:
        return check(
            self.transaction(),
            self.username(candidate),
            controlling=self.controlling,
            tie_breaker=self.identity.fragments[RELAYED][:8],
            use_candidate=use_candidate,
        )

    def answer_check(self, request: Stun, seen: Address, send: Send) -> None:
        username = request.get(USERNAME) or b""
        send(checked(request.transaction, self.scenario.reversed_username(username), seen))

    # -- receiving

    def _readable(self) -> None:
        for _ in range(64):
            try:
                data, source = self.sock.recvfrom(65535)
            except BlockingIOError:
                return
            except OSError:
                continue
            self.datagram(data, source[:2])

    def datagram(self, data: bytes, source: Address) -> None:
        raise NotImplementedError

    def received(self, data: bytes, path: str, source: Address) -> None:
        """One message, taken out of its frame; `source` is where it was seen to come from."""
        what = kind(data)
        if what == "rtp":
            self.into.arrive(data, path)
        elif what == "rtcp":
            self.into.rtcp_arrived += 1
        elif what == "sip":
            self.sip(data)
        elif what == "stun" and (message := read_stun(data)):
            if message.type == BINDING:
                self.checked_by_other(message, path, source)
            else:
                self.stun_answer(message)

    def stun_answer(self, message: Stun) -> None:
        future = self.pending.get(message.transaction)
        if future is not None and not future.done() and message.type & SUCCESS:
            future.set_result(message)

    def checked_by_other(self, request: Stun, path: str, source: Address) -> None:
        raise NotImplementedError

    def sip(self, data: bytes) -> None:
        raise NotImplementedError
