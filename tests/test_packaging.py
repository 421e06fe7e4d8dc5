"""What packaging/ holds for other programs to read."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from appid.edge.rule_files import load_applications

ROOT = Path(__file__).resolve().parent.parent
UNIT = ROOT / "packaging/systemd/appid.service"


def test_the_unit_keeps_two_capabilities_and_the_files_where_the_defaults_are() -> None:
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(UNIT)
    service = unit["Service"]
    assert service["Type"] == "notify"
    assert set(service["CapabilityBoundingSet"].split()) == {"CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_CHOWN"}
    assert {service[name] for name in ("RuntimeDirectory", "StateDirectory", "LogsDirectory")} == {"appid"}
    assert service["RestartPreventExitStatus"].split() == ["2", "3"], (
        "what a restart does not mend (contract: exit status)"
    )


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="the host has no systemd to ask")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    copy = tmp_path / "appid.service"
    copy.write_text(UNIT.read_text().replace("/usr/bin/appid", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_what_is_built_runs_from_an_empty_environment(kind: str, tmp_path: Path) -> None:
    """Installed with its dependencies from the index, asked from another folder, with the rules that it carries."""

    def run(*command: str | Path) -> str:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500, cwd=tmp_path, env=own)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    own = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    builder, place = tmp_path / "builder", tmp_path / "place"
    for environment in (builder, place):
        run(sys.executable, "-m", "venv", environment)
    run(builder / "bin/pip", "install", "-q", "build")
    run(builder / "bin/python", "-m", "build", f"--{kind}", "--outdir", tmp_path / "dist", ROOT)
    (built,) = (tmp_path / "dist").iterdir()
    run(place / "bin/pip", "install", "-q", built)
    known = run(place / "bin/appid", "apps")
    assert set(known.split()) >= set(load_applications())
    assert "facetime" in run(place / "bin/appid", "apps", "facetime")
    where = run(place / "bin/python", "-c", "import appid; print(appid.__file__)")
    assert where.startswith(str(place)), "not this tree"
    (policy,) = (ROOT / "rules/policy").glob("facetime*.toml")
    (tmp_path / "policy.toml").write_text(policy.read_text())
    run(place / "bin/appid", "policy", "lint", tmp_path / "policy.toml")
