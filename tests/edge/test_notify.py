"""sd_notify(3): the datagrams that a service manager gets."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from appid.edge.notify import ALIVE, READY, keep, kept, let_go, tell


def test_nobody_listens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    tell(READY)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    tell(READY)


@pytest.mark.parametrize("abstract", [False, True])
def test_the_manager_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, abstract: bool) -> None:
    name = f"@appid-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(5)
        manager.bind("\0" + name[1:] if abstract else name)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        tell(READY)
        tell(ALIVE)
        assert [manager.recv(64) for _ in range(2)] == [b"READY=1", b"WATCHDOG=1"]


def test_the_manager_keeps_descriptors_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(5)
        manager.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        (tmp_path / "file").write_text("what is in it")
        with (tmp_path / "file").open() as file:
            keep("ends-0-of-1", file.fileno())
        told, (descriptor,), _, _ = socket.recv_fds(manager, 100, 4)
        assert told.split(b"\n") == [b"FDSTORE=1", b"FDNAME=ends-0-of-1", b"FDPOLL=0"]
        assert os.read(descriptor, 100) == b"what is in it"
        os.close(descriptor)
        let_go("ends-0-of-1")
        assert manager.recv(100).split(b"\n") == [b"FDSTOREREMOVE=1", b"FDNAME=ends-0-of-1"]


def test_only_what_was_kept_for_this_process_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    for pid, count in (("1", "1"), (str(os.getpid()), "many"), (str(os.getpid()), "0")):
        monkeypatch.setenv("LISTEN_PID", pid)
        monkeypatch.setenv("LISTEN_FDS", count)
        monkeypatch.setenv("LISTEN_FDNAMES", "ends-0-of-1")
        assert kept() == {}
        assert not [word for word in os.environ if word.startswith("LISTEN_")], "nobody else is told"
