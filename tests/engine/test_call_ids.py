"""Whose call a message is: who knows another's Call-ID has no part in his call, and who floods takes nobody's place."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import pytest

from appid.alg.dialogs import REMEMBERED
from appid.dataplane.command import ClosePinhole, Command, KeepFlow, OpenPinhole
from appid.engine import AnomalyReport, CallReport
from appid.engine.limits import Limits
from appid.engine.silence import RINGING
from appid.wire import packed, text
from tests.corpus.writer import End
from tests.engine.phones import PROVIDER, SIP, body
from tests.engine.play import Play, bodies, of, settings, udp

ALICE, BOB, STRANGER = End("172.16.42.187", 5060), End("172.16.42.185", 5060), End("198.51.100.66", 5060)


@dataclass
class Way:
    """What one inside phone and one other end say to each other: a Call-ID, the caller's tag, the callee's."""

    play: Play
    phone: End
    far: End = PROVIDER
    call_id: str = "one"
    tag: str = "caller"
    callee: str = "callee"
    out: bool = True
    rtp: int = 16402

    def _send(self, first: str, cseq: str, to_tag: str, content: bytes, outward: bool) -> list[Command]:
        lines = [first, "Via: SIP/2.0/UDP x.example;branch=z9hG4bK776", f"From: <sip:a@x.example>;tag={self.tag}",
                 f"To: <sip:b@y.example>{to_tag}", f"Call-ID: {self.call_id}", f"CSeq: {cseq}"]  # fmt: skip
        lines += ["Content-Type: application/sdp"] if content else []
        message = "\r\n".join([*lines, f"Content-Length: {len(content)}", "", ""]).encode() + content
        ends = (self.phone, self.far) if outward else (self.far, self.phone)
        return self.play.queue(udp(*ends, message))

    def _body(self, outward: bool) -> bytes:
        return body(self.phone.host, self.rtp) if outward else body(self.far.host, 30000)

    def asks(self, method: str = "INVITE", cseq: int = 1) -> list[Command]:
        """The caller."""
        tag = "" if method in ("INVITE", "CANCEL") else f";tag={self.callee}"
        content = self._body(self.out) if method == "INVITE" else b""
        return self._send(f"{method} sip:b@y.example SIP/2.0", f"{cseq} {method}", tag, content, self.out)

    def says(self, status: str, cseq: str = "1 INVITE") -> list[Command]:
        """The callee."""
        content = self._body(not self.out) if status.startswith(("200", "183")) and "INVITE" in cseq else b""
        return self._send(f"SIP/2.0 {status}", cseq, f";tag={self.callee}", content, not self.out)

    def connect(self) -> Way:
        self.asks()
        self.says("200 OK")
        self.asks("ACK")
        return self


def world(**limits: int) -> Play:
    return Play(replace(settings(SIP), limits=Limits(**limits)))


def held(play: Play, host: End) -> list[tuple[int, str]]:
    """The inside ports that are open for this host, each with its peer."""
    return sorted((e.port, text(e.peer)) for e in play.engine.calls.book.open.values() if text(e.inside) == host.host)


def ends(play: Play) -> list[str]:
    last = {report.call: report.end for report in bodies(play.commands, CallReport)}
    return [last[number] for number in sorted(last)]


OPEN = [(16402, PROVIDER.host), (16403, PROVIDER.host)]


def test_two_strangers_with_one_call_id_have_two_calls() -> None:
    play = world()
    one = Way(play, ALICE, tag="a").connect()
    other = Way(play, BOB, STRANGER, tag="b").connect()
    assert (held(play, ALICE), len(held(play, BOB))) == (OPEN, 2)
    one.asks("BYE", 2)
    one.says("200 OK", "2 BYE")
    assert (held(play, ALICE), len(held(play, BOB))) == ([], 2)
    assert ends(play) == ["bye", "open"]
    other.asks("BYE", 2)
    other.says("200 OK", "2 BYE")
    assert ends(play) == ["bye", "bye"]


@pytest.mark.parametrize("tag", ["stolen", "caller"], ids=["call-id", "and the tag"])
def test_who_knows_a_call_id_cannot_come_into_the_call(tag: str) -> None:
    """He calls another host by it, and the one whose it is; his own end ends nothing but that."""
    play = world()
    alice = Way(play, ALICE, out=False).connect()
    for victim in (BOB, ALICE):
        stranger = Way(play, victim, STRANGER, tag=tag, callee="x", out=False, rtp=18000)
        stranger.asks()
        stranger.says("183 Session Progress")
        stranger.asks("CANCEL")
        stranger.says("487 Request Terminated")
        stranger.asks("BYE", 2)
        stranger.says("200 OK", "2 BYE")
    assert held(play, ALICE) == OPEN
    assert ends(play)[0] == "open"
    told = [report for report in bodies(play.commands, CallReport) if report.call == 1]
    assert {(report.caller, report.callee) for report in told} == {(packed(PROVIDER.host), packed(ALICE.host))}
    play.now = 5.0
    alice.asks("BYE", 2)
    assert held(play, ALICE) == OPEN
    alice.says("200 OK", "2 BYE")
    assert (held(play, ALICE), ends(play)[0]) == ([], "bye")


def test_a_strangers_view_does_not_keep_anothers_call_from_ending() -> None:
    play = world()
    alice = Way(play, ALICE).connect()
    Way(play, BOB, STRANGER, tag="caller", callee="x", out=False).asks()
    Way(play, BOB, STRANGER, tag="stolen", callee="x", out=False).asks()
    alice.asks("BYE", 2)
    alice.says("200 OK", "2 BYE")
    assert held(play, ALICE) == []


def test_media_of_an_inside_host_is_not_let_in_by_its_call_id_alone() -> None:
    """Bob's friend outside answers with Alice's address, under the Call-ID of her call."""
    play = world()
    Way(play, ALICE).connect()
    bob = Way(play, BOB, STRANGER, tag="mine")
    bob.asks()
    bob.far = STRANGER._replace(host=ALICE.host)  # in the description only
    content = bob._body(False)
    bob.far = STRANGER
    bob._send("SIP/2.0 200 OK", "1 INVITE", ";tag=callee", content, False)
    assert held(play, BOB) == []
    assert "not the peer" in bodies(play.commands, AnomalyReport)[-1].reason


def test_a_fork_by_one_proxy_is_one_call_and_by_two_is_two() -> None:
    for far, calls in ((PROVIDER, 1), (STRANGER, 2)):
        play = world()
        Way(play, ALICE, out=False, callee="alice").asks()
        Way(play, BOB, far, out=False, callee="bob").asks()
        assert len(play.engine.calls.calls.open) == calls


def test_a_call_that_comes_back_to_its_own_host_is_one() -> None:
    """A spiral (RFC 3261 section 6): each leg has its own end, what is open closes with the last."""
    play = world()
    out = Way(play, ALICE, callee="out")
    back = Way(play, ALICE, callee="back", out=False, rtp=18000)
    for leg in (out, back):
        leg.asks()
    for leg in (back, out):
        leg.says("200 OK")
    assert [port for port, _ in held(play, ALICE)] == [16402, 16403, 18000, 18001]
    for leg in (out, back):
        assert play.engine.calls.calls.open
        leg.asks("BYE", 2)
        leg.says("200 OK", "2 BYE")
    assert (held(play, ALICE), ends(play)) == ([], ["bye"])


def test_a_flood_ends_no_call_of_others_and_none_that_rings() -> None:
    play = world(calls_per_remote=50, calls=200, calls_per_host=100)
    talks = Way(play, ALICE, out=False, call_id="talks").connect()
    rings = Way(play, ALICE, out=False, call_id="rings", rtp=18000)
    rings.asks()
    for number in range(1000):
        Way(play, ALICE, STRANGER, f"flood-{number}", out=False).asks()
    dialogs = play.engine.calls.dialogs
    assert len(dialogs.known) == 52
    assert len(play.engine.calls.calls.open) == 52
    assert f"too many dialogs of remote {STRANGER.host}" in bodies(play.commands, AnomalyReport)[-1].reason
    rings.says("200 OK")
    assert [port for port, _ in held(play, ALICE)] == [16402, 16403, 18000, 18001]
    for leg in (talks, rings):
        leg.asks("BYE", 2)
        leg.says("200 OK", "2 BYE")
    assert {end for call, end in enumerate(ends(play)) if call > 1} <= {"lost", "open"}
    for now in (61.0, 62.0 + RINGING, 64.0 + RINGING + REMEMBERED):
        play.tick(now)
    assert not play.engine.calls.calls.open
    assert not len(play.engine.calls.asleep)
    assert not any(not dialog.ended for dialog in dialogs.known.values())
    assert of(play.tick(1000.0), KeepFlow) == []


def test_an_address_with_all_its_calls_answered_begins_no_more() -> None:
    """None of them ends for it: the next one passes, and nothing is opened for it."""
    play = world(calls_per_remote=3)
    for number in range(4):
        Way(play, ALICE, STRANGER, f"c{number}", out=False, rtp=20000 + 2 * number).connect()
    assert [port for port, _ in held(play, ALICE)] == [20000, 20001, 20002, 20003, 20004, 20005]
    assert ends(play) == ["open"] * 3
    mine = Way(play, ALICE, STRANGER, "mine", rtp=20100).connect()
    assert len(held(play, ALICE)) == 8, "what the host itself begins does not count there"
    mine.asks("BYE", 2)
    assert of(mine.says("200 OK", "2 BYE"), ClosePinhole)


def test_a_flood_costs_no_more_the_longer_it_lasts() -> None:
    play = world()
    spent = []
    for part in range(3):
        begun = time.process_time()
        for number in range(300):
            Way(play, ALICE, STRANGER, f"flood-{part}-{number}", out=False).asks()
        spent.append(time.process_time() - begun)
    assert spent[2] < 3 * spent[0]
    assert of(play.commands, OpenPinhole) == []


def test_a_call_is_kept_awake_by_its_own_words_whichever_its_flow_was_last_heard_of() -> None:
    """A trunk, two lines: OPTIONS, session timers."""
    play = world()
    first, _ = (Way(play, ALICE, call_id=name, rtp=rtp).connect() for name, rtp in (("a", 16402), ("b", 18000)))
    for now in (40.0, 80.0):
        play.tick(now - 1)
        play.now = now
        first.asks("OPTIONS", int(now))
        first.says("200 OK", f"{int(now)} OPTIONS")
    play.tick(110.0)
    assert ends(play)[0] == "open"
    assert {16402, 16403} <= {port for port, _ in held(play, ALICE)}


def test_the_next_server_of_a_provider_answers_and_media_comes_from_there() -> None:
    """The first says nothing (RFC 3263 section 4.3)."""
    play = world()
    Way(play, ALICE, PROVIDER).asks()
    Way(play, ALICE, STRANGER).connect()
    assert held(play, ALICE) == [(16402, STRANGER.host), (16403, STRANGER.host)]
    assert len(play.engine.calls.calls.open) == 1
