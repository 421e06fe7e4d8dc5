"""What the kernel should hold of calls: pinholes and bindings. In: the commands that were asked for. Out: what is
wanted now, what to do again after a failure, whether another call still needs an element.

Timeouts are the kernel's own; what is past its time here is gone there too.
"""

from __future__ import annotations

from collections.abc import Iterator

from appid.alg.expectation import Expectation
from appid.dataplane.command import BindNat, ClosePinhole, Command, OpenPinhole, UnbindNat

Element = tuple[int, bytes, int, bytes]
"""Protocol, inside address, inside port, peer: the key of a pinhole's set element and of a binding."""


def element(wanted: Expectation | BindNat | UnbindNat) -> Element:
    return wanted.proto, wanted.inside, wanted.port, wanted.peer


class Desired:
    """Bounded by the engine's own caps: it never opens more than those allow."""

    def __init__(self) -> None:
        self._pinholes: dict[int, tuple[OpenPinhole, float]] = {}
        self._users: dict[Element, set[int]] = {}
        self._bindings: dict[Element, tuple[BindNat, float]] = {}
        self._failed: dict[tuple[str, object], OpenPinhole | BindNat] = {}

    def note(self, command: Command, now: float) -> None:
        """A command was carried out, or tried."""
        match command:
            case OpenPinhole():
                for number in (command.id, *self._users.get(element(command.expectation), ())):
                    self._forget(number)  # one number has the element: that of who was handed it last
                self._pinholes[command.id] = (command, now + command.timeout)
                self._users.setdefault(element(command.expectation), set()).add(command.id)
            case ClosePinhole():
                self._forget(command.id)
                self._failed.pop(("pinhole", command.id), None)
            case BindNat():
                self._bindings[element(command)] = (command, now + command.timeout)
            case UnbindNat():
                self._bindings.pop(element(command), None)
                self._failed.pop(("binding", element(command)), None)
            case _:
                pass

    def failed(self, command: Command) -> None:
        """The kernel refused it: to be tried again."""
        if isinstance(command, OpenPinhole):
            self._failed["pinhole", command.id] = command
        elif isinstance(command, BindNat):
            self._failed["binding", element(command)] = command

    def retry(self, now: float) -> list[OpenPinhole | BindNat]:
        """What was refused and is still wanted, bindings first; each is handed out once until it fails again."""
        wanted: list[OpenPinhole | BindNat] = []
        for (kind, key), command in self._failed.items():
            table: dict[object, tuple[object, float]] = self._bindings if kind == "binding" else self._pinholes  # type: ignore[assignment]
            kept = table.get(key)
            if kept is not None and kept[0] == command and kept[1] > now:
                wanted.append(command)
        self._failed.clear()
        return sorted(wanted, key=lambda command: isinstance(command, OpenPinhole))

    def shared(self, close: ClosePinhole, now: float) -> bool:
        """Whether another pinhole, still open, needs the same element."""
        users = self._users.get(element(close.expectation), ())
        return any(number != close.id and self._pinholes[number][1] > now for number in users)

    def binding(self, wanted: Expectation | UnbindNat) -> BindNat | None:
        """The binding between the same two ends."""
        kept = self._bindings.get(element(wanted))
        return kept[0] if kept else None

    def expire(self, now: float) -> None:
        for number in [number for number, (_, until) in self._pinholes.items() if until <= now]:
            self._forget(number)
        for key in [key for key, (_, until) in self._bindings.items() if until <= now]:
            del self._bindings[key]

    def _forget(self, number: int) -> None:
        pinhole = self._pinholes.pop(number, None)
        if pinhole is None:
            return
        place = element(pinhole[0].expectation)
        self._users[place].discard(number)
        if not self._users[place]:
            del self._users[place]

    def elements(self) -> frozenset[Element]:
        """The keys of all pinholes."""
        return frozenset(element(pinhole.expectation) for pinhole, _ in self._pinholes.values())

    def pinholes(self) -> Iterator[tuple[OpenPinhole, float]]:
        """Each with the time at which it ends."""
        yield from self._pinholes.values()

    def bindings(self) -> Iterator[tuple[BindNat, float]]:
        yield from self._bindings.values()
