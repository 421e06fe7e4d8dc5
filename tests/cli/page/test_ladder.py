"""The ladder on the page: a row for each message, a fold for each run, references that lead to their packet."""

from __future__ import annotations

import re

from appid.cli.page.ladder import Lanes, draw
from appid.cli.page.markup import join
from appid.story import Fold
from tests.story import tell


def drawn(session: int) -> str:
    return str(join(draw(tell.session(session).tales[0], 1)))


def test_every_item_is_a_row() -> None:
    items = tell.session(1).tales[0].items
    page = drawn(1)
    assert len(re.findall(r"data-packet=", page)) == sum(not isinstance(item, Fold) for item in items)
    assert len(re.findall(r"data-packets=", page)) == sum(isinstance(item, Fold) for item in items)


def test_references_lead_to_rows_that_are_there() -> None:
    page = drawn(1)
    targets = set(re.findall(r'href="#(t1p\d+)"', page))
    assert "t1p121" in targets
    assert targets <= set(re.findall(r'id="(t1p\d+)"', page))


def test_an_arrow_says_who_speaks_to_whom() -> None:
    lanes = Lanes(tell.session(1).tales[0], 1)
    assert lanes.said(("client", "peer", "relay")) == "client to peer through relay: "
    arrow = lanes.arrow(("client", "peer", "relay"), "sip")
    assert 'class="arrow k-sip"' in arrow
    assert f'<circle cx="{lanes.x["relay"]}"' in arrow
    assert "k-other" in lanes.arrow(("client", "peer", None), "nobody's")
    assert "path" not in lanes.arrow((None, None, None), "")


def test_a_folded_run_shows_its_way_to_and_fro() -> None:
    """Session 1: the run from 178 on goes through the relay, the one from 302 on does not."""
    tale = tell.session(1).tales[0]
    lanes = Lanes(tale, 1)
    runs = {item.frame: list(item.lines.values()) for item in tale.items if isinstance(item, Fold)}
    relayed, direct = lanes.both(runs[178]), lanes.both(runs[302])
    assert relayed.count('class="tip"') == direct.count('class="tip"') == 2
    assert f'<circle cx="{lanes.x["relay"]}"' in relayed
    assert "<circle" not in direct
    assert "tip" not in lanes.both([*runs[178], *runs[302]]), "two ways have no arrow in common"
    assert lanes.both(runs[178][:1]).count('class="tip"') == 1
