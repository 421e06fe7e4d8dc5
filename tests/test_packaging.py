"""What packaging/ holds for other programs to read."""

from __future__ import annotations

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest

UNIT = Path(__file__).resolve().parent.parent / "packaging/systemd/appid.service"


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
