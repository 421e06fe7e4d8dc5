"""The gateway's loop: one poll over the queue, flow ends, a timer, a wake-up descriptor and what others register.

In: what the kernel tells, as events for the engine. Out: its commands, carried out in order before the next event.
An exception in the engine costs one packet its identification, never the loop.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from appid.dataplane.command import Command, Report
from appid.dataplane.marks import ALLOW, Marks
from appid.edge.capture import Writer
from appid.edge.clock import Clock
from appid.edge.conntrack import Entry, FlowEnds, prepare
from appid.edge.execute import Executor, place_of
from appid.edge.loop import Loop
from appid.edge.memory import Memory
from appid.edge.netlink import KernelError
from appid.edge.nfqueue import LENGTH, Held, Queue
from appid.edge.tally import Numbers, Tally
from appid.edge.too_big import TooBig
from appid.engine.event import Activity, CommandFailed, Event, PacketQueued, Tick
from appid.flow.key import FlowKey
from appid.wire import UDP

_ACTIVITY_SECONDS, _CLOSELY = 5.0, 0.9
_UNHEARD = 5.0
"""Seconds for which the kernel keeps it in mind that a flow's signalling passed unheard, should we end, too."""
_SWEEP_REST = 9.0
_MAX_FAILURES = 8  # rounds of CommandFailed -> commands -> CommandFailed
_MAX_TOLD = 20  # failures that are logged between two ticks

log = logging.getLogger(__name__)


class EngineHandle(Protocol):
    @property
    def deadline(self) -> float | None: ...

    def handle(self, event: Event, now: float) -> Sequence[Command]: ...


@dataclass(frozen=True, slots=True)
class GatewayOptions:
    """queue      NFQUEUE number                     length   packets that may wait in it
    on_error   what becomes of a packet that the engine failed on: the exception policy for internal errors
    fail_open  a full queue lets packets pass undecided (they meet the blind rule)
    record     a pcap of every queued packet          tick     seconds between Ticks
    prepare    set conntrack accounting and events in this namespace
    memory     bytes that the process may take; close to them the engine is told that memory is short. 0: no bound
    inside     which addresses are inside
    owns       which flows are this worker's, by their original direction
    tally      where it is counted what the queue handed over
    too_big    tells senders of IPv6 packets that translation has made longer
    numbers    of packets, shared with other workers
    """

    queue: int = 0
    length: int = LENGTH
    on_error: Literal["pass", "drop"] = "pass"
    fail_open: bool = True
    record: str | None = None
    tick: float = 1.0
    prepare: bool = True
    marks: Marks = field(default_factory=Marks)
    memory: int = 0
    inside: Callable[[bytes], bool] = field(default=lambda address: False)
    owns: Callable[[FlowKey], bool] = field(default=lambda key: True)
    tally: Tally | None = None
    too_big: TooBig | None = None
    numbers: Numbers | None = None


@dataclass(slots=True)
class GatewayStats:
    """Counts since the start: failed commands, packets answered by the exception policy, flows ended; and the number of
    the last packet."""

    packets: int = 0
    command_failures: int = 0
    rescued: int = 0
    ended: int = 0


