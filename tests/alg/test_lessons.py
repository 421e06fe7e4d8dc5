"""What a validated exchange teaches, for how long, and how much of it is kept."""

from __future__ import annotations

from itertools import count

from appid.alg.lessons import LIFETIME, MAX_ASKED, MAX_LESSONS, PER_HOST, Asked, Lesson, Lessons
from appid.flow.key import FlowKey
from appid.wire import TCP, UDP, Endpoint, Fact, packed

HOST, PEER, RELAY = packed("10.0.0.2"), Endpoint(packed("192.0.2.7"), 50000), Endpoint(packed("198.51.100.1"), 3478)


def message(method: str, kind: str, transaction: bytes, *peers: Endpoint) -> tuple[Fact, ...]:
    named = (Fact("stun.method", method), Fact("stun.class", kind), Fact("stun.transaction", transaction))
    if (method, kind) == ("binding", "request"):
        named += (Fact("stun.username", b"Zk3f:8QpL"),)  # type: ignore[assignment]
    return (*named, *(Fact("stun.peer_address", peer) for peer in peers))


def lesson(endpoint: Endpoint = PEER, until: float = LIFETIME) -> Lesson:
    return Lesson("signal-call", endpoint, 1, 1, False, until)


def test_a_permission_teaches_its_peers_once_the_relay_grants_it() -> None:
    """RFC 8656 section 9: several XOR-PEER-ADDRESSes in one request."""
    other = Endpoint(packed("192.0.2.8"), 6000)
    asked = Asked()
    assert asked.hear(message("create-permission", "request", b"a" * 12, PEER, other), True, RELAY) == ()
    assert asked.hear(message("create-permission", "success", b"b" * 12), False, RELAY) == (), "another transaction"
    assert asked.hear(message("create-permission", "success", b"a" * 12), False, RELAY) == (PEER, other)
    assert asked.hear(message("create-permission", "success", b"a" * 12), False, RELAY) == (), "told once"


def test_an_answered_check_teaches_the_other_end() -> None:
    asked = Asked()
    asked.hear(message("binding", "request", b"c" * 12), True, PEER)
    assert asked.hear(message("binding", "success", b"c" * 12), False, PEER) == (PEER,)


def test_a_binding_that_is_no_check_teaches_nothing() -> None:
    """Without USERNAME it asks a server for the own address (RFC 8489 section 2); so it does where no peer is known."""
    asked, plain = Asked(), message("binding", "request", b"c" * 12)[:3]
    for facts, remote in ((plain, RELAY), (message("binding", "request", b"c" * 12), None)):
        asked.hear(facts, True, remote)
        assert asked.hear(message("binding", "success", b"c" * 12), False, remote) == ()


def test_nothing_is_learned_from_refusals_strangers_and_indications() -> None:
    asked = Asked()
    asked.hear(message("channel-bind", "request", b"d" * 12, PEER), True, RELAY)
    assert asked.hear(message("channel-bind", "error", b"d" * 12), False, RELAY) == ()
    assert asked.hear(message("channel-bind", "success", b"d" * 12), False, RELAY) == (), "it was refused"
    asked.hear(message("create-permission", "request", b"e" * 12, PEER), False, RELAY)
    assert asked.hear(message("create-permission", "success", b"e" * 12), True, RELAY) == (), "asked from outside"
    asked.hear(message("send", "indication", b"f" * 12, PEER), True, RELAY)
    assert not asked.pending, "nobody confirms an indication"


def test_unanswered_questions_are_bounded() -> None:
    asked = Asked()
    for number in range(10 * MAX_ASKED):
        asked.hear(message("binding", "request", number.to_bytes(12, "big")), True, PEER)
    assert len(asked.pending) == MAX_ASKED


def test_validated_peers_wait_for_the_name_bounded_and_are_told_once() -> None:
    asked = Asked()
    peers = [Endpoint(PEER.address, 1024 + number) for number in range(3 * MAX_ASKED)]
    for second, peer in enumerate(peers):
        asked.keep((peer,), float(second))
    asked.keep((peers[-MAX_ASKED],), 100.0)  # validated again: the youngest now
    assert asked.tell() == (*zip(peers[1 - MAX_ASKED :], map(float, range(33, 48)), strict=True), (peers[-16], 100.0))
    assert asked.tell() == ()


def test_a_lesson_names_both_directions_of_its_own_endpoint_for_its_time() -> None:
    lessons = Lessons()
    lessons.learn(HOST, lesson())
    out = FlowKey(UDP, HOST, 40000, PEER.address, PEER.port)
    assert lessons.known(out, LIFETIME - 1) == lessons.known(out.reversed(), 0.0) == lesson()
    assert lessons.known(out, LIFETIME) is None
    assert lessons.known(out._replace(dport=PEER.port + 1), 0.0) is None, "another port of the peer"
    assert lessons.known(out._replace(src=packed("10.0.0.3")), 0.0) is None, "another host"
    assert lessons.known(out._replace(proto=TCP), 0.0) is None


def test_a_lesson_taught_again_lasts_longer() -> None:
    lessons = Lessons()
    lessons.learn(HOST, lesson())
    lessons.learn(HOST, lesson(until=90.0))
    assert lessons.known(FlowKey(UDP, HOST, 1, PEER.address, PEER.port), 80.0) is not None
    assert len(lessons.places) == 1


def test_the_table_is_bounded_by_host_and_in_all_and_forgets_what_is_over() -> None:
    lessons, ports = Lessons(), count(1024)
    for _ in range(3 * PER_HOST):
        lessons.learn(HOST, lesson(Endpoint(PEER.address, next(ports))))
    assert len(lessons.places) == PER_HOST
    for number in range(MAX_LESSONS + 100):
        lessons.learn(number.to_bytes(4, "big"), lesson())
    assert len(lessons.places) == MAX_LESSONS
    lessons.learn(HOST, lesson(until=3 * LIFETIME))
    assert list(lessons.places) == [(HOST, PEER)]
