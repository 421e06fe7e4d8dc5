"""What is open when, on the wire: on hold, for a phone that lost a forked call, after what nobody answers."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from appid.flow.call import SILENCE
from tests.netns.live import Live
from tests.netns.net import PUBLIC4, received, until
from tests.sip.attacks import FAR, Victim, body
from tests.sip.load import left
from tests.sip.sipp import SIP, host_port
from tests.sip.talk import Talk
from tests.sip.town import Place, Town, town

pytestmark = [pytest.mark.kernel, pytest.mark.slow]
TIMER = 32.0
"""64*T1: RFC 3261 section 9.1 for the INVITE of a CANCEL, section 17.1.2.2 (timer F) for the BYE."""


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "nat", [pytest.param(False, marks=pytest.mark.slow, id="routed"), pytest.param(True, id="nat")]
)
def test_what_is_on_hold_is_shut_and_opens_again(tmp_path: Path, nat: bool) -> None:
    """RFC 3264 sections 8.2 (port 0) and 8.4 (0.0.0.0, sections of RFC 2543 times)."""
    with town("ours", nat, tmp_path) as (where, gateway):
        assert gateway is not None
        talk = Talk(where, 0)
        port, phone = talk.victim.port, talk.victim.phone
        assert talk.passes() == (True, True)
        for cseq, (host, held) in enumerate(((talk.victim.place.held, port), (phone, 0)), 1):
            talk.offer(2 * cseq, host, held)
            assert talk.passes() == (False, False), (host, held)
            talk.offer(2 * cseq + 1, phone, port)
            assert talk.passes() == (True, True)
        talk.close()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("v6", [False, True], ids=["v4", "v6"])
@pytest.mark.parametrize("nat", [False, True], ids=["routed", "nat"])
def test_a_move_that_is_refused_after_its_183_is_taken_back(tmp_path: Path, nat: bool, v6: bool) -> None:
    """RFC 6141 section 3.4: between the 183 and the refusal media may go to either port; then the old one holds."""
    with town("ours", nat, tmp_path) as (where, gateway):
        assert gateway is not None
        talk = Talk(where, 0, v6=v6)
        v, new = talk.victim, talk.victim.port + 10
        moved = v.udp(where.client, v.phone, new)
        assert talk.passes() == (True, True)
        talk.offered(2, v.phone, new)
        assert not talk.comes(moved, new)
        talk.answer("183 Session Progress", body(v.place.peer, FAR))
        assert (talk.comes(talk.inner, v.port), talk.comes(moved, new)) == (True, True)
        talk.answer("488 Not Acceptable Here", b"")
        assert talk.passes() == (True, True)
        assert not talk.comes(moved, new)
        talk.ask(talk.request("BYE", 3, ";tag=b"), answered=True)
        assert talk.passes() == (False, False)
        talk.close()
        assert left(where, gateway) == []


@pytest.mark.timeout(60)
@pytest.mark.parametrize("nat", [False, True], ids=["routed", "nat"])
def test_two_calls_at_one_port_the_first_is_hung_up(tmp_path: Path, nat: bool) -> None:
    """One phone, one media port, one peer: call waiting, or a transfer (INVITE with Replaces). The second goes on."""
    with town("ours", nat, tmp_path) as (where, gateway):
        assert gateway is not None
        talk = Talk(where, 0)
        bye = talk.request("BYE", 2, ";tag=b")
        talk.victim.call_id = "second"
        talk.asked, talk.source = talk.victim.heard(talk.mine, talk.theirs, talk.victim.invite())
        talk.answer("200 OK", body(talk.victim.place.peer, FAR))
        assert talk.passes() == (True, True)
        talk.ask(bye, answered=True)
        assert talk.passes() == (True, True)
        talk.ask(talk.request("BYE", 2, ";tag=b"), answered=True)
        assert talk.passes() == (False, False)
        assert left(where, gateway) == []
        talk.close()


LONG = 66.0
"""Seconds in which nobody says anything: longer than a call may be silent."""


@pytest.mark.timeout(200)
@pytest.mark.parametrize("nat", [False, True], ids=["routed", "nat"])
def test_who_rings_or_holds_for_more_than_a_minute_is_heard_then(tmp_path: Path, nat: bool) -> None:
    with town("ours", nat, tmp_path) as (where, gateway):
        assert gateway is not None
        rings = [Talk(where, number, "180 Ringing", v6) for number, v6 in enumerate((False, True))]
        holds = [Talk(where, number, v6=v6) for number, v6 in enumerate((False, True), 2)]
        assert [talk.passes() for talk in (*rings, *holds)] == [(False, False)] * 2 + [(True, True)] * 2
        for talk in holds:
            talk.offer(2, talk.victim.place.held, talk.victim.port)
        assert [talk.passes() for talk in holds] == [(False, False)] * 2
        time.sleep(LONG)
        for talk in rings:
            talk.answer("200 OK", body(talk.victim.place.peer, FAR))
        for talk in holds:
            talk.offer(3, talk.victim.phone, talk.victim.port)
        assert [talk.passes() for talk in (*rings, *holds)] == [(True, True)] * 4
        for talk in (*rings, *holds):
            talk.ask(talk.request("BYE", 9, ";tag=b"), answered=True)
        assert [talk.passes() for talk in (*rings, *holds)] == [(False, False)] * 4
        assert left(where, gateway) == []
        for talk in (*rings, *holds):
            talk.close()


def opened(gateway: Live, *hosts: str) -> bool:
    return any(p["closed_at"] is None and p["inside"] in hosts for p in gateway.ask("pinholes"))


class Fork:
    """A provider outside that calls two phones with one INVITE."""

    def __init__(self, where: Town) -> None:
        self.place = place = Place.numbered(0, False)
        self.victims = [Victim(where, place, 20000, "fork") for _ in place.phones]
        self.hosts = place.phones
        self.far = self.victims[0].udp(where.peer, place.peer)
        self.near = [v.udp(where.client, host) for v, host in zip(self.victims, self.hosts, strict=True)]
        self.media = [v.udp(where.client, host, 20000) for v, host in zip(self.victims, self.hosts, strict=True)]
        self.outer = self.victims[0].udp(where.peer, place.peer, FAR)
        self.sources: list[tuple[str, int]] = []
        for v, near, host in zip(self.victims, self.near, self.hosts, strict=True):
            own = host_port(host, SIP)
            register = v.message("REGISTER sip:example.org SIP/2.0", "1 REGISTER", (f";tag={host[-1]}", ""), own=own)
            self.sources.append(v.heard(near, self.far, register.replace(b"fork", b"reg" + host.encode()))[1])

    def request(self, number: int, method: str, content: bytes = b"", tag: str = "") -> bytes:
        """Of the provider's, as that phone gets it."""
        v, own = self.victims[number], host_port(self.place.peer, SIP)
        text = v.message(f"{method} sip:b@example.org SIP/2.0", f"1 {method}", (";tag=f", tag), content, own=own)
        self.far.sendto(text.replace(b"branch=z9hG4bK", b"branch=z9hG4bK%d" % number), self.sources[number])
        return self.near[number].recvfrom(65535)[0]

    def answer(self, number: int, request: bytes, status: str, content: bytes = b"") -> bytes:
        """Of a phone's, as the provider gets it."""
        v, own = self.victims[number], host_port(self.hosts[number], SIP).encode()
        text = v.answer(request, content, status, f";tag=phone{number}")
        contact = host_port(self.place.peer, SIP).encode()
        text = text.replace(b"Contact: <sip:b@" + contact, b"Contact: <sip:b@" + own)
        self.near[number].sendto(text, (self.place.peer, SIP))
        return self.far.recvfrom(65535)[0]

    def hears(self, number: int, to: tuple[str, int]) -> bool:
        text = b"\x80" + bytes(11) + str(time.monotonic()).encode()
        self.outer.sendto(text, to)
        return text in received(self.media[number])


