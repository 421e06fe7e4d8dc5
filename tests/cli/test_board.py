"""Rates, sums and order of what `appid top` shows."""

from __future__ import annotations

from typing import Any

import pytest

from appid.cli.board import Board, Look
from appid.cli.shown import LIVE, Filter
from tests.cli.answers import CALL, DIRECT, LOOKUP, PINHOLE, RELAY, STATS

ANY, BY_RATE = Filter(), LIVE["flows"][3]


def look(time: float, relay: int, direct: int, packets: int = 80, more: tuple[dict[str, Any], ...] = ()) -> Look:
    flows = ({**RELAY, "bytes": relay}, {**DIRECT, "bytes": direct}, LOOKUP, *more)
    return Look(time, flows, (CALL,), (PINHOLE,), {**STATS, "packets": packets})


@pytest.fixture
def board() -> Board:
    board = Board()
    board.take(look(100.0, 5_000, 400_000))
    return board


def rates(board: Board) -> dict[str, Any]:
    return {flow["dst"]: flow["rate"] for flow in board.rows("flows", ANY, BY_RATE, False)}


def test_the_first_look_has_no_rates(board: Board) -> None:
    assert set(rates(board).values()) == {None}
    assert board.packets is None


def test_rates_are_bytes_over_the_time_between_looks(board: Board) -> None:
    board.take(look(102.0, 6_000, 800_000, packets=100))
    assert rates(board) == {"17.173.254.35": 500.0, "198.51.100.7": 200_000.0, "9.9.9.9": 0.0}
    assert board.packets == 10.0


def test_a_flow_that_is_new_counts_from_nothing(board: Board) -> None:
    board.take(look(101.0, 5_000, 400_000, more=({**RELAY, "id": 9, "sport": 1, "bytes": 700},)))
    new = [flow for flow in board.rows("flows", ANY, BY_RATE, False) if flow["sport"] == 1]
    assert new[0]["rate"] == 700.0


def test_counters_that_begin_again_give_no_negative_rate(board: Board) -> None:
    board.take(look(101.0, 10, 400_000, packets=1))
    assert rates(board)["17.173.254.35"] == 0.0
    assert board.packets == 0.0


def test_a_call_has_the_sums_of_its_flows_and_a_pinhole_those_it_let_in(board: Board) -> None:
    board.take(look(101.0, 6_000, 500_000))
    (call,) = board.rows("calls", ANY, LIVE["calls"][0], False)
    assert (call["bytes"], call["rate"]) == (506_000, 101_000.0)
    (hole,) = board.rows("pinholes", ANY, LIVE["pinholes"][0], False)
    assert (hole["bytes"], hole["rate"]) == (500_000, 100_000.0)
    assert board.call(1) == call
    assert board.call(7) is None


def test_order_and_what_is_over_comes_last(board: Board) -> None:
    board.take(look(101.0, 6_000, 500_000))
    by_rate = [flow["dst"] for flow in board.rows("flows", ANY, BY_RATE, True)]
    assert by_rate == ["198.51.100.7", "17.173.254.35", "9.9.9.9"]
    assert [flow["dst"] for flow in board.rows("flows", ANY, BY_RATE, False)][-1] == "9.9.9.9"
    assert [f["dst"] for f in board.rows("flows", Filter(application="dns"), BY_RATE, True)] == ["9.9.9.9"]
