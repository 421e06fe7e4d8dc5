"""The workers, as their supervisor has them: started, asked, watched, started again.

In: how to run one. Out: answers of all of them at once; a worker that ends is replaced at once, and later and later if
it keeps ending (its hosts' undecided traffic follows the exception policy meanwhile).
"""

from __future__ import annotations

import logging
import signal
import socket
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from appid.edge.channel import Channel
from appid.edge.children import Child, start
from appid.edge.loop import Loop
from appid.edge.netlink import KernelError

FIRST_DELAY, LAST_DELAY = 0.1, 30.0
"""Seconds from the second end to the next start; doubled each time, up to the last."""
STEADY = 60.0
"""Seconds that a worker must have run for its next end to be the first again."""
PATIENCE = 10.0
"""Seconds in which a worker must answer; one that does not is killed."""
START, STOP = 20.0, 5.0
"""Seconds to begin, and to end, before it is killed."""

What = Literal["ping", "ask", "prepare", "discard", "swap", "placed", "reopen"]
log = logging.getLogger("appid")


class Request(NamedTuple):
    """From the supervisor; each gets one Answer of the same number."""

    number: int
    what: What
    body: Any = None


class Answer(NamedTuple):
    """From a worker. Number 0: it serves now. `error`: it could not do what was asked."""

    number: int
    body: Any = None
    error: Exception | None = None


Done = Callable[[dict[int, Answer]], None]
"""Gets the answers by worker; of one that ended meanwhile there is none."""


class _Question:
    def __init__(self, wanted: set[int], done: Done, until: float) -> None:
        self.wanted, self.done, self.until = wanted, done, until
        self.answers: dict[int, Answer] = {}


@dataclass
class Seat:
    """A worker's place: it keeps its number whichever process sits there."""

    index: int
    child: Child | None = None
    channel: Channel | None = None
    ready: bool = False
    since: float = 0.0
    due: float | None = 0.0
    delay: float = 0.0
    ends: int = 0
    pinged: float | None = None
    said: Any = None
    """What it answered last to a ping."""
    error: Exception | None = field(default=None, repr=False)


