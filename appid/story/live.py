"""The storyteller of a running gateway: of each call it keeps the messages that userspace saw, and makes words of them
when it is asked. Media that the kernel forwards alone it never sees.

In: what the engine read and commanded, packet by packet. Out: Telling per call. Bounded: the call that ended first, or
began first, gives way; nothing is parsed or worded before somebody asks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from appid.dataplane.command import Command, Report, SetVerdict
from appid.engine import Engine, Event, FlowReport, RulesLoaded
from appid.engine.record import FlowRecord
from appid.flow.key import FlowKey
from appid.story.exchange import Budget
from appid.story.step import Step
from appid.story.tale import SAID_OFTEN, Telling
from appid.story.teller import OTHERWISE, Raw, Storyteller
from appid.story.words import Said
from appid.wire import Layer

CALLS = 64
MESSAGES = 200
"""Of one call: its first ones; of the others the last RECENT are kept."""
RECENT = 50
FLOWS = 2048
WAITING, PENDING = 128, 8
"""Flows that may yet join a call, and messages kept of each."""

Reported = Callable[[FlowKey], FlowReport | None]


class _Life(NamedTuple):
    id: int
    key: FlowKey
    report: FlowReport | None
    call: int | None


class Kept(Telling):
    """The messages of one call, as they came."""

    def __init__(self, inside: Callable[[bytes], bool], number: int) -> None:
        super().__init__(inside, number=number)
        self.begun: list[tuple[Raw, bool] | Step] = []
        self.recent: deque[tuple[Raw, bool] | Step] = deque(maxlen=RECENT)
        self.given_up = 0
        self.gone = False

    def keep(self, entry: tuple[Raw, bool] | Step) -> None:
        if self.gone:
            return
        if len(self.begun) < MESSAGES:
            self.begun.append(entry)
            return
        self.given_up += len(self.recent) == RECENT
        self.recent.append(entry)

    def join(self, other: Telling) -> None:
        """Another call was the other end of this one."""
        assert isinstance(other, Kept)
        entries = sorted((*self.begun, *self.recent, *other.begun, *other.recent), key=_frame)
        self.given_up += other.given_up
        self.begun, self.recent = [], deque(maxlen=RECENT)
        other.let_go()
        for entry in entries:
            self.keep(entry)

    def let_go(self) -> None:
        self.gone = True
        self.begun.clear()
        self.recent.clear()

    def add(self, step: Step, said: Said, often: int = SAID_OFTEN) -> None:
        """What is no message: time that passed, what was seen elsewhere."""
        self.keep(step)


def _frame(entry: tuple[Raw, bool] | Step) -> int:
    return entry.frame if isinstance(entry, Step) else entry[0][1]


class LiveTeller(Storyteller):
    """Looks on at one engine."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._record: FlowRecord | None = None
        self._number = 0
        self.most_waiting, self.most_pending = WAITING, PENDING
        self.budget = Budget(tales=1 << 62)  # of each call one; what a call keeps is bounded by itself

    def read(self, record: FlowRecord, number: int, outward: bool, layers: tuple[Layer, ...]) -> None:
        """What says nothing and is of no call is not looked at further."""
        if layers or record.call is not None:
            self._layers, self._record, self._number = layers, record, number

    @property
    def due(self) -> bool:
        """Whether `seen` has anything to do with the packet at hand."""
        return self._record is not None or bool(self._effects)

    def commands(self, event: Event, now: float, commands: list[Command], number: int) -> None:
        for command in commands:
            kind = type(command)
            if kind is not SetVerdict and not (kind is Report and command.kind == "flow"):  # type: ignore[union-attr]
                super().commands(event, now, commands, number)
                break
        if type(event) is RulesLoaded:
            self.learn(event.settings)

    def seen(self, data: bytes, time: int, number: int, reported: Reported) -> None:
        """A queued packet, after its verdict. `reported`: what was told last of a flow."""
        record, self._record = self._record, None
        if record is None or self._number != number:
            self._layers = None
            self._effects.clear()
            return
        life = _Life(record.id, record.key, reported(record.key), record.call)
        self.packet(memoryview(data), time, number, life)
        self._bound()

    def telling(self, number: int) -> Telling | None:
        """The tale of one call, in words; None: nothing of it is remembered."""
        kept = self.calls.get(number)
        if not isinstance(kept, Kept):
            return None
        telling = Telling(self.inside, Budget(), number)
        for entry in (*kept.begun, *kept.recent):
            if isinstance(entry, Step):
                telling.add(entry, OTHERWISE)
            else:
                super()._tell(telling, *entry)
        telling.untold += kept.given_up
        self._bound()
        return telling

    def _new(self, number: int) -> Telling:
        return Kept(self.inside, number)

    def _tell(self, telling: Telling, raw: Raw, courier: bool = False) -> None:
        assert isinstance(telling, Kept)
        telling.keep((raw, courier))

    def _bound(self) -> None:
        if len(self.calls) > CALLS:
            oldest = next((n for n, telling in self.calls.items() if telling.over), next(iter(self.calls)))
            given_up = self.calls.pop(oldest)
            assert isinstance(given_up, Kept)
            given_up.let_go()
        while len(self.notes) > FLOWS:
            flow = next(iter(self.notes))
            note = self.notes.pop(flow)
            if isinstance(note.telling, Kept) and not note.telling.gone:
                self.notes[flow] = note  # those of calls stay; there are few of them
        tables: tuple[dict[Any, Any], ...] = (
            self.times, self._reports, self._by_call_id, self._reasons, self._open, self._couriers,
        )  # fmt: skip
        for table in tables:
            while len(table) > FLOWS:
                del table[next(iter(table))]