@pytest.mark.timeout(60)
@pytest.mark.parametrize("with_487", [True, False], ids=["487", "never"])
def test_the_phone_that_lost_is_shut_while_the_other_talks(tmp_path: Path, with_487: bool) -> None:
    """Two phones on the same ports ring, both with early media; one answers, the other's branch is cancelled."""
    with town("ours", True, tmp_path) as (where, gateway):
        assert gateway is not None
        fork = Fork(where)
        asked = [fork.request(number, "INVITE", body(fork.place.peer, FAR)) for number in (0, 1)]
        described = [body(host, 20000) for host in fork.hosts]
        told = [fork.answer(n, asked[n], "183 Session Progress", described[n]) for n in (0, 1)]
        to = [(PUBLIC4, int(re.findall(rb"^m=audio (\d+)", text, re.MULTILINE)[0])) for text in told]
        assert to[0] != to[1]
        assert [fork.hears(number, to[number]) for number in (0, 1)] == [True, True]
        fork.answer(0, asked[0], "200 OK", described[0])
        cancelled = fork.request(1, "CANCEL")
        fork.answer(1, cancelled, "200 OK")
        if with_487:
            fork.answer(1, asked[1], "487 Request Terminated")
            assert [fork.hears(number, to[number]) for number in (0, 1)] == [True, False]
        assert opened(gateway, fork.hosts[1]) != with_487
        assert opened(gateway, fork.hosts[0])
        assert until(lambda: not opened(gateway, fork.hosts[1]), 2.0 if with_487 else TIMER + 2)
        assert [fork.hears(number, to[number]) for number in (0, 1)] == [True, False]
        fork.answer(0, fork.request(0, "BYE", tag=";tag=phone0"), "200 OK")
        assert not fork.hears(0, to[0])
        assert until(lambda: not opened(gateway, *fork.hosts), 2.0)
        for victim in fork.victims:
            victim.close()


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
            talk.close()
