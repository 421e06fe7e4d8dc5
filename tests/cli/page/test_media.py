"""Streams and descriptions on the page."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appid.cli.page.media import aligned, descriptions, over_time, streams
from appid.story import Description, Tale
from tests.story import tell


def test_lines_about_the_same_stand_side_by_side() -> None:
    offer = ["v=0", "b=AS:2000", "m=audio 16402 RTP/AVP 104 105", "a=fmtp:104 x", "a=fmtp:105 x"]
    answer = ["v=0", "b=AS:2000:2000", "m=audio 16402 RTP/AVP 104", "a=fmtp:AAC y", "a=fmtp:104 x"]
    assert aligned(offer, answer) == [
        ("v=0", "v=0", "same"), ("b=AS:2000", "b=AS:2000:2000", "changed"),
        ("m=audio 16402 RTP/AVP 104 105", "m=audio 16402 RTP/AVP 104", "changed"), (None, "a=fmtp:AAC y", "alone"),
        ("a=fmtp:104 x", "a=fmtp:104 x", "same"), ("a=fmtp:105 x", None, "alone"),
    ]  # fmt: skip


@given(st.lists(st.sampled_from(["a=x", "a=y:1", "m=audio 1", "c=", ""])),
       st.lists(st.sampled_from(["a=x", "a=y:2", "m=audio 2", "o="])))  # fmt: skip
def test_no_line_is_lost(left: list[str], right: list[str]) -> None:
    rows = aligned(left, right)
    assert [row[0] for row in rows if row[0] is not None] == left
    assert [row[1] for row in rows if row[1] is not None] == right


def test_a_hostile_description_costs_no_quadratic_time() -> None:
    lines = [f"a=x{n % 7}" for n in range(20_000)]
    began = time.process_time()
    assert len(aligned(lines, lines[::-1])) == 20_000
    assert time.process_time() - began < 2


def test_offers_stand_beside_their_answers() -> None:
    offer, again = (Description(n, "offer", "zlib", f"v=0\ns={n}") for n in (169, 900))
    answer = Description(172, "answer", "zlib", "v=0")
    page = str(descriptions(Tale({}, descriptions=[offer, answer, again])))
    assert page.count("<table") == 2
    assert "offer in packet 169, inflated (zlib)" in page
    assert "no answer" in page
    assert descriptions(Tale({})) is None


def test_a_row_for_each_stream() -> None:
    tale = tell.session(1).tales[0]
    page = str(streams(tale))
    assert page.count("data-ssrc=") == len(tale.streams) == 8
    assert "it is estimated" in page
    assert streams(Tale({})) is None


SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("seconds", "rates", "shown"),
    [
        (2.5, (1000, 1000, 500), [(1.0, 8000), (1.0, 8000), (0.5, 8000)]),  # the last one is half a second
        (2.1, (1000, 1000, 100), [(1.0, 8000), (1.1, 8000)]),  # too little to be told alone
        (0.5, (500,), [(0.5, 8000)]),
        (0.0, (100,), [(1.0, 800)]),  # one packet
    ],
)
def test_an_even_stream_is_drawn_even_to_its_end(
    seconds: float, rates: tuple[int, ...], shown: list[tuple[float, float]]
) -> None:
    stream = tell.session(1).tales[0].streams[0]
    stream = replace(stream, first_time=0, last_time=int(seconds * SECOND), bucket=SECOND, rates=rates)
    assert [pytest.approx(each) for each in over_time(stream)] == shown
