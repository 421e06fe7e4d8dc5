"""What closes by time alone, on the wire: a CANCEL without its 487, a BYE without its answer, silence."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from appid.flow.call import SILENCE
from tests.netns.net import received, until
from tests.sip.attacks import FAR, Victim, body
from tests.sip.load import left
from tests.sip.sipp import SIP, host_port
from tests.sip.town import Place, Town, town

pytestmark = [pytest.mark.kernel, pytest.mark.slow]
TIMER = 32.0
"""64*T1: RFC 3261 section 9.1 for the INVITE of a CANCEL, section 17.1.2.2 (timer F) for the BYE."""


class Talk:
    """A call with early media that flows both ways, by sockets that stay."""

    def __init__(self, where: Town, number: int, status: str = "200 OK") -> None:
        self.victim = v = Victim(where, Place.numbered(number, False), 20000 + 40 * number, f"ends-{number}")
        self.mine, self.theirs = v.udp(where.client, v.phone), v.udp(where.peer, v.place.peer)
        asked, self.source = v.heard(self.mine, self.theirs, v.invite())
        self.theirs.sendto(v.answer(asked, body(v.place.peer, FAR), status), self.source)
        self.mine.recvfrom(65535)
        self.inner, self.outer = v.udp(where.client, v.phone, v.port), v.udp(where.peer, v.place.peer, FAR)

    def request(self, method: str, cseq: int, to_tag: str) -> bytes:
        start = f"{method} sip:b@{host_port(self.victim.place.peer, SIP)} SIP/2.0"
        return self.victim.message(start, f"{cseq} {method}", (";tag=a", to_tag))

    def ask(self, request: bytes, answered: bool) -> None:
        asked, source = self.victim.heard(self.mine, self.theirs, request)
        if answered:
            self.theirs.sendto(self.victim.answer(asked, b""), source)
            self.mine.recvfrom(65535)

    def passes(self) -> tuple[bool, bool]:
        """Whether media goes in, and out, now."""
        v = self.victim
        return self._one(self.outer, self.inner, (v.target, v.port)), self._one(
            self.inner, self.outer, (v.place.peer, FAR)
        )

    @staticmethod
    def _one(source: socket.socket, sink: socket.socket, to: tuple[str, int]) -> bool:
        text = b"\x80" + bytes(11) + str(time.monotonic()).encode()
        source.sendto(text, to)
        return text in received(sink)


@pytest.mark.timeout(200)
@pytest.mark.parametrize("nat", [False, True], ids=["routed", "nat"])
def test_what_nobody_answers_closes_by_its_timer(tmp_path: Path, nat: bool) -> None:
    with town("ours", nat, tmp_path) as (where, gateway):
        assert gateway is not None
        cancelled, bidden, silent = Talk(where, 0, "183 Session Progress"), Talk(where, 1), Talk(where, 2)
        talks = (cancelled, bidden, silent)
        assert [talk.passes() for talk in talks] == [(True, True)] * 3
        quiet_since = time.monotonic()
        cancelled.ask(cancelled.request("CANCEL", 1, ""), answered=True)
        bidden.ask(bidden.request("BYE", 2, ";tag=b"), answered=False)
        asked_at = time.monotonic()
        time.sleep(TIMER - 4)
        assert [cancelled.passes(), bidden.passes()] == [(True, True)] * 2, "an answer may still come"
        time.sleep(asked_at + TIMER + 2 - time.monotonic())
        assert [cancelled.passes(), bidden.passes()] == [(False, False)] * 2
        assert [call["end"] for call in gateway.ask("calls")] == ["cancelled", "bye", "open"]
        assert until(lambda: gateway.ask("calls")[2]["end"] == "lost", quiet_since + SILENCE + 5 - time.monotonic())
        assert silent.passes() == (False, False)
        assert left(where, gateway) == []
        for talk in talks:
            talk.victim.close()
