"""The book of expectations: found from both directions, once per place, within its caps."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from appid.alg.book import PER_CALL, PER_HOST, Book, across
from appid.alg.expectation import Expectation
from appid.flow.key import FlowKey
from appid.wire import TCP, UDP, packed

CLIENT, PEER, OTHER = packed("172.16.42.187"), packed("71.230.89.52"), packed("198.51.100.1")
MEDIA = Expectation(UDP, CLIENT, 16402, PEER, None, None, 16402, "facetime", 1, "sdp-answer", 172, 100.0)


def test_a_flow_is_foreseen_from_either_side_and_any_port_of_the_peer() -> None:
    book = Book()
    number = book.add(MEDIA)
    assert number == 1
    for port in (16402, 1024, 50000):
        assert book.foreseen(FlowKey(UDP, PEER, port, CLIENT, 16402)) == (1, MEDIA)
        assert book.foreseen(FlowKey(UDP, CLIENT, 16402, PEER, port)) == (1, MEDIA)


def test_nothing_else_is_foreseen() -> None:
    book = Book()
    book.add(MEDIA)
    for key in (
        FlowKey(TCP, PEER, 16402, CLIENT, 16402), FlowKey(UDP, OTHER, 16402, CLIENT, 16402),
        FlowKey(UDP, PEER, 16402, CLIENT, 16403), FlowKey(UDP, PEER, 16402, OTHER, 16402),
        FlowKey(UDP, CLIENT, 16403, PEER, 16402),
    ):  # fmt: skip
        assert book.foreseen(key) is None


def test_one_expectation_a_place() -> None:
    book = Book()
    book.add(MEDIA)
    assert book.add(replace(MEDIA, call=2)) is None
    assert book.holder(replace(MEDIA, call=2)) == 1
    assert book.remove(1) == MEDIA
    assert book.add(replace(MEDIA, call=2)) == 2, "numbers are not used twice"
    assert book.of_call(1) == []
    assert [number for number, _ in book.of_call(2)] == [2]


def test_caps_per_call_and_host() -> None:
    book = Book()
    added = [book.add(replace(MEDIA, port=2000 + n)) for n in range(PER_CALL + 5)]
    assert added[PER_CALL:] == [None] * 5
    for n in range(PER_HOST * 2):
        book.add(replace(MEDIA, port=20000 + n, call=2 + n // 4))
    assert len(book.open) == PER_HOST
    assert book.add(replace(MEDIA, inside=OTHER, call=99)) is not None, "another host has its own share"
    book.remove(1)
    assert book.add(replace(MEDIA, port=3000)) is not None


def test_the_gateway_has_a_cap_of_its_own() -> None:
    book = Book(gateway=3)
    hosts = [bytes([10, 0, 0, n]) for n in range(5)]
    assert [book.add(replace(MEDIA, inside=host, call=host[3])) for host in hosts] == [1, 2, 3, None, None]


PLACES = st.builds(
    lambda host, port, peer, call: replace(MEDIA, inside=host, port=port, peer=peer, call=call),
    st.sampled_from([CLIENT, OTHER]), st.integers(1024, 1040), st.sampled_from([PEER, OTHER]), st.integers(1, 3),
)  # fmt: skip


@given(st.lists(PLACES | st.integers(0, 30), max_size=80))
def test_what_is_open_is_what_was_added_and_not_removed(steps: list[Expectation | int]) -> None:
    book = Book()
    model: dict[int, Expectation] = {}
    for step in steps:
        if isinstance(step, Expectation):
            number = book.add(step)
            if number is not None:
                model[number] = step
        elif step in model:
            assert book.remove(step) == model.pop(step)
    assert book.open == model
    for number, expectation in model.items():
        key = FlowKey(UDP, expectation.peer, 9, expectation.inside, expectation.port)
        assert book.foreseen(key) == (number, expectation)
        assert (number, expectation) in book.of_call(expectation.call)


def test_a_dialog_that_takes_over_what_a_check_opened_keeps_when_that_was() -> None:
    book = Book()
    opened = replace(MEDIA, reason="channel-bind", opened_at=162)
    number = book.add(opened)
    assert number is not None
    book.replace(number, replace(opened, expires=opened.expires + 30))
    assert book.open[number].checked_at is None, "the same grounds, for longer"
    book.replace(number, replace(opened, reason="sdp-answer", opened_at=172))
    assert (book.open[number].opened_at, book.open[number].checked_at) == (172, 162)


def test_an_expectation_may_become_another_calls() -> None:
    book = Book()
    number = book.add(MEDIA)
    assert number is not None
    book.give(number, 2)
    assert book.of_call(1) == []
    assert book.of_call(2) == [(number, replace(MEDIA, call=2))]
    assert book.remove(number).call == 2
    assert book.open == {}


def test_the_other_end_expects_the_same_from_the_other_side() -> None:
    wanted = replace(MEDIA, announced=16393, outside_port=16402)
    there = across(wanted)
    assert (there.inside, there.port, there.peer, there.announced) == (PEER, 16393, CLIENT, 16402)
    assert across(there) == wanted


def test_who_wants_a_place_that_another_call_has_is_its_heir() -> None:
    book = Book()
    book.add(MEDIA)
    later, last = replace(MEDIA, call=2), replace(MEDIA, call=3)
    assert [book.add(wanted) for wanted in (MEDIA, later, last, last)] == [None] * 4
    assert book.heir(1) == later
    book.remove(1)
    assert book.add(later) == 2
    book.forgo(3, OTHER)
    assert book.heir(2) == last
    assert book.heir(2) is None
    assert book.add(last) is None
    book.forgo(3)
    assert book.heir(2) is None


def test_what_moves_at_a_place_is_told_to_who_waits_there() -> None:
    book = Book()
    book.add(MEDIA)
    flow = FlowKey(UDP, CLIENT, 16402, PEER, 50000)
    book.passes(flow, 7, 1.0)
    assert book.passed() == [], "nobody waits"
    book.add(replace(MEDIA, call=2))
    book.add(replace(MEDIA, call=3))
    book.passes(FlowKey(UDP, CLIENT, 16404, PEER, 50000), 8, 2.0)
    assert book.passed() == []
    book.passes(flow, 9, 3.0)
    book.passes(flow.reversed(), 10, 4.0)
    assert book.passed() == [(2, 10, 4.0), (3, 10, 4.0)]
    assert book.passed() == [], "each is told once"
    book.passes(flow, 11, 5.0)
    book.forgo(2)
    assert book.passed() == [(3, 11, 5.0)]


def test_who_waits_is_bounded() -> None:
    book = Book(host=100_000)
    for port in range(2 * PER_CALL):
        book.add(replace(MEDIA, port=20000 + port, call=100 + port))
        book.add(replace(MEDIA, port=20000 + port, call=1))
    assert sum(book.heir(number) is not None for number in list(book.open)) == PER_CALL
