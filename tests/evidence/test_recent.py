"""Facts of a host or call: for how long they count, and how many of them."""

from __future__ import annotations

from appid.evidence.recent import LIFETIME, MAX_FACTS, MAX_KEYS, Recent
from appid.wire import Fact

REALM, PORT = Fact("stun.realm", "example.org"), Fact("flow.destination_port", 3478)


def test_facts_of_several_flows_hold_together_for_a_minute() -> None:
    recent = Recent(frozenset({"stun.realm", "turn.channel"}))
    recent.add(b"host", [REALM, PORT], 0.0)
    later = recent.add(b"host", [Fact("turn.channel", 0x4000)], LIFETIME)
    assert later.get("stun.realm") == ["example.org"]
    assert later.get("turn.channel") == [0x4000]
    assert later.get("flow.destination_port") is None, "nobody asks for it"
    assert recent.add(b"host", [], LIFETIME + 0.1).get("stun.realm") is None
    assert recent.add(b"other", [], LIFETIME).size == 0


def test_a_fact_seen_again_lasts_longer() -> None:
    recent = Recent(frozenset({"stun.realm"}))
    for now in (0.0, 50.0):
        recent.add(b"host", [REALM], now)
    assert recent.add(b"host", [], 100.0).get("stun.realm") == ["example.org"]


def test_it_is_bounded() -> None:
    recent = Recent(frozenset({"rtp.ssrc"}))
    kept = recent.add(b"host", [Fact("rtp.ssrc", n) for n in range(3 * MAX_FACTS)], 0.0)
    assert kept.size == MAX_FACTS
    for number in range(MAX_KEYS + 50):
        recent.add(number, [Fact("rtp.ssrc", 1)], 1.0)
    assert len(recent.seen) == MAX_KEYS
    recent.add(b"quiet", [PORT], 1.0)
    assert b"quiet" not in recent.seen, "nothing of it was worth keeping"
