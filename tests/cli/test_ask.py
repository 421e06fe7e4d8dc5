"""`appid flows | calls | pinholes | stats`: what the running gateway answers, as a table and as JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appid.cli.main import main
from tests.cli.gateway import answering

FLOW = {
    "type": "flow", "id": 1, "proto": "udp", "src": "fd00:ab::1", "sport": 16402, "dst": "2001:db8::1", "dport": 3478,
    "application": "facetime", "confidence": "conclusive", "packets": 900, "userspace_packets": 3,
    "decision": {"action": "allow", "rule": "calls [/x]"},
}  # fmt: skip


def answer(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    match request["ask"]:
        case "flows":
            yield FLOW
        case "stats":
            yield {"type": "stats", "packets": 12, "flows": 3, "refused": {"deny": 6, "drop": 0}, "monitor": False,
                   "applications": {"dns": {"flows": 2, "seconds": 0.25}}, "policy_warnings": ["one", "two"],
                   "dropped": {}}  # fmt: skip
        case "pinholes":
            yield {"type": "error", "reason": "the kernel does not answer"}


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Path]:
    """The configuration of a gateway that answers."""
    with answering(tmp_path, answer) as path:
        yield path


def test_json_is_the_answer_itself(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["flows", "-c", str(config), "--json"]) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [FLOW]


def test_the_table_shows_what_it_is(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    assert main(["flows", "-c", str(config)]) == 0
    out = capsys.readouterr().out
    for shown in ("facetime", "fd00:ab::1", "16402", "allow (calls [/x])", "userspace"):
        assert shown in out


def test_an_empty_answer_and_single_values(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calls", "-c", str(config)]) == 0
    assert main(["calls", "-c", str(config), "--json"]) == 0
    assert main(["stats", "-c", str(config)]) == 0
    assert capsys.readouterr().out.splitlines()[-10:] == [
        "type: stats", "packets: 12", "flows: 3", "refused: deny 6, drop 0", "monitor: no",
        "applications: dns (flows 2, seconds 0.250)", "policy_warnings: ", "  one", "  two", "dropped: none",
    ]  # fmt: skip


@pytest.mark.parametrize(("view", "state"), [("flows", "open"), ("calls", "deny"), ("pinholes", "nonsense")])
def test_a_state_that_cannot_be_is_a_fault_of_usage(
    view: str, state: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not an empty answer, which would say that there is none."""
    assert main([view, "-c", str(config), "--state", state]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"invalid choice: '{state}'" in line


def test_an_error_is_told_and_is_the_status(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pinholes", "-c", str(config)]) == 1
    assert capsys.readouterr().err == "appid: the kernel does not answer\n"


def test_no_gateway_is_status_2_and_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "appid.toml"
    path.write_text(f'[listen]\ncontrol = "{tmp_path}/none.sock"\n')
    assert main(["flows", "-c", str(path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("appid: ")
