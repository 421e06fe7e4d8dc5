"""Session 5, `facetime-dropmidcall`: the direct path is cut at 6216, media returns to the old channel,
the call restarts.

The client's packets on the dead path are still seen, for the capture sits before the cut. From 6893 on each goes both
ways, the same RTP packet on the direct path and in the channel: 6892 = 6893 = sequence number 51593.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.corpus import acts
from tests.corpus.expected import CallTruth, Case
from tests.corpus.legs import Leg, Pair
from tests.corpus.media import Media
from tests.corpus.scene import UDP, Both, Dialog, Direct, Scene
from tests.corpus.variation import Variation
from tests.corpus.writer import End

SEQUENCE = 51593
RESTART = {"invite": 9690, "ok": 9693, "bye": 11200, "bye answer": 11204}
"""Ours: the report names no frames after the BYEs."""


@dataclass
class Play:
    """What the acts of this session share."""

    scene: Scene
    leg: Leg
    again: Leg
    dialog: Dialog
    media: Media
    at_6892: int = -1
    """RTP sequence number of frame 6892"""

    @property
    def out(self) -> Direct:
        return Direct(self.scene, self.scene.client, self.scene.peer)

    @property
    def into(self) -> Direct:
        return Direct(self.scene, self.scene.peer, self.scene.client)


def build(variation: Variation | None = None) -> Case:
    """Played twice: the first tells by how much the sequence numbers must be shifted to meet 6892."""
    v = variation or Variation()
    play = _until_loss(v, 0)
    return _rest(_until_loss(v, (SEQUENCE - play.at_6892) % 65536))


def _until_loss(v: Variation, shift: int) -> Play:
    s = Scene(5, v)
    leg = Leg(s, s.client, End(s.h.relay, v.relay_port), s.peer, s.public, v.channel)
    again = Leg(s, s.client, End(s.h.relay2, v.relay_port), s.peer, s.public, v.channel, call=1)
    acts.probes(s, 62)
    connect(s, leg)
    dialog = s.dialog(s.public, s.peer)
    s.invite((leg.client, leg.relay), leg.wrap(dialog.invite()), 120)
    assert acts.answer_invite(s, dialog, leg, leg.back()) == 123
    s.tick(0.02)
    play = Play(s, leg, again, dialog, Media(s.rng, s.cap.now))
    for stream in play.media.streams:
        stream.sequence = (stream.sequence + shift) & 0xFFFF
    go_direct(play)
    lose(play)
    return play


def _rest(play: Play) -> Case:
    s, dialog, answered = play.scene, play.dialog, 123
    restart = fall_back(play)
    last = second_call(play, restart)
    s.calls.append(
        CallTruth(
            dialog.call_id, "facetime", s.h.client, s.h.peer_public, (120,), answered, (9598, 9605, 9623, 9633), "bye"
        )
    )
    bye, answer = RESTART["bye"], RESTART["bye answer"]
    s.calls.append(
        CallTruth(
            last.call_id, "facetime", s.h.client, s.h.peer_public, (9690, 9600), RESTART["ok"], (answer, bye), "bye"
        )
    )
    s.pinhole(s.client, s.h.peer_public, (104, answered + 1), 9598, None)
    s.pinhole(s.client, s.h.peer_public, (9642, RESTART["ok"] + 1), bye, answer, call=1)
    return s.case("session5")


def connect(s: Scene, leg: Leg) -> None:
    """Frames 62 to 112: allocation, channel created at 92, checks over it."""
    s.at(62)
    allocate, bind, ours, theirs = (s.transaction() for _ in range(4))
    leg.allocate(allocate)
    s.tick(0.001)
    acts.http_probe(s, 49744)
    s.quiet(84, 0.05)
    leg.allocated(allocate)
    s.quiet(88, 0.3)
    s.back.push_records((1238, 160), True)
    s.quiet(92, 0.2)
    leg.bind(bind)
    s.tick()
    pair = Pair(s, True)
    leg.out(pair.check(ours))
    s.quiet(98, 0.05)
    leg.bound(bind)
    s.quiet(104, 0.2)
    leg.into(pair.check(theirs, ours=False))
    s.tick()
    leg.out(pair.answer(theirs, leg.peer, ours=True))
    s.tick(0.01)
    leg.into(pair.answer(ours, leg.relayed))
    s.tick(0.01)
    nominated = s.transaction()
    leg.out(pair.check(nominated, nominate=True))
    s.tick(0.08)
    leg.into(pair.answer(nominated, leg.relayed))
    number = s.cap.udp(s.client, s.peer_local, Pair(s, True).check(s.transaction()))
    s.mark(UDP, s.client, s.peer_local, number)


def go_direct(play: Play) -> None:
    """Frames 125 to 6216: a second of relayed media, the direct checks, the channel released at 150, 13 s of video."""
    s, media, leg = play.scene, play.media, play.leg
    s.play(media, 136, leg, leg.back(), also=0)
    pair, theirs, ours, freed = Pair(s, True), s.transaction(), s.transaction(), s.transaction()
    s.tick()
    play.into(pair.check(theirs, ours=False), "stun")
    s.tick()
    play.out(pair.answer(theirs, s.peer, ours=True), "stun")
    s.play(media, 140, leg, leg.back(), also=0)
    s.tick()
    play.out(pair.check(ours, nominate=True), "stun")
    s.play(media, 146, leg, leg.back(), also=0)
    s.tick()
    play.into(pair.answer(ours, s.public), "stun")
    s.play(media, 150, play.out, play.into, also=0)
    s.tick()
    leg.bind(freed, lifetime=0)
    s.play(media, 154, play.out, play.into, also=0)
    s.tick()
    leg.bound(freed)
    for outgoing in (True, False):
        media.pace(outgoing, 0.0053)
    s.play(media, 6216, play.out, play.into)
    s.tick()
    media.mute(True)
    s.play(media, 6217, play.out, play.into, also=0)
    media.unmute(True, s.cap.now)


def lose(play: Play) -> None:
    """Frames 6217 to 6893: 3 s of packets into the void, the last of them doubled into the channel."""
    s, media = play.scene, play.media
    media.mute(False)
    s.play(media, 6892, play.out, play.into, also=0.002)
    media.reports[True] += 1
    due = media.take()
    s.cap.now = max(due.time, s.cap.now)
    play.at_6892 = int.from_bytes(due.data[2:4], "big")
    Both(s, play.out, play.leg)(due.data, due.kind)
    s.at(6894)


def fall_back(play: Play) -> Leg:
    """Frames 6894 to 9633: both paths; 9252 signalling; 9598 BYE, thrice again, unanswered; 9600 allocation."""
    s, media, leg, dialog = play.scene, play.media, play.leg, play.dialog
    both = Both(s, play.out, leg)
    media.pace(True, 0.025)
    media.pace(False, float("inf"))
    media.unmute(False, s.cap.now + 0.2)
    s.play(media, 9252, both, leg.back(), also=0.002)
    s.tick()
    s.back.push_records((1238, 100), True)
    s.back.push_records((810,), True)
    s.play(media, 9598, both, leg.back(), also=0.002)
    s.tick()
    leg.out(dialog.bye())
    s.tick(0.01)
    s.back.step()
    s.tick(0.01)
    s.at(9600)
    allocate = s.transaction()
    play.again.allocate(allocate)
    s.quiet(9605, 0.48)
    leg.out(dialog.bye())
    s.quiet(9612, 0.3)
    play.again.allocated(allocate)
    s.quiet(9623, 0.7)
    leg.out(dialog.bye())
    s.quiet(9633, 2.0)
    leg.out(dialog.bye())
    return play.again


def second_call(play: Play, leg: Leg) -> Dialog:
    """From 9640 on: the call starts over on the new allocation and stays there, for the direct path is still cut."""
    s = play.scene
    bind, ours, theirs, nominated = (s.transaction() for _ in range(4))
    pair = Pair(s, True)
    s.quiet(9640, 0.4)
    leg.bind(bind)
    s.tick()
    leg.out(pair.check(ours))
    s.tick(0.03)
    leg.into(pair.check(theirs, ours=False))
    s.tick()
    leg.out(pair.answer(theirs, leg.peer, ours=True))
    s.quiet(9646, 0.05)
    leg.bound(bind)
    s.quiet(9650, 0.1)
    leg.into(pair.answer(ours, leg.relayed))
    s.quiet(9660, 0.3)
    leg.out(pair.check(nominated, nominate=True))
    s.quiet(9664, 0.09)
    leg.into(pair.answer(nominated, leg.relayed))
    s.quiet(9685, 0.3)
    dialog = s.dialog(s.public, s.peer)
    s.invite((leg.client, leg.relay), leg.wrap(dialog.invite()), RESTART["invite"])
    assert acts.answer_invite(s, dialog, leg, leg.back()) == RESTART["ok"]
    s.tick(0.02)
    media = Media(s.rng, s.cap.now)
    s.play(media, RESTART["bye"], leg, leg.back())
    acts.hang_up(s, media, (leg, leg.back()), (dialog.bye(), dialog.bye_answer()), leg.back())
    acts.release(s, leg)
    s.quiet(RESTART["bye answer"] + 60, 9.0)
    return dialog
