"""Ctrl-C at any moment: no namespace, process, rule, set or file is left, and the host's own are as before.

The demo runs as a child with a mark in its environment, which every process it starts inherits.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
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
    """As from a terminal: a child of a background job would begin with SIGINT ignored."""
    argv = (sys.executable, "-m", "tests.lab.demo", "--seconds", "5", "--run", name, "--directory", str(directory))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(
            argv, cwd=ROOT, env={**os.environ, "LAB_MARK": mark}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
    finally:
        signal.signal(signal.SIGINT, before)


def _await(moment: str, pid: int, directory: Path) -> None:
    """Until the demo has come so far."""
    signs: dict[str, Callable[[], bool]] = {
        "at-once": lambda: True,
        "building": lambda: f"appid-{pid}-" in run("ip", "netns", "list"),
        "starting": lambda: any(directory.glob("*/lan0.pcap")),
        "before-the-call": lambda: any(directory.glob("*/before/conntrack.txt")),
        "ringing": lambda: any(directory.glob("*/ringing/conntrack.txt")),
        "in-the-call": lambda: any(directory.glob("*/direct/conntrack.txt")),
        "after-the-call": lambda: any(directory.glob("*/after/conntrack.txt")),
    }
    for _ in range(9000):
        if signs[moment]():
            return
        time.sleep(0.01)
    raise AssertionError(f"the demo never came to {moment}")


MOMENTS = ("at-once", "building", "starting", "before-the-call", "ringing", "in-the-call", "after-the-call")


@pytest.mark.timeout(240)
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("name", ["control", "1"])
def test_nothing_is_left(name: str, moment: str, tmp_path: Path) -> None:
    before = Host.now()
    mark = f"lab-{os.getpid()}-{name}-{moment}"
    child = _start(mark, tmp_path, name)
    _await(moment, child.pid, tmp_path)
    os.killpg(child.pid, signal.SIGTERM if moment == "starting" else signal.SIGINT)  # the group, as a terminal does
    if moment == "in-the-call":
        time.sleep(0.05)
        os.killpg(child.pid, signal.SIGINT)  # an impatient user
    status = child.wait(60)
    assert status == INTERRUPTED or moment == "at-once"  # a Python that has not begun yet just dies
    assert _processes(mark) == []
    assert f"appid-{child.pid}-" not in run("ip", "netns", "list")
    assert not list(Path("/tmp").glob(f"appid-{child.pid}-*"))
    assert Host.now() == before
