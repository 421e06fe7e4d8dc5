"""A Story on a terminal: the ladder of each call, its streams, and the evidence of flows that belong to none.

In: a Story and the console's width (80 columns at least). Out: rich text. Long captures' parts stay as they are folded.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from textwrap import wrap as broken
from typing import Any

from rich.console import Console
from rich.text import Text

from appid.story import Fold, FoldLine, Step, Story, Stream, Tale
from appid.story.plain import ends
from appid.story.words import printable, recounted

LEAST = 80
TEXT = 26
"""Columns that the words get where there is room for it; with fewer than NARROW they stand below."""
NARROW = 16
ROOMY = 44
"""Columns from which on details stand beside the lanes, not below."""
WIDEST = 16
"""Columns between two lanes at most."""
OTHERS = 40
NOTHING = "Nothing to tell: no flow was seen."
COLOURS = {"named": "bold green", "decided": "yellow", "call": "bold", "pinhole": "bold cyan", "translated": "magenta",
           "anomaly": "bold red", "media": "blue"}  # fmt: skip


def wrap(words: str, width: int, subsequent_indent: str = "") -> list[str]:
    """Lines of at most `width` characters. Names and ranges stay whole: a hyphen is no place to break."""
    return broken(words, width, subsequent_indent=subsequent_indent, break_on_hyphens=False)


class Ladder:
    """Draws one tale's rows."""

    def __init__(self, tale: Tale, width: int, ascii_only: bool = False) -> None:
        self.tale = tale
        names = [party.name for party in tale.parties]
        self.lane_of = {name: position for position, name in enumerate(names)}
        last = max((item.last if isinstance(item, Fold) else item.frame for item in tale.items), default=0)
        span = max((item.last_time if isinstance(item, Fold) else item.time for item in tale.items), default=0)
        self.frames = max(6, len(str(last)))
        self.clock = max(6, len(f"{(span - tale.start) / 1e9:.2f}"))
        least = max(((len(a) + len(b)) // 2 + 1 for a, b in pairwise(names)), default=7)
        left = self.frames + self.clock + 2
        room = (
            (width - left - TEXT - 2 - (len(names[0]) + len(names[-1])) // 2) // max(len(names) - 1, 1) if names else 0
        )
        self.pitch = max(6, least, min(WIDEST, room, least + 4))
        self.at = [len(names[0]) // 2 + n * self.pitch for n in range(len(names))] if names else []
        self.lanes = self.at[-1] + 3 if names else 0
        self.left, self.width = left, width
        self.text = width - left - self.lanes - 1
        bar, dash, cross, hop, self.dots = ("|", "-", "+", "o", ".") if ascii_only else ("│", "─", "┼", "○", "╌")
        self.bar, self.dash, self.cross, self.hop = bar, dash, cross, hop

    def head(self) -> Text:
        row = [" "] * (self.lanes + WIDEST)
        for party, at in zip(self.tale.parties, self.at, strict=True):
            start = max(at - len(party.name) // 2, 0)
            row[start : start + len(party.name)] = party.name
        return Text(f"{'packet':>{self.frames}} {'time':>{self.clock}} {''.join(row)}".rstrip(), style="bold")

    def row(self, frame: str, time: str, arrow: str, words: str, style: str = "") -> Iterator[Text]:
        """One message's lines: words wrapped, the lanes going on beside them."""
        margin = " " * (len(words) - len(words.lstrip()) + 2)
        for position, line in enumerate(wrap(words, self.text, subsequent_indent=margin) or [""]):
            text = Text(
                f"{frame:>{self.frames}} {time:>{self.clock}} " if not position else " " * self.left, style="dim"
            )
            text.append(arrow if not position else self.bars(), style="" if not position else "dim")
            text.append(" ")
            text.append(line, style=style)
            text.rstrip()
            yield text

    def said(self, frame: str, time: str, arrow: str, words: str, style: str = "") -> Iterator[Text]:
        """A message: its words beside the arrow, or, where many take part, below."""
        if self.text >= NARROW:
            yield from self.row(frame, time, arrow, words, style)
            return
        yield Text(f"{frame:>{self.frames}} {time:>{self.clock}} ", style="dim").append(arrow.rstrip(), style="")
        yield from self.more(words, style)

    def more(self, words: str, style: str, indent: int = 0) -> Iterator[Text]:
        """What belongs to a message: beside the lanes where there is room, else below."""
        if self.text >= ROOMY:
            yield from self.row("", "", self.bars(), " " * indent + words, style)
            return
        margin = " " * (self.left + 2 + indent)
        for line in wrap(words, self.width - len(margin), subsequent_indent="  "):
            yield Text(margin + line, style=style)

    def bars(self) -> str:
        row = [" "] * self.lanes
        for at in self.at:
            row[at] = self.bar
        return "".join(row)

    def arrow(self, here: str | None, there: str | None, through: str | None, dotted: bool = False) -> str:
        """From lane to lane; a relay that passes it on is a ring."""
        if here is None or there is None:
            return self.bars()
        row = list(self.bars())
        a, b = self.at[self.lane_of[here]], self.at[self.lane_of[there]]
        if a == b:
            row[a + 1 : a + 2] = "<"
            return "".join(row)
        dash = self.dots if dotted else self.dash
        for x in range(min(a, b) + 1, max(a, b)):
            row[x] = self.cross if row[x] == self.bar else dash
        if through is not None:
            row[self.at[self.lane_of[through]]] = self.hop
        row[b - 1 if b > a else b + 1] = ">" if b > a else "<"
        return "".join(row)

    def step(self, step: Step) -> Iterator[Text]:
        time = f"{(step.time - self.tale.start) / 1e9:.2f}" if step.time else ""
        arrow = self.arrow(*ends(self.tale, step.src, step.dst, step.via))
        yield from self.said(str(step.frame), time, arrow, step.what, "bold" if step.effects else "")
        if step.details:
            yield from self.more("; ".join(step.details), "dim")
        for effect in step.effects:
            yield from self.more(f"=> {effect.text}", COLOURS.get(effect.kind, ""))
            for signature, facts in effect.reasons:
                yield from self.more(f"{signature}: {facts}", "dim", 3)

    def fold(self, fold: Fold) -> Iterator[Text]:
        """A line for each kind and way."""
        lines = list(fold.lines.values())
        if len(lines) > 1:
            seconds = (fold.last_time - fold.time) / 1e9
            words = f"{fold.count:,} packets, frames {fold.frame}-{fold.last}, {seconds:.1f} s"
            yield from self.said(str(fold.frame), f"{(fold.time - self.tale.start) / 1e9:.2f}", self.bars(), words)
        for line in lines:
            arrow = self.arrow(*ends(self.tale, line.src, line.dst, line.via), dotted=True)
            alone = len(lines) == 1
            time = f"{(line.first_time - self.tale.start) / 1e9:.2f}" if alone else ""
            yield from self.said(str(line.first) if alone else "", time, arrow, folded(line), "blue")


def folded(line: FoldLine) -> str:
    """ "1,204 RTP packets, audio 104, frames 300-5700"."""
    types = ", ".join(sorted(line.types))
    what = {"RTP": f"RTP {types}", "RTCP": f"RTCP {types}"}.get(line.what, line.what)
    if line.count == 1:
        return f"1 {what}, frame {line.first}"
    every = (line.last_time - line.first_time) / 1e9 / (line.count - 1)
    pace = f", every {every:.1f} s" if every >= 1 else ""
    few = line.count == len(line.frames) and line.count <= 4
    where = ", ".join(map(str, line.frames)) if few else f"{line.first}-{line.last}"
    return f"{line.count:,} {what}, frames {where}{pace}"


def draw(console: Console, story: Story) -> None:
    """The whole story."""
    width = max(console.width, LEAST)
    if story.capture:
        first = story.capture["first"]
        when = f", from {datetime.fromtimestamp(first, UTC):%Y-%m-%d %H:%M:%S} UTC" if first is not None else ""
        show(console, Text(f"{printable(story.capture['file'])}: {story.capture['packets']:,} packets{when}"))
    for tale in story.tales:
        show(console, Text())
        for line in _tale(tale, width, console.options.ascii_only):
            show(console, line)
    if story.capture and not story.tales and not story.others:
        show(console, Text(NOTHING))
    _others(console, story)


def show(console: Console, line: Text) -> None:
    console.print(line, soft_wrap=True)


def _tale(tale: Tale, width: int, ascii_only: bool) -> Iterator[Text]:
    yield Text(_title(tale.told), style="bold underline")
    told = tale.told
    if told["type"] == "call":
        answered = f", answered at {told['answered_at']}" if told["answered_at"] else ""
        ended = f", ended at {told['ended_at']} ({told['end']})" if told["ended_at"] else ", still open"
        yield Text(f"  started at packet {told['started_at']}{answered}{ended}")
    for party in tale.parties:
        yield from _hanging(f"  {party.name:<9}", ", ".join(party.addresses), width)
    for flow in tale.flows:
        yield from _hanging(f"  flow {flow['id']:<4}", _flow(flow), width)
    for pinhole in tale.pinholes:
        yield from _hanging(f"  pinhole {pinhole['id']} ", _pinhole(pinhole), width)
    yield Text()
    ladder = Ladder(tale, width, ascii_only)
    yield ladder.head()
    for item in tale.items:
        yield from ladder.fold(item) if isinstance(item, Fold) else ladder.step(item)
    for words in left_out(tale):
        yield Text(f"  {words}")
    yield from _streams(tale, width)


def left_out(tale: Tale) -> Iterator[str]:
    """What the ladder does not show."""
    if tale.untold:
        yield f"{counted(tale.untold, 'more message')}, counted with the flows, not told"
    if tale.unseen:
        yield f"{counted(tale.unseen, 'packet')} went through the kernel alone: counted with the flows, not read"


def _title(told: dict[str, Any]) -> str:
    if told["type"] == "call":
        who = f": {told['caller']} calls {told['callee']}" if told["caller"] and told["callee"] else ""
        return f"call {told['id']}, {told['application']}{who}"
    return f"flow {told['id']}, {told['application']}"


def _flow(flow: dict[str, Any]) -> str:
    size = counted(flow["bytes"], "byte") if flow["bytes"] is not None else "bytes not known"
    way = f"{flow['proto']} {end(flow['src'], flow['sport'])} > {end(flow['dst'], flow['dport'])}"
    return f"{way}  {flow['application']}, {counted(flow['packets'], 'packet')}, {size}"


def counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _pinhole(pinhole: dict[str, Any]) -> str:
    closed = f"to {pinhole['closed_at']}" if pinhole["closed_at"] else "on, still open"
    before = f" (open from {pinhole['checked_at']} on, by a check)" if pinhole.get("checked_at") else ""
    return (
        f"{pinhole['proto']} {end(pinhole['inside'], pinhole['port'])} from {pinhole['peer']}, {pinhole['reason']}, "
        f"packets {pinhole['opened_at']} {closed}{before}"
    )


def end(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _hanging(label: str, words: str, width: int) -> Iterator[Text]:
    for position, line in enumerate(wrap(words, width - len(label)) or [""]):
        yield Text((label if position == 0 else " " * len(label)) + line)


def _streams(tale: Tale, width: int) -> Iterator[Text]:
    if not tale.streams:
        return
    yield Text()
    yield Text("RTP streams (jitter and loss: RFC 3550)", style="bold")
    head = f"  {'way':<18} {'by':<6} {'types':<14} {'packets':>8} {'lost':>9} {'jitter':>10} {'kbit/s':>7}"
    yield Text(head, style="dim")
    for stream in tale.streams:
        yield Text(_stream(tale, stream))


def _stream(tale: Tale, stream: Stream) -> str:
    here, there, through = ends(tale, stream.src, stream.dst, stream.via)
    types = f"{stream.kind} {' '.join(map(str, stream.payload_types))}".strip()[:15]
    lost = str(stream.lost) if stream.lost <= 0 else f"{stream.lost} ({100 * stream.lost / stream.expected:.1f}%)"
    guess = "~" if stream.clock_from == "estimated" else ""
    jitter = "-" if stream.jitter is None else f"{guess}{stream.jitter * 1000:.2f} ms"
    rate = "-" if stream.bits_per_second is None else f"{stream.bits_per_second / 1000:.1f}"
    by = "relay" if through else "direct"
    return f"  {f'{here} > {there}':<18} {by:<6} {types[:14]:<14} {stream.packets:>8,} {lost:>9} {jitter:>10} {rate:>7}"


def _others(console: Console, story: Story) -> None:
    """Flows of no call: what they were called, and why."""
    if not story.others:
        return
    width = max(console.width, LEAST)
    show(console, Text())
    show(console, Text("Flows that belong to no call" if story.tales else "Flows", style="bold underline"))
    for flow in story.others[:OTHERS]:
        for line in _hanging(f"  flow {flow['id']:<4}", _flow(flow), width):
            show(console, line)
        for reason in flow["because"]:
            words = f"{reason['packet']}: {reason['signature']}: {recounted(reason['facts'])}"
            for line in _hanging(" " * 11, words, width):
                line.stylize("dim")
                show(console, line)
    total = story.summary.get("flows", 0) - len({flow["id"] for tale in story.tales for flow in tale.flows})
    more = total - min(len(story.others), OTHERS)
    if more > 0:
        show(console, Text(f"  and {more:,} more: --flow N tells of one, --json of all"))
