"""The timeline: bars where flows were, coloured by name, pinholes over the flows that used them."""

from __future__ import annotations

from appid.cli.page.timeline import REST, WIDTH, Colours, Scale, draw, duration, end, others
from appid.story import Story
from tests.story import tell


def test_a_scale_is_held_to_its_ends() -> None:
    scale = Scale(1_000_000_000, 5_000_000_000)
    assert [scale.x(t) for t in (0, 1_000_000_000, 3_000_000_000, 9_000_000_000)] == [0, 0, WIDTH / 2, WIDTH]
    assert scale.ticks() == ["0.0 s", "1.0 s", "2.0 s", "3.0 s", "4.0 s"]
    assert Scale(5, 5).x(5) == 0


def test_durations_and_ends() -> None:
    assert [duration(s) for s in (1.5, 80, 7260)] == ["1.50 s", "1 min 20.0 s", "2 h 01 min"]
    assert (end("192.0.2.1", 5), end("2001:db8::1", 5)) == ("192.0.2.1:5", "[2001:db8::1]:5")


def test_the_pinhole_lies_over_the_media_that_used_it() -> None:
    """Session 4: the early check at 364 has the second client's public address too, but ended before the pinhole."""
    story = tell.session(4)
    drawn = str(draw(story, story.tales[0], Colours(story)))
    rows = [row for row in drawn.split('<div class="row">') if 'class="pinhole"' in row and "aria-label" in row]
    assert len(rows) == 2
    for row, flow, inside in zip(rows, ("flow 13", "flow 14"), ("172.16.42.187", "172.16.42.185"), strict=True):
        (hole,) = [hole["id"] for hole in story.tales[0].pinholes if hole["inside"] == inside]
        assert f"pinhole {hole}" in row
        assert flow in row


def test_flows_of_no_call_are_drawn_over_the_capture() -> None:
    story = tell.session(1)
    drawn = str(others(story, story.others, Colours(story)))
    assert drawn.count('class="track"') == len(story.others) == 6
    assert "apple-push" in drawn


def test_colours_are_one_for_a_name() -> None:
    story = tell.session(1)
    colours = Colours(story)
    names = ("facetime", "dns", "stun", "turn", "ssl", "apple-push", "snatmap", "web-browsing")
    assert len({colours.of(name) for name in names}) == len(names)
    assert colours.of("a name that is not there") == REST


def test_most_pages_colour_a_name_alike() -> None:
    assert len({Colours(tell.session(number)).of("facetime") for number in range(1, 6)}) == 1


def test_no_two_names_share_a_colour_while_there_are_some() -> None:
    """Of twelve names the nine of most flows have one of their own; the others are none of theirs."""
    flows = [{"application": f"name-{n}", "path": []} for n in range(12) for _ in range(20 - n)]
    colours = Colours(Story({}, [], flows, {}))
    own = [colours.of(f"name-{n}") for n in range(9)]
    assert len(set(own)) == 9
    assert REST not in own
    assert {colours.of(f"name-{n}") for n in range(9, 12)} == {REST}


def test_a_row_says_its_name_beside_its_colour() -> None:
    story = tell.session(1)
    assert "</b> apple-push <" in str(others(story, story.others, Colours(story)))
