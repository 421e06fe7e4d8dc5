"""`appid explain`: its exit status, its JSON lines, one call or flow alone, memory and progress on a large capture."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from appid.cli import explain
from appid.cli.main import main
from appid.edge.capture import Writer
from tests.bench.captures import shared_captures
from tests.bench.replicate import replicate
from tests.corpus import sessions
from tests.corpus.writer import Capture, End

SMALL, LARGE = 30_000, 1_000_000
LIMIT = 500_000_000
"""Bytes: the issue's bound for a million packets."""


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("explain") / "session5.pcap"
    sessions.build(5).capture.save(path)
    return path


def told(capsys: pytest.CaptureFixture[str], *arguments: object, status: int = 0) -> list[dict[str, Any]]:
    assert main(["explain", "--json", *map(str, arguments)]) == status
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_table_for_people(capture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(capture)]) == 0
    out = capsys.readouterr().out
    assert "call 1, facetime" in out
    assert "call 2, facetime" in out
    assert "Flows that belong to no call" in out


@pytest.mark.parametrize("command", ["explain", "check"])
def test_a_file_name_does_not_reach_the_terminal_as_it_is(
    command: str, capture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Captures come from elsewhere, with names that someone else chose."""
    named = tmp_path / "a\x1b[2Jb.pcap"
    named.symlink_to(capture)
    assert main([command, str(named)]) == 0
    assert main([command, str(named) + "\x1b[31m"]) == 2
    told = capsys.readouterr()
    assert "b.pcap" in told.out
    assert "\x1b" not in told.out + told.err


def test_one_call_one_flow_none(capture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    calls = told(capsys, capture, "--call", 2)
    assert {line["id"] for line in calls if line["type"] == "call"} == {2}
    flow = told(capsys, capture, "--flow", 1)
    assert [line["id"] for line in flow if line["type"] == "flow"] == [1]
    assert any(line["type"] == "step" for line in flow)
    assert told(capsys, capture, "--call", 7, status=1)[-1]["type"] == "summary"


def test_faults_are_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(tmp_path / "none.pcap")]) == 2
    assert main(["explain"]) == 2
    assert main(["explain", "x.pcap", "--live"]) == 2
    config = tmp_path / "appid.toml"
    config.write_text(f'[listen]\ncontrol = "{tmp_path / "none.sock"}"\n')
    assert main(["explain", "--live", "-c", str(config)]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 4
    assert errors[-1].startswith("appid: no gateway answers at ")


def test_a_capture_cut_short_is_told_so_far(capture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut = tmp_path / "cut.pcap"
    cut.write_bytes(capture.read_bytes()[:300_000])
    lines = told(capsys, cut, status=2)
    assert any(line["type"] == "call" for line in lines)


def test_an_empty_capture_has_no_story(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "empty.pcap"
    with Writer(path, 1):
        pass
    assert main(["explain", str(path)]) == 0
    assert "0 packets" in capsys.readouterr().out


def test_progress_is_sparse_without_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    say = explain.progress("big.pcap")
    say(20_000)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(explain, "SPARSE", 0.0)
    say(40_000)
    assert capsys.readouterr().err == "appid: big.pcap: 40,000 packets\n"


def largest(output: Path, *arguments: str) -> tuple[int, str]:
    """(most memory in bytes, stderr) of a run in a process of its own."""
    with output.open("wb") as out:
        run = subprocess.run(
            [sys.executable, "-c", MEASURED, *arguments], stdout=out, stderr=subprocess.PIPE, text=True, check=True,
        )  # fmt: skip
    return int(run.stderr.splitlines()[-1]) * 1024, run.stderr


@pytest.mark.parametrize("seed", range(6))
def test_a_damaged_capture_is_told_as_far_as_it_goes(
    seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Session 1's first 320 packets, each second one with bytes changed behind its transport header."""
    rng = random.Random(seed)
    capture = sessions.build(1).capture
    damaged = []
    for when, data in capture.frames[:320]:
        raw = bytearray(data)
        for _ in range(rng.randrange(3)):
            raw[rng.randrange(42, len(raw))] = rng.randrange(256)
        damaged.append((when, bytes(raw)))
    capture.frames = damaged
    path, page = tmp_path / "damaged.pcap", tmp_path / "page.html"
    capture.save(path)
    assert main(["explain", str(path), "--html", str(page)]) == 0
    assert main(["explain", str(path)]) == 0
    text = capsys.readouterr().out
    assert all(line.isprintable() for line in text.splitlines())
    assert page.read_text().endswith("</body></html>\n")
    for line in told(capsys, path):
        assert line["type"]


@pytest.mark.parametrize("part", [pytest.param(1, marks=pytest.mark.slow), 24], ids=["all", "some"])
def test_other_people_s_captures_have_stories(part: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in shared_captures()[::part]:
        if path.stat().st_size < 20_000_000:
            assert main(["explain", str(path), "--html", str(tmp_path / "page.html")]) in (0, 2), path
            assert main(["explain", str(path)]) in (0, 2), path
            faults = [line for line in capsys.readouterr().err.splitlines() if "a fault of appid itself" in line]
            assert faults == []


MEASURED = """
import sys
from appid.cli import explain
from appid.cli.main import main
explain.SPARSE = 0.0
status = main(["explain", *sys.argv[1:]])
print(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0], file=sys.stderr)
sys.exit(status)
"""


def replicated(folder: Path, packets: int, mixed: bool) -> Path:
    """Calls over and over; or whatever other people captured, some 100,000 flows in a million packets."""
    sources = [path for path in shared_captures() if path.stat().st_size < 2_000_000] if mixed else []
    random.Random(1).shuffle(sources)
    for number in () if sources else (1, 3, 5):
        sources.append(folder / f"{number}.pcap")
        sessions.build(number).capture.save(sources[-1])
    path = folder / "many.pcap"
    replicate(sources, path, packets)
    return path


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("packets", "mixed"), [(SMALL, False), pytest.param(LARGE, False, marks=pytest.mark.slow),
                                                pytest.param(LARGE, True, marks=pytest.mark.slow)])  # fmt: skip
def test_memory_stays_small_and_progress_is_shown(packets: int, mixed: bool, tmp_path: Path) -> None:
    path = replicated(tmp_path, packets, mixed)
    for more in ([], ["--html", str(tmp_path / "page.html")]):
        memory, errors = largest(tmp_path / "out", str(path), *more)
        print(f"{packets} packets {more[:1]}: {memory / 1e6:.0f} MB")
        assert memory < (LIMIT if packets == LARGE else 200_000_000)
        assert "many.pcap: " in errors
        assert " packets" in errors
        if not more and not mixed:
            assert (tmp_path / "out").read_text().count("\ncall ") >= packets // 10_000
    assert mixed or (tmp_path / "page.html").read_text().count('<section class="tale" id="t') >= packets // 10_000


TERMINAL = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202eevil\u2066 \x00\x7f\u2028"
"""Clears the screen, names the window, turns words round (U+202E), ends a line where no newline is."""


def obeyed(folder: Path) -> Path:
    """Every text that a sender chooses, as a terminal would obey it: SIP, SDP, HTTP, STUN, DNS."""
    capture = Capture(1_700_000_000.0)
    client, server = End("10.0.0.2", 5060), End("198.51.100.9", 5060)
    body = f"v=0\r\no={TERMINAL} 0 0 IN IP4 10.0.0.2\r\ns={TERMINAL}\r\nc=IN IP4 10.0.0.2\r\n"
    body += f"m=audio 5000 RTP/AVP 0\r\na=rtpmap:0 {TERMINAL}/8000\r\na={TERMINAL}\r\n"
    head = (
        f"v: SIP/2.0/UDP 10.0.0.2;branch=z9hG4bK1\r\nf: <sip:a@b>;tag=1\r\ni: {TERMINAL}\r\nUser-Agent: {TERMINAL}\r\n"
    )
    rest = f"CSeq: 1 INVITE\r\nc: application/sdp\r\nl: {len(body.encode())}\r\n\r\n{body}"
    capture.udp(client, server, f"INVITE sip:a@b SIP/2.0\r\n{head}t: <sip:c@d>\r\n{rest}".encode())
    capture.udp(server, client, f"SIP/2.0 200 {TERMINAL}\r\n{head}t: <sip:c@d>;tag=2\r\n{rest}".encode())
    text = TERMINAL.encode()[:60]
    software = (0x8022).to_bytes(2, "big") + len(text).to_bytes(2, "big") + text + bytes(-len(text) % 4)
    stun = b"\0\1" + len(software).to_bytes(2, "big") + b"\x21\x12\xa4\x42" + b"t" * 12 + software
    capture.udp(End("10.0.0.2", 5000), End("198.51.100.9", 3478), stun)
    query = bytes.fromhex("1b5f01000001000000000000") + bytes([len(text)]) + text + b"\0\0\1\0\1"
    capture.udp(End("10.0.0.2", 5001), End("198.51.100.9", 53), query)
    path = folder / "hostile.pcap"
    capture.save(path)
    return path


@pytest.mark.parametrize("asked", [[], ["--flow", "1"], ["--flow", "2"], ["--flow", "3"], ["--json"]])
def test_a_sender_s_text_commands_no_terminal_and_no_page(
    asked: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, html = obeyed(tmp_path), tmp_path / "page.html"
    assert main(["explain", str(path), *asked]) == 0
    assert main(["explain", str(path), "--html", str(html), *asked]) == 0
    told = capsys.readouterr()
    for text in (told.out, told.err, html.read_text()):
        assert [c for c in set(text) if not c.isprintable() and c != "\n"] == []
        assert "\u202e" not in text
    assert "owned" in told.out, "it is shown, only not obeyed"


def test_an_answer_in_the_words_of_the_offer_is_an_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steps = [line["what"] for line in told(capsys, obeyed(tmp_path)) if line["type"] == "step"]
    assert steps[0] == "SIP INVITE, SDP offer"
    assert steps[1].endswith(", SDP answer")


def test_where_nothing_is_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No frame, frames of no known link type, no file: the last leaves an earlier page alone."""
    empty, foreign, page = tmp_path / "empty.pcap", tmp_path / "foreign.pcap", tmp_path / "page.html"
    with Writer(empty, 1):
        pass
    with Writer(foreign, 147) as writer:
        writer.write(1_700_000_000_000_000_000, b"abcdefgh")
    for path in (empty, foreign):
        assert main(["explain", str(path)]) == 0
        assert main(["explain", str(path), "--html", str(page)]) == 0
        assert "Nothing to tell" in page.read_text()
    out, err = capsys.readouterr()
    assert out.count("Nothing to tell: no flow was seen.") == 2
    assert err.splitlines()[0].endswith("1 frames of link type 147 cannot be read")
    before = page.read_text()
    assert main(["explain", str(tmp_path / "none.pcap"), "--html", str(page)]) == 2
    assert page.read_text() == before
