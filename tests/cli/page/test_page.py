"""The page as a browser has it: nothing leaves it, nothing in it runs but its own script, it works by keyboard, in dark
mode, on paper, and its numbers are those of `appid check`."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appid.cli.main import main
from appid.cli.page import page
from appid.story import Step
from tests.cli.page.browser import Browser
from tests.corpus import sessions
from tests.corpus.writer import Capture, End, Tcp
from tests.story import tell

HOSTILE = "</script><img src=x onerror=alert(1)><svg onload=alert(1)>\"'`;--></style><script>alert(1)</script>"
"""No blank in some places where a header would end there."""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert shutil.which("chromium"), "packaging/install-dev brings it"
    with Browser(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The five sessions."""
    folder = tmp_path_factory.mktemp("pages")
    found = {}
    for number in range(1, 6):
        found[number] = folder / f"session{number}.html"
        with found[number].open("w", encoding="utf-8") as out:
            out.writelines(page(tell.session(number)))
    return found


# ---- self-contained ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(1, 6))
def test_it_asks_for_nothing_and_nothing_is_refused(number: int, browser: Browser, pages: dict[int, Path]) -> None:
    browser.open(pages[number])
    assert browser.requests == [pages[number].as_uri()]
    assert browser.faults == []
    assert browser.run("document.documentElement.classList.contains('js')")


def test_its_policy_lets_nothing_else_run(browser: Browser, pages: dict[int, Path]) -> None:
    """The policy is real: what is put into the page afterwards neither runs nor loads."""
    browser.open(pages[1])
    browser.run("""new Promise((done) => {
        const script = document.createElement('script'); script.textContent = 'window.ran = true';
        const image = document.createElement('img'); image.src = 'http://192.0.2.1/x.png';
        document.body.append(script, image);
        document.body.insertAdjacentHTML('beforeend',
          '<p id="styled" style="color: rgb(1, 2, 3)" onclick="window.ran = true">x</p>');
        document.getElementById('styled').click();
        setTimeout(done, 100);
    })""")
    assert browser.run("window.ran === undefined")
    assert browser.run("getComputedStyle(document.getElementById('styled')).color") != "rgb(1, 2, 3)"
    assert any("Content Security Policy" in fault for fault in browser.faults)
    assert [event["blockedReason"] for event in browser.seen("Network.loadingFailed")] == ["csp"]


def hostile(folder: Path) -> Path:
    """SIP, SDP, HTTP and TLS names that would be script."""
    capture = Capture(1_700_000_000.0)
    client, server = End("10.0.0.2", 5060), End("198.51.100.9", 5060)
    body = f"v=0\r\no={HOSTILE} 0 0 IN IP4 10.0.0.2\r\ns={HOSTILE}\r\nc=IN IP4 10.0.0.2\r\n"
    body += f"m=audio 5000 RTP/AVP 0\r\na={HOSTILE}\r\n"
    head = f'v: SIP/2.0/UDP 10.0.0.2;branch=z9hG4bK1\r\nf: "{HOSTILE}" <sip:a@b>;tag=1\r\n'
    head += f"i: {HOSTILE}\r\nUser-Agent: {HOSTILE}\r\n"
    sdp = f"c: application/sdp\r\nl: {len(body)}\r\n\r\n{body}"
    capture.udp(client, server, f"INVITE sip:a@b SIP/2.0\r\n{head}t: <sip:c@d>\r\nCSeq: 1 INVITE\r\n{sdp}".encode())
    capture.now += 0.1
    capture.udp(
        server, client, f"SIP/2.0 200 {HOSTILE}\r\n{head}t: <sip:c@d>;tag=2\r\nCSeq: 1 INVITE\r\n{sdp}".encode()
    )
    web = Tcp(capture, End("10.0.0.2", 40_000), End("198.51.100.9", 80), 1, 1)
    for _ in web.open():
        capture.now += 0.01
    web.send(f"GET /{HOSTILE.replace(' ', '')} HTTP/1.1\r\nHost: {HOSTILE}\r\n\r\n".encode(), True)
    path = folder / "<img src=x onerror=alert(1)>.pcap"
    capture.save(path)
    return path


