"""A worker: one queue, one engine, in a process of its own. Its supervisor holds the chains, the socket, the files.

In: a Plan, its number, the channel to its supervisor. Out: verdicts, reports, answers. It ends with its supervisor.
"""

from __future__ import annotations

import gc
import logging
import pickle
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from appid.dataplane.command import Command, Report
from appid.dataplane.state import Element
from appid.edge import metrics
from appid.edge.answers import Answers
from appid.edge.channel import Channel, send_last
from appid.edge.conntrack import FlowEnds
from appid.edge.events import Events
from appid.edge.execute import place_of as pinhole_of
from appid.edge.fleet import Answer, Request
from appid.edge.gateway import Gateway
from appid.edge.halves import Halves, Table
from appid.edge.netlink import KernelError
from appid.edge.plan import Plan
from appid.edge.policy_file import uncollected
from appid.edge.privileges import drop_to_net_admin
from appid.edge.reconcile import ownerless, reconcile
from appid.edge.state import Journal, State, place_of, read
from appid.edge.tally import Numbers, Tally
from appid.edge.told import Counted, Told
from appid.edge.too_big import TooBig
from appid.edge.unknown import UnknownFlows
from appid.edge.witness import Witness
from appid.engine import (
    CallReport,
    DecisionReport,
    Engine,
    Event,
    ExceptionReport,
    FlowReport,
    Kept,
    Restored,
    RulesLoaded,
)
from appid.engine.event import nowhere
from appid.engine.kept import kept_call, kept_calls
from appid.engine.kept_stream import kept_stream
from appid.policy.exception import Failure
from appid.wire import UDP

SAY_EVERY = 10.0
BIND_TRIES, BIND_WAIT = 30, 0.1
"""A predecessor that was killed may hold the queue for a moment longer."""
WHOLE, SLICE = sys.getswitchinterval(), 0.0005
"""Seconds for which another thread may keep packets waiting: as a rule there is none."""

log = logging.getLogger("appid")


class Lasting(NamedTuple):
    """What outlives a worker's process: its supervisor made it, and has it still.

    tally   what was seen of its queue
    ends    where flows' ends are told: what comes while no process sits there, the next one reads
    table   where workers meet that share a call
    numbers of the packets that any of them had in hand
    """

    tally: Tally
    ends: FlowEnds | None = None
    table: Table | None = None
    numbers: Numbers | None = None


def work(
    plan: Plan, index: int, lasting: Lasting, directory: Path, state: State | None, connection: socket.socket
) -> None:
    """The life of a worker's process. What keeps it from serving is told to the supervisor, then raised. `state`: what
    is known of its calls; None: what its predecessor wrote."""
    too_big = TooBig.opened()  # what follows may open no such socket
    drop_to_net_admin()
    metrics.share(directory, f"w{index}")
    worker = Worker(plan, index, lasting, connection, state, too_big)
    try:
        worker.open()
    except Exception as error:
        told = error if isinstance(error, KernelError | OSError) else RuntimeError(f"{type(error).__name__}: {error}")
        send_last(connection, Answer(0, None, told))
        raise
    try:
        worker.run()
    finally:
        worker.close()


