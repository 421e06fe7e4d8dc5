"""One tale while it is told: what repeats is folded, what changes something never is, and all of it is bounded."""

from __future__ import annotations

from appid.decode import peel
from appid.engine.record import DEFAULT_INSIDE, Topology
from appid.story.exchange import Budget
from appid.story.step import Effect, Fold, Step
from appid.story.tale import MAX_DESCRIPTIONS, MAX_STEPS, MAX_STREAMS, SAID_OFTEN, Telling
from appid.story.words import Said
from appid.wire import Endpoint, Fact, Layer, packed

CLIENT, PEER = Endpoint(packed("172.16.42.187"), 16402), Endpoint(packed("71.230.89.52"), 16402)
CHECK = Said("stun", "STUN Binding request")
MEDIA = Said("rtp", "RTP", (), True, ("104",))


def telling() -> Telling:
    return Telling(Topology(DEFAULT_INSIDE).inside)


def step(frame: int, said: Said = CHECK, effects: tuple[Effect, ...] = (), via: Endpoint | None = None) -> Step:
    return Step(frame, frame * 10_000_000, 1, CLIENT, PEER, via, said.kind, said.what, (), effects, 100)


def rtp(frame: int, sequence: int, ssrc: int = 1) -> Layer:
    values = (Fact("rtp.payload_type", 104), Fact("rtp.ssrc", ssrc), Fact("rtp.sequence", sequence),
              Fact("rtp.timestamp", sequence * 480))  # fmt: skip
    return Layer("rtp", values, 100)


def test_repeated_media_is_one_line_between_two_steps() -> None:
    tale = telling()
    tale.add(step(1), CHECK)
    for frame in range(2, 1206):
        tale.add(step(frame, MEDIA), MEDIA)
    tale.add(step(1206), CHECK)
    first, fold, last = tale.sorted()
    assert isinstance(fold, Fold)
    (line,) = fold.lines.values()
    assert (line.count, line.first, line.last, line.bytes) == (1204, 2, 1205, 120_400)
    assert (first.frame, last.frame) == (1, 1206)


def test_what_is_said_often_is_folded_unless_it_changes_something() -> None:
    tale = telling()
    for frame in range(1, 101):
        tale.add(step(frame, effects=(Effect("call", "ends"),) if frame == 50 else ()), CHECK)
    steps = [item for item in tale.sorted() if isinstance(item, Step)]
    assert [each.frame for each in steps] == [*range(1, SAID_OFTEN + 1), 50]
    assert sum(item.count if isinstance(item, Fold) else 1 for item in tale.items) == 100


def test_a_flood_of_different_messages_is_bounded_and_counted() -> None:
    tale = telling()
    for frame in range(1, 20_001):
        said = Said("dns", f"DNS query {frame}") if frame % 2 else MEDIA
        tale.add(step(frame, said), said)
    assert len(tale.items) <= 2 * MAX_STEPS + 2
    told = sum(item.count if isinstance(item, Fold) else 1 for item in tale.items)
    assert told + tale.untold == 20_000


def test_streams_are_bounded() -> None:
    tale = telling()
    for ssrc in range(MAX_STREAMS + 50):
        tale.media(step(ssrc + 1, MEDIA), rtp(ssrc + 1, 1, ssrc))
    assert len(tale.streams) == MAX_STREAMS


def test_media_that_takes_another_way_is_told_once() -> None:
    tale = telling()
    relayed = [tale.media(step(n, MEDIA, via=PEER), rtp(n, n), True) for n in range(1, 4)]
    direct = [tale.media(step(n, MEDIA), rtp(n, n)) for n in range(4, 7)]
    assert [effect.text for effect in relayed + direct if effect] == [
        "media begins, through the relay", "media goes directly from here on"]  # fmt: skip
    again = tale.media(step(400, MEDIA, via=PEER), rtp(400, 6), True)
    assert again is not None
    assert again.text == "media goes through the relay again; the same sequence number 6 went the other way in 6"


def test_offer_and_answer_are_kept_once_each() -> None:
    tale = telling()
    offer = b"v=0\r\no=a 0 0 IN IP4 192.0.2.1\r\ns=-\r\nm=video 5000 RTP/AVP 123\r\na=rtpmap:123 H264/90000\r\n"
    head = b"i: one\r\nCSeq: 1 INVITE\r\nc: application/sdp\r\n\r\n"
    invite = peel(memoryview(b"INVITE sip:a@b SIP/2.0\r\n" + head + offer), "udp").layers
    answer = peel(memoryview(b"SIP/2.0 200 OK\r\n" + head + offer.replace(b"5000", b"6000")), "udp").layers
    assert tale.describe(1, invite) == tale.describe(2, invite) == "SDP offer"
    assert tale.describe(3, answer) == tale.describe(4, answer) == "SDP answer"
    assert [(each.frame, each.role) for each in tale.descriptions] == [(1, "offer"), (3, "answer")]
    assert (tale.clocks, tale.kinds) == ({123: 90000}, {123: "video"})
    for number in range(MAX_DESCRIPTIONS + 20):
        tale.describe(
            9, peel(memoryview(b"INVITE sip:a@b SIP/2.0\r\n" + head + offer + b"a=%d\r\n" % number), "udp").layers
        )
    assert len(tale.descriptions) == MAX_DESCRIPTIONS


def test_a_late_offer_comes_in_the_answer() -> None:
    """RFC 3261 section 13.2.1: an INVITE without a description; the 200 offers, the ACK answers."""
    tale = telling()
    head = b"i: one\r\nCSeq: 1 %s\r\nc: application/sdp\r\n\r\nv=0\r\no=%s 0 0 IN IP4 192.0.2.1\r\ns=-\r\n"
    ok = peel(memoryview(b"SIP/2.0 200 OK\r\n" + head % (b"INVITE", b"a")), "udp").layers
    ack = peel(memoryview(b"ACK sip:a@b SIP/2.0\r\n" + head % (b"ACK", b"b")), "udp").layers
    assert (tale.describe(2, ok), tale.describe(3, ack)) == ("SDP offer", "SDP answer")


def test_all_tales_together_are_bounded() -> None:
    """A scan of many calls: each is bounded, and so is their sum."""
    budget = Budget(items=50, streams=3, characters=100)
    tales = [Telling(Topology(DEFAULT_INSIDE).inside, budget, number) for number in range(1, 21)]
    for tale in tales:
        for frame in range(1, 6):
            tale.add(step(frame, effects=(Effect("call", "begins"),)), CHECK)
            tale.media(step(frame, MEDIA), rtp(frame, frame))
    assert sum(len(tale.items) for tale in tales) == 50
    assert sum(tale.untold for tale in tales) == 50
    assert sum(len(tale.streams) for tale in tales) == 3
