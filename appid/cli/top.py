"""`appid top`: the running gateway, live. Keys: c f p the view, space holds it, s and r sort, / filters, enter looks
into a call or flow, escape goes back, q ends. With --json, or where no terminal is, one look after another is printed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from textwrap import wrap
from typing import ClassVar

from rich.text import Text
from textual import work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import Screen
from textual.widgets import DataTable, Footer, Input, Static

from appid.cli import shown
from appid.cli.board import VIEWS, Board, Look
from appid.cli.shown import LIVE, Answer, Filter, end, printable, size
from appid.edge.config import load_config
from appid.edge.control import ask
from appid.story.plain import described
from appid.story.words import recounted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-c", dest="config", metavar="FILE", type=Path, help="appid.toml of the gateway")
    parser.add_argument("--interval", metavar="SECONDS", type=_interval, default=1.0, help="between two looks (1)")
    parser.add_argument("--count", metavar="N", type=int, help="print N looks and end")
    parser.add_argument("--json", action="store_true", help="each look as one line of JSON")
    shown.add_arguments(parser)


def _interval(text: str) -> float:
    seconds = float(text)
    if not 0.1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError("from 0.1 to 3600 seconds")
    return seconds


def run(arguments: argparse.Namespace) -> int:
    control = load_config(arguments.config).control
    try:
        first = look(control)
    except OSError as error:
        print(f"appid: {error}", file=sys.stderr)
        return 2
    wanted = shown.filter_of(arguments)
    if arguments.json or arguments.count is not None or not sys.stdout.isatty():
        return _printed(arguments, control, first, wanted)
    app = Top(control, first, arguments.interval, wanted)
    app.run(mouse=False)
    return app.return_code or 0


def look(control: Path) -> Look:
    """One look at all of it. OSError: nobody answers."""
    told = [ask(control, {"ask": each}) for each in ("flows", "calls", "pinholes", "stats")]
    faults = dict.fromkeys(str(each.get("reason")) for answers in told for each in answers if each["type"] == "error")
    flows, calls, pinholes, stats = (tuple(each for each in answers if each["type"] != "error") for answers in told)
    return Look(time.time(), flows, calls, pinholes, stats[0] if stats else {}, tuple(faults))


def _printed(arguments: argparse.Namespace, control: Path, first: Look, wanted: Filter) -> int:
    board, left = Board(), arguments.count or (1 if not arguments.json else None)
    now: Look | None = first
    while now is not None:
        board.take(now)
        views = {view: board.rows(view, wanted, LIVE[view][0], False) for view in VIEWS}
        if arguments.json:
            told = {"type": "look", "time": now.time, "stats": now.stats, **views, "faults": now.faults}
            print(json.dumps(told, separators=(",", ":")))
        else:
            print(headline(board, False))
            for view in VIEWS:
                _plain(view, views[view])
        sys.stdout.flush()
        left = left - 1 if left is not None else None
        if left == 0:
            return 0
        time.sleep(arguments.interval)
        try:
            now = look(control)
        except OSError as error:
            print(f"appid: {error}", file=sys.stderr)
            return 2
    return 0


def _plain(view: str, answers: list[Answer]) -> None:
    columns = LIVE[view]
    cells = [[column.title for column in columns], *shown.rows(columns, answers, narrow=True)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(columns))]
    print(f"\n{view}: {len(answers)}")
    for row in cells if answers else ():
        aligned = (
            cell.rjust(width) if column.right else cell.ljust(width)
            for cell, width, column in zip(row, widths, columns, strict=True)
        )
        print("  ".join(aligned).rstrip())


def headline(board: Board, paused: bool) -> str:
    """The gateway in two lines: what it does, and what an operator should look at."""
    stats = board.stats
    asked = "-" if board.packets is None else size(board.packets)
    lines = [
        f"flows {stats.get('flows', '-')}  calls {stats.get('calls', '-')}  pinholes {stats.get('pinholes', '-')}  "
        f"userspace packets {stats.get('packets', '-')} ({asked}/s)"
        + ("  MONITOR" if stats.get("monitor") else "") + ("  HELD" if paused else "")
    ]  # fmt: skip
    lines.append("  ".join((*board.faults, *alarms(stats))) or "no warnings")
    return "\n".join(lines)


def alarms(stats: Answer) -> list[str]:
    """What is not as it should be, a few words each."""
    told = []
    if warnings := stats.get("policy_warnings"):
        told.append(f"{len(warnings)} policy warning{'s' if len(warnings) > 1 else ''}")
    for name, words in (("exceptions", "exceptions"), ("dropped", "queue drops")):
        if counts := {k: v for k, v in (stats.get(name) or {}).items() if v}:
            told.append(f"{words}: " + " ".join(f"{key} {count}" for key, count in counts.items()))
    for name, words in (
        ("errors", "internal errors"), ("command_failures", "failed commands"), ("events_lost", "events lost"),
    ):  # fmt: skip
        if stats.get(name):
            told.append(f"{words}: {stats[name]}")
    if stats.get("reload_success") is False:
        told.append("the last load was refused")
    return told


class _Rows(DataTable[Text]):
    """A table that keeps its place when its rows change. Cells are Text: in a str, `[fd00::1]` would be markup."""

    def show(self, columns: tuple[shown.Column, ...], answers: list[Answer], title: str) -> None:
        at, scroll = self.cursor_row, self.scroll_y
        key = self.coordinate_to_cell_key((at, 0)).row_key.value if 0 <= at < self.row_count else None  # type: ignore[arg-type]
        columns = shown.fitted(columns, self.app.size.width)
        self.clear(columns=True)
        for column in columns:
            self.add_column(column.title + (" ▾" if column.title == title else ""), width=column.width)
        keys = []
        for answer, cells in zip(answers, shown.rows(columns, answers, narrow=True), strict=True):
            keys.append(_row_key(answer))
            aligned = (
                cell.rjust(column.width) if column.right else cell for cell, column in zip(cells, columns, strict=True)
            )
            self.add_row(*map(Text, aligned), key=keys[-1])
        if key in keys:
            self.move_cursor(row=keys.index(key), animate=False)
        elif keys:
            self.move_cursor(row=min(at, len(keys) - 1), animate=False)
        self.scroll_y = scroll


def _row_key(answer: Answer) -> str:
    if answer["type"] == "flow":
        return "flow " + " ".join(str(answer[name]) for name in ("proto", "src", "sport", "dst", "dport", "id"))
    return f"{answer['type']} {answer['id']}"


class Inside(Screen[None]):
    """One call or flow in full."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,left", "app.pop_screen", "back")]

    def __init__(self, board: Board, answer: Answer) -> None:
        super().__init__()
        self._board, self._answer = board, answer

    def compose(self) -> ComposeResult:
        with VerticalScroll():
            yield Static(id="inside", markup=False)
        yield Footer()

    def on_mount(self) -> None:
        self.refill()

    def refill(self) -> None:
        room = max(self.app.size.width - 4, 40)
        lines = (piece for line in inside(self._board, self._answer) for piece in hung(line, room))
        self.query_one("#inside", Static).update("\n".join(lines))

    def on_resize(self) -> None:
        self.refill()


