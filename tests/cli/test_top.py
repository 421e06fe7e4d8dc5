"""`appid top` at a terminal of 80 columns and elsewhere, against a real control socket."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import DataTable, Input, Static

from appid.cli.main import main
from appid.cli.top import Inside, Top, alarms, look
from tests.cli.answers import RELAY, STATS, answer
from tests.cli.gateway import answering


class Gateway:
    """What it answers can change."""

    def __init__(self) -> None:
        self.more = 0
        self.missing: tuple[dict[str, Any], ...] = ()
        self.folder = Path()

    def answer(self, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for each in answer(request):
            yield {**each, "bytes": each["bytes"] + self.more} if each["type"] == "flow" else each
        yield from self.missing


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    answers = Gateway()
    answers.folder = tmp_path
    with answering(tmp_path, answers.answer):
        yield answers


Play = Callable[[Top, Pilot[None]], Awaitable[None]]


def played(gateway: Gateway, play: Play, size: tuple[int, int] = (80, 24)) -> None:
    """`play` at a terminal of this size. Looks are taken by the test alone."""

    async def at_terminal() -> None:
        control = gateway.folder / "control.sock"
        app = Top(control, look(control), 3600.0)
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            await play(app, pilot)

    asyncio.run(at_terminal())


async def look_again(app: Top, pilot: Pilot[None]) -> None:
    app.look()
    await app.workers.wait_for_complete()
    await pilot.pause()


def cells(app: Top) -> list[list[str]]:
    table = app.screen_stack[0].query_one(DataTable)
    return [[str(cell).strip() for cell in table.get_row_at(at)] for at in range(table.row_count)]


def head(app: Top) -> str:
    return str(app.screen_stack[0].query_one("#head", Static).render())


def test_it_begins_with_the_calls_and_changes_views(gateway: Gateway) -> None:
    async def play(app: Top, pilot: Pilot[None]) -> None:
        assert [row[1:4] for row in cells(app)] == [["facetime", "10.0.0.2", "198.51.100.7"]]
        await pilot.press("f")
        assert {row[0] for row in cells(app)} == {"facetime", "dns"}
        assert cells(app)[-1][0] == "dns", "it is over"
        await pilot.press("p")
        assert [row[2] for row in cells(app)] == ["sdp-answer"]

    played(gateway, play)


def test_nothing_is_cut_at_80_columns(gateway: Gateway) -> None:
    async def play(app: Top, pilot: Pilot[None]) -> None:
        for view in "cfp":
            await pilot.press(view)
            table = app.query_one(DataTable)
            assert table.virtual_size.width <= 80, view
            assert table.max_scroll_x == 0, view

    played(gateway, play)


def test_addresses_of_ipv6_are_on_the_screen(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """`[fd00::1]` looks like markup; what is asserted is what the terminal shows, not what the table holds."""
    monkeypatch.setitem(RELAY, "src", "fd00:77:1::2")

    async def play(app: Top, pilot: Pilot[None]) -> None:
        await pilot.press("f")
        await pilot.pause()
        table = app.query_one(DataTable)
        shown = "\n".join("".join(piece.text for piece in table.render_line(y)) for y in range(table.size.height))
        assert "[fd00:77:1::2]:16402" in shown

    played(gateway, play)


def test_it_follows_the_size_of_the_terminal(gateway: Gateway) -> None:
    async def play(app: Top, pilot: Pilot[None]) -> None:
        await pilot.resize_terminal(120, 40)
        await pilot.pause()
        assert app.query_one(DataTable).size.width == 120
        await pilot.resize_terminal(80, 10)
        await pilot.pause()
        assert app.query_one(DataTable).size.height >= 5

    played(gateway, play)


def test_rates_come_with_the_next_look_and_hold_keeps_them(gateway: Gateway) -> None:
    async def play(app: Top, pilot: Pilot[None]) -> None:
        assert cells(app)[0][4] == "-"
        gateway.more = 1_000_000
        await look_again(app, pilot)
        assert cells(app)[0][4] not in ("-", "0")
        assert cells(app)[0][5] == "2.4M", "405,000 and a million for each of its two flows"
        await pilot.press("space")
        assert "HELD" in head(app)
        gateway.more = 9_000_000
        await look_again(app, pilot)
        assert cells(app)[0][5] == "2.4M"
        await pilot.press("space")
        await look_again(app, pilot)
        assert cells(app)[0][5] == "18M"

    played(gateway, play)


def test_sorting_goes_through_the_columns_and_back(gateway: Gateway) -> None:
    async def play(app: Top, pilot: Pilot[None]) -> None:
        await pilot.press("f", "s")  # the first column: the application
        assert [row[0] for row in cells(app)] == ["facetime", "facetime", "dns"], "what is over stays last"
        assert "▾" in str(next(iter(app.query_one(DataTable).columns.values())).label)
        await pilot.press("s", "s")  # to
        assert [row[2] for row in cells(app)][:2] == ["17.173.254.35:3478", "198.51.100.7:16402"]
        await pilot.press("r")
        assert [row[2] for row in cells(app)][:2] == ["198.51.100.7:16402", "17.173.254.35:3478"]

    played(gateway, play)


def test_a_typed_filter_and_its_end(gateway: Gateway) -> None:
    async def play(app: Top, pilot: Pilot[None]) -> None:
        await pilot.press("f", "slash", *"3478")
        assert [row[2] for row in cells(app)] == ["17.173.254.35:3478"]
        await pilot.press("enter")
        assert not app.query_one("#filter", Input).has_class("open")
        assert len(cells(app)) == 1
        await pilot.press("escape")
        assert len(cells(app)) == 3

    played(gateway, play)


def test_a_call_in_full_and_back(gateway: Gateway) -> None:
    async def play(app: Top, pilot: Pilot[None]) -> None:
        await pilot.press("enter")
        assert isinstance(app.screen, Inside)
        told = str(app.screen.query_one("#inside", Static).render())
        for part in ("call 1: facetime", "10.0.0.2:16402 <-> 198.51.100.7", "sdp-answer, open",
                     "stun > turn > facetime",
                     "packet 1: allocate: stun.method allocate", "allow (calls)", "104, 119"):  # fmt: skip
            assert part in told
        assert "dns" not in told
        assert "\x1b" not in told
        await pilot.press("escape")
        assert not isinstance(app.screen, Inside)

    played(gateway, play)


def test_what_an_operator_must_see_is_at_the_top(gateway: Gateway) -> None:
    async def play(app: Top, pilot: Pilot[None]) -> None:
        assert "1 policy warning" in head(app)
        assert "calls 1" in head(app)

    played(gateway, play)
    counted = {**STATS, "exceptions": {"queue-full": 3, "mid-stream": 0}, "events_lost": 2, "reload_success": False}
    assert alarms(counted) == [
        "1 policy warning", "exceptions: queue-full 3", "events lost: 2", "the last load was refused",
    ]  # fmt: skip
    assert alarms({}) == []


def test_a_gateway_that_goes_away_is_said_and_the_last_look_stays(tmp_path: Path) -> None:
    async def play() -> None:
        with answering(tmp_path, answer):
            control = tmp_path / "control.sock"
            app = Top(control, look(control), 3600.0)
        async with app.run_test(size=(80, 24)) as pilot:
            await look_again(app, pilot)
            assert "no gateway answers" in head(app)
            assert len(cells(app)) == 1

    asyncio.run(play())


def test_a_worker_that_does_not_serve_is_said_and_the_rest_is_shown(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its answers are missing, and an error stands among the others."""
    missing = {"type": "error", "reason": "worker 1 does not serve just now"}
    monkeypatch.setattr(gateway, "missing", (missing,))

    async def play(app: Top, pilot: Pilot[None]) -> None:
        assert "worker 1 does not serve just now" in head(app)
        await pilot.press("f")
        assert len(cells(app)) == 3

    played(gateway, play)
    assert main(["top", "-c", str(gateway.folder / "appid.toml"), "--json", "--count", "1"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["faults"] == ["worker 1 does not serve just now"]
    assert len(told["flows"]) == 3


def test_json_and_plain_text_without_a_terminal(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    config = str(gateway.folder / "appid.toml")
    assert main(["top", "-c", config, "--json", "--count", "2", "--interval", "0.1"]) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["stats"] == STATS
    assert {flow["id"] for flow in second["flows"]} == {0, 1, 2}
    assert second["flows"][0]["rate"] == 0.0
    assert main(["top", "-c", config, "--application", "dns"]) == 0
    out = capsys.readouterr().out
    assert "flows: 1" in out
    assert "calls: 0" in out
    assert RELAY["dst"] not in out


def test_no_gateway_is_one_line_and_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "appid.toml"
    path.write_text(f'[listen]\ncontrol = "{tmp_path}/none.sock"\n')
    assert main(["top", "-c", str(path)]) == 2
    assert capsys.readouterr().err == f"appid: no gateway answers at {tmp_path}/none.sock\n"
    assert main(["top", "--interval", "0"]) == 2


class Terminal:
    """A pseudo-terminal, as sshd gives one, with `appid top` in it."""

    def __init__(self, config: Path, kind: str) -> None:
        self._ours, theirs = os.openpty()
        self.size(80, 24)
        command = [sys.executable, "-m", "appid.cli.main", "top", "-c", str(config), "--interval", "0.2"]
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            env={**os.environ, "TERM": kind, "LC_ALL": "C.UTF-8"},
        )  # fmt: skip
        os.close(theirs)
        self.shown = ""

    def size(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def resize(self, columns: int, rows: int) -> None:
        self.size(columns, rows)
        self.process.send_signal(signal.SIGWINCH)

    def press(self, keys: bytes) -> None:
        self.shown = ""
        os.write(self._ours, keys)

    def until(self, wanted: str) -> None:
        """Something that is written from now on."""
        deadline = time.monotonic() + 60
        while wanted not in self.shown:
            ready, _, _ = select.select([self._ours], [], [], max(deadline - time.monotonic(), 0))
            assert ready, f"{wanted!r} does not come: {self.shown[-2000:]!r}"
            self.shown += os.read(self._ours, 65536).decode("utf-8", "replace")

    def close(self) -> int:
        """What it writes to the end is read, or it would wait."""
        with contextlib.suppress(OSError):
            while os.read(self._ours, 65536):
                pass
        os.close(self._ours)
        return self.process.wait(60)


@pytest.mark.parametrize("kind", ["xterm", "vt100"])
def test_at_a_real_terminal(kind: str, gateway: Gateway) -> None:
    """What the pilot leaves out: the driver, bytes of keys, a window that changes."""
    terminal = Terminal(gateway.folder / "appid.toml", kind)
    try:
        terminal.until("198.51.100.7")
        terminal.press(b"f")
        terminal.until("9.9.9.9:53")
        terminal.press(b" ")
        terminal.until("HELD")
        terminal.press(b" c\r")
        terminal.until("Call-ID abc")
        terminal.shown = ""
        terminal.resize(120, 40)
        terminal.until("104, 119")
        terminal.press(b"q")
        terminal.until("userspace packets")
        terminal.press(b"q")
        assert terminal.close() == 0
    finally:
        terminal.process.kill()