class Gateway:
    """One worker: one queue, one engine. `run` returns after `stop`, which may be called from a signal handler.

    ends        hears of flows' ends, perhaps since before this process (FlowEnds)
    on_report   gets each Report       on_verdict  gets (data, seconds from read to answer) of each packet
    on_tick     called once a Tick     on_replace  called for ReplaceChains
    on_rescue   called for each packet that the exception policy for internal errors answered
    """

    def __init__(
        self,
        engine: EngineHandle,
        options: GatewayOptions | None = None,
        ends: FlowEnds | None = None,
        *,
        on_report: Callable[[Report], None] | None = None,
        on_verdict: Callable[[bytes, float], None] | None = None,
        on_tick: Callable[[float], None] | None = None,
        on_replace: Callable[[], None] | None = None,
        on_rescue: Callable[[], None] | None = None,
    ) -> None:
        self.engine = engine
        self.options = options or GatewayOptions()
        self.stats = GatewayStats()
        self.numbers = self.options.numbers or Numbers()
        self.clock = Clock()
        self._on_verdict, self._on_tick, self._on_rescue = on_verdict, on_tick, on_rescue
        self._counters: dict[FlowKey, int] = {}
        self._unheard: dict[FlowKey, float] = {}
        self._news: list[FlowKey] = []
        self._told = 0
        self._memory = Memory(self.options.memory)
        self._next_activity = self._next_sweep = self._closely_until = 0.0
        with contextlib.ExitStack() as opened:
            if self.options.prepare:
                prepare()
            self.loop = Loop(self.tick, self.options.tick, self._after)
            opened.callback(self.loop.close)
            self.execute = Executor(
                self.options.marks, on_report, on_replace, self.options.inside, self.options.too_big, self.loop.later
            )
            opened.callback(self.execute.close)
            self.ends = ends or FlowEnds()
            opened.callback(self.ends.close)
            self._recorder = Writer(self.options.record) if self.options.record else None
            if self._recorder is not None:
                opened.callback(self._recorder.close)
            self.queue = Queue(
                self.options.queue,
                self._packet,
                self._rescue,
                fail_open=self.options.fail_open,
                length=self.options.length,
                tally=self.options.tally,
            )
            opened.callback(self.queue.close)
            self._opened = opened.pop_all()
        self.loop.register(self.queue, self._read_queue)
        self.loop.soon(self._read_queue)  # what came while it was opened
        self.loop.register(self.ends, self._read_ends)

    def run(self) -> None:
        """Until `stop`. Then the queue is still bound; `close` leaves it."""
        self.loop.run()

    def stop(self) -> None:
        self.loop.stop()

    def drain(self, patience: float = 0.5) -> None:
        """Answer what waits in the queue, as far as that can be done in `patience` seconds."""
        end = time.monotonic() + patience
        while self.queue.read() and time.monotonic() < end:
            pass

    def close(self) -> None:
        """Leave the queue and close all descriptors. The kernel's state stays: calls go on."""
        self._opened.close()

    def _after(self) -> None:
        if self._recorder is not None:
            self._recorder.flush()
        if self.execute.closed and time.monotonic() >= self._next_sweep:
            self.loop.guard(self._sweep)
        self.loop.guard(self._look)

    def _sweep(self) -> None:
        """Cut the flows of pinholes that were shut: at once, but for no more than a tenth of the time."""
        begun = time.monotonic()
        self.execute.sweep()
        end = time.monotonic()
        self._next_sweep = end + _SWEEP_REST * (end - begun)

    # --- events ---

    def handle(self, event: Event, held: Held | None = None, number: int = 0) -> None:
        """One event through the engine, its commands into the kernel; what the kernel refuses goes back as an event."""
        now = self.clock.now()
        failed = self.execute.run(self.engine.handle(event, now), now, held, number)
        for _ in range(_MAX_FAILURES):
            if not failed:
                return
            self.stats.command_failures += len(failed)
            again: list[CommandFailed] = []
            for each in failed:
                self._told += 1
                if self._told <= _MAX_TOLD:
                    log.warning("%s: %s", type(each.command).__name__, each.reason)
                again += self.execute.run(self.engine.handle(each, now), now, held, number)
            failed = again

    def tick(self) -> None:
        """The timer: retry what failed, then a Tick with the calls' flows that moved unseen."""
        now = self.clock.now()
        self._told = 0
        desired = self.execute.desired
        desired.expire(now)
        self.stats.command_failures += len(self.execute.run(desired.retry(now), now))
        self._pass(self._activity(now), self._memory.tick())
        self._sweep()
        if self._on_tick is not None:
            self._on_tick(now)

    def again(self) -> None:
        """What the kernel should hold of calls may be gone, and nobody said so: it is asked for anew."""
        now = self.clock.now()
        self.stats.command_failures += len(self.execute.run(self.execute.anew(now), now))

    def _look(self) -> None:
        if self._memory.look(self.stats.packets):
            self._pass((), True)

    def _pass(self, active: tuple[Activity, ...], short: bool | None) -> None:
        unheard, self._news = tuple(self._news), []
        self.handle(Tick(self.stats.packets, active, short, unheard))
        if short:
            self._memory.gave_way()

    def baseline(self, seen: Mapping[FlowKey, int]) -> None:
        """What the kernel has counted so far is no movement: calls that were taken over must show that they live. What
        was said in them meanwhile nobody has heard. `seen`: of undecided flows that signal, the packets that somebody
        has seen."""
        self._activity(self.clock.now())
        for key, packets in seen.items():
            entry = self.execute.conntrack.entry(key) or self.execute.conntrack.entry(key.reversed())
            if entry is not None and sum(entry.packets) > packets:
                self._news.append(key)
        self._look_again(self.clock.now())
        self._pass((), None)

    def _activity(self, now: float) -> tuple[Activity, ...]:
        """Flows of calls whose kernel counters moved since the last look."""
        if self.engine.deadline is None:
            self._counters.clear()
            return ()
        if now < self._next_activity:
            return ()
        marks = self.options.marks
        watching = marks.encode("allow", watch=True)
        assert marks.state_of(watching) == ALLOW
        conntrack, wanted = self.execute.conntrack, self.execute.desired.elements()
        watched = list(conntrack.entries(0, watching, marks.state | marks.watch))
        entries = []
        # One walk through the table (4 ms on a large one) a mark, not one a pinhole: the marks are the applications'.
        for mark in {pinhole.mark & marks.saved for pinhole, _ in self.execute.desired.pinholes()}:
            if not mark & marks.watch:
                found = conntrack.entries(0, mark, marks.saved)
                entries += [entry for entry in found if place_of(entry, wanted) is not None]
        self.execute.saw(watched + entries)
        counters = {entry.key: sum(entry.packets) for entry in watched + entries}
        more = {key: count - self._counters.get(key, 0) for key, count in counters.items()}
        self._counters = counters
        self._hear_of(watched, now)
        self._look_again(now)
        return tuple(Activity(key, now, 0, packets) for key, packets in more.items() if packets)

    def _look_again(self, now: float) -> None:
        """Calls in doubt have a few seconds to show that they live (engine/doubt.py)."""
        if self._news:
            self._closely_until = now + _UNHEARD
        self._next_activity = now + (_CLOSELY if now < self._closely_until else _ACTIVITY_SECONDS)

    def _hear_of(self, watched: list[Entry], now: float) -> None:
        """The chains have set a bit where something readable passed that no engine saw."""
        passing, owns = self.options.marks.passing, self.options.owns
        before, self._unheard = self._unheard, {}
        for entry in watched:
            if not entry.mark & passing or entry.key.proto != UDP or not owns(entry.key):
                continue
            if entry.key not in before:
                self._news.append(entry.key)
            until = before.get(entry.key, now + _UNHEARD)
            if now < until:
                self._unheard[entry.key] = until
            else:
                with contextlib.suppress(KernelError):  # it has just ended
                    self.execute.conntrack.set_mark(entry.orig, 0, passing)

    def _read_queue(self) -> None:
        self.queue.read()

    def _read_ends(self) -> None:
        for event in self.ends.read():
            if self.options.owns(event.key):
                self.stats.ended += 1
                self.handle(event)

    def _packet(self, held: Held) -> None:
        """The one verdict point. What it leaves unanswered goes to `_rescue`."""
        begun = time.perf_counter()
        number = self.stats.packets = self.numbers.take()
        if self._recorder is not None:
            self._recorder.write(time.time_ns(), held.data)
        data = memoryview(held.data)
        self.handle(
            PacketQueued(number, data, held.mark, held.indev, held.outdev, None, self.execute.host), held, number
        )
        if self._on_verdict is not None:
            self._on_verdict(held.data, time.perf_counter() - begun)

    def _rescue(self, held: Held) -> None:
        """The engine failed, or gave no verdict: the exception policy answers."""
        self.stats.rescued += 1
        if self._on_rescue is not None:
            self._on_rescue()
        if self.options.on_error == "drop":
            held.drop()
        else:
            marks = self.options.marks
            held.repeat(marks.merge(held.mark, marks.passing))
