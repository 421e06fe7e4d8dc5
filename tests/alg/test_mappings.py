"""Ports for ports: kept, or free ones of the same shape; one outside port never stands for two hosts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from appid.alg.mappings import HIGHEST, LOWEST, PER_OWNER, Mappings
from appid.wire import UDP, Endpoint, packed

A, B, GATE, PEER, OTHER = map(packed, ("10.0.0.2", "10.0.0.3", "203.0.113.7", "198.51.100.2", "198.51.100.3"))


def test_a_port_is_kept_while_nobody_has_it() -> None:
    book = Mappings()
    assert book.hold(UDP, A, (16402,), GATE, PEER, 1) == (16402,)
    assert book.hold(UDP, A, (16402,), GATE, PEER, 1) == (16402,), "asked again"
    assert book.outside_of(UDP, Endpoint(A, 16402), PEER) == Endpoint(GATE, 16402)
    assert book.inside_of(UDP, Endpoint(GATE, 16402), PEER) == Endpoint(A, 16402)
    assert book.hold(UDP, B, (16402,), GATE, OTHER, 2) == (16402,), "another peer tells them apart"


def test_the_second_phone_gets_a_pair_of_its_own() -> None:
    book = Mappings()
    assert book.hold(UDP, A, (5004, 5005), GATE, PEER, 1) == (5004, 5005)
    first, second = book.hold(UDP, B, (5004, 5005), GATE, PEER, 2) or (0, 0)
    assert (first % 2, second) == (0, first + 1), "RTP even, RTCP the next (RFC 3550 section 11)"
    assert LOWEST <= first <= HIGHEST
    assert book.inside_of(UDP, Endpoint(GATE, second), PEER) == Endpoint(B, 5005)
    odd = book.hold(UDP, B, (5005,), GATE, PEER, 2)
    assert odd == (second,), "it has one already"


def test_half_a_pair_taken_moves_both() -> None:
    book = Mappings()
    assert book.hold(UDP, A, (5005,), GATE, PEER, 1) == (5005,)
    pair = book.hold(UDP, B, (5004, 5005), GATE, PEER, 2)
    assert pair is not None
    assert pair[0] != 5004
    assert pair[1] == pair[0] + 1


def test_a_pair_whose_half_is_mapped_grows_or_fails() -> None:
    book = Mappings()
    book.hold(UDP, A, (5004,), GATE, PEER, 1)
    assert book.hold(UDP, A, (5004, 5005), GATE, PEER, 1) == (5004, 5005)
    book.hold(UDP, B, (7000,), GATE, PEER, 2)
    assert book.note(UDP, Endpoint(A, 7100), Endpoint(GATE, 7001), PEER, 1)
    assert book.hold(UDP, B, (7000, 7001), GATE, PEER, 2) is None


def test_what_the_host_uses_is_passed_over() -> None:
    book = Mappings()
    found = book.hold(
        UDP, A, (5004, 5005), GATE, PEER, 1, free=lambda _here, port: port not in (5005, LOWEST, LOWEST + 3)
    )
    assert found == (LOWEST + 4, LOWEST + 5)


def test_what_stands_is_noted_once() -> None:
    book = Mappings()
    assert book.note(UDP, Endpoint(A, 5060), Endpoint(GATE, 1024), PEER, 1)
    assert book.note(UDP, Endpoint(A, 5060), Endpoint(GATE, 1024), PEER, 2)
    assert not book.note(UDP, Endpoint(B, 5060), Endpoint(GATE, 1024), PEER, 3), "that port is another's"
    assert not book.note(UDP, Endpoint(A, 5060), Endpoint(GATE, 1025), PEER, 1), "it is mapped elsewhere"
    assert book.hold(UDP, A, (5060,), GATE, PEER, 4) == (1024,)


def test_a_mapping_lives_as_long_as_its_last_owner() -> None:
    book = Mappings()
    book.hold(UDP, A, (5060,), GATE, PEER, 1)
    book.hold(UDP, A, (5060,), GATE, PEER, ("call", A))
    assert book.release(1) == []
    (gone,) = book.release(("call", A))
    assert (gone.inside, gone.outside, gone.peer) == (Endpoint(A, 5060), Endpoint(GATE, 5060), PEER)
    assert len(book) == 0
    assert book.hold(UDP, B, (5060,), GATE, PEER, 1) == (5060,)


def test_an_owner_has_a_share_and_no_more() -> None:
    book = Mappings()
    held = [book.hold(UDP, A, (port,), GATE, PEER, 1) for port in range(20000, 20000 + 2 * PER_OWNER)]
    assert held.count(None) == PER_OWNER
    assert len(book) == PER_OWNER


def test_a_host_has_a_share_and_no_more() -> None:
    book = Mappings(per_host=10)
    assert [book.hold(UDP, A, (20000 + n,), GATE, PEER, n) for n in range(12)].count(None) == 2
    assert book.full(A)
    assert book.hold(UDP, A, (20000,), GATE, PEER, 50) == (20000,), "what it has it may have again"
    assert not book.note(UDP, Endpoint(A, 30000), Endpoint(GATE, 30000), PEER, 51)
    assert book.hold(UDP, B, (20000,), GATE, OTHER, 1) == (20000,), "another host has its own"
    book.release(3)
    assert book.hold(UDP, A, (30000,), GATE, PEER, 52) == (30000,)
    book.release(0)
    assert book.full(A), "another owner has it still"


def test_two_processes_never_give_the_same_port() -> None:
    books = [Mappings((0, 2)), Mappings((1, 2))]
    given = [books[i % 2].hold(UDP, bytes((10, 0, i, 1)), (16402, 16403), GATE, PEER, i) for i in range(60)]
    ports = [port for run in given if run is not None for port in run]
    assert len(set(ports)) == len(ports) == 120


def test_many_phones_on_one_port() -> None:
    """What a look costs is bounded: each finds its pair although all want the same one."""
    book = Mappings()
    runs = {book.hold(UDP, bytes((10, 0, i >> 8, i & 255)), (16402, 16403), GATE, PEER, i) for i in range(4000)}
    assert None not in runs
    assert len(runs) == 4000


Step = tuple[int, int, int, bool]
steps = st.lists(st.tuples(st.integers(0, 3), st.integers(5000, 5008), st.integers(1, 4), st.booleans()), max_size=60)


@given(steps)
def test_whatever_is_held_and_released_no_outside_port_is_shared(moves: list[Step]) -> None:
    book = Mappings()
    held: dict[tuple[int, int], int] = {}
    for host, port, span, release in moves:
        if release:
            book.release(host)
            held = {key: value for key, value in held.items() if key[0] != host}
            continue
        ports = tuple(range(port, port + span))
        run = book.hold(UDP, bytes((10, 0, 0, host)), ports, GATE, PEER, host)
        if run is None:
            continue
        assert list(run) == list(range(run[0], run[0] + span))
        for inside, outside in zip(ports, run, strict=True):
            assert held.setdefault((host, inside), outside) == outside
    assert len(set(held.values())) == len(held) == len(book)
