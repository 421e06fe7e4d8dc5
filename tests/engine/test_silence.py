"""What ends, and what does not, when nobody says anything: branches cut off, long rings, long holds, crowded hosts."""

from __future__ import annotations

from dataclasses import dataclass

from appid.alg.dialog import BYE_TIMEOUT
from appid.dataplane.command import Command
from appid.engine import CallReport, Settings
from appid.policy.rule import PolicyRule
from appid.wire import text
from tests.corpus.writer import End
from tests.engine.phones import PROVIDER, Phone, body
from tests.engine.play import Play, bodies, settings

ALICE, BOB = End("172.16.42.187", 5060), End("172.16.42.185", 5060)
SIP = settings(PolicyRule("sip", "allow", applications=frozenset({"sip", "rtp", "rtcp"}), service="any"))


@dataclass
class Member(Phone):
    """A phone that is called; `tag` its own."""

    tag: str = "phone"

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