@pytest.mark.parametrize("asked", [[], ["--flow", "1"], ["--flow", "2"]])
def test_a_hostile_sender_runs_nothing(asked: list[str], browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    assert main(["explain", str(hostile(tmp_path)), "--html", str(path), *asked]) == 0
    browser.open(path)
    assert browser.faults == []
    assert browser.requests == [path.as_uri()]
    assert (
        browser.run("document.querySelectorAll('img, iframe, object, embed, [onload], [onerror], [onclick]').length")
        == 0
    )
    assert browser.run("document.scripts.length") == 1
    assert "onerror=alert(1)" in browser.run("document.body.textContent")


# ---- use -----------------------------------------------------------------------------------------------------------

ACTIVE = "document.activeElement"


def test_it_works_by_keyboard(browser: Browser, pages: dict[int, Path]) -> None:
    browser.open(pages[1])
    reached = []
    for _ in range(30):
        browser.key("Tab")
        reached.append(
            browser.run(f"{ACTIVE}.className + ' ' + ({ACTIVE}.dataset.act || {ACTIVE}.getAttribute('href') || '')")
        )
        if reached[-1].startswith("what"):
            break
    assert reached[0] == "skip #t1"
    assert [each.strip() for each in reached if each.strip() in ("out", "in", "few", "some", "all")] == [
        "out", "in", "few", "some", "all"]  # fmt: skip
    packet = f"Number({ACTIVE}.closest('li').dataset.packet)"
    assert browser.run(packet) == 60
    assert browser.run(f"{ACTIVE}.getAttribute('aria-expanded')") == "false"
    browser.key("Enter")
    assert browser.run(f"{ACTIVE}.getAttribute('aria-expanded')") == "true"
    assert (
        browser.run(f"getComputedStyle(document.getElementById({ACTIVE}.getAttribute('aria-controls'))).display")
        != "none"
    )
    browser.key("ArrowDown")
    assert browser.run(packet) == 64
    browser.key("End")
    assert browser.run(packet) == 5792
    browser.key("Home")
    browser.key("ArrowLeft")
    assert browser.run(f"{ACTIVE}.getAttribute('aria-expanded')") == "false"
    before = browser.run(f"parseFloat(getComputedStyle({ACTIVE}).fontSize)")
    browser.key("+")
    assert browser.run(f"parseFloat(getComputedStyle({ACTIVE}).fontSize)") > before
    browser.key("0")
    assert browser.run(f"parseFloat(getComputedStyle({ACTIVE}).fontSize)") == before
    browser.key("Tab")
    assert not browser.run(f"{ACTIVE}.classList.contains('what')"), "the ladder is one stop"


def test_folds_open_and_close(browser: Browser, pages: dict[int, Path]) -> None:
    browser.open(pages[1])
    shown = "[...document.querySelectorAll('.fold > .more')].filter((e) => e.checkVisibility()).length"
    assert browser.run(shown) == 0
    browser.run("document.querySelector('[data-act=all]').click()")
    assert browser.run(shown) == browser.run("document.querySelectorAll('.fold > .more').length") > 0
    browser.run("document.querySelector('[data-act=few]').click()")
    assert browser.run(shown) == 0
    assert not browser.run("document.querySelector('.effects').checkVisibility()")
    assert browser.run("document.querySelector('[data-act=few]').getAttribute('aria-pressed')") == "true"


CONTRAST = """(() => {
  const parse = (c) => { const m = c.match(/[\\d.]+/g).map(Number); return m.length > 3 ? m : [...m, 1]; };
  const linear = (v) => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => [r, g, b].map((v) => linear(v / 255))
    .reduce((sum, v, at) => sum + v * [.2126, .7152, .0722][at], 0);
  const behind = (e) => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor);
    if (c[3] === 1) return c; } return [255, 255, 255]; };
  const low = [];
  for (const e of document.querySelectorAll('body *')) {
    if (![...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()) || !e.checkVisibility()) continue;
    if (e.closest('script, style, title')) continue;
    const style = getComputedStyle(e);
    const [a, b] = [light(parse(e.closest('svg') ? style.fill : style.color)), light(behind(e))];
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) low.push(`${e.tagName}.${e.className} ${ratio.toFixed(2)} ${e.textContent.slice(0, 30)}`);
  }
  return low;
})()"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(scheme: Any, browser: Browser, pages: dict[int, Path]) -> None:
    """WCAG 2.1, 1.4.3: 4.5 to 1; and the dark page is dark."""
    browser.mode(scheme)
    try:
        browser.open(pages[5])
        browser.run("document.querySelector('[data-act=all]').click()")
        assert browser.run(CONTRAST) == []
        ground = browser.run("getComputedStyle(document.documentElement).backgroundColor.match(/\\d+/g).map(Number)")
        assert (sum(ground) < 3 * 60) is (scheme == "dark")
    finally:
        browser.mode("light")


@pytest.mark.parametrize("width", [1280, 800, 390])
@pytest.mark.parametrize("larger", [0, 6])
def test_it_fits_the_window(width: int, larger: int, browser: Browser, pages: dict[int, Path]) -> None:
    """Wide parts scroll by themselves; the page does not, and no text lies over another in the ladder."""
    browser.open(pages[4], width=width)
    for _ in range(larger):
        browser.run("document.querySelector('[data-act=in]').click()")
    assert browser.run("document.documentElement.scrollWidth") <= width
    overlapping = browser.run("""(() => {
      const boxes = [...document.querySelectorAll('.ladder li .n, .ladder li .t, .ladder .what, .ladder .effects li')]
        .filter((e) => e.checkVisibility() && e.textContent).map((e) => e.getBoundingClientRect());
      const over = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
        && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1;
      return boxes.filter((a, n) => boxes.slice(n + 1, n + 8).some((b) => over(a, b))).length;
    })()""")
    assert overlapping == 0


def test_lanes_stand_under_their_names(browser: Browser, pages: dict[int, Path]) -> None:
    """Also when zoomed, and in print, where the ladder's type has another size."""
    aligned = """(() => {
      const names = [...document.querySelectorAll('.names text')].map((e) => e.getBoundingClientRect());
      const lines = [...document.querySelectorAll('.lines line')].map((e) => e.getBoundingClientRect());
      return names.map((n, at) => Math.abs(n.left + n.width / 2 - lines[at].left));
    })()"""
    browser.open(pages[1])
    assert max(browser.run(aligned)) < 1.5
    browser.run("document.querySelector('[data-act=in]').click()")
    assert max(browser.run(aligned)) < 1.5
    browser.mode("light", "print")
    try:
        assert max(browser.run(aligned)) < 1.5
    finally:
        browser.mode("light")


def test_the_names_of_the_lanes_stay_in_sight(browser: Browser, pages: dict[int, Path]) -> None:
    """Half way down the longest ladder they stand at the top of the window."""
    browser.open(pages[5])
    browser.run("document.documentElement.style.scrollBehavior = 'auto'")
    browser.run("[...document.querySelectorAll('#t1l > ol > li')].at(25).scrollIntoView()")
    assert browser.run("scrollY") > 500
    assert browser.run("document.querySelector('#t1l .head').getBoundingClientRect().top") == 0


def test_on_paper_all_is_shown(browser: Browser, pages: dict[int, Path], tmp_path: Path) -> None:
    browser.mode("dark", "print")
    try:
        browser.open(pages[1])
        hidden = "[...document.querySelectorAll('.more, .effects')].filter((e) => !e.checkVisibility()).length"
        assert browser.run(hidden) == 0
        assert not browser.run("document.querySelector('.controls').checkVisibility()")
        assert browser.run("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"
        browser.size(794, 1123)  # A4 at 96 dots an inch
        assert browser.run("document.documentElement.scrollWidth") <= 794
        browser.pdf(tmp_path / "page.pdf")
    finally:
        browser.mode("light")
    assert (tmp_path / "page.pdf").read_bytes()[:5] == b"%PDF-"


def test_each_sheet_names_the_lanes(browser: Browser, pages: dict[int, Path], tmp_path: Path) -> None:
    """As poppler reads it: a sheet with arrows has their names, and what was folded on the screen."""
    browser.open(pages[1])
    browser.pdf(tmp_path / "page.pdf")
    text = subprocess.run(["pdftotext", "-layout", tmp_path / "page.pdf", "-"], capture_output=True, text=True).stdout
    sheets = text.split("\f")
    ladder = [n for n, sheet in enumerate(sheets) if re.search(r"^ *\d+ +\d+\.\d\d ", sheet, re.MULTILINE)]
    assert len(ladder) >= 4
    for number in ladder:
        assert re.search(r"client +relay +peer +web +courier", sheets[number]), number
    assert "USERNAME of 122, halves swapped" in text
    assert "a=imageattr:123 send" in text


def test_without_script_nothing_is_hidden(browser: Browser, pages: dict[int, Path]) -> None:
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(pages[1])
        assert browser.run("[...document.querySelectorAll('.more')].every((e) => e.checkVisibility())")
        assert not browser.run("document.querySelector('.controls').checkVisibility()")
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)


# ---- numbers -------------------------------------------------------------------------------------------------------


def test_the_same_numbers_as_every_other_view(
    browser: Browser, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`appid check --json`, `appid explain --json`, the ladder on a terminal and the page of one capture."""
    capture, path = tmp_path / "session1.pcap", tmp_path / "page.html"
    sessions.build(1).capture.save(capture)
    assert main(["check", "--json", str(capture)]) == 0
    checked = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert main(["explain", "--json", "--html", str(path), str(capture)]) == 0
    explained = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert main(["explain", str(capture)]) == 0
    terminal = re.sub(r"\s+", " ", capsys.readouterr().out)
    browser.open(path)
    rows = browser.run(
        "[...document.querySelectorAll('tr[data-flow]')].map((e) => ({...e.dataset, text: e.innerText}))"
    )
    flows = {int(row["flow"]): row for row in rows}
    for line in (line for line in checked if line["type"] == "flow"):
        row = flows[line["id"]]
        assert line in explained
        assert (int(row["packets"]), int(row["bytes"])) == (line["packets"], line["bytes"])
        assert f"{line['packets']:,}" in row["text"]
        assert f"{line['bytes']:,}" in row["text"]
        packets = f"{line['packets']:,} packet{'' if line['packets'] == 1 else 's'}"
        assert f"{line['application']}, {packets}, {line['bytes']:,} bytes" in terminal
    call = next(line for line in checked if line["type"] == "call")
    outline = browser.run("document.querySelector('.outline').innerText")
    for number in (call["started_at"], call["answered_at"], call["ended_at"]):
        assert str(number) in outline
    assert f"started at packet {call['started_at']}, answered at {call['answered_at']}" in terminal
    steps = {line["packet"]: line for line in explained if line["type"] == "step"}
    shown = browser.run("[...document.querySelectorAll('li[data-packet]')].map((e) => [e.dataset.packet, "
                        "e.querySelector('.t').innerText, e.dataset.bytes])")  # fmt: skip
    start = min(line["time"] for line in steps.values())
    assert {int(packet): (seconds, int(size)) for packet, seconds, size in shown} == {
        number: (f"{line['time'] - start:.2f}", line["bytes"]) for number, line in steps.items()
    }
    streams = browser.run("[...document.querySelectorAll('tr[data-ssrc]')].map((e) => [e.dataset.ssrc, "
                          "Number(e.dataset.packets), Number(e.dataset.lost), Number(e.dataset.bytes)])")  # fmt: skip
    assert streams == [
        [line["ssrc"], line["packets"], line["lost"], line["bytes"]] for line in explained if line["type"] == "stream"
    ]


def test_a_gateway_s_story_is_a_page_too() -> None:
    from appid.engine.record import DEFAULT_INSIDE, Topology
    from appid.story.recall import recall

    told = tell.told(1)
    flows, calls, holes = ([line for line in told if line["type"] == kind] for kind in ("flow", "call", "pinhole"))
    story = recall(flows, calls, holes, Topology(DEFAULT_INSIDE).inside)
    markup = "".join(page(story))
    assert "running gateway" in markup
    assert sum(isinstance(item, Step) for tale in story.tales for item in tale.items) == markup.count("data-packet=")
