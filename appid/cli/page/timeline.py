"""Flows over time as bars coloured by application, and pinholes over the media that used them.

Bars are SVG that stretches with the page; what they mean stands beside them as text, so colour is never alone.
"""

from __future__ import annotations

from collections import Counter
from typing import Any
from zlib import crc32

from appid.cli.page.markup import Html, el, join
from appid.story import Story, Tale

WIDTH = 1000
"""Units of a track, stretched to whatever width there is."""
COLOURS = 9
REST = "rest"
"""Where a page has more applications than there are colours, the rarest share one."""
ROWS = 60
"""Flows drawn in one timeline."""
TICKS = 5

Line = dict[str, Any]


class Colours:
    """Applications -> classes a0 to a8: one for a name on the whole page, and on most pages the same. Those of most
    flows choose first."""

    def __init__(self, story: Story) -> None:
        flows = [*(flow for tale in story.tales for flow in tale.flows), *story.others]
        names = Counter(name for flow in flows for name in {flow["application"], *flow["path"]})
        free = list(range(COLOURS))
        self.known: dict[str, str] = {}
        for name, _ in sorted(names.items(), key=lambda each: (-each[1], each[0]))[:COLOURS]:
            wanted = crc32(name.encode()) % COLOURS
            colour = min(free, key=lambda one: (one - wanted) % COLOURS)
            free.remove(colour)
            self.known[name] = f"a{colour}"

    def of(self, name: str) -> str:
        return self.known.get(name, REST)

    def key(self, name: str) -> Html:
        """A swatch for a legend."""
        return el("svg", el("rect", width="10", height="10", rx="2", class_=self.of(name)), width=".7em", height=".7em",
                  viewbox="0 0 10 10", aria_hidden="true", class_="key")  # fmt: skip


def end(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:04.1f} s"


class Scale:
    """Time in nanoseconds -> units of a track."""

    def __init__(self, first: int, last: int) -> None:
        self.first = first
        self.span = max(last - first, 1)

    def x(self, time: int) -> float:
        return round(min(max((time - self.first) / self.span, 0.0), 1.0) * WIDTH, 1)

    def ticks(self) -> list[str]:
        return [f"{self.span * n / (TICKS - 1) / 1e9:.{1 if self.span > 2e9 else 3}f} s" for n in range(TICKS)]


def draw(story: Story, tale: Tale, colours: Colours) -> Html | None:
    """The flows of one tale."""
    spans = [story.spans[flow["id"]] for flow in tale.flows if flow["id"] in story.spans]
    if not spans:
        return None
    scale = Scale(min(first for first, _ in spans), max(last for _, last in spans))
    unused = list(tale.pinholes)
    clients = {address for party in tale.parties if party.role == "client" for address in party.addresses}
    rows = []
    for flow in tale.flows[:ROWS]:
        if flow["id"] in story.spans:
            mine = [hole for hole in tale.pinholes if _uses(story, flow, hole)]
            unused = [hole for hole in unused if hole not in mine]
            rows.append(_row(story, flow, scale, colours, mine, clients))
    rows += [_unused(story, hole, scale) for hole in unused]
    names = dict.fromkeys(
        name
        for flow in tale.flows[:ROWS]
        if flow["id"] in story.spans
        for name, _, _ in _named(story, flow, *story.spans[flow["id"]])
    )
    return join([el("h3", "Flows over time"), _frame(rows, scale, _legend(names, colours, bool(tale.pinholes)))])


def others(story: Story, flows: list[Line], colours: Colours) -> Html | None:
    """The flows of no call, over the whole capture."""
    drawn = [flow for flow in flows if flow["id"] in story.spans][:ROWS]
    if not drawn or not story.capture or story.capture["first"] is None:
        return None
    scale = Scale(int(story.capture["first"] * 1e9), int(story.capture["last"] * 1e9))
    names = dict.fromkeys(flow["application"] for flow in drawn)
    rows = [_row(story, flow, scale, colours, [], set()) for flow in drawn]
    return join([el("h3", "Flows over time"), _frame(rows, scale, _legend(names, colours, False))])


def _frame(rows: list[Html], scale: Scale, legend: Html) -> Html:
    axis = el("div", el("span", "from the first packet", class_="label quiet"),
              el("div", [el("span", tick) for tick in scale.ticks()], class_="ticks"), class_="row axis")  # fmt: skip
    return el("figure", el("div", rows, axis, class_="timeline"), el("figcaption", legend))


