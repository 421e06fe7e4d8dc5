"""The callee behind its own NAT router: answers the push, the checks and the INVITE, and begins the direct path.

In: a Lab whose actors run. Out: its side of the call. Sends to the relay's relayed address, without framing.
"""

from __future__ import annotations

import asyncio
import contextlib

from tests.lab.agent import Agent
from tests.lab.courier import Message, Push
from tests.lab.scenario import PUBLIC, RELAYED
from tests.lab.wire_call import Dialog
from tests.lab.wire_facetime import (
    USE_CANDIDATE,
    XOR_MAPPED_ADDRESS,
    Address,
    Stun,
    allocate,
    read_stun,
    refresh,
)


class Peer(Agent):
    """`ring` seconds until it picks up; `relayed` seconds of media before it tries the direct path."""

    ring = 0.3
    relayed = 1.0
    public: Address
    far: Address
    dialog: Dialog
    push: Push | None = None
    local: Address | None = None  # the candidate to tell; the own address, if None
    awake = False
    checking = False

    async def listen(self) -> None:
        """Connect to the courier, learn the own public address from the relay; from then on wait for a call."""
        self.push = await Push.connect(self.lab, self.place, self.own[0], self.scenario, self.identity.user)
        s = self.scenario
        message = allocate(self.transaction(), (s.relay, s.relayed_port), s.token[::-1])
        answer = await self.transact(message, self._to_server, interval=1.0, tries=4)
        mapped = answer.address(XOR_MAPPED_ADDRESS) if answer is not None else None
        assert mapped is not None, "the peer's own way to the relay does not work"
        self.public = mapped
        self.start(self._wait(self.push))

    def close(self) -> None:
        if self.push is not None:
            self.push.close()
        super().close()

    async def _wait(self, push: Push) -> None:
        with contextlib.suppress(OSError, EOFError):
            message = await push.receive()
            await self._answer(push, message)

    async def _answer(self, push: Push, message: Message) -> None:
        self.far = (message["public"][0], message["public"][1])
        self.dialog = Dialog(self.scenario, self.far, self.public)
        self.send_relayed(self.make_check(RELAYED))  # too early for the relay, but it opens the own NAT
        push.send({"to": message["from"], "public": list(self.public), "local": list(self.local or self.own)})
        await asyncio.sleep(0.4)  # the caller's checks go unanswered for a while, as packets 122 to 142 did
        self.awake = True

    async def _check_relayed(self) -> None:
        await asyncio.sleep(0.02)
        await self.transact(self.make_check(RELAYED), self.send_relayed)

    # -- the dialog

    def sip(self, data: bytes) -> None:
        if data.startswith(b"INVITE "):
            self.send_relayed(self.dialog.trying())
            self.start(self._pick_up())
        elif data.startswith(b"ACK "):
            self.start_media()
            self.start(self._go_direct())
        elif data.startswith(b"BYE "):
            self.stop_media()
            self.send_relayed(self.dialog.bye_accepted())
            self._to_server(refresh(self.transaction(), 0))

    async def _pick_up(self) -> None:
        await asyncio.sleep(0.02)
        self.send_relayed(self.dialog.ringing())
        await asyncio.sleep(self.ring)
        for _ in range(6):
            self.send_relayed(self.dialog.accepted())
            await asyncio.sleep(0.5)
            if self.media is not None:
                return

    # -- the direct path

    async def _go_direct(self) -> None:
        """Packet 280: this check is the first packet between the two public addresses."""
        await asyncio.sleep(self.relayed)
        await self.transact(self.make_check(PUBLIC), lambda m: self.send_to(m, self.far), interval=0.1, tries=50)

    def checked_by_other(self, request: Stun, path: str, source: Address) -> None:
        if path == "relayed":
            if self.awake:
                self.answer_check(request, source, self.send_relayed)
                if not self.checking:
                    self.checking = True
                    self.start(self._check_relayed())
            return
        self.answer_check(request, source, lambda m: self.send_to(m, source))
        if request.get(USE_CANDIDATE) is not None:
            self.direct = source

    # -- framing

    def _to_server(self, message: bytes) -> None:
        self.send_to(message, (self.scenario.relay, self.scenario.relay_port))

    def send_relayed(self, payload: bytes) -> None:
        self.send_to(payload, (self.scenario.relay, self.scenario.relayed_port))

    def datagram(self, data: bytes, source: Address) -> None:
        if source == (self.scenario.relay, self.scenario.relay_port):
            if (message := read_stun(data)) is not None:
                self.stun_answer(message)
            return
        relayed = source == (self.scenario.relay, self.scenario.relayed_port)
        self.received(data, "relayed" if relayed else "direct", source)
