"""The metrics endpoint as a process of its own."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from urllib.request import urlopen

import pytest

from appid.edge import metrics
from appid.edge.exporter import export
from appid.edge.privileges import held


def test_it_serves_what_the_directory_holds_and_ends_when_told(tmp_path: Path) -> None:
    metrics.clear(tmp_path / "metrics")
    child = export(tmp_path / "metrics", ("127.0.0.1", 19467), {})
    with urlopen("http://127.0.0.1:19467/metrics", timeout=5) as answer:
        assert answer.status == 200
    for kind in ("CapEff", "CapPrm", "CapInh", "CapAmb"):
        assert held(child.pid, kind) == set(), "it needs none: strangers speak to it"
    child.signal(signal.SIGKILL)
    os.waitpid(child.pid, 0)


def test_an_address_that_is_taken_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 19468)), pytest.raises(OSError, match=r"127\.0\.0\.1:19468.*in use"):
        export(tmp_path, ("127.0.0.1", 19468), {})
