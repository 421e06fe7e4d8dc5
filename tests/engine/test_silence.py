"""What ends, and what does not, when nobody says anything: branches cut off, long rings, long holds, crowded hosts."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from appid.alg.dialog import BYE_TIMEOUT
from appid.dataplane.command import Command, KeepFlow
from appid.engine import AnomalyReport, CallReport, Restored, Settings
from appid.engine.kept import kept_call, kept_calls
from appid.engine.limits import Limits
from appid.engine.silence import LIFETIME, MAX_ASLEEP, RINGING
from appid.policy.rule import PolicyRule
from appid.wire import Endpoint, packed, text
from tests.corpus.writer import End
from tests.engine.phones import GATE, PROVIDER, Phone, body, gateway
from tests.engine.play import Play, bodies, of, settings

ALICE, BOB = End("172.16.42.187", 5060), End("172.16.42.185", 5060)
SIP = settings(PolicyRule("sip", "allow", applications=frozenset({"sip", "rtp", "rtcp"}), service="any"))


@dataclass
class Member(Phone):
    """A phone that is called; `tag` its own."""

    tag: str = "phone"

    @property
    def outside(self) -> Endpoint:
        """Itself, where nothing is translated."""
        found = self.play.engine.calls.nat.mappings.outside_of(17, self.inside, packed(self.provider.host))
        return found or self.inside

    def called(self, method: str = "INVITE", cseq: int = 1, tag: str = "", more: tuple[str, ...] = ()) -> list[Command]:
        content = body(PROVIDER.host, 30000, *more) if method == "INVITE" else b""
        return self.back(self.head(f"{method} sip:b@example.org SIP/2.0", f"{cseq} {method}", tag, content))

    def says(self, status: str, cseq: str = "1 INVITE", port: int = 0, more: tuple[str, ...] = ()) -> list[Command]:
        content = body(self.end.host, port, *more) if port else b""
        return self.out(self.head(f"SIP/2.0 {status}", cseq, f";tag={self.tag}", content))


def held(play: Play, host: End) -> list[int]:
    """The inside ports that the kernel lets in for this host."""
    return sorted(e.port for e in play.engine.calls.book.open.values() if text(e.inside) == host.host)


def pair(given: Settings = SIP) -> tuple[Member, Member]:
    play = Play(given)
    return Member(play, ALICE, tag="alice"), Member(play, BOB, tag="bob")


def ends(play: Play) -> list[str]:
    """How each call ended, in the order of their numbers."""
    last = {report.call: report.end for report in bodies(play.commands, CallReport)}
    return [last[number] for number in sorted(last)]


# ---- a branch that nobody ends ---------------------------------------------------------------------------------------


def test_the_branch_that_never_says_487_does_not_take_the_answered_one_along() -> None:
    """RFC 3261 section 9.1: after 32 s the branch is over; the call that the other phone answered goes on."""
    alice, bob = pair()
    play = alice.play
    for phone in (alice, bob):
        phone.called()
        phone.says("183 Session Progress", port=16402)
    alice.says("200 OK", port=16402)
    bob.called("CANCEL")
    assert held(play, ALICE) == held(play, BOB) == [16402, 16403]
    alice.play.now = 20.0
    alice.out(alice.head("OPTIONS sip:p SIP/2.0", "7 OPTIONS", "", b""))
    play.tick(BYE_TIMEOUT)
    assert (held(play, ALICE), held(play, BOB)) == ([16402, 16403], [])
    assert ends(play) == ["open"]
    alice.called("BYE", 2, ";tag=alice")
    alice.says("200 OK", "2 BYE")
    assert (held(play, ALICE), ends(play)) == ([], ["bye"])


# ---- a minute of silence, and then a word ----------------------------------------------------------------------------


def rings(given: Settings = SIP) -> Member:
    phone = Member(Play(given), ALICE)
    phone.invite()
    phone.respond("180 Ringing", port=0)
    return phone


@pytest.mark.parametrize("given", [SIP, None], ids=["routed", "nat"])
def test_an_answer_after_a_long_ring_opens_its_media(given: Settings | None) -> None:
    """RFC 3261 section 13.3.1.1: a phone that rings need say so but once a minute."""
    phone = rings(given or gateway().settings)
    play = phone.play
    named = [m.outside for m in play.engine.calls.nat.mappings.held((phone.call_id, packed(ALICE.host)))]
    play.tick(61.0)
    assert ends(play) == ["lost"]
    play.now = 62.0
    phone.respond("200 OK")
    assert held(play, ALICE) == [16402, 16403]
    assert ends(play) == ["lost", "open"]
    assert [m.outside for m in play.engine.calls.nat.mappings.held((phone.call_id, packed(ALICE.host)))] == named
    assert bool(named) == (given is None)
    phone.out(phone.head("BYE sip:bob SIP/2.0", "2 BYE", ";tag=314159", b""))
    phone.respond("200 OK", "2 BYE", port=0)
    assert (held(play, ALICE), ends(play)) == ([], ["lost", "bye"])


def test_a_ring_ends_sometime() -> None:
    phone = rings()
    phone.play.tick(61.0)
    phone.play.tick(61.0 + RINGING)
    phone.respond("200 OK")
    assert held(phone.play, ALICE) == []
    keeper = phone.play.engine.calls
    assert len(keeper.asleep) == 0
    assert keeper.dialogs.at(phone.call_id, phone.inside.address) == []


@pytest.mark.parametrize("given", [SIP, None], ids=["routed", "nat"])
def test_what_was_on_hold_for_long_opens_again(given: Settings | None) -> None:
    """RFC 3264 section 8.4: on hold for longer than a minute without a packet."""
    phone = rings(given or gateway().settings)
    play = phone.play
    phone.respond("200 OK")
    phone.invite("a=inactive", cseq=2, to_tag=";tag=314159")
    content = body(PROVIDER.host, 30000, "a=inactive")
    via = f"{GATE}:{phone.outside.port}" if given is None else ""
    phone.back(phone.head("SIP/2.0 200 OK", "2 INVITE", ";tag=314159", content, via))
    play.tick(90.0)
    assert (held(play, ALICE), ends(play)) == ([], ["lost"])
    phone.invite(cseq=3, to_tag=";tag=314159")
    assert held(play, ALICE) == []
    phone.respond("200 OK", "3 INVITE")
    assert held(play, ALICE) == [16402, 16403]
    assert ends(play) == ["lost", "open"]


def test_who_hung_up_after_the_silence_is_not_called_again() -> None:
    phone = rings(gateway().settings)
    play = phone.play
    phone.respond("200 OK")
    play.tick(61.0)
    assert (held(play, ALICE), ends(play)) == ([], ["lost"])
    phone.out(phone.head("BYE sip:bob SIP/2.0", "2 BYE", ";tag=314159", b""))
    phone.respond("200 OK", "2 BYE", port=0)
    play.tick(62.0)
    phone.invite(cseq=3, to_tag=";tag=314159")
    phone.respond("200 OK", "3 INVITE")
    keeper = play.engine.calls
    assert (held(play, ALICE), ends(play), len(keeper.asleep)) == ([], ["lost"], 0)
    assert not keeper.nat.mappings.held((phone.call_id, packed(ALICE.host)))


def test_no_more_of_those_are_kept_than_there_is_room_for() -> None:
    phone = rings()
    play = phone.play
    for number in range(MAX_ASLEEP + 40):
        phone.call_id = f"c{number}"
        phone.invite()
    play.tick(61.0)
    play.tick(62.0)
    keeper = play.engine.calls
    assert keeper.calls.open == {}
    assert len(keeper.asleep) <= MAX_ASLEEP
    assert sum(not d.ended for d in keeper.dialogs.known.values()) <= MAX_ASLEEP


# ---- one host's calls are not the others' --------------------------------------------------------------------------


@pytest.mark.parametrize("limits", [Limits(calls=40), Limits(calls_per_host=20)], ids=["all", "host"])
def test_a_flood_of_one_host_ends_nobody_elses_call(limits: Limits) -> None:
    """INVITEs that nobody answers: what gives way is the flood's own, the call that was answered before stays."""
    alice, bob = pair(replace(SIP, limits=limits))
    play = alice.play
    alice.call_id = "before"
    alice.called()
    alice.says("200 OK", port=16402)
    for number in range(100):
        play.now = 1 + number / 1000
        bob.call_id = f"flood-{number}"
        bob.invite()
    assert held(play, ALICE) == [16402, 16403]
    assert ends(play)[0] == "open"
    assert len(play.engine.calls.calls.open) <= 41
    told = [report.reason for report in bodies(play.commands, AnomalyReport)]
    assert told
    assert all(BOB.host in reason for reason in told)


