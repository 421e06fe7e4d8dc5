"""HTML by value: whatever is not markup already is escaped, so a sender's text can be nothing but text.

In: names, attributes, children. Out: Html, which only this module makes.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

VOID = frozenset({"meta", "br", "hr", "circle", "path", "rect", "line", "use"})
"""Elements that are written without an end: HTML's void ones, and SVG shapes that close themselves."""
SVG = frozenset({"circle", "path", "rect", "line", "use"})


class Html(str):
    """Markup. Any other str is text."""

    __slots__ = ()


Child = str | int | float | Html | None | Iterable["Child"]


def text(value: object) -> Html:
    """Escaped, also for attributes; what HTML cannot hold (controls but for newline and tab) is U+FFFD."""
    raw = str(value)
    if not raw.isprintable():
        raw = "".join(c if c.isprintable() or c in "\n\t " else "\ufffd" for c in raw)
    return Html(escape(raw, quote=True))


def join(children: Iterable[Child]) -> Html:
    return Html("".join(map(_child, children)))


def _child(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Html):
        return child
    if isinstance(child, str | int | float):
        return text(child)
    return join(child)


def el(name: str, /, *children: Child, **attributes: object) -> Html:
    """An element. `class_`, `for_`: without the underscore; other underscores are hyphens; None and False are left out,
    True has no value."""
    written = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        spelled = key.rstrip("_").replace("_", "-")
        spelled = {"viewbox": "viewBox", "preserveaspectratio": "preserveAspectRatio"}.get(spelled, spelled)
        written.append(spelled if value is True else f'{spelled}="{text(value)}"')
    head = " ".join(written)
    if name in VOID:
        return Html(f"<{head}/>" if name in SVG else f"<{head}>")
    return Html(f"<{head}>{join(children)}</{name}>")
