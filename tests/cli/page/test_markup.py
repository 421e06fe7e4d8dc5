"""Markup: text stays text, whatever it says."""

from __future__ import annotations

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from appid.cli.page.markup import Html, el, join, text


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.read = ""
        self.values: list[str | None] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.values += [value for _, value in attrs]

    def handle_data(self, data: str) -> None:
        self.read += data


def read(markup: str) -> Reader:
    reader = Reader()
    reader.feed(markup)
    reader.close()
    return reader


@given(st.text())
def test_any_text_comes_back_as_text(hostile: str) -> None:
    reader = read(el("p", hostile, title=hostile))
    expected = "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in hostile)
    assert reader.tags == ["p"]
    assert reader.read == expected
    assert reader.values == [expected]


def test_elements_attributes_children() -> None:
    assert el("p", "a<b", el("b", 1), None, ["c", el("br")], class_="x", hidden=True, title=None, lang=False) == (
        '<p class="x" hidden>a&lt;b<b>1</b>c<br></p>'
    )
    assert el("svg", el("rect", x=1), viewbox="0 0 1 1") == '<svg viewBox="0 0 1 1"><rect x="1"/></svg>'
    assert join(["a", Html("<i>")]) == "a<i>"
    assert text("\x00'\"") == "\ufffd&#x27;&quot;"
