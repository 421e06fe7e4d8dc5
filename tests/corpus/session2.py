"""Session 2, `facetime-callee`: the peer calls, yet the offer comes from our client. The report gives no frame numbers.

As callee our client has ICE-CONTROLLING set, and all through the call it keeps checking the caller's local address.
"""

from __future__ import annotations

from tests.corpus import acts
from tests.corpus.expected import CallTruth, Case
from tests.corpus.legs import Leg, Pair
from tests.corpus.media import Media
from tests.corpus.scene import UDP, Direct, Keeper, Scene
from tests.corpus.variation import Variation
from tests.corpus.writer import End

FRAMES = {
    "ring": 50, "allocate": 72, "allocated": 90, "bind": 101, "check": 102, "bound": 110, "nominate": 131,
    "invite": 140, "ok": 143, "direct": 240, "direct nominate": 242, "bye": 3400, "bye answer": 3404, "refresh": 3405,
}  # fmt: skip
"""Ours: frame numbers of this re-enactment, not the report's."""


def build(variation: Variation | None = None) -> Case:
    v = variation or Variation()
    s = Scene(2, v)
    leg = Leg(s, s.client, End(s.h.relay, v.relay_port), s.peer, s.public, v.channel)
    s.quiet(18, 3.0)
    s.snatmap()
    s.quiet(FRAMES["ring"], 5.0)
    s.back.push_records((1114,), False)
    s.quiet(70, 2.0)
    acts.look_up_probe(s)
    allocate(s, leg)
    checks(s, leg)
    dialog = s.dialog(s.public, s.peer)
    s.invite((leg.client, leg.relay), leg.wrap(dialog.invite()), FRAMES["invite"])
    answered = acts.answer_invite(s, dialog, leg, leg.back())
    assert answered == FRAMES["ok"]
    s.tick(0.02)
    media = Media(s.rng, s.cap.now)
    go_direct(s, leg, media)
    s.at(FRAMES["bye"])
    out = Direct(s, s.client, s.peer)
    forth, back = acts.bye_way(s, leg, out)
    acts.hang_up(s, media, (back, forth), (dialog.bye(False), dialog.bye_answer(False)), out, True)
    acts.release(s, leg)
    s.quiet(FRAMES["refresh"] + 40, 8.0)
    bye, answer = FRAMES["bye"], FRAMES["bye answer"]
    truth = CallTruth(
        dialog.call_id, "facetime", s.h.client, s.h.peer_public, (FRAMES["invite"],), answered, (answer, bye), "bye"
    )
    s.calls.append(truth)
    s.pinhole(s.client, s.h.peer_public, (FRAMES["check"] + 2, answered + 1), bye, answer)
    return s.case("session2")


def allocate(s: Scene, leg: Leg) -> None:
    s.at(FRAMES["allocate"])
    transaction = s.transaction()
    leg.allocate(transaction)
    s.tick(0.001)
    acts.http_probe(s, 50107)
    s.quiet(FRAMES["allocated"], 0.06)
    leg.allocated(transaction)
    s.quiet(FRAMES["bind"] - 1, 0.3)
    s.back.push_records((1238, 90), True)
    s.tick(0.01)


def checks(s: Scene, leg: Leg) -> None:
    """ChannelBind, a check each way over the channel, the first of many to the caller's local address."""
    bind, ours, theirs = s.transaction(), s.transaction(), s.transaction()
    pair, local = Pair(s, True), Pair(s, True)
    s.at(FRAMES["bind"])
    leg.bind(bind)
    s.tick()
    s.at(FRAMES["check"])
    leg.out(pair.check(ours))
    s.quiet(104, 0.02)
    leg.into(pair.check(theirs, ours=False))
    s.tick()
    leg.out(pair.answer(theirs, leg.peer, ours=True))
    s.quiet(FRAMES["bound"], 0.05)
    leg.bound(bind)
    s.quiet(120, 0.2)
    leg.into(pair.answer(ours, leg.relayed))
    s.tick()
    repeated = s.transaction()

    def check_local() -> None:
        number = s.cap.udp(s.client, s.peer_local, local.check(repeated))
        s.mark(UDP, s.client, s.peer_local, number)

    check_local()
    s.keep.append(Keeper(1.0, s.cap.now + 1.0, check_local))
    s.quiet(FRAMES["nominate"], 0.1)
    nominated = s.transaction()
    leg.out(pair.check(nominated, nominate=True))
    s.tick(0.08)
    leg.into(pair.answer(nominated, leg.relayed))


def go_direct(s: Scene, leg: Leg, media: Media) -> None:
    """Relayed media up to 239, the peer's check and our nomination, then the direct path."""
    out, into = Direct(s, s.client, s.peer), Direct(s, s.peer, s.client)
    s.play(media, FRAMES["direct"], leg, leg.back(), also=0)
    pair, theirs, ours = Pair(s, True), s.transaction(), s.transaction()
    s.tick()
    into(pair.check(theirs, ours=False), "stun")
    s.tick()
    out(pair.answer(theirs, s.peer, ours=True), "stun")
    s.tick()
    s.at(FRAMES["direct nominate"])
    out(pair.check(ours, nominate=True), "stun")
    s.play(media, 254, leg, leg.back(), also=0)
    s.tick()
    into(pair.answer(ours, s.public), "stun")
    s.play(media, FRAMES["bye"], out, into)