def hung(line: str, room: int) -> list[str]:
    """A line in pieces of at most `room` characters; what goes on stands further in, and names stay whole."""
    margin = " " * (len(line) - len(line.lstrip()) + 2)
    return wrap(line, room, subsequent_indent=margin, break_on_hyphens=False) or [""]


def inside(board: Board, answer: Answer) -> list[str]:
    """The lines of a call, a flow or a pinhole in full, as they are now."""
    if answer["type"] == "flow":
        return _flow_lines(next((f for f in _flows(board, Filter()) if _row_key(f) == _row_key(answer)), answer))
    number = answer["id"] if answer["type"] == "call" else answer["call"]
    call = board.call(number) or {}
    lines = [
        f"call {number}: {call.get('application', '?')}, {call.get('caller') or '?'} -> {call.get('callee') or '?'}, "
        f"{call.get('end', '?')}",
        f"  Call-ID {printable(call.get('call_id') or '-')}",
        f"  {size(call.get('bytes'))} bytes, {rate(call)}",
    ]
    for media in call.get("media", ()):
        lines.append(f"  {printable(described(media))}")
    lines += ["", "pinholes"]
    for hole in board.rows("pinholes", Filter(call=number), LIVE["pinholes"][0], False):
        lines.append(f"  {end(hole['inside'], hole['port'])} <-> {end(hole['peer'], hole['peer_port'])}  "
                     f"{hole['reason']}, {shown.state(hole)}, {size(hole['bytes'])} bytes")  # fmt: skip
    for flow in _flows(board, Filter(call=number)):
        lines += ["", *_flow_lines(flow)]
    return lines


def rate(answer: Answer) -> str:
    return "-" if answer.get("rate") is None else f"{size(answer['rate'])}B/s"


def _flows(board: Board, wanted: Filter) -> list[Answer]:
    return board.rows("flows", wanted, LIVE["flows"][0], False)


def _flow_lines(flow: Answer) -> list[str]:
    lines = [
        f"{flow['proto']} {end(flow['src'], flow['sport'])} -> {end(flow['dst'], flow['dport'])}",
        f"  {flow['application']}, {flow['confidence'] or '-'}; {' > '.join(flow['path']) or '-'}; "
        f"{shown.decision(flow)}, {shown.state(flow)}",
        f"  {flow['packets']} packets, {size(flow['bytes'])} bytes, {rate(flow)}, "
        f"{flow['userspace_packets']} of them to userspace",
    ]
    for reason in flow["because"]:
        lines.append(f"  packet {reason['packet']}: {reason['signature']}: {recounted(reason['facts'])}")
    return lines


