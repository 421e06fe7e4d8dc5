"""The metrics endpoint, in a process of its own, so that the supervisor has one thread.

In: the directory in which all processes count, an address. Out: HTTP for Prometheus, until the supervisor is gone.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Mapping
from pathlib import Path

from appid.edge import metrics
from appid.edge.children import Child, start
from appid.edge.privileges import NET_BIND_SERVICE, drop_all, held

_READY = b"ready"


def export(directory: Path, listen: tuple[str, int], words: Mapping[tuple[str, str], str]) -> Child:
    """Serve from now on; `words`: what each metric counts. OSError if the address cannot be had."""

    def work(connection: socket.socket) -> None:
        drop_all({NET_BIND_SERVICE} & held() if listen[1] < 1024 else ())
        try:
            metrics.serve(listen, metrics.merged(directory, words))
        except OSError as error:
            connection.sendall(f"metrics at {listen[0]}:{listen[1]}: {error.strerror}".encode())
            return
        connection.sendall(_READY)
        while True:
            signal.pause()

    child = start("metrics", work)
    child.ours.settimeout(10)
    said = child.ours.recv(1000)
    child.ours.close()
    if said != _READY:
        raise OSError(said.decode() or "metrics: the endpoint's process ended")
    return child
