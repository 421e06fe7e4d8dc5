"""appid/flow/stream.py: whatever order, overlap or repetition segments come in, the bytes are those that were sent."""

from __future__ import annotations

import time
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from appid.flow.stream import MAX_HELD, Stream


def test_segments_in_order() -> None:
    stream = Stream()
    stream.syn(1000)
    assert bytes(stream.push(1001, b"INVITE ") or b"") == b"INVITE "
    assert bytes(stream.push(1008, b"sip:") or b"") == b"sip:"
    assert bytes(stream.data) == b"INVITE sip:"
    assert not stream.midstream


def test_a_late_segment_brings_what_waited_for_it() -> None:
    stream = Stream()
    stream.syn(0)
    assert stream.push(4, b"def") is None
    assert stream.waiting == 3
    assert bytes(stream.push(1, b"abc") or b"") == b"abcdef"
    assert stream.waiting == 0


def test_without_a_syn_the_stream_is_midstream() -> None:
    stream = Stream()
    stream.push(77, b"rest of a message")
    assert stream.midstream
    assert bytes(stream.data) == b"rest of a message"


def test_a_retransmission_adds_nothing_and_its_tail_is_new() -> None:
    stream = Stream()
    stream.syn(0)
    stream.push(1, b"abcd")
    assert stream.push(1, b"abcd") is None
    assert stream.push(4, b"X") is None  # a keep-alive: one old byte
    assert bytes(stream.push(3, b"CDef") or b"") == b"ef"
    assert bytes(stream.data) == b"abcdef"


def test_the_first_copy_of_a_byte_wins() -> None:
    stream = Stream()
    stream.syn(0)
    stream.push(4, b"456")
    stream.push(3, b"xxxx")  # only its first byte is new
    stream.push(2, b"yyyyyyyy")  # its first, and two behind what is held
    assert bytes(stream.push(1, b"1zzzzzzzz") or b"") == b"1yx456yyy"
    assert bytes(stream.data)[3:6] == b"456"


def test_sequence_numbers_wrap_around() -> None:
    stream = Stream()
    stream.syn(0xFFFFFFFD)
    assert stream.push(1, b"def") is None
    assert bytes(stream.push(0xFFFFFFFE, b"abc") or b"") == b"abcdef"


def test_the_limit_is_kept_and_said() -> None:
    stream = Stream(limit=10)
    stream.syn(0)
    stream.push(1, b"x" * 9)
    assert not stream.full
    assert bytes(stream.push(10, b"yz") or b"") == b"y"
    assert stream.full
    assert len(stream.data) == 10
    stream.consume(10)
    assert stream.full  # "z" was lost: what follows cannot be joined
    assert stream.push(12, b"more") is None


def test_consuming_makes_room_and_earlier_views_stay() -> None:
    stream = Stream(limit=100)
    stream.syn(0)
    sent = bytes(range(250))
    views = []
    for at in range(0, 250, 10):
        view = stream.push(at + 1, sent[at : at + 10])
        assert view is not None
        views.append(view)
        stream.consume(10)
    assert not stream.full
    assert b"".join(bytes(view) for view in views) == sent
    assert bytes(stream.data) == b""


def test_what_waits_is_bounded() -> None:
    stream = Stream(limit=1000)
    stream.syn(0)
    for at in range(1000):
        stream.push(10 + 2 * at, b"a")
    assert stream.waiting <= MAX_HELD
    stream.push(500_000_000, b"far away")
    assert stream.waiting <= MAX_HELD


def test_a_byte_at_a_time_costs_linear_time() -> None:
    def cost(size: int) -> float:
        stream, start = Stream(limit=1 << 20), time.process_time()
        stream.syn(0)
        for at in range(size):
            stream.push(at + 1, b"x")
            assert stream.data[-1] == 120
        return time.process_time() - start

    cost(1000)
    assert cost(80_000) < 30 * cost(8_000)  # ten times the bytes; quadratic would be a hundred


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_order_overlap_and_repetition_gives_the_bytes_sent(data: st.DataObject) -> None:
    sent = data.draw(st.binary(min_size=1, max_size=300))
    isn = data.draw(st.one_of(st.integers(0, 0xFFFFFFFF), st.integers(0xFFFFFF00, 0xFFFFFFFF)))
    cuts = sorted({0, len(sent), *data.draw(st.lists(st.integers(0, len(sent)), max_size=20))})
    pieces = list(pairwise(cuts))
    pieces += [
        (min(a, b), max(a, b)) for a, b in data.draw(st.lists(st.tuples(*[st.integers(0, len(sent))] * 2), max_size=20))
    ]
    stream, got = Stream(), bytearray()
    stream.syn(isn)
    for start, stop in data.draw(st.permutations(pieces)):
        got += stream.push((isn + 1 + start) % 2**32, sent[start:stop]) or b""
        assert sent.startswith(bytes(got))
    assert bytes(got) == sent
    assert bytes(stream.data) == sent
    assert stream.waiting == 0


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 60), st.binary(min_size=1, max_size=20)), max_size=40))
def test_each_byte_is_the_first_that_was_sent_for_its_place(segments: list[tuple[int, bytes]]) -> None:
    """Liars too: a plain model keeps the first byte offered for each place."""
    stream, model = Stream(), dict[int, int]()
    stream.syn(99)
    for at, payload in segments:
        stream.push(100 + at, payload)
        for index, byte in enumerate(payload):
            model.setdefault(at + index, byte)
    expected = bytearray()
    while len(expected) in model:
        expected.append(model[len(expected)])
    assert bytes(stream.data) == bytes(expected)
