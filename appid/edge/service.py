"""The supervisor: files and kernel put together around the workers. `appid run` is little more than this.

In: a Config. Out: rule sets in the kernel, one worker a queue, the control socket and the metrics endpoint, which look
like one engine. It sees no packet itself.
"""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from appid.dataplane.chain import PINHOLES, Topology
from appid.dataplane.command import Report
from appid.edge import iptables, metrics, notify, preflight, state, turn, worker
from appid.edge.answers import counts_of
from appid.edge.children import Child
from appid.edge.config import Config
from appid.edge.conntrack import FlowEnds, prepare
from appid.edge.control import ControlSocket, Reply
from appid.edge.errors import RuleErrors
from appid.edge.events import Events
from appid.edge.exporter import export
from appid.edge.fleet import Answer, Fleet
from appid.edge.halves import Table
from appid.edge.handing import hand_over
from appid.edge.loop import Loop
from appid.edge.merge import merge
from appid.edge.netlink import KernelError
from appid.edge.plan import Plan, load_plan
from appid.edge.queues import REFUSALS, Queues
from appid.edge.tally import Numbers, Tally
from appid.edge.worker import Lasting
from appid.policy.exception import CAUSES
from appid.wire import packed

LOCK_PATIENCE = 5.0
"""Seconds in which the workers of a supervisor that was killed have to be gone."""
CHAINS_EVERY = 10.0
"""Seconds between two looks at the chains: at their counters, and whether they stand as they should."""
_ASKED = ("flows", "calls", "pinholes", "tale", "stats")

log = logging.getLogger("appid")


def _called(descriptor: int, callback: Callable[[], None]) -> None:
    """A signal came, by way of an eventfd."""
    os.eventfd_read(descriptor)
    callback()


