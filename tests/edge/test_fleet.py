"""The fleet with real processes: asked as one, replaced when they end, never waited for in vain."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from appid.edge import fleet as room
from appid.edge.channel import Channel, send_last
from appid.edge.fleet import Answer, Fleet, Request, Seat
from appid.edge.loop import Loop
from appid.edge.netlink import KernelError


def serving(index: int, connection: socket.socket) -> None:
    """Answers with its number and process; some requests do it harm."""
    loop = Loop(lambda: None)

    def heard(request: Request) -> None:
        if request.body == "die":
            os._exit(3)
        if request.body == "hang":
            time.sleep(60)
        error = ValueError("no") if request.body == "refuse" and index == 1 else None
        channel.send(Answer(request.number, (index, os.getpid()), error))

    channel = Channel(loop, connection, heard, loop.stop)
    channel.send(Answer(0))
    loop.run()


def failing(index: int, connection: socket.socket) -> None:
    if index == 1:
        send_last(connection, Answer(0, None, KernelError("NFQUEUE 1", "held")))
        raise KernelError("NFQUEUE 1", "held")
    serving(index, connection)


@pytest.fixture
def make() -> Iterator[Callable[..., Fleet]]:
    made: list[Fleet] = []

    def factory(work: Callable[[int, socket.socket], None] = serving, count: int = 2) -> Fleet:
        made.append(Fleet(Loop(lambda: None), count, work))
        return made[-1]

    yield factory
    for fleet in made:
        fleet.stop()


def asked(fleet: Fleet, body: object = None, seconds: float = 5.0) -> dict[int, Answer]:
    got: list[dict[int, Answer]] = []
    fleet.ask("ask", body, got.append)
    turn(fleet, lambda: bool(got), seconds)
    return got[0]


def turn(fleet: Fleet, done: Callable[[], bool], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not done() and time.monotonic() < end:
        fleet._loop.once(0.02)
        fleet.tick()
    assert done()


def ended(seat: Seat, times: int) -> bool:
    return seat.ends == times


def test_all_answer_as_one(make: Callable[..., Fleet]) -> None:
    fleet = make(count=3)
    fleet.start()
    answers = asked(fleet)
    assert [answer.body[0] for answer in answers.values()] == [0, 1, 2]
    assert len({answer.body[1] for answer in answers.values()}) == 3
    assert isinstance(asked(fleet, "refuse")[1].error, ValueError)


def test_one_that_ends_is_replaced_at_once_and_then_later(make: Callable[..., Fleet]) -> None:
    fleet = make()
    fleet.start()
    before = {index: answer.body[1] for index, answer in asked(fleet).items()}
    child = fleet.seats[1].child
    assert child is not None
    child.signal(signal.SIGKILL)
    turn(fleet, lambda: fleet.seats[1].ends == 1 and fleet.seats[1].ready)
    after = {index: answer.body[1] for index, answer in asked(fleet).items()}
    assert after[0] == before[0]
    assert after[1] != before[1]
    delays = []
    for ends in (2, 3, 4):
        child = fleet.seats[1].child
        assert child is not None
        child.signal(signal.SIGKILL)
        turn(fleet, partial(ended, fleet.seats[1], ends))
        delays.append(fleet.seats[1].delay)
        turn(fleet, lambda: fleet.seats[1].ready)
    assert delays == [0.1, 0.2, 0.4]


def test_a_question_does_not_wait_for_one_that_ended(make: Callable[..., Fleet]) -> None:
    fleet = make()
    fleet.start()
    assert asked(fleet, "die") == {}, "both ended over it"
    turn(fleet, lambda: all(seat.ready for seat in fleet.seats))
    assert sorted(asked(fleet)) == [0, 1]


def test_one_that_does_not_answer_is_killed_and_replaced(
    make: Callable[..., Fleet], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "PATIENCE", 0.3)
    fleet = make(count=1)
    fleet.start()
    got: list[dict[int, Answer]] = []
    fleet.ask("ask", "hang", got.append, patience=0.1)
    turn(fleet, lambda: got == [{}])
    turn(fleet, lambda: fleet.seats[0].ends == 1 and fleet.seats[0].ready)
    assert list(asked(fleet)) == [0]


def test_what_keeps_one_from_beginning_is_raised_and_none_is_left(make: Callable[..., Fleet]) -> None:
    fleet = make(failing)
    with pytest.raises(KernelError, match="NFQUEUE 1: held"):
        fleet.start()
    assert all(seat.child is None for seat in fleet.seats)


def test_a_stopped_fleet_leaves_no_process(make: Callable[..., Fleet]) -> None:
    fleet = make()
    fleet.start()
    pids = [seat.child.pid for seat in fleet.seats if seat.child is not None]
    fleet.stop()
    assert len(pids) == 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
