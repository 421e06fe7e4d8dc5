"""Session 1, `facetime-caller`: the client calls; relay first, direct from frame 300 on; BYE at 5786.

777 in "some SR + SDES compounds (777)" is read as a packet number, as every other number in brackets of the report is:
it lies 5 s after the media began, where the first RTCP is due.
"""

from __future__ import annotations

from tests.corpus import acts
from tests.corpus.expected import CallTruth, Case
from tests.corpus.legs import Leg, Pair
from tests.corpus.media import Media
from tests.corpus.scene import UDP, Direct, Scene
from tests.corpus.variation import Variation
from tests.corpus.writer import End


def build(variation: Variation | None = None) -> Case:
    v = variation or Variation()
    s = Scene(1, v)
    leg = Leg(s, s.client, End(s.h.relay, v.relay_port), s.peer, s.public, v.channel)
    acts.probes(s, 60)
    allocation(s, leg)
    connect(s, leg)
    dialog = s.dialog(s.public, s.peer)
    s.invite((leg.client, leg.relay), leg.wrap(dialog.invite()), 169)
    s.at(170)
    acts.answer_invite(s, dialog, leg, leg.back())
    s.quiet(175, 0.02)
    media = Media(s.rng, s.cap.now)
    go_direct(s, leg, media)
    direct(s, media)
    s.at(5786)
    s.calls.append(CallTruth(dialog.call_id, "facetime", s.h.client, s.h.peer_public, (169,), 172, (5790, 5786), "bye"))
    way = acts.bye_way(s, leg, Direct(s, s.client, s.peer))
    acts.hang_up(s, media, way, (dialog.bye(), dialog.bye_answer()), Direct(s, s.peer, s.client))
    acts.release(s, leg)
    s.quiet(5830, 9.0)
    s.pinhole(s.client, s.h.peer_public, (162, 173), 5786, 5790)
    return s.case("session1")


def allocation(s: Scene, leg: Leg) -> None:
    """Frames 60 to 82: Allocate, /connectivity.txt, success."""
    transaction = s.transaction()
    s.at(60)
    leg.allocate(transaction)
    s.tick(0.001)
    acts.http_probe(s, 49712)
    s.quiet(82, 0.05)
    leg.allocated(transaction)


def connect(s: Scene, leg: Leg) -> None:
    """Frames 110 to 165: signalling, ChannelBind, checks over the channel and one to the peer's local address."""
    s.quiet(110, 0.8)
    s.back.push_records((1238, 160), True)
    s.quiet(120, 0.6)
    s.back.push_records((810,), False)
    s.tick(0.004)
    bind, pair, local = s.transaction(), Pair(s, True), Pair(s, True)
    leg.bind(bind)
    s.tick(0.0006)
    s.at(122)
    first = s.transaction()
    leg.out(pair.check(first))
    for frame, wait in ((132, 0.2), (142, 0.4)):
        s.quiet(frame, wait)
        leg.out(pair.check(first))
    s.quiet(156, 0.5)
    leg.bind(bind)
    s.quiet(158, 0.08)
    leg.bound(bind)
    s.quiet(160, 0.03)
    leg.into(pair.answer(first, leg.relayed))
    s.tick()
    number = s.cap.udp(s.client, s.peer_local, local.check(s.transaction()))
    s.mark(UDP, s.client, s.peer_local, number)
    s.tick()
    theirs, nominated = s.transaction(), s.transaction()
    leg.into(pair.check(theirs, ours=False))
    s.tick()
    leg.out(pair.answer(theirs, leg.peer, ours=True))
    s.tick()
    s.at(164)
    leg.out(pair.check(nominated, nominate=True))
    s.tick(0.09)
    leg.into(pair.answer(nominated, leg.relayed))


def go_direct(s: Scene, leg: Leg, media: Media) -> None:
    """Frames 175 to 299: RTP over the channel, then the two checks that move it to the direct path."""
    s.play(media, 280, leg, leg.back(), also=0)
    pair, theirs, ours = Pair(s, True), s.transaction(), s.transaction()
    s.tick()
    number = s.cap.udp(s.peer, s.client, pair.check(theirs, ours=False))
    s.mark(UDP, s.peer, s.client, number)
    s.tick()
    s.cap.udp(s.client, s.peer, pair.answer(theirs, s.peer, ours=True))
    s.play(media, 283, leg, leg.back(), also=0)
    s.tick()
    s.cap.udp(s.client, s.peer, pair.check(ours, nominate=True))
    s.play(media, 299, leg, leg.back(), also=0)
    s.tick()
    s.cap.udp(s.peer, s.client, pair.answer(ours, s.public))


def direct(s: Scene, media: Media) -> None:
    """Frames 300 to 5785: RTP client <-> peer, RTCP every 5 s each way, the first of ours at 777."""
    out, into = Direct(s, s.client, s.peer), Direct(s, s.peer, s.client)
    media.reports[True] = float("inf")
    s.play(media, 777, out, into)
    s.tick()
    media.reports[True] = s.cap.now
    s.play(media, 778, out, into, also=0)
    s.play(media, 5786, out, into)