class Top(App[None]):
    """The live view. `control`: the socket; `first`: a look to begin with."""

    TITLE = "appid top"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #head { height: 2; padding: 0 1; }
    #filter { display: none; height: 1; border: none; }
    #filter.open { display: block; }
    _Rows { height: 1fr; }
    #inside { padding: 0 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("c", "view('calls')", "calls"),
        Binding("f", "view('flows')", "flows"),
        Binding("p", "view('pinholes')", "pinholes"),
        Binding("space", "hold", "hold"),
        Binding("s", "sort", "sort"),
        Binding("r", "reverse", "reverse"),
        Binding("slash", "filter", "filter"),
        Binding("escape", "unfilter", "all", show=False),
        Binding("q", "quit", "end"),
    ]

    def __init__(self, control: Path, first: Look, interval: float = 1.0, wanted: Filter | None = None) -> None:
        super().__init__(ansi_color=True)
        self.board = Board()
        self.board.take(first)
        self.view = "calls" if first.calls else "flows"
        self.held = False
        self.trouble = ""
        self._control, self._interval, self._given = control, interval, wanted or Filter()
        self._text = ""
        self._sorted = {view: (len(LIVE[view]) - 1, False) for view in VIEWS}
        self._rows: list[Answer] = []

    def compose(self) -> ComposeResult:
        yield Static(id="head", markup=False)
        yield _Rows(cursor_type="row", zebra_stripes=True)
        yield Input(placeholder="application, address or state", id="filter")
        yield Footer()

    def on_mount(self) -> None:
        self.query_one(_Rows).focus()
        self.refill()
        self.set_interval(self._interval, self.look)

    @work(thread=True, exclusive=True, exit_on_error=False)
    def look(self) -> None:
        """Ask again; in a thread, for a gateway that is busy."""
        if self.held:
            return
        try:
            taken: Look | OSError = look(self._control)
        except OSError as error:
            taken = error
        self.call_from_thread(self.took, taken)

    def took(self, taken: Look | OSError) -> None:
        self.trouble = str(taken) if isinstance(taken, OSError) else ""
        if isinstance(taken, Look) and not self.held:
            self.board.take(taken)
        self.refill()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """The keys of the table are not those of a call in full."""
        return not isinstance(self.screen, Inside) or action in ("pop_screen", "hold")

    def on_resize(self) -> None:
        self.refill()

    def refill(self) -> None:
        """Everything anew."""
        if isinstance(self.screen, Inside):
            self.screen.refill()
        base = self.screen_stack[0]
        head = headline(self.board, self.held)
        if self.trouble:
            head = f"{head.splitlines()[0]}\n{self.trouble}"
        base.query_one("#head", Static).update(head)
        at, reverse = self._sorted[self.view]
        column = LIVE[self.view][at]
        self._rows = [r for r in self.board.rows(self.view, self._given, column, reverse) if self._matches(r)]
        base.query_one(_Rows).show(LIVE[self.view], self._rows, column.title)

    def _matches(self, answer: Answer) -> bool:
        """Whether each word typed is somewhere in the row."""
        cells = " ".join(column.cell(answer) for column in LIVE[self.view]).lower()
        return all(word in cells for word in self._text.lower().split())

    def action_view(self, view: str) -> None:
        self.view = view
        self.refill()

    def action_hold(self) -> None:
        self.held = not self.held
        self.refill()

    def action_sort(self) -> None:
        at, _ = self._sorted[self.view]
        at = (at + 1) % len(LIVE[self.view])
        self._sorted[self.view] = (at, LIVE[self.view][at].right)  # of numbers the greatest first
        self.refill()

    def action_reverse(self) -> None:
        at, reverse = self._sorted[self.view]
        self._sorted[self.view] = (at, not reverse)
        self.refill()

    def action_filter(self) -> None:
        typed = self.query_one("#filter", Input)
        typed.add_class("open")
        typed.focus()

    def action_unfilter(self) -> None:
        self._text = self.query_one("#filter", Input).value = ""
        self._close_filter()

    def _close_filter(self) -> None:
        self.query_one("#filter", Input).remove_class("open")
        self.query_one(_Rows).focus()
        self.refill()

    def on_input_changed(self, event: Input.Changed) -> None:
        self._text = event.value
        self.refill()

    def on_input_submitted(self, _: Input.Submitted) -> None:
        self._close_filter()

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        if 0 <= event.cursor_row < len(self._rows):
            self.push_screen(Inside(self.board, self._rows[event.cursor_row]))
