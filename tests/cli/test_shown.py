"""Filters and cells of what the gateway answers."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

import pytest

from appid.cli import shown
from appid.cli.main import main
from appid.cli.shown import COLUMNS, LIVE, Filter
from tests.cli.answers import CALL, DIRECT, LOOKUP, PINHOLE, RELAY

ALL = [RELAY, DIRECT, LOOKUP, CALL, PINHOLE]


def kept(*arguments: str) -> list[dict[str, Any]]:
    parser = ArgumentParser()
    shown.add_arguments(parser)
    wanted = shown.filter_of(parser.parse_args(arguments))
    return [answer for answer in ALL if wanted.keeps(answer)]


def test_without_options_all_is_shown() -> None:
    assert kept() == ALL
    assert Filter() == shown.filter_of(_parsed())


def _parsed() -> Any:
    parser = ArgumentParser()
    shown.add_arguments(parser)
    return parser.parse_args([])


def test_by_application() -> None:
    assert kept("--application", "facetime") == [RELAY, DIRECT, CALL, PINHOLE]
    assert kept("--application", "dns") == [LOOKUP]


@pytest.mark.parametrize("host", ["198.51.100.7", "198.51.100.0/24"])
def test_by_host_at_either_end_or_by_network(host: str) -> None:
    assert kept("--host", host) == [DIRECT, CALL, PINHOLE]


def test_by_state() -> None:
    assert kept("--state", "open") == [CALL, PINHOLE]
    assert kept("--state", "ended") == [LOOKUP], "what is over is not allowed or denied any more"
    assert kept("--state", "allow") == [RELAY, DIRECT]
    assert shown.state({**RELAY, "decision": None}) == "undecided"
    assert shown.state({**PINHOLE, "closed_at": 12}) == "closed"


def test_by_call() -> None:
    assert kept("--call", "1") == [RELAY, DIRECT, CALL, PINHOLE]
    assert kept("--call", "2") == []


def test_filters_hold_together() -> None:
    assert kept("--host", "10.0.0.2", "--application", "facetime", "--state", "allow") == [RELAY, DIRECT]


def test_a_host_that_is_none_is_a_line_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["flows", "--host", "10.0.0"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "'10.0.0'" in line


@pytest.mark.parametrize(
    ("count", "written"),
    [(None, "-"), (0, "0"), (999, "999"), (1000, "1.0k"), (45_000, "45k"), (999_600, "1.0M"), (3.4e6, "3.4M"),
     (7e12, "7000G")],
)  # fmt: skip
def test_sizes(count: float | None, written: str) -> None:
    assert shown.size(count) == written


def test_ends() -> None:
    assert shown.end("10.0.0.2", 53) == "10.0.0.2:53"
    assert shown.end("fd00::1", 53) == "[fd00::1]:53"
    assert shown.end("fd00::1", None) == "fd00::1"
    assert shown.end(None, 1) == "-"


@pytest.mark.parametrize("view", sorted(LIVE))
def test_live_rows_fit_80_columns(view: str) -> None:
    columns = shown.fitted(LIVE[view], 80)
    assert sum(column.width + shown.GAP for column in columns) <= 80
    long = {
        **RELAY, **CALL, **PINHOLE, "type": view[:-1], "src": "2001:db8:1111:2222:3333:4444:5555:6666", "rate": 12345.6,
        "dst": "2001:db8:1111:2222:3333:4444:5555:7777", "application": "facebook-messenger-call", "sport": 65535,
    }  # fmt: skip
    (cells,) = shown.rows(columns, [long], narrow=True)
    for cell, column in zip(cells, columns, strict=True):
        assert len(cell) <= column.width


def test_a_wide_terminal_shows_an_address_of_ipv6_whole() -> None:
    long = {**RELAY, "src": "2001:db8:1111:2222:3333:4444:5555:6666", "sport": 65535}
    (cells,) = shown.rows(shown.fitted(LIVE["flows"], 140), [long], narrow=True)
    assert "[2001:db8:1111:2222:3333:4444:5555:6666]:65535" in cells


def test_text_of_the_senders_commands_no_terminal() -> None:
    hostile = {**CALL, "application": "\x1b[2J\x07evil\n"}
    for cells in shown.rows(COLUMNS["calls"], [hostile]):
        assert all(cell.isprintable() for cell in cells)
        assert any("evil" in cell for cell in cells)