class Fleet:
    """`work(index, connection)` is what a worker does, in its own process; `on_end(index)` is called when it ended,
    `on_ready(index)` when it serves."""

    def __init__(
        self,
        loop: Loop,
        count: int,
        work: Callable[[int, socket.socket], None],
        keep: Collection[int] = (),
        on_ready: Callable[[int], None] = lambda index: None,
        on_end: Callable[[int], None] = lambda index: None,
    ) -> None:
        self.seats = [Seat(index) for index in range(count)]
        self._loop, self._work, self._keep = loop, work, keep
        self._on_ready, self._on_end = on_ready, on_end
        self._questions: dict[int, _Question] = {}
        self._next = 1
        self._keeping = self._gone = False  # whether one that ends is replaced; whether never again

    # -- processes -----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Returns when all serve. What keeps one from it is raised, and then there is none."""
        for seat in self.seats:
            self._seat(seat)
        end = time.monotonic() + START
        while not all(seat.ready for seat in self.seats):
            failed = [seat.error for seat in self.seats if seat.error is not None]
            if not failed and time.monotonic() < end:
                self._loop.once(0.1)
                continue
            self.stop()
            raise failed[0] if failed else KernelError("workers", f"not ready within {START:.0f} s")
        self._keeping = not self._gone

    def let_go(self) -> None:
        """Who ends from now on is not replaced: what told us to end may have told them, too."""
        self._keeping, self._gone = False, True

    def stop(self) -> None:
        """End them all; returns when they have."""
        self.let_go()
        for seat in self.seats:
            if seat.child is not None:
                seat.child.signal(signal.SIGTERM)
        end = time.monotonic() + STOP
        while any(seat.child is not None for seat in self.seats):
            self._loop.once(0.05)
            if time.monotonic() > end:
                for seat in self.seats:
                    if seat.child is not None:
                        seat.child.signal(signal.SIGKILL)

    @property
    def answers(self) -> bool:
        """Whether no verdict loop is silent for longer than it may be."""
        now = time.monotonic()
        return all(seat.pinged is None or now - seat.pinged <= PATIENCE for seat in self.seats)

    def tick(self) -> None:
        """Start those whose time has come; find out who does not answer."""
        now = time.monotonic()
        for seat in self.seats:
            if seat.child is None and seat.due is not None and now >= seat.due and self._keeping:
                self._seat(seat)
            elif seat.child is not None and seat.pinged is not None and now - seat.pinged > PATIENCE:
                log.error("worker %d does not answer: killed", seat.index)
                seat.child.signal(signal.SIGKILL)
            elif seat.ready and seat.pinged is None:
                seat.pinged = now
                self.ask("ping", None, self._pinged, [seat.index])
        for number in [n for n, question in self._questions.items() if now > question.until]:
            self._finish(number)

    def _pinged(self, answers: dict[int, Answer]) -> None:
        for index, answer in answers.items():
            self.seats[index].said = answer.body

    def _seat(self, seat: Seat) -> None:
        def work(connection: socket.socket) -> None:
            self._work(seat.index, connection)

        seat.child = child = start(f"worker {seat.index}", work, self._keep)
        seat.channel = Channel(self._loop, child.ours, lambda value: self._heard(seat, value), lambda: None)
        seat.ready, seat.error, seat.due = False, None, None
        seat.since = seat.pinged = time.monotonic()
        self._loop.register(child, lambda: self._ended(seat))

    def _ended(self, seat: Seat) -> None:
        assert seat.child is not None
        assert seat.channel is not None
        self._loop.unregister(seat.child)
        how = seat.child.reap()
        seat.channel.close()
        seat.child, seat.ready, seat.pinged = None, False, None
        for number, question in list(self._questions.items()):
            question.wanted.discard(seat.index)
            self._settle(number)
        self._on_end(seat.index)
        seat.said = None
        if not self._keeping:
            seat.error = seat.error or KernelError(f"worker {seat.index}", how or "ended")
            return
        seat.ends += 1
        steady = time.monotonic() - seat.since >= STEADY
        seat.delay = 0.0 if steady or seat.ends == 1 else min(max(2 * seat.delay, FIRST_DELAY), LAST_DELAY)
        seat.due = time.monotonic() + seat.delay
        log.error("worker %d ended: %s; again in %.1f s", seat.index, how, seat.delay)
        if not seat.delay:
            self._seat(seat)

    # -- questions -----------------------------------------------------------------------------------------------

    def ask(
        self, what: What, body: Any, done: Done, indexes: list[int] | None = None, patience: float = PATIENCE
    ) -> None:
        """Ask all that serve (or those named); `done` gets the answers when there are no more to come."""
        seats = [seat for seat in self.seats if seat.ready and (indexes is None or seat.index in indexes)]
        number, self._next = self._next, self._next + 1
        self._questions[number] = _Question({seat.index for seat in seats}, done, time.monotonic() + patience)
        for seat in seats:
            assert seat.channel is not None
            seat.channel.send(Request(number, what, body))
        self._settle(number)

    def _heard(self, seat: Seat, answer: Answer) -> None:
        seat.pinged = None
        if answer.number:
            question = self._questions.get(answer.number)
            if question is not None and seat.index in question.wanted:
                question.wanted.discard(seat.index)
                question.answers[seat.index] = answer
                self._settle(answer.number)
        elif answer.error is not None:
            seat.error = answer.error
            log.error("worker %d: %s", seat.index, answer.error)
        else:
            seat.ready = True
            self._on_ready(seat.index)

    def _settle(self, number: int) -> None:
        question = self._questions.get(number)
        if question is not None and not question.wanted:
            self._finish(number)

    def _finish(self, number: int) -> None:
        question = self._questions.pop(number)
        question.done(dict(sorted(question.answers.items())))
