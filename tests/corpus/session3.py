"""Session 3, `facetime-samenet`: both clients in one network; the call runs inside to inside from the start.

The first client is 172.16.42.187, the second 172.16.42.185. Frame 71 is the second's (CONTROLLED), 82 the first's,
101 the second's. Each has an allocation of its own; no pinhole is needed.
"""

from __future__ import annotations

from tests.corpus import acts
from tests.corpus.expected import CallTruth, Case
from tests.corpus.legs import Leg, Pair
from tests.corpus.media import Media
from tests.corpus.scene import UDP, Direct, Keeper, Scene
from tests.corpus.variation import Variation
from tests.corpus.writer import End


def build(variation: Variation | None = None) -> Case:
    v = variation or Variation()
    s = Scene(3, v)
    mapped = End(s.h.own_public, v.nat_port)
    first = Leg(s, s.client, End(s.h.relay, v.relay_port), s.public, mapped, v.channel)
    second = Leg(s, s.client2, End(s.h.relay2, v.relay_port), mapped, s.public, v.channel + 1)
    s.quiet(25, 5.0)
    s.snatmap()
    pair = early_checks(s)
    allocations(s, first, second, pair)
    dialog = s.dialog(s.public, s.public)
    s.invite((s.client, s.client2), dialog.invite(), 192)
    out, into = Direct(s, s.client, s.client2), Direct(s, s.client2, s.client)
    answered = acts.answer_invite(s, dialog, out, into)
    s.tick(0.02)
    media = Media(s.rng, s.cap.now)
    releases(s, media, first, second)
    s.play(media, 1600, out, into)
    s.at(1600)
    acts.hang_up(s, media, (out, into), (dialog.bye(), dialog.bye_answer()), into)
    s.quiet(1650, 8.0)
    s.calls.append(
        CallTruth(dialog.call_id, "facetime", s.h.client, s.h.client2, (192,), answered, (1604, 1600), "bye")
    )
    return s.case("session3")


def early_checks(s: Scene) -> Pair:
    """Frames 71, 82, 101: to the router's public address, then each to the other's local one. None is answered yet."""
    outside, inside = Pair(s, True), Pair(s, True)
    repeated, ours, theirs = s.transaction(), s.transaction(), s.transaction()

    def keep_checking(client: End, controlling: bool) -> None:
        number = s.cap.udp(client, s.public, outside.check(repeated, ours=controlling))
        s.mark(UDP, client, s.public, number)

    s.quiet(71, 8.0)
    keep_checking(s.client2, False)
    s.keep.append(Keeper(0.9, s.cap.now + 2.0, lambda: keep_checking(s.client2, False)))
    s.quiet(82, 0.3)
    number = s.cap.udp(s.client, s.client2, inside.check(ours))
    s.mark(UDP, s.client, s.client2, number)
    s.tick(0.01)
    keep_checking(s.client, True)
    s.keep.append(Keeper(1.1, s.cap.now + 2.0, lambda: keep_checking(s.client, True)))
    s.quiet(101, 0.2)
    s.cap.udp(s.client2, s.client, inside.check(theirs, ours=False))
    s.pending = (inside.answer(ours, s.client), inside.answer(theirs, s.client2, ours=True))
    return inside


def allocations(s: Scene, first: Leg, second: Leg, pair: Pair) -> None:
    """Frames 135 to 183: two allocations, the answers to 82 and 101, the nomination."""
    one, two, bind, nominated = (s.transaction() for _ in range(4))
    s.quiet(122, 0.3)
    acts.http_probe(s, 49821)
    s.quiet(135, 0.1)
    first.allocate(one)
    s.quiet(138, 0.04)
    first.allocated(one)
    s.quiet(146, 0.1)
    first.bind(bind)
    s.quiet(150, 0.05)
    first.bound(bind)
    to_first, to_second = s.pending
    s.quiet(169, 0.3)
    s.cap.udp(s.client2, s.client, to_first)
    s.quiet(171, 0.01)
    s.cap.udp(s.client, s.client2, to_second)
    s.quiet(178, 0.05)
    second.allocate(two)
    s.quiet(182, 0.02)
    s.cap.udp(s.client, s.client2, pair.check(nominated, nominate=True))
    s.tick(0.004)
    s.cap.udp(s.client2, s.client, pair.answer(nominated, s.client))
    s.quiet(185, 0.03)
    second.allocated(two)


def releases(s: Scene, media: Media, first: Leg, second: Leg) -> None:
    """Frames 229 to 258: the first frees its channel; the second's ChannelBind to the NAT's port fails with 437."""
    out, into = Direct(s, s.client, s.client2), Direct(s, s.client2, s.client)
    freed, failed = s.transaction(), s.transaction()
    s.play(media, 229, out, into, also=0)
    s.tick()
    first.bind(freed, lifetime=0)
    s.play(media, 233, out, into, also=0)
    s.tick()
    first.bound(freed)
    s.play(media, 252, out, into, also=0)
    s.tick()
    second.bind(failed)
    s.play(media, 256, out, into, also=0)
    s.tick()
    second.mismatch(failed)
    acts.release(s, second)
    s.play(media, 270, out, into, also=0)
    acts.release(s, first)
