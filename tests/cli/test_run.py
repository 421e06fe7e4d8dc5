"""`appid run` refuses what it cannot run with: every fault, one line each, before it touches the kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

from appid.cli.main import main


def test_a_missing_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "-c", str(tmp_path / "none.toml")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "none.toml" in line


def test_a_missing_or_bad_policy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, policy = tmp_path / "appid.toml", tmp_path / "policy.toml"
    config.write_text(f'[paths]\npolicy = "{policy}"\nrules = "{tmp_path}/rules"\n')
    assert main(["run", "-c", str(config)]) == 2
    assert "policy.toml" in capsys.readouterr().err
    policy.write_text('[zones]\ninside = {}\n[[rule]]\nname = "a"\naction = "perhaps"\n')
    assert main(["run", "-c", str(config)]) == 2
    err = capsys.readouterr().err
    assert "action" in err
    assert "Traceback" not in err


def test_faults_of_the_configuration_are_told_all_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "appid.toml"
    config.write_text('[gateway]\nworkers = "many"\nfirst_queue = -1\nno_such_key = 1\n')
    assert main(["run", "-c", str(config)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all("appid.toml" in line for line in lines)
