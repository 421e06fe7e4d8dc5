"""The caller behind the gateway: session 1 of the report, step by step.

In: a Lab whose actors run. Out: a call, or CallFailedError at the step that could not be done.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl

from tests.lab.agent import Agent
from tests.lab.courier import Push
from tests.lab.relay import SNATMAP_PORT
from tests.lab.scenario import LOCAL, PUBLIC, RELAYED
from tests.lab.story import CallFailedError
from tests.lab.web import http_get
from tests.lab.wire_call import Dialog
from tests.lab.wire_facetime import (
    USE_CANDIDATE,
    XOR_MAPPED_ADDRESS,
    Address,
    Stun,
    allocate,
    channel_bind,
    channel_data,
    read_channel_data,
    read_stun,
    refresh,
    snatmap_request,
)

HOST = "static.ess.apple.com:80"
PATIENCE = 5.0
"""Seconds that a step may take."""


class Client(Agent):
    """Sends by ChannelData to the relay until the direct path is nominated."""

    controlling = True
    web_answer = b""

    async def call(self, seconds: float) -> None:
        """The whole session; media for `seconds`."""
        push: Push | None = None
        try:
            if not self.scenario.v6:  # the probe has room for an IPv4 address alone (field.md A5)
                self.start(self._snatmap())
            mapped = await self._allocate()
            push = await self._push()
            peer = await self._ring(push, mapped)
            await self._relayed_path(peer)
            dialog = Dialog(self.scenario, mapped, peer)
            await self._invite(dialog)
            await asyncio.sleep(seconds)
            self.stop_media()
            await self._hang_up(dialog)
        finally:
            self.stop_media()
            if push is not None:
                push.close()

    # -- before the call

    async def _snatmap(self) -> None:
        """Nobody waits for it: the report found it unrelated to the call."""
        with self.lab.udp(self.place, self.own[0], SNATMAP_PORT) as probe:
            local = (self.own[0], SNATMAP_PORT)
            request = snatmap_request(self.rng.randrange(1 << 31), local)
            for _ in range(2):
                with contextlib.suppress(OSError):
                    probe.sendto(request, (self.scenario.snatmap, SNATMAP_PORT))
                self.journal.note("snatmap")
                await asyncio.sleep(0.3)

    async def _allocate(self) -> Address:
        """Packets 60-82; returns the own address as the relay saw it."""
        await asyncio.sleep(0.1)
        s = self.scenario
        message = allocate(self.transaction(), (s.relay, s.relayed_port), s.token)
        waiting = self.start_transaction(message, self._to_relay, interval=1.0, tries=4)
        self.journal.note("allocate")
        web = self.start(self._web())
        answer = await waiting
        mapped = answer.address(XOR_MAPPED_ADDRESS) if answer is not None else None
        if mapped is None:
            raise CallFailedError("allocated", "no answer to the Allocate request")
        self.journal.note("allocated")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(web, PATIENCE)
        return mapped

    async def _web(self) -> None:
        with contextlib.suppress(OSError, TimeoutError):
            self.web_answer = await http_get(self.lab, self.own[0], (self.scenario.web, 80), HOST, "/connectivity.txt")
            self.journal.note("web")

    async def _push(self) -> Push:
        try:
            device = self.identity.user
            connecting = Push.connect(self.lab, self.place, self.own[0], self.scenario, device)
            return await asyncio.wait_for(connecting, PATIENCE)
        except (OSError, TimeoutError, ssl.SSLError) as error:
            raise CallFailedError("push", f"no push connection: {error or type(error).__name__}") from error

    async def _ring(self, push: Push, mapped: Address) -> Address:
        """Hands the call over to the peer's device, learns its addresses."""
        push.send({"to": self.other.user, "from": self.identity.user, "public": list(mapped), "local": list(self.own)})
        try:
            answer = await asyncio.wait_for(push.receive(), PATIENCE)
        except (OSError, TimeoutError, EOFError) as error:
            raise CallFailedError("push", f"the courier went silent: {error or type(error).__name__}") from error
        self.journal.note("push")
        self.peer_local: Address = (answer["local"][0], answer["local"][1])
        return answer["public"][0], answer["public"][1]

    # -- the relayed path

    async def _relayed_path(self, peer: Address) -> None:
        """Packets 121-164."""
        bind = channel_bind(self.transaction(), self.scenario.channel, peer)
        self._to_relay(bind)
        self.journal.note("bind")
        checking = self.start_transaction(self.make_check(RELAYED), self.send_relayed, interval=0.15)
        self.journal.note("check")
        await asyncio.sleep(0.3)
        again = self.start_transaction(bind, self._to_relay)
        self.journal.note("bind-again")
        if await again is None:
            raise CallFailedError("bound", "no answer to the ChannelBind request")
        self.journal.note("bound")
        if await checking is None:
            raise CallFailedError("checked", "no answer to the relayed check")
        self.journal.note("checked")
        self.start_transaction(self.make_check(LOCAL), lambda m: self.send_to(m, self.peer_local), 0.5, 3)
        self.journal.note("check-local")
        await self._within("peer-check")
        nominate = self.make_check(RELAYED, use_candidate=True)
        if await self.transact(nominate, self.send_relayed) is None:
            raise CallFailedError("nominate", "no answer to USE-CANDIDATE on the relayed path")
        self.journal.note("nominate")

    # -- the dialog

    async def _invite(self, dialog: Dialog) -> None:
        self.dialog = dialog
        for _ in range(10):
            self.send_relayed(dialog.invite())
            self.journal.note("invite")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.journal.reached("trying"), 0.5)
                break
        await self._within("answered")
        self.start_media()
        self.journal.note("relayed")

    async def _hang_up(self, dialog: Dialog) -> None:
        """Packets 5786-5791; what is still in flight is let in first."""
        for _ in range(4):
            self.send_relayed(dialog.bye())
            self.journal.note("bye")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.journal.reached("bye-answered"), 0.5)
                break
        if await self.transact(refresh(self.transaction(), 0), self._to_relay, 0.5, 4) is not None:
            self.journal.note("released")
        if not self.journal.has("bye-answered"):
            raise CallFailedError("bye-answered", "no answer to the BYE")

    def sip(self, data: bytes) -> None:
        for status, step in ((b"100", "trying"), (b"180", "ringing")):
            if data.startswith(b"SIP/2.0 " + status):
                self.journal.note(step)
        if data.startswith(b"SIP/2.0 200") and b"CSeq: 1 INVITE" in data:
            self.journal.note("answered")
            self.send_relayed(self.dialog.ack())
            self.journal.note("ack")
        elif data.startswith(b"SIP/2.0 200") and b"CSeq: 2 BYE" in data:
            self.journal.note("bye-answered")

    # -- checks of the peer

    def checked_by_other(self, request: Stun, path: str, source: Address) -> None:
        if path == "relayed":
            self.answer_check(request, (self.scenario.relay, self.scenario.relayed_port), self.send_relayed)
            self.journal.note("peer-check")
            return
        self.journal.note("peer-direct")
        self.answer_check(request, source, lambda m: self.send_to(m, source))
        if not self.journal.has("direct-answer"):
            self.journal.note("direct-answer")
            self.start(self._nominate_direct(source))

    async def _nominate_direct(self, source: Address) -> None:
        """Packets 283-299: no SIP, no ICE restart; media simply moves."""
        message = self.make_check(PUBLIC, use_candidate=True)
        assert (USE_CANDIDATE, b"") in (read_stun(message) or Stun(0, b"", ())).attributes
        self.journal.note("direct-nominate")
        if await self.transact(message, lambda m: self.send_to(m, source)) is not None:
            self.direct = source
            self.journal.note("direct")

    # -- framing

    def _to_relay(self, message: bytes) -> None:
        self.send_to(message, (self.scenario.relay, self.scenario.relay_port))

    def send_relayed(self, payload: bytes) -> None:
        self._to_relay(channel_data(self.scenario.channel, payload))

    def datagram(self, data: bytes, source: Address) -> None:
        if source != (self.scenario.relay, self.scenario.relay_port):
            self.received(data, "direct", source)
        elif (framed := read_channel_data(data)) is not None:
            self.received(framed[1], "relayed", source)
        elif (message := read_stun(data)) is not None:
            self.stun_answer(message)

    async def _within(self, step: str) -> None:
        try:
            await asyncio.wait_for(self.journal.reached(step), PATIENCE)
        except TimeoutError as error:
            raise CallFailedError(step, f"nothing within {PATIENCE:.0f} s") from error