def _legend(names: dict[str, None], colours: Colours, pinholes: bool) -> Html:
    parts = [el("span", colours.key(name), name, class_="entry") for name in names]
    if pinholes:
        parts.append(el("span", el("svg", el("rect", width="14", height="4", y="3", class_="pinhole"), width="1em",
                                   height=".7em", viewbox="0 0 14 10", aria_hidden="true", class_="key"),
                        "pinhole open", class_="entry"))  # fmt: skip
    return join(parts)


def _uses(story: Story, flow: Line, hole: Line) -> bool:
    """Whether the flow is between the pinhole's inside port and its peer, while it was open."""
    first, last = story.spans[flow["id"]]
    opened, closed = story.time_of(hole, _opened(hole)), story.time_of(hole, hole["closed_at"])
    if (opened is not None and last < opened) or (closed is not None and closed < first):
        return False
    there = (flow["proto"], flow["src"], flow["sport"], flow["dst"])
    back = (flow["proto"], flow["dst"], flow["dport"], flow["src"])
    return (hole["proto"], hole["inside"], hole["port"], hole["peer"]) in (there, back)


def _row(story: Story, flow: Line, scale: Scale, colours: Colours, holes: list[Line], clients: set[str]) -> Html:
    first, last = story.spans[flow["id"]]
    inward = flow["dst"] in clients and flow["src"] not in clients
    remote = end(flow["src"], flow["sport"]) if inward else end(flow["dst"], flow["dport"])
    label = f"{flow['id']} {flow['proto']} {end(flow['src'], flow['sport'])} > {end(flow['dst'], flow['dport'])}"
    seconds = duration((last - first) / 1e9)
    said = f"flow {label}: {flow['application']}, {flow['packets']:,} packets, {seconds}"
    shapes = [_bar(scale.x(begin), scale.x(until), 6, 10, colours.of(name))
              for name, begin, until in _named(story, flow, first, last)]  # fmt: skip
    shapes += [_bar(*_hole(story, hole, scale), 0, 4, "pinhole") for hole in holes]
    holes_said = "".join(f"; pinhole {hole['id']}, packets {_packets(hole)}" for hole in holes)
    return el(
        "div",
        el("span", el("b", str(flow["id"])), f" {flow['application']} ", el("span", remote, class_="quiet"),
           class_="label", title=label),
        el("svg", el("title", said + holes_said), shapes, viewbox=f"0 0 {WIDTH} 16", preserveaspectratio="none",
           class_="track", role="img", aria_label=said + holes_said),
        class_="row",
    )  # fmt: skip


def _unused(story: Story, hole: Line, scale: Scale) -> Html:
    said = f"pinhole {hole['id']} for {end(hole['inside'], hole['port'])}, packets {_packets(hole)}: no flow used it"
    return el(
        "div",
        el("span", f"pinhole {hole['id']}, not used", class_="label", title=said),
        el("svg", el("title", said), _bar(*_hole(story, hole, scale), 0, 4, "pinhole"), viewbox=f"0 0 {WIDTH} 16",
           preserveaspectratio="none", class_="track", role="img", aria_label=said),
        class_="row",
    )  # fmt: skip


def _opened(hole: Line) -> int:
    """The client's own check may have opened it before a dialog did."""
    return int(hole.get("checked_at") or hole["opened_at"])


def _packets(hole: Line) -> str:
    return f"{_opened(hole)} to {hole['closed_at'] if hole['closed_at'] is not None else 'the end'}"


def _hole(story: Story, hole: Line, scale: Scale) -> tuple[float, float]:
    opened, closed = story.time_of(hole, _opened(hole)), story.time_of(hole, hole["closed_at"])
    until = closed if closed is not None else scale.first + scale.span
    return scale.x(opened if opened is not None else scale.first), scale.x(until)


def _bar(begin: float, until: float, y: int, height: int, kind: str) -> Html:
    """At least wide enough to be seen."""
    return el("rect", x=min(begin, WIDTH - 3), y=y, width=max(round(until - begin, 1), 3), height=height, class_=kind)


def _named(story: Story, flow: Line, first: int, last: int) -> list[tuple[str, int, int]]:
    """(name, from, until): what the flow was called, over time."""
    path = flow["path"]
    shifts = [(story.time_of(flow, packet) or first, name) for packet, name in flow["shifts"]]
    found = [(path[0], first)] if path else [(flow["application"], first)]
    found += [(name, max(time, first)) for time, name in shifts]
    ends = [time for _, time in found[1:]] + [last]
    return [
        (name, begin, until) for (name, begin), until in zip(found, ends, strict=True) if until > begin or until == last
    ]
