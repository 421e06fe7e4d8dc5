"""A Story as one self-contained page: no request leaves it, nothing in it runs but page.js.

In: a Story. Out: HTML in pieces. The page is whole without script (all is shown); script folds, zooms and moves the
focus. Only what page.css and page.js hash to is allowed to style and to run (Content Security Policy, level 2).
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256
from importlib.resources import files
from typing import Any

from appid.cli.ladder import NOTHING
from appid.cli.page import ladder, media, timeline
from appid.cli.page.markup import Html, el, join
from appid.story import Story, Tale
from appid.story.plain import described
from appid.story.words import recounted

DETAILED = 50
"""Flows of no call whose evidence is listed."""


def page(story: Story) -> Iterator[str]:
    """The page, piece by piece: a long story is not held twice."""
    style, script = _own("page.css"), _own("page.js")
    title = f"appid explain: {_name(story)}"
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; base-uri 'none'; "
        "form-action 'none'"
    )
    yield "<!DOCTYPE html>\n"
    yield '<html lang="en">\n'
    yield el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=policy),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("meta", name="generator", content="appid"),
        el("title", title),
        el("style", Html(style)),
    )
    yield "\n<body>\n"
    first = ("call", "#t1") if story.tales or not story.others else ("flow", "#others")
    yield el("a", f"Skip to the first {first[0]}", class_="skip", href=first[1])
    yield _head(story)
    yield "<main>\n"
    colours = timeline.Colours(story)
    for number, tale in enumerate(story.tales, 1):
        yield from _tale(story, tale, number, colours)
    if story.others:
        yield _others(story, colours)
    if not story.tales and not story.others:
        yield el("p", NOTHING, id="t1")
    yield "</main>\n"
    yield el("footer", "Written by appid. Packet numbers are the capture's frame numbers.")
    yield el("script", Html(script))
    yield "\n</body></html>\n"


def _own(name: str) -> str:
    return (files(__name__) / name).read_text(encoding="utf-8")


def _hash(source: str) -> str:
    return f"sha256-{b64encode(sha256(source.encode()).digest()).decode()}"


def _name(story: Story) -> str:
    return str(story.capture["file"]).rpartition("/")[2] if story.capture else "running gateway"


def _head(story: Story) -> Html:
    facts: list[tuple[str, str]] = []
    if story.capture and story.capture["first"] is not None:
        first, last = story.capture["first"], story.capture["last"]
        facts += [("from", f"{datetime.fromtimestamp(first, UTC):%Y-%m-%d %H:%M:%S} UTC"),
                  ("for", timeline.duration(last - first))]  # fmt: skip
    names = ("packets", "flows", "calls", "pinholes", "anomalies", "drops")
    facts += [(name, f"{story.summary[name]:,}") for name in names if name in story.summary]
    links = [el("li", el("a", heading(tale), href=f"#t{number}")) for number, tale in enumerate(story.tales, 1)]
    if story.others:
        links.append(el("li", el("a", "Other flows", href="#others")))
    return el(
        "header",
        el("p", "appid explain", class_="brand"),
        el("h1", _name(story)),
        el("dl", [el("div", el("dt", name), el("dd", value)) for name, value in facts], class_="facts"),
        el("nav", el("ul", links), aria_label="Contents") if len(links) > 1 else None,
        id="top",
    )


def heading(tale: Tale) -> str:
    told = tale.told
    return f"{told['type'].capitalize()} {told['id']}: {told['application']}"


def _tale(story: Story, tale: Tale, number: int, colours: timeline.Colours) -> Iterator[Html]:
    yield Html(f'<section class="tale" id="t{number}" aria-labelledby="h{number}">\n')
    yield el("h2", heading(tale), id=f"h{number}")
    yield join([_outline(tale), _parties(tale), timeline.draw(story, tale, colours)])
    yield from ladder.draw(tale, number)
    yield join([media.streams(tale), media.descriptions(tale)])
    yield _evidence(tale.flows, "Why each flow has its name", colours)
    yield Html("</section>\n")


def _outline(tale: Tale) -> Html | None:
    told = tale.told
    if told["type"] != "call":
        return None
    who = f"{told['caller']} calls {told['callee']}. " if told["caller"] and told["callee"] else ""
    parts = [f"{who}Started at packet {told['started_at']}"]
    if told["answered_at"]:
        parts.append(f"answered at {told['answered_at']}")
    parts.append(f"ended at {told['ended_at']} ({told['end']})" if told["ended_at"] else "still open")
    call_id = el("span", "Call-ID ", el("code", told["call_id"]), class_="quiet") if told["call_id"] else None
    media = el("p", "Media: ", "; ".join(map(described, told["media"])), ".") if told["media"] else None
    return el("div", el("p", ", ".join(parts), ". ", call_id), media, class_="outline")


def _parties(tale: Tale) -> Html:
    rows = [el("div", el("dt", party.name), el("dd", ", ".join(party.addresses))) for party in tale.parties]
    return el("dl", rows, class_="parties")


def _evidence(flows: list[dict[str, Any]], title: str, colours: timeline.Colours) -> Html:
    """A row for each flow: its numbers, its name, the facts that counted."""
    heads = ("flow", "from", "to", "application", "packets", "bytes", "because")
    rows = [
        el(
            "tr",
            el("td", flow["id"], class_="num"),
            el("td", f"{flow['proto']} ", el("code", timeline.end(flow["src"], flow["sport"]))),
            el("td", el("code", timeline.end(flow["dst"], flow["dport"]))),
            el("td", colours.key(flow["application"]), flow["application"],
               el("span", f" {flow['confidence']}" if flow["confidence"] else "", class_="quiet")),
            el("td", f"{flow['packets']:,}", class_="num"),
            el("td", f"{flow['bytes']:,}" if flow["bytes"] is not None else "-", class_="num"),
            el("td", el("ul", [_reason(reason) for reason in flow["because"]], class_="because")),
            data_flow=flow["id"], data_packets=flow["packets"], data_bytes=flow["bytes"],
            data_application=flow["application"],
        )
        for flow in flows
    ]  # fmt: skip
    head = el(
        "thead", el("tr", [el("th", name, scope="col", class_="num" if name in NUMBERS else None) for name in heads])
    )
    return join([el("h3", title), el("div", el("table", head, el("tbody", rows), class_="flows"), class_="scroll",
                                     tabindex="0", role="region", aria_label=title)])  # fmt: skip


NUMBERS = ("flow", "packets", "bytes")


def _reason(reason: dict[str, Any]) -> Html:
    facts = el("span", recounted(reason["facts"]), class_="quiet")
    return el("li", el("b", reason["signature"]), f" in {reason['packet']}: ", facts)


def _others(story: Story, colours: timeline.Colours) -> Html:
    shown = story.others[:DETAILED]
    served = len({flow["id"] for tale in story.tales for flow in tale.flows})
    more = max(story.summary.get("flows", len(story.others) + served) - served - len(shown), 0)
    return el(
        "section",
        el("h2", "Other flows" if story.tales else "Flows"),
        timeline.others(story, shown, colours),
        _evidence(shown, "Why each flow has its name", colours),
        el("p", f"{more:,} more are not listed here; appid explain --json has all.", class_="quiet") if more else None,
        id="others", class_="tale",
    )  # fmt: skip


__all__ = ["page"]
