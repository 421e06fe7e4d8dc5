"""The book of expectations: which media is foreseen, towards whom, for which call. Bounded per call, host and gateway.

In: expectations wanted by a call. Out: which are new and which are no longer wanted; and, for a flow's first packet,
whether a call foresaw it, in either direction.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

from appid.alg.expectation import Expectation
from appid.flow.key import FlowKey
from appid.flow.numbers import Numbers

PER_CALL = 16
PER_HOST = 64
PER_GATEWAY = 65536
LEFT = 10.0
"""Seconds for which a closed expectation's place is remembered."""
MAX_LEFT = 4096
MAX_AWAITED = 4096
"""Expectations whose place another call has, of all calls."""

_Place = tuple[int, bytes, int, bytes]


def _place(expectation: Expectation) -> _Place:
    return (expectation.proto, expectation.inside, expectation.port, expectation.peer)


def across(expectation: Expectation) -> Expectation:
    """The same media at its other end, which is inside as well."""
    return replace(
        expectation, inside=expectation.peer, port=expectation.announced, peer=expectation.inside,
        outside_port=expectation.announced, announced=expectation.port,
    )  # fmt: skip


class Book:
    """Expectations by number, by call, and by the place where their first packet will be seen."""

    def __init__(self, first: int = 1, step: int = 1, gateway: int | None = None, host: int | None = None) -> None:
        """`gateway`, `host`: how many there may be of all, and of one inside host."""
        self._gateway, self._host = gateway or PER_GATEWAY, host or PER_HOST
        self.open: dict[int, Expectation] = {}
        self._places: dict[_Place, int] = {}
        self._by_call: dict[int, list[int]] = {}
        self._hosts: dict[bytes, int] = {}
        self.numbers = Numbers(first, step)
        self._left: OrderedDict[_Place, tuple[str, int, float]] = OrderedDict()
        self._awaited: dict[_Place, dict[int, Expectation]] = {}
        self._awaiting: dict[int, dict[_Place, None]] = {}
        self._passed: dict[_Place, tuple[int, float]] = {}

    def foreseen(self, key: FlowKey) -> tuple[int, Expectation] | None:
        """The expectation that this 5-tuple fulfils: inbound to the inside port, or outbound from it."""
        if not self._places:
            return None
        number = self._places.get((key.proto, key.dst, key.dport, key.src))
        if number is None:
            number = self._places.get((key.proto, key.src, key.sport, key.dst))
        return None if number is None else (number, self.open[number])

    def left(self, key: FlowKey, now: float) -> tuple[str, int] | None:
        """The application and call of media that was here until a moment ago: what goes on there is no new flow."""
        if not self._left:
            return None
        found = self._left.get((key.proto, key.dst, key.dport, key.src))
        found = found or self._left.get((key.proto, key.src, key.sport, key.dst))
        return None if found is None or now - found[2] >= LEFT else found[:2]

    def holder(self, expectation: Expectation) -> int | None:
        """The number of the expectation that stands at the same place."""
        return self._places.get(_place(expectation))

    def at(self, proto: int, inside: bytes, port: int, peer: bytes) -> int | None:
        """The number of the expectation of this place."""
        return self._places.get((proto, inside, port, peer))

    def replace(self, number: int, expectation: Expectation) -> None:
        """Another expectation of the same place and call, under the same number."""
        before = self.open[number]
        assert _place(before) == _place(expectation)
        if before.reason != expectation.reason:
            expectation = replace(expectation, checked_at=before.checked_at or before.opened_at)
        self.open[number] = expectation

    def give(self, number: int, call: int) -> None:
        """An expectation becomes another call's, whatever that one has already."""
        expectation = self.open[number]
        self._by_call[expectation.call].remove(number)
        if not self._by_call[expectation.call]:
            del self._by_call[expectation.call]
        self.open[number] = replace(expectation, call=call)
        self._by_call.setdefault(call, []).append(number)

    def of_call(self, call: int) -> list[tuple[int, Expectation]]:
        return [(number, self.open[number]) for number in self._by_call.get(call, ())]

    def add(self, expectation: Expectation) -> int | None:
        """Its number; None if it stands already, or a cap forbids it (`full`). Where another call has its place, as
        when a phone with one port has two calls by one provider, it is that one's heir."""
        if not self._room(expectation):
            self._await(expectation)
            return None
        number = self.numbers.take()
        self._keep(number, expectation)
        return number

    def put(self, number: int, expectation: Expectation) -> bool:
        """One known from before, under its own number; whether there is room for it."""
        if number in self.open or not self._room(expectation):
            return False
        self.numbers.beyond(number)
        self._keep(number, expectation)
        return True

    def _room(self, expectation: Expectation) -> bool:
        return _place(expectation) not in self._places and self.full(expectation) is None

    def full(self, expectation: Expectation) -> str | None:
        """Whose share is used up, in words; None if there is room."""
        if len(self._by_call.get(expectation.call, ())) >= PER_CALL:
            return f"a call has {PER_CALL} ports"
        if self._hosts.get(expectation.inside, 0) >= self._host:
            return f"a host has {self._host} ports"
        return f"the gateway has {self._gateway} ports" if len(self.open) >= self._gateway else None

    def _await(self, expectation: Expectation) -> None:
        place, call = _place(expectation), expectation.call
        holder = self._places.get(place)
        if holder is None or self.open[holder].call == call or len(self._awaited) >= MAX_AWAITED:
            return
        mine = self._awaiting.setdefault(call, {})
        if len(mine) < PER_CALL:
            mine[place] = None
            self._awaited.setdefault(place, {})[call] = expectation

    def passes(self, key: FlowKey, packet: int, now: float) -> None:
        """Media moves in this flow. Whose it is, where several calls have or await the place, nobody can tell."""
        if not self._awaited:
            return
        for place in (key.proto, key.dst, key.dport, key.src), (key.proto, key.src, key.sport, key.dst):
            if place in self._awaited:
                self._passed[place] = packet, now

    def passed(self) -> list[tuple[int, int, float]]:
        """Calls at whose awaited places something has moved since this was last asked, each with packet and time."""
        taken, self._passed = self._passed, {}
        return [(call, *when) for place, when in taken.items() for call in self._awaited.get(place, ())]

    def awaits(self, call: int) -> list[Expectation]:
        """What the call would have if no other had its place."""
        return [self._awaited[place][call] for place in self._awaiting.get(call, ())]

    def heir(self, number: int) -> Expectation | None:
        """Who has its place when it goes; it waits for it no longer."""
        place = _place(self.open[number])
        waiting = self._awaited.get(place)
        if not waiting:
            return None
        expectation = next(iter(waiting.values()))
        self._waive(expectation.call, place)
        return expectation

    def forgo(self, call: int, inside: bytes | None = None) -> None:
        """The call waits for no place any more, or for none of this host's."""
        for place in [place for place in self._awaiting.get(call, ()) if inside in (None, place[1])]:
            self._waive(call, place)

    def _waive(self, call: int, place: _Place) -> None:
        del self._awaited[place][call], self._awaiting[call][place]
        if not self._awaited[place]:
            del self._awaited[place]
        if not self._awaiting[call]:
            del self._awaiting[call]

    def _keep(self, number: int, expectation: Expectation) -> None:
        self.open[number] = expectation
        self._places[_place(expectation)] = number
        self._by_call.setdefault(expectation.call, []).append(number)
        self._hosts[expectation.inside] = self._hosts.get(expectation.inside, 0) + 1

    def remove(self, number: int, now: float | None = None) -> Expectation:
        """`now`: the media is cut at this time (seconds)."""
        expectation = self.open.pop(number)
        place = _place(expectation)
        if now is not None:
            self._left.pop(place, None)
            self._left[place] = (expectation.application, expectation.call, now)
            while len(self._left) > MAX_LEFT:
                self._left.popitem(last=False)
        del self._places[place]
        mine = self._by_call[expectation.call]
        mine.remove(number)
        if not mine:
            del self._by_call[expectation.call]
        self._hosts[expectation.inside] -= 1
        if not self._hosts[expectation.inside]:
            del self._hosts[expectation.inside]
        return expectation
