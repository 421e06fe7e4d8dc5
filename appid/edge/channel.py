"""Values between the supervisor and one of its processes, over a socket pair that both inherited.

In: any value that pickles. Out: the same, at the other end. Neither side ever waits for the other: what does not fit
the socket's buffer goes out as the loop finds room. Only a parent and its own child hold the two ends.
"""

from __future__ import annotations

import pickle
import selectors
import socket
from collections.abc import Callable
from typing import Any

from appid.edge.loop import Loop

_LENGTH = 4
_READ = 1 << 18


def _framed(value: Any) -> bytes:
    data = pickle.dumps(value)
    return len(data).to_bytes(_LENGTH, "big") + data


def send_last(connection: socket.socket, value: Any) -> None:
    """One value from a process that has no loop (any more)."""
    connection.setblocking(True)
    connection.sendall(_framed(value))


class Channel:
    """One end. `on_value` gets each value; `on_gone` is called once, when the other end is closed."""

    def __init__(
        self, loop: Loop, connection: socket.socket, on_value: Callable[[Any], None], on_gone: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._connection = connection
        self._on_value, self._on_gone = on_value, on_gone
        self._incoming = bytearray()
        self._outgoing = bytearray()
        self._open = True
        connection.setblocking(False)
        loop.register(connection, self._read)

    def send(self, value: Any) -> None:
        """Queued, if need be; nothing happens where the other end is gone."""
        if not self._open:
            return
        idle = not self._outgoing
        self._outgoing += _framed(value)
        if idle:
            self._write()
            if self._outgoing and self._open:
                self._listen(selectors.EVENT_READ | selectors.EVENT_WRITE, self._ready)

    def close(self) -> None:
        if self._open:
            self._open = False
            self._loop.unregister(self._connection)
            self._connection.close()

    def _listen(self, events: int, callback: Callable[[], None]) -> None:
        self._loop.unregister(self._connection)
        self._loop.register(self._connection, callback, events)

    def _ready(self) -> None:
        self._write()
        if self._open and not self._outgoing:
            self._listen(selectors.EVENT_READ, self._read)
        if self._open:
            self._read()

    def _write(self) -> None:
        try:
            sent = self._connection.send(self._outgoing)
        except BlockingIOError:
            return
        except OSError:
            self._gone()
            return
        del self._outgoing[:sent]

    def _read(self) -> None:
        try:
            piece = self._connection.recv(_READ)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        if not piece:
            self._gone()
            return
        self._incoming += piece
        while self._open and len(self._incoming) >= _LENGTH:
            end = _LENGTH + int.from_bytes(self._incoming[:_LENGTH], "big")
            if len(self._incoming) < end:
                break
            value = pickle.loads(self._incoming[_LENGTH:end])  # noqa: S301 - written by our own process
            del self._incoming[:end]
            self._on_value(value)

    def _gone(self) -> None:
        if self._open:
            self.close()
            self._on_gone()
