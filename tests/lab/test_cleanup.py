"""Ctrl-C at any moment: no namespace, process, rule, set or file is left, and the host's own are as before.

The demo runs as a child with a mark in its environment, which every process it starts inherits.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.lab.net import ROOT, run

pytestmark = pytest.mark.kernel
INTERRUPTED = 130


@dataclass(frozen=True)
class Host:
    """What the demo must leave alone, without counters and comments."""

    iptables: str
    sets: str
    links: str

    @staticmethod
    def now() -> Host:
        saved = run("iptables-save", check=False) + run("ip6tables-save", check=False)
        rules = [line.split(" [")[0] for line in saved.splitlines() if not line.startswith("#")]
        return Host("\n".join(rules), run("ipset", "list", check=False), run("ip", "-o", "link"))


def _processes(mark: str) -> list[str]:
    """Command lines of processes that carry the mark."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark.encode() in (entry / "environ").read_bytes():
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


def _start(mark: str, directory: Path, name: str) -> subprocess.Popen[bytes]:
    argv = (sys.executable, "-m", "tests.lab.demo", "--seconds", "5", "--run", name, "--directory", str(directory))
    return subprocess.Popen(
        argv, cwd=ROOT, env={**os.environ, "LAB_MARK": mark}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["control", "1"])
@pytest.mark.parametrize(
    ("seconds", "how"),
    [(0.05, signal.SIGINT), (0.55, signal.SIGINT), (0.9, signal.SIGTERM), (2.0, signal.SIGINT), (5.5, signal.SIGINT)],
    ids=["at-once", "building", "starting", "before-the-call", "in-the-call"],
)
def test_nothing_is_left(name: str, seconds: float, how: signal.Signals, tmp_path: Path) -> None:
    before = Host.now()
    mark = f"lab-{os.getpid()}-{name}-{seconds}"
    child = _start(mark, tmp_path, name)
    time.sleep(seconds)
    os.killpg(child.pid, how)  # the whole foreground group, as a terminal does
    if seconds > 1:
        time.sleep(0.05)
        os.killpg(child.pid, how)  # an impatient user
    status = child.wait(30)
    assert status == INTERRUPTED or seconds < 0.5  # a Python that has not begun yet just dies
    assert _processes(mark) == []
    assert f"appid-{child.pid}-" not in run("ip", "netns", "list")
    assert not list(Path("/tmp").glob(f"appid-{child.pid}-*"))
    assert Host.now() == before
