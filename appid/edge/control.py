"""The control socket: one line of JSON in, JSON lines out, then the end. In: a path, a function that answers.

A request is {"ask": NAME, ...}. An answer's last line is END: without it, it broke off. Clients are served by a loop,
without blocking it; the answer may come later. A client that does not read its answer is dropped after PATIENCE
seconds. File mode 0660: who may ask is a matter of the socket's group.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import selectors
import socket
import struct
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

MAX_CLIENTS = 16
MAX_REQUEST = 65536
PATIENCE = 10.0
END = {"type": "end"}

log = logging.getLogger("appid")

Reply = Callable[[Iterable[dict[str, Any]]], None]
"""To be called once, now or later, with the whole answer."""
Answer = Callable[[dict[str, Any], Reply], None]


class Loop(Protocol):
    def register(self, source: Any, callback: Callable[[], None], events: int = ...) -> None: ...

    def unregister(self, source: Any) -> None: ...


class _Client:
    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.request = b""
        self.answer = memoryview(b"")
        self.since = time.monotonic()
        self.asked = False


class ControlSocket:
    """Listens at `path` from now on; `close` takes the file away. `group`: whose members may ask, beside the owner."""

    def __init__(self, path: Path, loop: Loop, answer: Answer, group: int | None = None) -> None:
        self.path = path
        self._loop = loop
        self._answer = answer
        self._clients: dict[int, _Client] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_socket():  # of a gateway before; a file is somebody's
            path.unlink()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self._listener.bind(str(path))
        if group is not None:
            os.chown(path, -1, group)
        os.chmod(path, 0o660)
        self._listener.listen(MAX_CLIENTS)
        loop.register(self._listener, self._accept)

    def close(self) -> None:
        for client in list(self._clients.values()):
            self._drop(client)
        self._loop.unregister(self._listener)
        self._listener.close()
        self.path.unlink(missing_ok=True)

    def expire(self) -> None:
        """Let go of clients that neither ask nor read; not of those that wait for us."""
        for client in list(self._clients.values()):
            if time.monotonic() - client.since > PATIENCE and (client.answer or not client.asked):
                self._drop(client)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:  # it went away again, or there is no descriptor left
            return
        if len(self._clients) >= MAX_CLIENTS:
            with contextlib.suppress(OSError):
                connection.send(_lines([{"type": "error", "reason": "too many ask at once"}]), socket.MSG_DONTWAIT)
            connection.close()
            return
        connection.setblocking(False)
        client = _Client(connection)
        self._clients[connection.fileno()] = client
        self._loop.register(connection, lambda: self._read(client))

    def _read(self, client: _Client) -> None:
        try:
            piece = client.connection.recv(MAX_REQUEST)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        client.request += piece
        line, newline, _ = client.request.partition(b"\n")
        if newline:
            self._serve(client, line)
        elif not piece or len(client.request) > MAX_REQUEST:
            self._drop(client)

    def _serve(self, client: _Client, line: bytes) -> None:
        self._loop.unregister(client.connection)
        client.asked = True
        try:
            request = json.loads(line)
        except (ValueError, RecursionError) as error:
            self._reply(client, [{"type": "error", "reason": f"not a request: {error}"}])
            return
        try:
            self._answer(request if isinstance(request, dict) else {}, lambda answers: self._reply(client, answers))
        except Exception as error:  # whatever it was about, the gateway goes on and the client is told
            log.exception("control socket")
            self._reply(client, [{"type": "error", "reason": f"{type(error).__name__}: {error}"}])

    def _reply(self, client: _Client, answers: Iterable[dict[str, Any]]) -> None:
        data = _lines(answers)
        if client.answer or self._clients.get(client.connection.fileno()) is not client:
            return  # it went away, or has had its answer
        client.answer, client.since = memoryview(data), time.monotonic()
        self._loop.register(client.connection, lambda: self._write(client), selectors.EVENT_WRITE)

    def _write(self, client: _Client) -> None:
        try:
            sent = client.connection.send(client.answer)
        except BlockingIOError:
            return
        except OSError:
            self._drop(client)
            return
        client.answer = client.answer[sent:]
        client.since = time.monotonic()
        if not client.answer:
            self._drop(client)

    def _drop(self, client: _Client) -> None:
        self._clients.pop(client.connection.fileno(), None)
        with contextlib.suppress(KeyError, ValueError):
            self._loop.unregister(client.connection)
        client.connection.close()


def _lines(answers: Iterable[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(answer, separators=(",", ":")) + "\n" for answer in (*answers, END)).encode()


def ask(path: Path, request: dict[str, Any], patience: float = PATIENCE) -> list[dict[str, Any]]:
    """The running gateway's answer. OSError if nobody listens there, or it breaks off."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        # a timeout of Python's would not wait in the queue of a gateway that is busy
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", math.ceil(patience), 0))
        try:
            connection.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            raise ConnectionRefusedError(f"no gateway answers at {path}") from None
        except PermissionError:
            raise PermissionError(f"{path}: you are not of the group that may ask") from None
        connection.settimeout(patience)
        with contextlib.suppress(BrokenPipeError):  # refused unread: the reason is there to be read
            connection.sendall(json.dumps(request).encode() + b"\n")
        pieces = []
        try:
            while piece := connection.recv(1 << 16):
                pieces.append(piece)
        except ConnectionResetError:
            pass
        except TimeoutError:
            raise TimeoutError(f"{path}: no answer from the gateway within {patience:g} s") from None
    *lines, last = b"".join(pieces).split(b"\n")[:-1] or [b""]
    try:
        if json.loads(last) == END:
            return [json.loads(line) for line in lines]
    except ValueError:
        pass
    raise ConnectionError(f"{path}: the answer breaks off: the gateway may have just ended")
