"""`appid doctor`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from appid.cli.main import main
from tests.netns.live import ALL, ZONES
from tests.netns.net import Net

pytestmark = pytest.mark.kernel


def test_status_and_lines(bare: Net, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "policy.toml").write_text(ZONES + ALL)
    config = tmp_path / "appid.toml"
    config.write_text(
        f'[gateway]\niptables = "nft"\n[paths]\npolicy = "{tmp_path}/policy.toml"\nrules = "{tmp_path}/r"\n'
    )
    assert bare.gateway.call(lambda: main(["doctor", "-c", str(config)])) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines} == {"note"}
    bare.gateway.run("iptables-nft", "-A", "FORWARD", "-j", "NFQUEUE", "--queue-num", "0")
    assert bare.gateway.call(lambda: main(["doctor", "--json", "-c", str(config)])) == 1
    first = json.loads(capsys.readouterr().out.splitlines()[0])
    assert (first["type"], first["weight"], first["about"]) == ("finding", "problem", "queue")
