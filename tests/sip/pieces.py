"""A TCP relay that cuts or gathers: what a real network's segments look like to a gateway.

In: a namespace, where to listen, where to go on. Out: the same bytes, in segments of `size`, or, with size 0, gathered
for GATHER seconds.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time

from tests.netns.net import Namespace

GATHER = 0.06
Ends = tuple[str, int]


class Pieces:
    """Relays until the `with` ends; one connection after the other. `own`: the address it goes on from."""

    def __init__(self, space: Namespace, size: int, listen: Ends, own: Ends, to: Ends) -> None:
        self.space, self.size, self.own, self.to = space, size, own, to
        self.listener = space.listen(*listen)
        self.listener.settimeout(0.1)
        self.ended = False

    def __enter__(self) -> Pieces:
        self.thread = self.space.start(self._serve)
        return self

    def __exit__(self, *_: object) -> None:
        self.ended = True
        self.thread.join()
        self.listener.close()

    def _serve(self) -> None:
        while not self.ended:
            with contextlib.suppress(TimeoutError, ConnectionError):
                near, _ = self.listener.accept()
                with near, socket.socket(near.family, socket.SOCK_STREAM) as far:
                    far.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    far.bind(self.own)
                    far.settimeout(3)
                    far.connect(self.to)
                    for end in (near, far):
                        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    self._relay(near, far)

    def _relay(self, near: socket.socket, far: socket.socket) -> None:
        while not self.ended:
            for end in select.select([near, far], [], [], 0.05)[0]:
                if not self.size:
                    time.sleep(GATHER)
                data = end.recv(65535)
                if not data:
                    return
                self._send(far if end is near else near, data)

    def _send(self, end: socket.socket, data: bytes) -> None:
        size = self.size or len(data)
        for at in range(0, len(data), size):
            end.sendall(data[at : at + size])
            if self.size:
                time.sleep(0.001)
