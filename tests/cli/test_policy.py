"""`appid policy lint`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from appid.cli.main import main

ZONES = '[zones]\ninside = { networks = ["172.16.42.0/24"] }\noutside = {}\n'
CALLS = '[[rule]]\nname = "calls"\napplications = ["facetime"]\naction = "allow"\n'
NEEDED = ("sip", "stun", "ssl", "jabber", "ichat-av", "turn", "apple-push")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "policy.toml"


def test_point_7_a_policy_with_warnings_is_status_0_and_1_with_strict(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(ZONES + CALLS)
    assert main(["policy", "lint", str(file)]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"warning: {file}: dependency: rule 'calls' allows facetime")
    assert all(name in line for name in NEEDED)
    assert main(["policy", "lint", "--strict", str(file)]) == 1


def test_a_policy_without_findings_is_status_0_with_strict(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ", ".join(f'"{name}"' for name in ("facetime", *NEEDED))
    file.write_text(ZONES + f'[[rule]]\nname = "calls"\napplications = [{names}]\naction = "allow"\n')
    assert main(["policy", "lint", "--strict", str(file)]) == 0
    assert capsys.readouterr().out == f"{file}: 1 rules, nothing to say\n"


def test_errors_are_status_1_one_line_each(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(ZONES + CALLS.replace("facetime", "facetme") + 'from = ["insde"]\n')
    assert main(["policy", "lint", str(file)]) == 1
    assert capsys.readouterr().err.splitlines() == [
        f"error: {file}: rule[1]: from: no zone 'insde'",
        f"error: {file}: rule[1]: applications: no application, group or filter 'facetme'",
    ]


def test_json(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(ZONES + CALLS + CALLS.replace('"calls"', '"again"'))
    assert main(["policy", "lint", "--json", str(file)]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["type"], row["kind"], row["rule"]) for row in rows] == [
        ("warning", "dependency", "calls"), ("warning", "shadowed", "again"),
    ]  # fmt: skip
    assert tuple(rows[0]["others"]) == NEEDED
    file.write_text("colour = 1\n")
    assert main(["policy", "lint", "--json", str(file)]) == 1
    error = json.loads(capsys.readouterr().out)
    assert error == {"type": "error", "file": str(file), "table": "", "key": "colour", "reason": "no such key"}


def test_a_file_that_cannot_be_read_is_status_2(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "lint", str(file)]) == 2
    assert capsys.readouterr().err == f"appid: {file}: No such file or directory\n"
    assert main(["policy", "lint", str(file.parent)]) == 2


def test_the_schema_is_that_of_the_reference(capsys: pytest.CaptureFixture[str]) -> None:
    published = Path(__file__).resolve().parents[2] / "docs/reference/policy.schema.json"
    assert main(["policy", "schema"]) == 0
    assert capsys.readouterr().out == published.read_text()


def test_a_gateway_that_does_not_run_is_status_2(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = file.with_name("appid.toml")
    config.write_text(f'[listen]\ncontrol = "{file.parent}/none.sock"\n')
    file.write_text(ZONES + CALLS)
    assert main(["policy", "load", str(file), "-c", str(config)]) == 2
    assert main(["policy", "load", str(file.with_name("none.toml")), "-c", str(config)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_more_values_of_dscp_than_the_connmark_has_room_for_are_an_error(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(
        "".join(f'[[rule]]\nname = "r{i}"\naction = "allow"\nto = "any"\ndscp = {i}\n' for i in range(1, 17))
    )
    config = file.with_name("appid.toml")
    config.write_text("[gateway]\n")
    assert main(["policy", "lint", str(file), "-c", str(config)]) == 1
    assert capsys.readouterr().err.startswith(f"error: {file}: rule[16]: dscp: the 16th different value")
    config.write_text("[gateway]\nqos_mask = 0xff000000\n")
    assert main(["policy", "lint", str(file), "-c", str(config)]) == 0


def test_zones_of_interfaces_alone_are_told_where_nothing_says_which_is_outside(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    zones = '[zones]\nlan = { interfaces = ["lan0"] }\nwan = { interfaces = ["wan0"]%s }\n'
    file.write_text(zones % "")
    assert main(["policy", "lint", "--json", str(file)]) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["type"], row["kind"], row["others"]) == ("warning", "zones", ["lan", "wan"])
    file.write_text(zones % ", outside = true")
    assert main(["policy", "lint", "--strict", str(file)]) == 0


def test_load_without_a_gateway_is_one_line_that_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, policy = tmp_path / "appid.toml", tmp_path / "policy.toml"
    config.write_text(f'[listen]\ncontrol = "{tmp_path}/none.sock"\n')
    policy.write_text("")
    assert main(["policy", "load", str(policy), "-c", str(config)]) == 2
    assert capsys.readouterr().err == f"appid: no gateway answers at {tmp_path}/none.sock\n"
