"""Forked processes: they hold what they are given, tell how they end, and end with their parent."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from appid.edge.children import Child, start
from tests.netns.net import until

ROOT = Path(__file__).parents[2]
ORPHANS = """
import os, signal, socket, time
from appid.edge.children import start

def work(connection):
    connection.sendall(str(os.getpid()).encode())
    time.sleep(60)

child = start("sleeper", work)
print(child.ours.recv(100).decode(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def end_of(child: Child) -> str | None:
    found: list[str | None] = []

    def reaped() -> bool:
        found.append(child.reap())
        return found[-1] is not None

    assert until(reaped)
    return found[-1]


def test_it_tells_how_it_ended() -> None:
    def broken(_: socket.socket) -> None:
        raise ValueError("a bug")

    assert end_of(start("good", lambda connection: None)) == "status 0"
    assert end_of(start("bad", broken)) == "status 1"
    sleeper = start("sleeper", lambda connection: time.sleep(60))
    sleeper.signal(signal.SIGKILL)
    assert end_of(sleeper) == "killed by SIGKILL"


def test_it_holds_no_descriptor_but_those_it_is_given() -> None:
    """Or a client of the control socket would wait for an end that never comes."""
    kept, other = os.open("/dev/null", os.O_RDONLY), os.open("/dev/null", os.O_RDONLY)

    def count(connection: socket.socket) -> None:
        held = sorted(int(name) for name in os.listdir("/proc/self/fd"))[:-1]  # the last one is listdir's own
        connection.sendall(repr(held).encode())

    child = start("counting", count, (kept,))
    held = eval(child.ours.recv(1000))
    assert len(held) == 5
    assert kept in held
    assert other not in held
    assert end_of(child) == "status 0"
    os.close(kept)
    os.close(other)


def test_the_terminals_signals_are_not_its() -> None:
    def work(connection: socket.socket) -> None:
        connection.sendall(b"x")
        connection.recv(1)

    child = start("worker", work)
    assert child.ours.recv(1) == b"x"
    for number in (signal.SIGINT, signal.SIGHUP):
        child.signal(number)
    time.sleep(0.05)
    assert child.reap() is None
    child.ours.close()
    assert end_of(child) == "status 0"


def test_it_ends_with_a_parent_that_is_killed() -> None:
    done = subprocess.run([sys.executable, "-c", ORPHANS], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    assert until(lambda: not alive(int(done.stdout)))


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