def test_a_host_with_many_sleepers_wakes_none_of_anothers() -> None:
    """He has an accomplice who answers, then both are silent."""
    play = Play(SIP)
    honest = Member(play, ALICE, tag="alice", call_id="honest")
    honest.called()
    honest.says("200 OK", port=16402)
    play.tick(61.0)
    for number in range(MAX_ASLEEP + 50):
        play.now = 61.0 + number / 100
        mallory = Member(play, BOB, tag="bob", call_id=f"many-{number}")
        mallory.called()
        mallory.says("200 OK")
    for second in range(80, 200, 5):
        play.tick(float(second))
    keeper = play.engine.calls
    assert len(keeper.asleep) <= MAX_ASLEEP
    assert sum(not d.ended for d in keeper.dialogs.known.values()) <= MAX_ASLEEP
    honest.called("INVITE", 2, ";tag=alice")
    honest.says("200 OK", "2 INVITE", port=16402)
    assert held(play, ALICE) == [16402, 16403]


def test_what_sleeps_outlives_its_engine() -> None:
    """A call on hold for long: after a restart its resume opens, its way is kept, and its BYE is heard."""
    before = Play(SIP)
    phone = Member(before, ALICE, tag="alice")
    phone.called()
    phone.says("200 OK", port=16402)
    before.tick(61.0)
    (number,) = before.engine.calls.asleep.names
    (kept,) = kept_calls(before.engine)
    assert (kept.number, kept.asleep, kept.pinholes) == (number, 61.0 + LIFETIME, ())
    assert number in before.engine.calls.touched, "it is written down"
    for resumed in (True, False):
        after = Play(SIP, now=100.0, number=before.number)
        after.commands += after.engine.handle(Restored((kept,)), 100.0)
        again = replace(phone, play=after)
        assert (held(after, ALICE), ends(after)) == ([], [])
        assert [flow.dport for flow in (each.key for each in of(after.tick(104.0), KeepFlow))] == [5060]
        if resumed:
            again.called("INVITE", 2, ";tag=alice")
            again.says("200 OK", "2 INVITE", port=16402)
            assert (held(after, ALICE), ends(after)) == ([16402, 16403], ["open"])
            assert min(after.engine.calls.calls.open) > number
        else:
            again.called("BYE", 2, ";tag=alice")
            again.says("200 OK", "2 BYE")
            after.tick(105.0)
            assert not after.engine.calls.asleep.names
        assert number in after.engine.calls.touched
        assert kept_call(after.engine, number) is None


@pytest.mark.parametrize("how", ["bye", "crowd"])
def test_the_ports_of_a_sleeper_are_free_when_it_is_over(how: str) -> None:
    """Hung up, or pushed out by the next calls of the same address; under NAT its ports were bound."""
    given = gateway().settings
    phone = Member(Play(replace(given, limits=Limits(calls_per_remote=1))), ALICE, tag="alice", call_id="one")
    play, mappings = phone.play, phone.play.engine.calls.nat.mappings
    phone.called()
    phone.says("183 Session Progress" if how == "crowd" else "200 OK", port=18000)
    play.tick(61.0)
    assert mappings.held(("one", phone.inside.address))
    if how == "bye":
        phone.called("BYE", 2, ";tag=alice")
        phone.says("200 OK", "2 BYE")
    else:
        replace(phone, call_id="two").called()
        replace(phone, call_id="two").says("486 Busy Here")
    play.tick(62.0)
    assert not mappings.held(("one", phone.inside.address))
    play.tick(62.0 + RINGING)
    assert not play.engine.calls.asleep.names
