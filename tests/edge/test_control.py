"""The control socket with real sockets: requests, bad requests, slow and many clients."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from appid.edge import control
from appid.edge.control import MAX_CLIENTS, MAX_REQUEST, ControlSocket, Reply, ask
from tests.netns.net import until


class Loop:
    """Serves callbacks in a thread of its own until closed; an exception of a callback fails the test."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.failures: list[BaseException] = []
        self.running = True
        self.every: Callable[[], None] = lambda: None
        self.thread = threading.Thread(target=self._run)

    def register(self, source: Any, callback: Callable[[], None], events: int = selectors.EVENT_READ) -> None:
        self.selector.register(source, events, callback)

    def unregister(self, source: Any) -> None:
        self.selector.unregister(source)

    def _run(self) -> None:
        while self.running:
            for key, _ in self.selector.select(0.02):
                try:
                    key.data()
                except BaseException as error:
                    self.failures.append(error)
            self.every()


def answer(request: dict[str, Any], reply: Reply) -> None:
    if request.get("ask") == "later":
        thread = threading.Timer(0.1, lambda: reply([{"asked": "later"}]))
        thread.start()
    else:
        reply(answers(request))


def answers(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    match request.get("ask"):
        case "much":
            yield from ({"number": number, "text": "x" * 1000} for number in range(5000))
        case "fault":
            raise OSError(12, "no memory in the kernel")
        case "nothing":
            return
        case other:
            yield {"asked": other}


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.running = False
    if made.thread.is_alive():
        made.thread.join(5)
    assert made.failures == []


@pytest.fixture
def server(loop: Loop, tmp_path: Path) -> Iterator[ControlSocket]:
    made = ControlSocket(tmp_path / "run" / "control.sock", loop, answer)
    loop.thread.start()
    yield made
    loop.running = False
    loop.thread.join(5)
    made.close()
    assert not made.path.exists()
    assert loop.selector.get_map() is not None
    assert len(loop.selector.get_map()) == 0


def connect(server: ControlSocket) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(str(server.path))
    connection.settimeout(5)
    return connection


def say(server: ControlSocket, *pieces: bytes) -> list[dict[str, Any]]:
    with connect(server) as connection:
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(0.01)
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    *lines, last = [json.loads(line) for line in received.splitlines()]
    assert last == {"type": "end"}
    return lines


def test_a_question_and_its_answer(server: ControlSocket) -> None:
    assert ask(server.path, {"ask": "flows"}) == [{"asked": "flows"}]
    assert ask(server.path, {"ask": "nothing"}) == []


def test_an_answer_may_come_later_and_to_nobody(server: ControlSocket) -> None:
    assert ask(server.path, {"ask": "later"}) == [{"asked": "later"}]
    with connect(server) as impatient:
        impatient.sendall(b'{"ask": "later"}\n')
        time.sleep(0.02)
    time.sleep(0.15)
    assert ask(server.path, {"ask": "flows"}) == [{"asked": "flows"}]


def test_a_request_may_come_in_pieces_and_with_more_behind(server: ControlSocket) -> None:
    assert say(server, b'{"as', b'k": "ca', b'lls"}\nmore') == [{"asked": "calls"}]


def test_a_long_answer_arrives_whole(server: ControlSocket) -> None:
    told = ask(server.path, {"ask": "much"})
    assert [line["number"] for line in told] == list(range(5000))


def test_only_owner_and_group_may_ask(server: ControlSocket) -> None:
    assert stat.S_IMODE(server.path.stat().st_mode) == 0o660


@pytest.mark.parametrize(
    "garbage", [b"\n", b"{\n", b"\xff\xfe\x00\n", b"NaN x\n", b"[" * 60000 + b"\n", b'{"a":' * 12000 + b"\n"]
)
def test_garbage_is_answered_with_an_error(server: ControlSocket, garbage: bytes) -> None:
    (told,) = say(server, garbage)
    assert told["type"] == "error"
    assert ask(server.path, {"ask": "still there"}) == [{"asked": "still there"}]


@pytest.mark.parametrize("request_line", [b"1\n", b'"flows"\n', b"[]\n", b"null\n"])
def test_json_that_is_no_object_asks_for_nothing(server: ControlSocket, request_line: bytes) -> None:
    assert say(server, request_line) == [{"asked": None}]


def test_a_fault_of_the_answer_is_told_and_harms_nothing(server: ControlSocket) -> None:
    (told,) = ask(server.path, {"ask": "fault"})
    assert told["type"] == "error"
    assert "no memory" in told["reason"]
    assert ask(server.path, {"ask": "flows"}) == [{"asked": "flows"}]


def test_an_oversized_request_is_cut_off(server: ControlSocket) -> None:
    with connect(server) as connection, contextlib.suppress(ConnectionResetError):
        sent = 0
        with contextlib.suppress(BrokenPipeError):
            while sent < 100 * MAX_REQUEST:
                sent += connection.send(b"x" * MAX_REQUEST)
        assert sent < 100 * MAX_REQUEST
    assert ask(server.path, {"ask": "flows"}) == [{"asked": "flows"}]


def test_clients_that_go_away_are_forgotten(server: ControlSocket) -> None:
    for number in range(3 * MAX_CLIENTS):
        with connect(server) as connection:
            if number % 2:
                connection.sendall(b'{"ask": "much"}\n')
    assert ask(server.path, {"ask": "flows"}) == [{"asked": "flows"}]


def test_a_slow_client_does_not_hold_up_others(server: ControlSocket) -> None:
    with connect(server) as slow:
        slow.sendall(b'{"ask": "much"}\n')
        started = time.monotonic()
        assert ask(server.path, {"ask": "flows"}) == [{"asked": "flows"}]
        assert time.monotonic() - started < 2.0


def test_a_client_that_does_not_read_is_dropped(
    server: ControlSocket, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "PATIENCE", 0.1)
    with connect(server) as idle, connect(server) as slow:
        slow.sendall(b'{"ask": "much"}\n')
        time.sleep(0.6)
        loop.every = server.expire
        assert idle.recv(1) == b""
        received = b"".join(iter(lambda: slow.recv(65536), b""))
        assert len(received) < 5_000_000, "the answer is not whole"


def test_too_many_clients_are_told_so(server: ControlSocket) -> None:
    idle = [connect(server) for _ in range(MAX_CLIENTS)]
    time.sleep(0.1)
    try:
        (told,) = ask(server.path, {"ask": "flows"})
        assert told["type"] == "error"
    finally:
        for connection in idle:
            connection.close()
    assert until(lambda: ask(server.path, {"ask": "flows"}) == [{"asked": "flows"}])


def test_a_socket_file_left_behind_is_replaced(loop: Loop, tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    made = ControlSocket(path, loop, answer)
    made.close()
    assert not path.exists()


def test_a_file_that_is_no_socket_is_not_replaced(loop: Loop, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("an operator's")
    with pytest.raises(OSError, match="in use"):
        ControlSocket(tmp_path / "notes.txt", loop, answer)
    assert (tmp_path / "notes.txt").read_text() == "an operator's"


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no gateway answers at"):
        ask(tmp_path / "none.sock", {"ask": "flows"})


@pytest.mark.parametrize("sent", [b'{"type": "fl', b'{"type": "flow"}\n', b'{"type": "flow"}\n{"type": "end"', b""])
def test_an_answer_that_breaks_off_is_an_error(sent: bytes, tmp_path: Path) -> None:
    """Between two lines, too: what came looks whole."""
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)

        def half() -> None:
            connection, _ = listener.accept()
            connection.recv(100)
            connection.sendall(sent)
            connection.close()

        thread = threading.Thread(target=half)
        thread.start()
        with pytest.raises(ConnectionError, match="breaks off"):
            ask(path, {"ask": "flows"})
        thread.join()


def _may_connect(path: Path, group: int) -> bool:
    """As nobody, with this group alone."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setgroups([])
            os.setgid(group)
            os.setuid(65534)
            socket.socket(socket.AF_UNIX).connect(str(path))
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_members_of_the_group_may_ask_and_others_not(loop: Loop) -> None:
    with tempfile.TemporaryDirectory(dir="/run") as folder:
        os.chmod(folder, 0o755)
        grouped = ControlSocket(Path(folder) / "grouped.sock", loop, answer, group=4242)
        assert _may_connect(grouped.path, 4242)
        assert not _may_connect(grouped.path, 4243)
        grouped.close()


def test_a_gateway_that_does_not_answer_is_named(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)
        with pytest.raises(TimeoutError, match=r"control.sock: no answer from the gateway within 0.1 s"):
            ask(path, {"ask": "flows"}, patience=0.1)
