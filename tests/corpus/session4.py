"""Session 4, `facetime-samenet-nop2p`: both clients in one network, direct traffic between them dropped by the router.

Each has its own relay; what one sends over its channel comes back to the other over that one's, so the capture sees
it twice. From 556 on the call runs through the NAT's two public mappings, again seen twice: before and after the NAT.
The report gives the public address and port 16402 as both allocations' XOR-MAPPED-ADDRESS; towards each other only one
client can keep that port, so the other's mapping is the one that session 3 names, 1024.
"""

from __future__ import annotations

from tests.corpus import acts
from tests.corpus import stun_bytes as stun
from tests.corpus.expected import CallTruth, Case
from tests.corpus.legs import Leg, Pair
from tests.corpus.media import Media
from tests.corpus.scene import UDP, Both, Direct, Scene
from tests.corpus.variation import Variation
from tests.corpus.writer import End


def build(variation: Variation | None = None) -> Case:
    v = variation or Variation()
    s = Scene(4, v)
    mapped = End(s.h.own_public, v.nat_port)
    first = Leg(s, s.client, End(s.h.relay, v.relay_port), s.public, s.public, v.channel)
    second = Leg(s, s.client2, End(s.h.relay2, v.relay_port), s.public, s.public, v.channel + 1)
    s.quiet(120, 15.0)
    s.snatmap()
    dropped(s)
    lost = allocations(s, first, second)
    over = Both(s, first, second.back())
    back = Both(s, second, first.back())
    relay_checks(s, over, back, first, second)
    s.quiet(538, 0.36)
    dialog = s.dialog(s.public, s.public)
    s.invite((first.client, first.relay), first.wrap(dialog.invite()), 540)
    s.invite((second.relay, second.client), second.wrap(dialog.invite()), 542)
    acts.answer_invite(s, dialog, over, back)
    s.at(551)
    media = Media(s.rng, s.cap.now)
    s.play(media, 556, over, back, also=0)
    out = Both(s, Direct(s, s.client, mapped), Direct(s, s.public, s.client2))
    into = Both(s, Direct(s, s.client2, s.public), Direct(s, mapped, s.client))
    punch(s, out, into, mapped)
    bindings(s, media, first, second, lost, out, into)
    s.play(media, 2400, out, into)
    acts.hang_up(s, media, (out, into), (dialog.bye(), dialog.bye_answer()), into)
    answer = s.cap.next - 2
    acts.release(s, second)
    acts.release(s, first)
    s.quiet(2450, 8.0)
    truth = CallTruth(
        dialog.call_id, "facetime", s.h.client, s.h.client2, (540,), 547, (answer, answer + 1, 2400, 2401), "bye"
    )
    s.calls.append(truth)
    for client in (s.client, s.client2):
        s.pinhole(client, s.h.own_public, (511, 550), 2400, answer, required=False)
    return s.case("session4")


def dropped(s: Scene) -> None:
    """Frames 357 to 366: a check to the local address, never answered; one to the public address, ICMP unreachable."""
    local, outside = Pair(s, True), Pair(s, True)
    s.quiet(357, 20.0)
    number = s.cap.udp(s.client, s.client2, local.check(s.transaction()))
    s.mark(UDP, s.client, s.client2, number)
    s.quiet(364, 0.1)
    check = outside.check(s.transaction())
    number = s.cap.udp(s.client, s.public, check)
    s.mark(UDP, s.client, s.public, number)
    s.quiet(366, 0.003)
    s.cap.unreachable(s.h.router, s.client, s.public, check)


def allocations(s: Scene, first: Leg, second: Leg) -> stun.Transaction:
    """Frames 417 to 508: two allocations, two ChannelBinds; the second's is lost, its transaction is returned."""
    one, two, bind, lost = (s.transaction() for _ in range(4))
    s.quiet(395, 0.4)
    acts.http_probe(s, 49902)
    s.quiet(417, 0.2)
    first.allocate(one)
    s.tick(0.04)
    first.allocated(one)
    s.quiet(439, 0.3)
    second.allocate(two)
    s.quiet(448, 0.05)
    second.allocated(two)
    s.quiet(475, 0.4)
    first.bind(bind)
    s.quiet(481, 0.05)
    first.bound(bind)
    s.quiet(508, 0.3)
    second.bind(lost)
    s.tick()
    return lost


def relay_checks(s: Scene, over: Both, back: Both, first: Leg, second: Leg) -> None:
    """Frames 509 to 520: checks over both channels, the second's before its bind is answered."""
    pair, theirs, nominated = Pair(s, True), s.transaction(), s.transaction()
    back(pair.check(theirs, ours=False), "stun")
    s.tick(0.01)
    over(pair.answer(theirs, second.relayed, ours=True), "stun")
    s.quiet(517, 0.06)
    over(pair.check(nominated, nominate=True), "stun")
    s.tick(0.02)
    back(pair.answer(nominated, first.relayed), "stun")


def punch(s: Scene, out: Both, into: Both, mapped: End) -> None:
    """Frames 556 to 563: one check before (556) and after (557) the NAT, its answer, the nomination and its answer."""
    pair, check, nominated = Pair(s, True), s.transaction(), s.transaction()
    s.tick()
    s.at(556)
    out(pair.check(check), "stun")
    s.tick(0.003)
    into(pair.answer(check, s.public), "stun")
    s.tick(0.002)
    out(pair.check(nominated, nominate=True), "stun")
    s.tick(0.003)
    into(pair.answer(nominated, s.public), "stun")


def bindings(s: Scene, media: Media, first: Leg, second: Leg, lost: stun.Transaction, out: Both, into: Both) -> None:
    """Frames 578 to 591: the lost ChannelBind again, same transaction; 585 releases a channel; 589 answers."""
    freed = s.transaction()
    started = s.cap.frames[508 - 1][0]
    s.play(media, 578, out, into, also=0)
    s.cap.now = max(s.cap.now, started + 0.7)
    second.bind(lost)
    s.play(media, 585, out, into, also=0)
    s.tick()
    first.bind(freed, lifetime=0)
    s.play(media, 587, out, into, also=0)
    s.tick()
    first.bound(freed)
    s.play(media, 589, out, into, also=0)
    s.cap.now = max(s.cap.now, started + 0.8)
    second.bound(lost)