class Service:
    """One running gateway. `with Service(config) as service: service.run()`."""

    def __init__(self, config: Config, monitor: bool = False) -> None:
        self.config = config
        self.plan = load_plan(config, monitor)
        self.directory = config.control.with_name("metrics")
        self.applied: Topology | None = None
        self._exporter: Child | None = None
        self._loading: Reply | None = None
        self._looked = 0.0
        self._succeeded = True
        self._again = False
        self._past: list[dict[str, Any]] = []  # what workers that ended had counted, up to a second before
        self._counted: Counter[Any] = Counter()
        self._said: Counter[str] = Counter()
        self._removed = False  # our rules, by an admin
        self._made = False  # something of ours in the kernel, at the last start or reload
        self._opened = ExitStack()
        self._let_go: Callable[[], None] = lambda: None
        self.stopped: int | None = None
        self._early: set[int] = set()

    def __enter__(self) -> Service:
        with ExitStack() as opened:
            self._lock(opened)
            self.tallies = {number: Tally(self.config.state / f"queue-{number}") for number in self.plan.queues}
            metrics.clear(self.directory)
            metrics.share(self.directory, "supervisor")
            self.metrics = metrics.Metrics(self.plan.marks, self.plan.numbers)
            self.metrics.loaded(self.plan.numbers, len(self.plan.warnings), time.time())
            for cause in CAUSES:  # from 0 on, so that the first one is seen to be one more
                self.metrics.exceptions.labels(cause, self.plan.failure(cause))
            for queue in self.plan.queues:
                for reason in ("full", "user"):
                    self.metrics.dropped.labels(str(queue), reason)
            for why in REFUSALS:
                self.metrics.refused.labels(why)
            self.events = Events(self.config.events, enforced=not self.plan.monitor)
            opened.callback(self.events.close)
            self._warn()
            self.loop = Loop(self._tick)
            opened.callback(self.loop.close)
            self._heed(opened)
            self._begin(opened)
            self._opened = opened.pop_all()
        return self

    def _begin(self, opened: ExitStack) -> None:
        """One after the other, as long as nobody wants it to end."""
        preflight.check(self.plan.topology(), iptables.variant_of(self.config.iptables))
        try:
            for part in (self._ground, self._workers, self._chains, self._answers):
                if self.stopped is None:
                    part(opened)
        except KernelError:
            if self.stopped is None:  # else a worker has heard of it, too
                raise

    def _heed(self, opened: ExitStack) -> None:
        """Signals are heard from now on: what was put into the kernel does not stay behind."""
        heard = {signal.SIGTERM: self._stop, signal.SIGINT: self._stop}
        for number, handler in (heard | dict.fromkeys((signal.SIGHUP, signal.SIGUSR1), self._later)).items():
            opened.callback(signal.signal, number, signal.signal(number, handler))

    def _later(self, number: int, _frame: object) -> None:
        """What is asked before we serve is done then; while we end, nothing is."""
        self._early.add(number)

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def _lock(self, opened: ExitStack) -> None:
        """One gateway a control socket. The workers inherit the lock, so that it is free when the last one is gone."""
        place = self.config.control.with_suffix(".lock")
        place.parent.mkdir(parents=True, exist_ok=True)
        self._locked = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        opened.callback(os.close, self._locked)
        end = time.monotonic() + LOCK_PATIENCE
        while True:
            try:
                fcntl.flock(self._locked, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > end:
                    raise KernelError(str(place), "another gateway runs here") from None
                time.sleep(0.05)

    def _ground(self, opened: ExitStack) -> None:
        """First the sets and maps: calls that outlived the engine are in the kernel before a packet is judged."""
        self._found = PINHOLES[4] in iptables.run(["ipset", "-n", "list"]).split()
        opened.callback(self._unground)
        with self._turn():
            iptables.ground(self.plan.topology(), iptables.variant_of(self.config.iptables))

    def _unground(self) -> None:
        """Where the chains never came, they would be left alone."""
        if self.applied is None and not self._found:
            self._remove()

    def _workers(self, opened: ExitStack) -> None:
        """Then the workers, and then the chains: what these queue is answered from the first packet on."""
        self.plan.settings()  # looks at the host

        def work(index: int, connection: socket.socket) -> None:
            lasting = Lasting(self.tallies[self.plan.queues[index]], ends[index], table, numbers)
            worker.work(self.plan, index, lasting, self.directory, self._handed.get(index), connection)

        table, numbers = self._table(opened), Numbers()
        ends = self._ends(opened)
        keep = [self._locked, *(each.fileno() for each in (*ends, table) if each is not None)]
        self.fleet = Fleet(self.loop, self.config.workers, work, keep, on_ready=self._ready, on_end=self._ended)
        self._let_go = self.fleet.let_go
        self._handed = hand_over(self.config.state, self.config.workers)
        self.fleet.start()
        self._handed = {}  # from now on each has a file of its own
        state.tidy(self.config.state, self.config.workers)
        opened.callback(self.fleet.stop)

    def _ends(self, opened: ExitStack) -> list[FlowEnds]:
        """Where the kernel tells the ends of flows, a socket for each worker. What a service manager has kept of the
        process before this one holds those of the time between: all of them each, so only as many workers can share."""
        count, kept = len(self.plan.queues), notify.kept()
        names = [f"ends-{index}-of-{count}" for index in range(count)]
        for name in [name for name in kept if name not in names or not kept.keys() >= set(names)]:
            os.close(kept.pop(name))
            notify.let_go(name)
        ends = []
        for name in names:
            try:
                ends.append(FlowEnds(kept=kept.get(name)))
            except OSError as error:
                if name not in kept:
                    raise
                log.warning("%s, as the service manager kept it: %s: ends of the time between are lost", name, error)
                notify.let_go(name)
                del kept[name]
                ends.append(FlowEnds())
            opened.callback(ends[-1].close)
            if name not in kept:
                notify.keep(name, ends[-1].fileno())
        return ends

    def _table(self, opened: ExitStack) -> Table | None:
        """Where workers meet that have halves of one call; a worker alone has whole ones."""
        if self.config.workers == 1:
            return None
        place = self.config.state / "halves"
        try:
            table = Table(place)
        except OSError as error:
            log.error("%s: %s: calls between hosts of two workers are told twice", place, error.strerror)
            return None
        opened.callback(table.close)
        table.only(self.config.workers)
        return table

    def _chains(self, opened: ExitStack) -> None:
        variant = iptables.variant_of(self.config.iptables)
        topology = self.plan.topology()
        self.queues = Queues(variant, self.tallies, self.plan.options().fail_open)
        self.queues.begin()  # with the chains that stand, and their counters
        self._apply(topology)
        opened.callback(self._leave)
        self.fleet.ask("placed", None, lambda answers: None)

    def _leave(self) -> None:
        """At the end: decided flows go on by the chains that stay, or the chains go, as configured."""
        kept = self.config.on_stop == "keep" and self.stopped != signal.SIGINT
        if not kept or (self.stopped is None and not self._found):
            self._remove()

    def _remove(self) -> None:
        try:
            with self._turn():
                iptables.remove()
        except KernelError as error:
            log.error("%s", error)

    def _answers(self, opened: ExitStack) -> None:
        self.control = ControlSocket(self.config.control, self.loop, self.answer, self.config.group)
        opened.callback(self.control.close)
        if self.config.metrics is not None:
            self._export(opened, self.config.metrics)

    def _export(self, opened: ExitStack, listen: tuple[str, int]) -> None:
        self._exporter = export(self.directory, listen, self.metrics.words)
        self.loop.register(self._exporter, lambda: self._exporter_ended(listen))
        opened.callback(self._stop_exporter)

    def _exporter_ended(self, listen: tuple[str, int]) -> None:
        assert self._exporter is not None
        self.loop.unregister(self._exporter)
        how, self._exporter = self._exporter.reap(), None
        if self.stopped is not None:
            return
        log.error("metrics endpoint ended: %s", how)
        self._exporter = export(self.directory, listen, self.metrics.words)
        self.loop.register(self._exporter, lambda: self._exporter_ended(listen))

    def _stop_exporter(self) -> None:
        if self._exporter is not None:
            self.loop.unregister(self._exporter)
            self._exporter.signal(signal.SIGKILL)
            os.waitpid(self._exporter.pid, 0)

    def run(self) -> int | None:
        """Serve until SIGTERM or SIGINT; returns which. SIGHUP loads the files again, SIGUSR1 opens the log's anew."""
        if self.stopped is not None:
            return self.stopped
        before = signal.set_wakeup_fd(self.loop.wakeup_fd, warn_on_full_buffer=False)
        wanted: dict[int, Callable[[], None]] = {signal.SIGHUP: self._hang_up, signal.SIGUSR1: self._reopen}
        descriptors = {number: os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for number in wanted}
        for number, descriptor in descriptors.items():
            self.loop.register(descriptor, partial(_called, descriptor, wanted[number]))
        handlers = {n: signal.signal(n, lambda each, _: os.eventfd_write(descriptors[each], 1)) for n in wanted}
        for number in self._early & wanted.keys():
            os.eventfd_write(descriptors[signal.Signals(number)], 1)
        try:
            log.info("ready")
            notify.tell(notify.READY)
            self.loop.run()
        finally:
            notify.tell(notify.STOPPING)
            for each, handler in handlers.items():
                signal.signal(each, handler)
            signal.set_wakeup_fd(before)
            for descriptor in descriptors.values():
                self.loop.unregister(descriptor)
                os.close(descriptor)
        return self.stopped

    def _stop(self, number: int, _frame: object) -> None:
        self.stopped = number
        self._let_go()
        self.loop.stop()

    def _tick(self) -> None:
        self.fleet.tick()
        if self.fleet.answers:
            notify.tell(notify.ALIVE)
        self.control.expire()
        self.events.flush()
        now = time.monotonic()
        full = now - self._looked >= CHAINS_EVERY
        self._look(full)
        if full:
            self._looked = now
            self._stand()

    def _look(self, full: bool) -> None:
        """What the queues lost goes into the metrics."""
        self.queues.look(full)
        for (number, reason), packets in self.queues.dropped.items():
            self._count((number, reason), packets, self.metrics.dropped.labels(str(number), reason).inc)
        for cause, packets in self.queues.exceptions.items():
            self._count(cause, packets, self.metrics.exceptions.labels(cause, self.plan.failure(cause)).inc)
        if full:
            self._say()
        for why, packets in self.queues.refused.items():
            self._count(why, packets, self.metrics.refused.labels(why).inc)
        self.metrics.workers.set(sum(seat.ready for seat in self.fleet.seats))

    def _say(self) -> None:
        """One line for each cause, at most every CHAINS_EVERY seconds."""
        for cause, packets in self.queues.exceptions.items():
            more = packets - self._said[cause]
            if more > 0:
                log.warning("exception policy: %s: %d packets, %s", cause, more, self.plan.failure(cause))
            self._said[cause] = packets

    def _count(self, key: Any, total: int, inc: Callable[[float], None]) -> None:
        inc(total - self._counted[key])
        self._counted[key] = total

    def _ready(self, index: int) -> None:
        """A worker that was started again serves, behind chains that stand."""
        if self.applied is not None:
            self.fleet.ask("placed", None, lambda answers: None, [index])

    def _ended(self, index: int) -> None:
        metrics.gone(self.directory, f"w{index}")
        said = self.fleet.seats[index].said
        self._past = merge("stats", [self._past, [said] if said else []])
        if self.applied is not None:
            self.metrics.restarts.inc()
            self._look(True)

    # -- another policy ------------------------------------------------------------------------------------------

    def _reopen(self) -> None:
        try:
            self.events.reopen()
        except OSError as error:
            log.error("%s", error)
        self.fleet.ask("reopen", None, lambda answers: None)

    def _hang_up(self) -> None:
        if self._loading is not None:  # what the files say now is read when that is done
            self._again = True
            return
        self._again = False
        self.load(None, lambda answers: None)

    def load(self, path: Path | None, reply: Reply) -> None:
        """The policy at `path` (None: the configured one) and the applications' files take the place of the old ones:
        in all workers, or, if there is any fault, in none. The answer is `loaded`, or an `error` for each fault."""
        place = path or self.config.policy
        if self._loading is not None:
            reply([{"type": "error", "fault": "file", "reason": "another policy is being loaded"}])
            return

        def done(answers: Iterable[dict[str, Any]]) -> None:
            notify.tell(notify.READY)
            reply(answers)

        notify.tell(notify.reloading())
        self._load(place, done)

    def _load(self, place: Path, reply: Reply) -> None:
        try:
            plan = load_plan(self.config, self.plan.monitor, place)
            plan.settings()  # looks at the host
        except RuleErrors as errors:
            reply(self._refused(place, [str(fault) for fault in errors.errors], "file"))
            return
        except KernelError as error:
            reply(self._refused(place, [str(error)], "kernel"))
            return
        except Exception as error:  # a fault of ours in the middle of it: nothing has changed yet
            log.exception("loading %s", place)
            reply(self._refused(place, [f"{place}: a fault of appid itself: {type(error).__name__}: {error}"], "appid"))
            return
        self._loading = reply
        try:
            self.fleet.ask("prepare", plan.parcel(), lambda answers: self._prepared(plan, answers))
        except Exception as error:  # a plan that does not travel
            self._loading = None
            log.exception("not handed to the workers")
            reply(self._refused(place, [f"{place}: a fault of appid itself: {type(error).__name__}: {error}"], "appid"))

    def _prepared(self, plan: Plan, answers: dict[int, Answer]) -> None:
        """All have it: chains first, what they let pass meanwhile is judged a moment later."""
        reply, self._loading = self._loading, None
        assert reply is not None
        if self._again:
            self.loop.soon(self._hang_up)
        faults = [f"worker {index}: {answer.error}" for index, answer in answers.items() if answer.error is not None]
        silent = {seat.index for seat in self.fleet.seats if seat.ready} - set(answers)
        faults += [f"worker {index} does not answer" for index in sorted(silent)]
        if not faults:
            try:
                self._apply(plan.topology(self.applied))
            except KernelError as error:
                faults = [str(error)]
            except Exception as error:  # a fault of ours: whoever waits for the answer gets one
                log.exception("chains of %s", plan.place)
                faults = [f"a fault of appid itself: {type(error).__name__}: {error}"]
        if faults:
            self.fleet.ask("discard", None, lambda answers: None)
            reply(self._refused(plan.place, faults, "kernel"))
            return
        self.plan = plan
        self.fleet.ask("swap", None, lambda answers: self._swapped(plan, answers, reply))

    def _apply(self, topology: Topology) -> None:
        """Also where the topology is the same: others may have moved our rules, or taken them away."""
        with self._turn():
            self._made = iptables.apply(topology, iptables.variant_of(self.config.iptables))
        self.applied = topology
        self._in_force(True)

    def _in_force(self, whether: bool) -> None:
        self._removed = not whether
        self.metrics.in_force.set(whether)

    def _turn(self, patience: float | None = None) -> AbstractContextManager[int]:
        return turn.taken(turn.beside(self.config.control), "appid run", patience)

    def _stand(self) -> None:
        """Without our jumps, or with those of others before them, packets pass that nobody judged; without accounting,
        nobody counts them."""
        assert self.applied is not None
        removed = self._removed or turn.last(turn.beside(self.config.control)).endswith(turn.REMOVE)
        with ExitStack() as opened:
            try:
                opened.enter_context(self._turn(0.0))
            except KernelError:  # a change by an admin is under way: another time
                return
            try:
                prepare()
                done = iptables.mend(self.applied, iptables.variant_of(self.config.iptables), removed)
            except KernelError as error:
                log.error("another program has changed our rules, and they cannot be put back: %s", error)
                return
        if done is None and not self._removed:
            log.error("%s: no rules are in force, nothing is judged and nobody refused, until a reload", turn.REMOVE)
        self._in_force(done is not None)
        if done:
            log.warning("another program had changed our rules: put back by %s", ", ".join(map(str, done)))
            self.metrics.mended.inc()
            self.fleet.ask("placed", True, lambda answers: None)  # with what these held of calls

    def _swapped(self, plan: Plan, answers: dict[int, Answer], reply: Reply) -> None:
        for index, answer in answers.items():
            if answer.error is not None:
                log.error("worker %d: %s: it begins anew", index, answer.error)
                child = self.fleet.seats[index].child
                if child is not None:
                    child.signal(signal.SIGTERM)
        if self._made:  # sets and maps among it, perhaps, that others had taken away: with what they held of calls
            self.fleet.ask("placed", True, lambda answers: None)
        rules, warnings = len(plan.policy.rules), len(plan.warnings)
        self.metrics.loaded(plan.numbers, warnings, time.time())
        self._succeeded = True
        log.info("policy loaded: %s, %d rules", plan.place, rules)
        self.events.write(Report("config", {"loaded": str(plan.place), "rules": rules}), time.time())
        self._warn()
        reply([{"type": "loaded", "policy": str(plan.place), "rules": rules, "warnings": warnings}])

    def _refused(self, place: Path, faults: list[str], whose: str) -> Iterable[dict[str, Any]]:
        self.metrics.reloaded.set(0)
        self._succeeded = False
        for fault in faults:
            log.error("not loaded, the old policy stays: %s", fault)
        self.events.write(Report("config", {"refused": str(place), "faults": faults}), time.time())
        return [{"type": "error", "fault": whose, "reason": fault} for fault in faults]

    def _warn(self) -> None:
        for warning in self.plan.warnings:
            log.warning("policy: %s: %s", warning.kind, warning)
            self.events.write(Report("config", {"warning": warning.kind, "text": str(warning)}), time.time())

    # -- what is asked -------------------------------------------------------------------------------------------

    def answer(self, request: dict[str, Any], reply: Reply) -> None:
        """The control socket's answers: all workers' as one."""
        asked = request.get("ask")
        if asked == "load":
            given = request.get("policy")
            self.load(Path(given) if isinstance(given, str) else None, reply)
        elif asked in _ASKED:
            self.fleet.ask("ask", request, lambda answers: reply(self._merged(str(asked), answers)))
        else:
            reply([{"type": "error", "reason": f"{asked!r} is nothing to ask for"}])

    def _merged(self, asked: str, answers: dict[int, Answer]) -> list[dict[str, Any]]:
        told = [answer.body for answer in answers.values() if answer.error is None]
        faults = [
            {"type": "error", "reason": f"worker {index}: {answer.error}"}
            for index, answer in answers.items()
            if answer.error is not None
        ]
        faults += [
            {"type": "error", "reason": f"worker {seat.index} does not serve just now"}
            for seat in self.fleet.seats
            if seat.index not in answers
        ]
        inside = self.plan.share(0).inside
        if asked == "stats":
            for index, answer in answers.items():
                if answer.error is None:  # what was told once is not taken back, whoever dies
                    self.fleet.seats[index].said = counts_of(answer.body[0])
            told.append(self._past)
        merged = merge(asked, told, lambda address: inside(packed(address)))
        if asked == "stats":
            whole = {"type": "stats", **(merged[0] if merged else {})}
            merged = [{**whole, **self._stats(whole)}]
        return merged + faults

    def _stats(self, told: dict[str, Any]) -> dict[str, Any]:
        """What the supervisor knows, and is told even if no worker serves just now."""
        self._look(True)
        exceptions: Counter[str] = Counter(told.get("exceptions", {}))
        exceptions.update(self.queues.exceptions)
        dropped: Counter[str] = Counter()
        for (_, reason), packets in self.queues.dropped.items():
            dropped[reason] += packets
        return {
            "exceptions": {cause: exceptions[cause] for cause in CAUSES}, "dropped": dict(dropped),
            "refused": {why: self.queues.refused[why] for why in REFUSALS},
            "exception_policy": {cause: self.plan.failure(cause) for cause in CAUSES},
            "reload_success": self._succeeded, "rules_in_force": not self._removed,
            "events_lost": told.get("events_lost", 0) + self.events.lost,
            "policy_warnings": [str(warning) for warning in self.plan.warnings], "monitor": self.plan.monitor,
            "workers": [
                {"queue": queue, "alive": seat.ready, "restarts": seat.ends, "seen": self.tallies[queue].seen,
                 "pid": seat.child.pid if seat.child is not None else None}
                for queue, seat in zip(self.plan.queues, self.fleet.seats, strict=True)
            ],
        }  # fmt: skip
