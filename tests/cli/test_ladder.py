"""The ladder on a terminal: arrows, folds, widths; the same story at 80 columns and at 160."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from appid.cli.ladder import Ladder, counted, draw, folded
from appid.story.step import FoldLine
from appid.wire import Endpoint
from tests.story import tell

A, B = Endpoint(b"\x0a\0\0\2", 1), Endpoint(b"\x0a\0\0\3", 2)


def drawn(session: int, width: int = 80, encoding: str = "utf-8", terminal: bool | None = None) -> str:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding=encoding)
    draw(
        Console(file=out, width=width, highlight=False, markup=False, emoji=False, force_terminal=terminal),
        tell.session(session),
    )
    out.flush()
    return raw.getvalue().decode(encoding)


@pytest.mark.parametrize("session", range(1, 6))
@pytest.mark.parametrize("width", [80, 100, 160])
def test_no_line_is_wider_than_the_terminal(session: int, width: int) -> None:
    wide = [line for line in drawn(session, width).splitlines() if len(line) > width]
    assert wide == []


def test_session_1_as_it_reads() -> None:
    text = drawn(1)
    for line in (
        "call 1, facetime: 172.16.42.187 calls 71.230.89.52",
        "packet   time client   relay   peer     web   courier",
        "    60   0.00    │──────>│       │       │       │   TURN Allocate request",
        "   122   1.52    │───────○──────>│       │       │   STUN Binding request",
        "   172   2.91    │<──────○───────│       │       │   SIP 200 OK, SDP answer",
    ):
        assert line in text.splitlines()
    assert "=> facetime, conclusive (stun > turn > facetime)" in text
    assert re.search(r"2,7\d\d RTP audio 104 119", text)


def test_arrows_cross_lanes_and_stop_at_relays() -> None:
    ladder = Ladder(tell.session(1).tales[0], 80)
    assert ladder.arrow("client", "relay", None).strip().startswith("│──────>│")
    assert "○" in ladder.arrow("peer", "client", "relay")
    assert "<" in ladder.arrow("peer", "client", "relay")
    assert "┼" in ladder.arrow("client", "peer", None)
    assert "╌" in ladder.arrow("client", "peer", None, dotted=True)
    assert ladder.arrow(None, None, None) == ladder.bars()


def test_a_terminal_without_unicode_gets_ascii() -> None:
    text = drawn(1, encoding="ascii")
    assert "    60   0.00    |------>|" in text
    assert text.isascii()


def test_no_colour_where_there_is_no_terminal() -> None:
    assert "\x1b" not in drawn(1)
    assert "\x1b[" in drawn(1, terminal=True)


def test_a_fold_in_words() -> None:
    line = FoldLine(1, A, B, None, "RTP", 300, 5700, 0, 50_000_000_000, 1204, 1, {"audio 104"})
    assert folded(line) == "1,204 RTP audio 104, frames 300-5700"
    few = FoldLine(1, A, B, None, "STUN Binding request", 3, 9, 0, 4_000_000_000, 3, 1, set(), [3, 5, 9])
    assert folded(few) == "3 STUN Binding request, frames 3, 5, 9, every 2.0 s"
    assert (counted(1, "packet"), counted(1204, "byte")) == ("1 packet", "1,204 bytes")


def test_the_readme_shows_what_is_printed() -> None:
    """Each line of README's ladder is one of session 1, at 80 columns."""
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    block = readme.partition("<!-- explain-output: begin")[2].partition("<!-- explain-output: end")[0]
    printed = drawn(1)
    shown = [line[4:] for line in block.splitlines()[2:] if line.strip()]
    assert len(shown) > 15
    for line in shown:
        assert line in printed, line


def test_names_and_ranges_stay_whole() -> None:
    """A hyphen is no place to break a line: names of signatures, frames from-to, Call-IDs are copied from here."""
    for width in (80, 90, 100):
        lines = drawn(1, width).splitlines()
        assert [line for line in lines if re.search(r"[\w]-$", line)] == []
        assert any("check-with-private-attributes" in line for line in lines)


def test_the_how_to_shows_what_is_printed() -> None:
    text = (Path(__file__).parents[2] / "docs" / "how-to" / "why-this-name.md").read_text()
    shown = [line[4:] for line in text.splitlines() if line.startswith("    ") and ("│" in line or "=>" in line)]
    printed = drawn(1)
    assert len(shown) >= 5
    for line in shown:
        assert line in printed, line
