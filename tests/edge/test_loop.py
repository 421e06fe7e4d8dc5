"""The loop: it ticks, wakes, and outlives what its callbacks do."""

from __future__ import annotations

import socket
import threading
import time

from appid.edge.loop import Loop


def test_it_ticks_serves_and_stops_from_elsewhere() -> None:
    ticks: list[float] = []
    loop = Loop(lambda: ticks.append(time.monotonic()), 0.02)
    ours, theirs = socket.socketpair()
    got: list[bytes] = []
    loop.register(theirs, lambda: got.append(theirs.recv(10)))
    thread = threading.Thread(target=loop.run)
    begun = time.monotonic()
    thread.start()
    ours.send(b"x")
    while not got or len(ticks) < 3:
        assert time.monotonic() - begun < 20
        time.sleep(0.01)
    loop.soon(lambda: got.append(b"from another thread"))
    loop.stop()
    thread.join(20)
    assert not thread.is_alive()
    assert got == [b"x", b"from another thread"]
    assert len(ticks) <= (time.monotonic() - begun) / 0.02 + 1
    loop.close()


def test_a_signal_that_comes_just_before_it_runs_is_not_lost() -> None:
    loop = Loop(lambda: None, 60)
    loop.stop()
    thread = threading.Thread(target=loop.run, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    loop.close()


def test_what_a_callback_raises_is_counted_and_ends_nothing() -> None:
    loop = Loop(lambda: None)
    ours, theirs = socket.socketpair()

    def broken() -> None:
        theirs.recv(10)
        raise ValueError("a bug")

    loop.register(theirs, broken)
    for count in (1, 2):
        ours.send(b"x")
        loop.once(1)
        assert loop.errors == count
    loop.close()


def test_a_callback_may_let_go_of_the_next_one() -> None:
    """Two are ready at once; the first unregisters the second, whose callback must not run any more."""
    loop = Loop(lambda: None)
    pairs = [socket.socketpair() for _ in range(2)]
    called: list[int] = []

    def first(index: int) -> None:
        called.append(index)
        loop.unregister(pairs[1 - index][1])

    for index, (ours, theirs) in enumerate(pairs):
        loop.register(theirs, lambda index=index: first(index))  # type: ignore[misc]
        ours.send(b"x")
    loop.once(1)
    assert len(called) == 1
    loop.close()


def test_what_is_for_later_comes_then_and_in_order() -> None:
    loop = Loop(lambda: None, 60)
    called: list[str] = []
    begun = time.monotonic()
    for name, seconds in (("last", 0.05), ("first", 0.01), ("second", 0.01)):
        loop.later(seconds, lambda name=name: called.append(name))  # type: ignore[misc]
    while len(called) < 3:
        loop.once(20)
    assert called == ["first", "second", "last"]
    assert 0.05 <= time.monotonic() - begun < 20
    loop.close()
