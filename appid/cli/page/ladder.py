"""The ladder on the page: a row for each message, an arrow from lane to lane, repeated media folded into one row.

Sizes are in em, so that zooming is a font size. Lifelines stretch with their row; arrows do not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from appid.cli.ladder import folded, left_out
from appid.cli.page.markup import Html, el, join
from appid.story import Effect, Fold, FoldLine, Step, Tale
from appid.story.plain import ends
from appid.wire import Endpoint, text

PITCH = 100
"""Units between two lanes; 16 units are an em."""
MANY = 5
"""Lanes beyond which the words need a wider page to stand beside them."""
HEIGHT = 28
MIDDLE = 14
KINDS = frozenset({"stun", "turn", "sip", "rtp", "rtcp", "tls", "http", "icmp"})
REFERENCE = re.compile(r"\b(answers|transaction as|ChannelBind|USERNAME of|in) (\d+)\b")


class Lanes:
    """Where each party's line is."""

    def __init__(self, tale: Tale, number: int) -> None:
        self.tale = tale
        self.number = number
        self.x = {party.name: PITCH * n + PITCH // 2 for n, party in enumerate(tale.parties)}
        self.width = PITCH * max(len(tale.parties), 1)

    def _svg(self, *shapes: Html, height: int, class_: str) -> Html:
        return el("svg", shapes, width=f"{self.width / 16}em", height=f"{height / 16}em", class_=class_,
                  viewbox=f"0 0 {self.width} {height}", aria_hidden="true")  # fmt: skip

    def lines(self, define: bool = False) -> Html:
        """The lifelines of one row, as high as it is."""
        name = f"l{self.number}"
        if not define:
            shapes: Html = el("use", href=f"#{name}")
        else:
            shapes = el("g", [el("line", x1=x, x2=x, y1=0, y2=1) for x in self.x.values()], id=name)
        return el("svg", shapes, class_="lines", width=f"{self.width / 16}em", viewbox=f"0 0 {self.width} 1",
                  preserveaspectratio="none", aria_hidden="true")  # fmt: skip

    def head(self) -> Html:
        names = [
            el("text", party.name, x=self.x[party.name], y=16, text_anchor="middle") for party in self.tale.parties
        ]
        return self._svg(*names, height=24, class_="names")

    def arrow(self, way: tuple[str | None, str | None, str | None], kind: str, dotted: bool = False) -> Html:
        here, there, through = way
        if here is None or there is None:
            return self._svg(height=HEIGHT, class_="arrow")
        a, b = self.x[here], self.x[there]
        if a == b:
            shapes = [el("path", d=f"M{a} {MIDDLE - 6}h22v12h-16", class_="shaft"), _tip(a + 2, -1, MIDDLE + 6)]
        else:
            way_on = 1 if b > a else -1
            shapes = [el("path", d=f"M{a} {MIDDLE}H{b - way_on * 4}", class_="shaft"), _tip(b, way_on, MIDDLE)]
        if through is not None:
            shapes.append(el("circle", cx=self.x[through], cy=MIDDLE, r=5))
        spelled = f"arrow k-{kind if kind in KINDS else 'other'}{' dotted' if dotted else ''}"
        return self._svg(*shapes, height=HEIGHT, class_=spelled)

    def both(self, lines: Sequence[FoldLine]) -> Html:
        """The way of a run that goes to and fro between two parties; nothing where there are several."""
        ways = {ends(self.tale, line.src, line.dst, line.via) for line in lines}
        if len({(frozenset(way[:2]), way[2]) for way in ways}) != 1 or len(ways) > 2:
            return self.arrow((None, None, None), "")
        here, there, through = ways.pop()
        if here is None or there is None or here == there:
            return self.arrow((None, None, None), "")
        if not ways:
            return self.arrow((here, there, through), "rtp", dotted=True)
        a, b = sorted((self.x[here], self.x[there]))
        shapes = [el("path", d=f"M{a + 4} {MIDDLE}H{b - 4}", class_="shaft"), _tip(a, -1, MIDDLE), _tip(b, 1, MIDDLE)]
        if through is not None:
            shapes.append(el("circle", cx=self.x[through], cy=MIDDLE, r=5))
        return self._svg(*shapes, height=HEIGHT, class_="arrow k-rtp dotted")

    def said(self, way: tuple[str | None, str | None, str | None]) -> str:
        """The arrow in words, for who does not see it."""
        here, there, through = way
        if here is None or there is None:
            return ""
        return f"{here} to {there}{f' through {through}' if through else ''}: "


def _tip(x: int, way: int, y: int) -> Html:
    return el("path", d=f"M{x} {y}l{-9 * way} -4.5v9z", class_="tip")


def draw(tale: Tale, number: int) -> Iterator[Html]:
    """The whole ladder, with what controls it."""
    lanes = Lanes(tale, number)
    frames = {item.frame: f"t{number}p{item.frame}" for item in tale.items if isinstance(item, Step) and item.src}
    yield el("h3", "Packet by packet", id=f"l{number}h")
    yield _controls(number)
    yield Html(f'<div class="scroll sheet" tabindex="0" role="region" aria-labelledby="l{number}h">')
    yield Html(f'<div class="ladder{" many" if len(tale.parties) > MANY else ""}" id="t{number}l">')
    yield el("div", el("div", el("span", "packet", class_="n"), el("span", "time, s", class_="t"),
             el("span", lanes.head(), class_="lanes"), class_="row"), class_="head", aria_hidden="true")  # fmt: skip
    yield Html("<ol>")
    for position, item in enumerate(tale.items):
        define = position == 0
        name = f"t{number}i{position}"
        if isinstance(item, Fold):
            yield _fold(lanes, item, name, define)
        else:
            yield _step(lanes, item, name, define, frames)
    yield Html("</ol></div></div>\n")
    for words in left_out(tale):
        yield el("p", f"{words}.", class_="quiet")


def _controls(number: int) -> Html:
    """Hidden until there is script to serve them."""
    ladder = f"t{number}l"

    def button(words: str, act: str, label: str | None = None, pressed: str | None = None) -> Html:
        return el("button", words, type="button", data_act=act, aria_controls=ladder, aria_label=label,
                  aria_pressed=pressed)  # fmt: skip

    return el(
        "div",
        el("span", button("−", "out", "Smaller"), button("100 %", "reset", "Size as it was"),
           button("+", "in", "Larger"), class_="group"),
        el("span", button("messages", "few", pressed="false"), button("and effects", "some", pressed="true"),
           button("everything", "all", pressed="false"), class_="group"),
        el("span", "Keys: ", el("kbd", "↑"), " ", el("kbd", "↓"), " move, ", el("kbd", "Enter"), " opens, ",
           el("kbd", "+"), " ", el("kbd", "−"), " size", class_="quiet hint"),
        class_="controls", role="toolbar", aria_label="Ladder", hidden=True, data_for=ladder,
    )  # fmt: skip


def _row(lanes: Lanes, number: str | int, time: str, arrow: Html, words: Html, define: bool = False) -> Html:
    return join([
        el("span", number, class_="n"),
        el("span", time, class_="t"),
        el("span", lanes.lines(define), arrow, class_="lanes"),
        el("div", words, class_="words"),
    ])  # fmt: skip


def _time(lanes: Lanes, time: int) -> str:
    return f"{(time - lanes.tale.start) / 1e9:.2f}" if time else ""


def _step(lanes: Lanes, step: Step, name: str, define: bool, frames: dict[int, str]) -> Html:
    way = ends(lanes.tale, step.src, step.dst, step.via)
    more = _more(step, frames)
    what = join([el("span", lanes.said(way), class_="unseen"), step.what])
    title = (
        el("button", what, type="button", class_="what", aria_expanded="true", aria_controls=f"{name}m")
        if more is not None
        else el("span", what, class_="what")
    )
    effects = el("ul", [_effect(effect) for effect in step.effects], class_="effects") if step.effects else None
    body = el("div", more, class_="more", id=f"{name}m") if more is not None else None
    row = _row(
        lanes, step.frame, _time(lanes, step.time), lanes.arrow(way, step.kind), join([title, effects, body]), define
    )
    return el(
        "li", row, class_=f"row step{' tells' if step.effects else ''}", data_packet=step.frame, data_bytes=step.bytes,
        id=frames.get(step.frame) if step.src else None,
    )  # fmt: skip


def _more(step: Step, frames: dict[int, str]) -> Html | None:
    """Particulars, the facts that counted, and the packet's own ends."""
    parts: list[Html] = []
    if step.details:
        parts.append(el("ul", [el("li", _linked(detail, frames)) for detail in step.details], class_="details"))
    for effect in step.effects:
        parts += [el("p", el("b", signature), ": ", facts, class_="reason") for signature, facts in effect.reasons]
    if step.src is not None and step.dst is not None:
        size = f", {step.bytes:,} bytes" if step.bytes else ""
        parts.append(el("p", f"flow {step.flow}, {_end(step.src)} > {_end(step.dst)}{size}", class_="quiet"))
    return join(parts) if parts else None


def _end(end: Endpoint) -> str:
    return str(end) if end.port else text(end.address)


def _linked(detail: str, frames: dict[int, str]) -> Html:
    """ "answers 121" leads to 121."""
    match = REFERENCE.search(detail)
    target = frames.get(int(match[2])) if match is not None else None
    if match is None or target is None:
        return join([detail])
    return join([detail[: match.start(2)], el("a", match[2], href=f"#{target}"), detail[match.end(2) :]])


def _effect(effect: Effect) -> Html:
    return el("li", el("span", effect.kind, class_="badge"), el("span", effect.text), class_=f"e-{effect.kind}")


def _fold(lanes: Lanes, fold: Fold, name: str, define: bool) -> Html:
    lines = list(fold.lines.values())
    seconds = (fold.last_time - fold.time) / 1e9
    if len(lines) == 1:
        row = _folded(lanes, lines[0], str(fold.frame), _time(lanes, fold.time), define)
        return el("li", row, class_="row fold", data_packets=fold.count, data_bytes=fold.bytes)
    words = f"{fold.count:,} packets, frames {fold.frame}-{fold.last}, {seconds:.1f} s"
    kinds = ", ".join(dict.fromkeys(line.what for line in lines))
    button = el("button", words, el("span", f" {kinds}", class_="quiet"), type="button", class_="what",
                aria_expanded="true", aria_controls=f"{name}m")  # fmt: skip
    head = _row(lanes, fold.frame, _time(lanes, fold.time), lanes.both(lines), button, define)
    rows = [el("li", _folded(lanes, line, "", ""), class_="row") for line in lines]
    return join([
        el("li", el("div", head, class_="row"), el("ul", rows, class_="more", id=f"{name}m"), class_="fold",
           data_packets=fold.count, data_bytes=fold.bytes),
    ])  # fmt: skip


def _folded(lanes: Lanes, line: FoldLine, number: str, time: str, define: bool = False) -> Html:
    way = ends(lanes.tale, line.src, line.dst, line.via)
    kind = line.what.lower() if line.what in ("RTP", "RTCP") else "stun"
    words = el("span", el("span", lanes.said(way), class_="unseen"), folded(line), class_="what")
    return _row(lanes, number, time, lanes.arrow(way, kind, dotted=True), words, define)
