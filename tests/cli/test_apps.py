"""`appid apps`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from appid.cli.main import main
from appid.edge.rule_files import load_applications


def test_the_table_lists_every_application(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["apps"]) == 0
    firsts = {line.split(" ", 1)[0] for line in capsys.readouterr().out.splitlines()}
    assert firsts >= set(load_applications())


def test_one_in_full_prints_each_signature_with_its_source_and_era(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["apps", "facetime"]) == 0
    out = capsys.readouterr().out
    for signature in load_applications()["facetime"].signatures:
        assert f" {signature.name} (" in out
        assert f"source {signature.source}\n" in out
        assert f"era    {signature.era}\n" in out
    assert "depends on       sip, stun, ssl, jabber, ichat-av" in out
    assert "udp/16393-16402" in out
    assert "17.0.0.0/8 or 57.102.0.0/15" in out  # a list of networks is one signature to people


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["apps", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["name"] for row in rows] == list(load_applications())
    assert main(["apps", "facetime", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) in rows


def test_an_unknown_name_is_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["apps", "nought"]) == 1
    assert capsys.readouterr().err == "appid: no application 'nought'\n"


def test_the_operators_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ours.toml").write_text('name = "ours"\ndescription = "x"\ncategory = "x"\nrisk = 1\n')
    assert main(["apps", "ours", "--rules", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("ours: x\n")
    (tmp_path / "ours.toml").write_text("risk = 9\n")
    assert main(["apps", "--rules", str(tmp_path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 4
