"""The six causes of being blind, each on the wire: open lets pass, closed does not, and `appid stats` counts each.

A fault of ours is put into the program that runs: it raises over one payload.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.engine.test_room import BROKEN_STUN
from tests.netns.live import ALL, Live
from tests.netns.net import CLIENT4, PEER4, Net, received, until
from tests.netns.playbook import waiting

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120)]
FAULT = b"\xff a fault of ours"
LENGTH, FLOWS = 8, 16
OPTIONS = f'on_stop = "keep"\nqueue_length = {LENGTH}\n[limits]\nmax_flows = {FLOWS}\n[exceptions]\n'
LISTENERS = ("cat", "/proc/net/netfilter/nfnetlink_queue")
CAUSES = ("engine-down", "queue-full", "table-full", "mid-stream", "undecodable", "internal-error")
_RAISING = f"""
import appid.engine.core as core

told = core.Engine.handle

def handle(engine, event, now):
    if {FAULT!r} in bytes(getattr(event, "data", b"")):
        raise RuntimeError("a fault of ours")
    return told(engine, event, now)

core.Engine.handle = handle
"""


class Blind:
    """A gateway with one answer to all causes, and who sends through it."""

    def __init__(self, net: Net, folder: Path, failure: str) -> None:
        self.net, self.opens = net, failure == "open"
        self.listener = net.peer.listen(PEER4, 8080)
        self.older = net.client.tcp(CLIENT4)
        self.older.connect((PEER4, 8080))  # before the gateway is there
        self.far, _ = self.listener.accept()
        self.far.settimeout(1)
        self.peer = net.peer.udp(PEER4, 6000)
        self.port = 20_000
        options = OPTIONS + "".join(f'{cause} = "{failure}"\n' for cause in CAUSES)
        self.gateway = Live(net, folder, ALL, "nft", gateway=options)

    def send(self, count: int, payload: bytes = b"\xff", served: bool = True) -> int:
        """New flows, each of one datagram; the queue is a short one. Out: the port of the first."""
        first = self.port
        for self.port in range(first, first + count):
            assert not served or until(lambda: waiting(self.net) == 0)
            self.net.client.udp(CLIENT4, self.port).sendto(payload, (PEER4, 6000))
        self.port += 1
        return first

    def came(self, count: int) -> bool:
        """So many, and no more."""
        return len(received(self.peer, least=count)) == count

    def counts(self, cause: str) -> int:
        told: dict[str, Any] = self.gateway.ask("stats")[0]
        assert told["exception_policy"][cause] == ("open" if self.opens else "closed")
        number: int = told["exceptions"][cause]
        return number

    def worker(self) -> int:
        pid: int = self.gateway.ask("stats")[0]["workers"][0]["pid"]
        return pid


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    time.sleep(0.1)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.fixture(params=["closed", pytest.param("open", marks=pytest.mark.slow)])
def blind(
    request: pytest.FixtureRequest, bare: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Blind]:
    (tmp_path / "sitecustomize.py").write_text(_RAISING)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    made = Blind(bare, tmp_path, request.param)
    yield made
    made.gateway.stop()


def test_each_cause_is_obeyed_counted_and_shown(blind: Blind) -> None:
    for step in (mid_stream, undecodable, internal_error, queue_full, table_full, worker_down):
        step(blind)
    for cause in CAUSES:
        sample = f'appid_exceptions_total{{action="{"open" if blind.opens else "closed"}",cause="{cause}"}}'
        assert blind.gateway.metric(sample) == blind.counts(cause), cause
    gateway_down(blind)


def told(blind: Blind, cause: str, number: int) -> None:
    assert until(lambda: blind.counts(cause) == number), (cause, blind.counts(cause), number)


def mid_stream(blind: Blind) -> None:
    blind.older.send(b"GET / HTTP/1.1\r\n\r\n")
    if blind.opens:
        assert blind.far.recv(100).startswith(b"GET")
    else:
        with pytest.raises(OSError, match=r"reset|timed out"):
            blind.far.recv(100)
    told(blind, "mid-stream", 1)


def undecodable(blind: Blind) -> None:
    blind.send(3, BROKEN_STUN)
    assert blind.came(3 if blind.opens else 0)
    told(blind, "undecodable", 3)


def internal_error(blind: Blind) -> None:
    blind.send(2, FAULT)
    assert blind.came(2 if blind.opens else 0)
    told(blind, "internal-error", 2)
    blind.send(1)
    assert blind.came(1), "the queue goes on"


def queue_full(blind: Blind) -> None:
    """The queue takes LENGTH, 20 find it full."""
    with stopped(blind.worker()):
        blind.send(LENGTH + 20, served=False)
        assert blind.came(20 if blind.opens else 0)
    assert blind.came(LENGTH)
    told(blind, "queue-full", 20)


def table_full(blind: Blind) -> None:
    """All undecided; those that give way are decided, and are no flow of ours any more."""
    before = blind.counts("table-full")
    first = blind.send(FLOWS + 10)
    assert blind.came(FLOWS + 10), "the first packet passes, undecided"
    assert until(lambda: blind.gateway.ask("stats")[0]["flows"] <= FLOWS)
    assert blind.counts("table-full") - before >= 10
    blind.net.client.udp(CLIENT4, first).sendto(b"\xff", (PEER4, 6000))
    assert blind.came(1 if blind.opens else 0)


def worker_down(blind: Blind) -> None:
    before = blind.counts("engine-down")
    worker = blind.worker()
    supervisor = int(Path(f"/proc/{worker}/stat").read_text().rsplit(")", 1)[1].split()[1])
    with stopped(supervisor):  # or it would be replaced at once
        os.kill(worker, signal.SIGKILL)
        time.sleep(0.2)
        blind.send(12, served=False)
        assert blind.came(12 if blind.opens else 0)
    assert until(lambda: blind.gateway.ask("stats")[0]["workers"][0]["alive"], 10)
    told(blind, "engine-down", before + 12)


def gateway_down(blind: Blind) -> None:
    """Stopped, and killed; each time the next one tells of what came meanwhile."""
    for end in (signal.SIGTERM, signal.SIGKILL):
        blind.gateway.process.send_signal(end)
        blind.gateway.process.wait(20)
        assert until(lambda: not blind.net.gateway.run(*LISTENERS)), "a worker goes a moment after its supervisor"
        blind.send(15, served=False)
        assert blind.came(15 if blind.opens else 0)
        blind.gateway.begin()
        told(blind, "engine-down", 15)
        blind.send(1)
        assert blind.came(1), "served again"