class Worker:
    """`open`, then `run`, then `close`."""

    def __init__(
        self, plan: Plan, index: int, lasting: Lasting, connection: socket.socket, state: State | None = None,
        too_big: TooBig | None = None,
    ) -> None:  # fmt: skip
        self.plan, self.index = plan, index
        self._too_big = too_big
        self.halves = Halves(lasting.table, index)
        self._tally, self._ends, self._packets = lasting.tally, lasting.ends, lasting.numbers
        self._connection = connection
        self._state = state
        self._journal: Journal | None = None
        self._restoring = False
        self._next: Plan | None = None
        self._preparing = 0
        self._opened = ExitStack()
        self._lost = self._failed = self._unwritten = 0
        self._say_at = 0.0
        self._said: Counter[str] = Counter()
        self.told = Told()

    def open(self) -> None:
        plan = self.plan
        with ExitStack() as opened:
            unknown = plan.own(plan.config.unknown, self.index)
            self.unknown = UnknownFlows(unknown, plan.config.unknown_bytes) if unknown is not None else None
            self.events = Events(plan.config.events, enforced=not plan.monitor)
            opened.callback(self.events.close)
            self.metrics = metrics.Metrics(plan.marks, plan.numbers)
            self.engine = Engine(plan.settings(self.index), self.index + 1, plan.config.workers)
            self.witness = Witness(self.engine, self.told, self.halves)
            self._counted = Counted(self.engine, self.metrics, self.told, plan.media, self._keep, self._witnessed)
            if self._too_big is not None:
                opened.callback(self._too_big.close)
            self.gateway = self._gateway()
            opened.callback(self.gateway.close)
            self.answers = Answers(
                self.engine, self.gateway, self.told, self.halves, enforced=not plan.monitor,
                lost=lambda: self.events.lost, witness=self.witness,
            )  # fmt: skip
            self.channel = Channel(self.gateway.loop, self._connection, self._asked, self.gateway.stop)
            left = self._take_over(opened)
            self._judge_again(restarted=True, left=left)
            self._opened = opened.pop_all()

    def close(self) -> None:
        self._opened.close()

    def _gateway(self) -> Gateway:
        for attempt in range(BIND_TRIES):
            try:
                options = self.plan.options(self.index, self._tally)
                options = replace(options, too_big=self._too_big, numbers=self._packets)
                return Gateway(
                    self._counted, options, self._ends,
                    on_report=self._report, on_verdict=self._verdict, on_tick=self._tick, on_rescue=self._rescued,
                )  # fmt: skip
            except KernelError:
                if attempt == BIND_TRIES - 1:
                    raise
                time.sleep(BIND_WAIT)
        raise AssertionError

    def run(self) -> None:
        """Serve until SIGTERM, or until the supervisor is gone."""
        signal.signal(signal.SIGTERM, lambda *_: self.gateway.stop())
        signal.set_wakeup_fd(self.gateway.loop.wakeup_fd, warn_on_full_buffer=False)
        self.channel.send(Answer(0))
        try:
            self.gateway.run()
            self.gateway.drain()
        finally:  # a second signal, to the whole group, finds no loop to wake any more
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.set_wakeup_fd(-1)

    # -- calls that outlive it ---------------------------------------------------------------------------------------

    def _take_over(self, opened: ExitStack) -> set[Element]:
        """The calls of the process before this one go on; what is left of others in the kernel goes, unless it may be
        that of calls that could not be read. Out: the pinholes of those."""
        place = place_of(self.plan.config.state, self.index)
        state = self._state if self._state is not None else read(place)
        flows, calls, pinholes = state.numbers
        self.engine.numbers.beyond(flows)
        self.engine.calls.calls.numbers.beyond(calls)
        self.engine.calls.book.numbers.beyond(pinholes)
        self.gateway.numbers.beyond(max((call.last_packet for call in state.calls.values()), default=0))
        self.gateway.stats.packets = self.gateway.numbers.last
        streams = tuple(state.streams.values())
        self._restoring = True
        self.gateway.handle(Restored(tuple(state.calls.values()), streams, tuple(state.registrations.values())))
        self._restoring = False
        self.halves.settle()
        signalling = (flow for call in state.calls.values() for flow in call.signalling if flow.key.proto == UDP)
        self.gateway.baseline({flow.key: flow.seen for flow in signalling if flow.decision is None})
        execute, share = self.gateway.execute, self.plan.share(self.index)
        unread = state.left > time.time()
        left = ownerless(execute, share) if unread else set[Element]()
        closed = None if unread else reconcile(execute, share)
        if any(closed or left) or state.calls:
            without = closed or f"{len(left)} pinholes, left to run out"
            log.info("worker %d: %d calls go on; without an owner: %s", self.index, self._calls(), without)
        kept = kept_calls(self.engine)
        spliced = [kept_stream(self.engine, record) for record in self.engine.flows.values()]
        registered = [self.engine.registered.kept(self.engine, n) for n in self.engine.registered.living()]
        living = [each for each in (*kept, *spliced, *registered) if each is not None]
        self._journal = Journal(place, self.plan.config.workers, living, self._numbers(), state.left)
        opened.callback(self._journal.close)
        return left

    def _calls(self) -> int:
        return len(self.engine.calls.calls.open)

    def _numbers(self) -> tuple[int, int, int]:
        calls = self.engine.calls
        return self.engine.numbers.last, calls.calls.numbers.last, calls.book.numbers.last

    def _keep(self) -> None:
        """What changed of calls, spliced streams and registrations is written down before it is done."""
        touched, streams = self.engine.calls.touched, self.engine.streams.touched
        registered = self.engine.registered
        if not touched and not streams and not registered.touched:
            return
        if self._journal is not None:
            for number in sorted(touched):
                kept = kept_call(self.engine, number)
                if kept is not None:
                    self._journal.write(kept, self._numbers())
                else:
                    self._journal.gone(number, self._numbers())
            for number, record in streams.items():
                stream = kept_stream(self.engine, record)
                if stream is not None:
                    self._journal.write(stream, self._numbers())
                else:
                    self._journal.ended(number, self._numbers())
            for number in sorted(registered.touched):
                registration = registered.kept(self.engine, number)
                if registration is not None:
                    self._journal.write(registration, self._numbers())
                else:
                    self._journal.lapsed(number, self._numbers())
        registered.touched.clear()
        touched.clear()
        streams.clear()

    # -- what the supervisor asks --------------------------------------------------------------------------------

    def _asked(self, request: Request) -> None:
        if request.what == "prepare":
            self._prepare(request)
            return
        try:
            answer = Answer(request.number, self._answer(request))
        except Exception as error:
            log.exception("%s", request.what)
            answer = Answer(request.number, None, RuntimeError(f"{type(error).__name__}: {error}"))
        self.channel.send(answer)

    def _answer(self, request: Request) -> Any:
        match request.what:
            case "ask":
                return list(self.answers.answer(request.body))
            case "discard":
                self._next, self._preparing = None, 0
            case "swap":
                self._swap()
            case "placed":
                self._guard()
                if request.body:
                    self.gateway.again()
            case "reopen":
                self.events.reopen()
            case "ping":
                return self.answers.counts()
        return None

    def _prepare(self, request: Request) -> None:
        """A long policy takes a third of a second to unpack: beside the packets' path, in slices that they do not
        feel."""

        def unpack() -> None:
            plan = error = None
            try:
                with uncollected():
                    plan = pickle.loads(request.body)  # noqa: S301 - written by our own supervisor
            except Exception as fault:
                log.exception("prepare")
                error = RuntimeError(f"{type(fault).__name__}: {fault}")
            self.gateway.loop.soon(partial(self._prepared, Answer(request.number, None, error), plan))

        self._preparing = request.number
        sys.setswitchinterval(SLICE)
        threading.Thread(target=unpack, daemon=True).start()

    def _prepared(self, answer: Answer, plan: Plan | None) -> None:
        if answer.number == self._preparing:
            sys.setswitchinterval(WHOLE)
            self._next = plan
            gc.freeze()  # it stays: to look through it for garbage takes 60 ms each time
        self.channel.send(answer)

    def _swap(self) -> None:
        """The plan that was prepared takes the place of the one before; the chains are those of the new one already."""
        if self._next is None:
            raise RuntimeError("nothing was prepared")
        self.plan, self._next = self._next, None
        self.metrics.applications = self.plan.numbers
        self._counted.media = self.plan.media
        self.gateway.options = self.plan.options(self.index, self._tally)
        self.gateway.execute.inside = self.gateway.options.inside
        self._guard()
        self._judge_again()

    def _guard(self) -> None:
        """The chains stand: no peer's early packet can poison a binding from now on."""
        topology = self.plan.topology()
        if topology.outside and not self.plan.monitor:
            first, last = topology.media
            self.gateway.execute.bindings.guard(range(first, last + 1), self.plan.outside_addresses)

    def _judge_again(self, restarted: bool = False, left: Collection[Element] = ()) -> None:
        """Flows of the pinholes that are `left` stay as they are: it was their call that was judged."""
        owns, state, passing = self.gateway.options.owns, self.plan.marks.state, self.plan.marks.passing
        entries = self.gateway.execute.conntrack.entries()
        kept = tuple(
            Kept(entry.key, entry.mark, entry.began or None)
            for entry in entries
            if entry.mark & (state | passing) and owns(entry.key) and pinhole_of(entry, left) is None
        )
        wired = any(zone.interfaces for zone in self.plan.policy.zones.values())
        interface_of = self.plan.routes.finder() if wired else nowhere
        self.gateway.handle(RulesLoaded(self.plan.settings(self.index), kept, interface_of, restarted))

    # -- what the loop tells -------------------------------------------------------------------------------------

    def _verdict(self, data: bytes, seconds: float) -> None:
        self.told.saw(data)
        if self.unknown is not None:
            self.unknown.saw(data, time.time_ns())
        self.metrics.verdict.observe(seconds)
        self.witness.packet(data, self.gateway.stats.packets)

    def _witnessed(self, event: Event, now: float, commands: list[Command]) -> None:
        self.witness.commands(event, now, commands, self.gateway.stats.packets)

    def _rescued(self) -> None:
        verdict = self.gateway.options.on_error
        failure: Failure = "open" if verdict == "pass" else "closed"
        self.metrics.packets.labels(verdict).inc()
        self.metrics.exceptions.labels("internal-error", failure).inc()
        self.told.exceptions["internal-error"] += 1

    def _report(self, report: Report) -> None:
        body = report.body
        news = True
        if isinstance(body, CallReport):
            news = body.end == "open" or self.halves.ends(body)
            self.halves.heard(body, body.call in self.engine.calls.calls.open)
        if self._restoring:  # told and counted by the process before
            self.metrics.counted(report)
            self.told.report(report)
            return
        if isinstance(body, DecisionReport) and not self.told.judged(body):
            return
        if news:
            self.metrics.report(report)
        if isinstance(body, ExceptionReport):
            self.told.exceptions[body.cause] += 1
            return  # as many as there are packets: counted, not told
        now = time.time()
        self.told.changed(self.gateway.stats.packets, now)
        self.told.report(report)
        if self.unknown is not None and isinstance(body, FlowReport):
            self.unknown.report(body, self.plan.wanted)
        if self.plan.logged(body):
            self.events.write(self.halves.named(report), now)

    def _say(self) -> None:
        """One line for each cause of the exception policy, at most every SAY_EVERY seconds."""
        now = time.monotonic()
        if now < self._say_at:
            return
        self._say_at = now + SAY_EVERY
        for cause, count in self.told.exceptions.items():
            more = count - self._said[cause]
            if more:
                log.warning("exception policy: %s: %d times, %s", cause, more, self.plan.failure(cause))
            self._said[cause] = count

    def _tick(self, _now: float) -> None:
        self.engine.skew = self.gateway.clock.skew
        self.events.flush()
        self.metrics.events_lost.inc(self.events.lost - self._lost)
        self._lost = self.events.lost
        self.metrics.failures.inc(self.gateway.stats.command_failures - self._failed)
        self._failed = self.gateway.stats.command_failures
        if self._journal is not None:
            self._journal.heal()
            self.metrics.unwritten.inc(self._journal.lost - self._unwritten)
            self._unwritten = self._journal.lost
        self._say()
        calls = self.engine.calls
        families = Counter("ipv6" if len(each.inside) == 16 else "ipv4" for each in calls.book.open.values())
        self.metrics.gauges(len(self.engine.flows), self.halves.counted(calls.calls.open), families)
