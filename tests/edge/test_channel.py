"""Values over a socket pair: whole, in order, and nobody waits for the other side."""

from __future__ import annotations

import os
import socket
import time
from typing import Any

from appid.edge.channel import Channel, send_last
from appid.edge.loop import Loop


class Pair:
    def __init__(self) -> None:
        self.loop = Loop(lambda: None)
        self.got: tuple[list[Any], list[Any]] = [], []
        self.gone: list[int] = []
        self.sockets = socket.socketpair()
        self.ends = [self._end(index) for index in range(2)]

    def _end(self, index: int) -> Channel:
        return Channel(self.loop, self.sockets[index], self.got[index].append, lambda: self.gone.append(index))

    def serve(self, rounds: int = 400) -> None:
        for _ in range(rounds):
            self.loop.once(0)


def test_values_arrive_whole_and_in_order_both_ways() -> None:
    pair = Pair()
    large = os.urandom(3_000_000)
    for value in ("a", large, {"b": [1, 2]}, None):
        pair.ends[0].send(value)
        pair.ends[1].send((value, 1))
    pair.serve()
    assert pair.got[1] == ["a", large, {"b": [1, 2]}, None]
    assert [value for value, _ in pair.got[0]] == pair.got[1]


def test_sending_to_one_that_does_not_read_does_not_wait() -> None:
    pair = Pair()
    begun = time.monotonic()
    for _ in range(20):
        pair.ends[0].send(bytes(1_000_000))
    assert time.monotonic() - begun < 10
    pair.serve()
    assert len(pair.got[1]) == 20


def test_the_end_of_the_other_side_is_told_once() -> None:
    pair = Pair()
    pair.ends[0].send("last words")
    pair.ends[0].close()
    pair.serve(5)
    assert pair.got[1] == ["last words"]
    assert pair.gone == [1]
    pair.ends[1].send("to nobody")
    pair.serve(5)
    assert pair.gone == [1]


def test_a_process_without_a_loop_can_say_one_thing() -> None:
    loop, got = Loop(lambda: None), list[Any]()
    ours, theirs = socket.socketpair()
    Channel(loop, ours, got.append, lambda: got.append("gone"))
    send_last(theirs, OSError(12, "no memory"))
    theirs.close()
    for _ in range(3):
        loop.once(0.1)
    assert str(got[0]) == "[Errno 12] no memory"
    assert got[1:] == ["gone"]
