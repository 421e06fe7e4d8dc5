"""A change of rules that undoes itself unless it is confirmed: for the admin whom it locks out.

In: what `iptables.read` found before, seconds, a place for a socket. A process of its own, out of the session's reach,
holds what was there before: it puts it back when the time is over, when it is told to end, or when the one that applies
dies half way. Who connects and says "confirm" keeps the change; who says "wait" is told the outcome.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from appid.dataplane.ruleset import RuleSets
from appid.edge import turn
from appid.edge.iptables import undo

CONFIRMED, UNDONE = "confirmed", "undone"
Word = Literal["confirm", "wait"]


def pending(place: Path) -> bool:
    """Whether a change waits to be confirmed there."""
    with _socket() as made:
        try:
            made.connect(str(place))
        except OSError:
            return False
        return True


def say(place: Path, word: Word) -> socket.socket:
    """Tell the guard; from what is returned its answer can be read once there is one. OSError where there is none."""
    made = _socket()
    try:
        made.connect(str(place))
        made.sendall(word.encode())
    except OSError:
        made.close()
        raise
    return made


def outcome(answer: socket.socket) -> str:
    """CONFIRMED, UNDONE, or why it could not be undone."""
    with answer:
        return answer.recv(65536).decode(errors="replace") or "the guard is gone"


@contextlib.contextmanager
def guarded(before: RuleSets, seconds: float, place: Path, held: int) -> Iterator[None]:
    """The time runs from the end of the block on. An exception in it dismisses the guard: who raises has cleaned up.
    `held` is the turn (turn.py), which the guard keeps: nobody changes what it may have to undo."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    listener = _socket()
    listener.bind(str(place))
    place.chmod(0o600)
    listener.listen(8)
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        os.close(theirs)
        _detach(listener, ours, before, seconds, place, held)
    os.close(ours)
    listener.close()
    os.waitpid(child, 0)
    try:
        yield
        os.write(theirs, b"applied")
    except Exception:
        os.write(theirs, b"dismissed")
        raise
    finally:
        os.close(theirs)


def _socket() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)


def _detach(listener: socket.socket, applied: int, before: RuleSets, seconds: float, place: Path, held: int) -> None:
    """The child: becomes a process without session, terminal or parent. Never returns."""
    os.setsid()
    if os.fork():
        os._exit(0)
    status = 1
    try:
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit())
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nowhere, descriptor)
        os.chdir("/")
        turn.tell(held, "appid rules apply --confirm, which waits to be confirmed")
        _guard(listener, applied, before, seconds, place)
        status = 0
    finally:
        os._exit(status)


def _guard(listener: socket.socket, applied: int, before: RuleSets, seconds: float, place: Path) -> None:
    waiting: list[socket.socket] = []
    keep = False
    try:
        keep = _applied(applied) or _confirmed(listener, waiting, time.monotonic() + seconds)
    finally:  # also when it is told to end
        told = CONFIRMED
        if not keep:
            errors = undo(before)
            told = "; ".join(map(str, errors)) or UNDONE
        place.unlink(missing_ok=True)
        for client in waiting:
            with contextlib.suppress(OSError):
                client.sendall(told.encode())


def _applied(pipe: int) -> bool:
    """Waits until the change is made. True: it was not, and nothing is left of it. Whoever dies here says nothing."""
    word = os.read(pipe, 16)
    os.close(pipe)
    if not word:
        sys.exit()
    return word == b"dismissed"


def _confirmed(listener: socket.socket, waiting: list[socket.socket], deadline: float) -> bool:
    while (left := deadline - time.monotonic()) > 0:
        ready, _, _ = select.select([listener, *waiting], [], [], left)
        for each in ready:
            if each is listener:
                waiting.append(listener.accept()[0])
            elif not (word := _heard(each)):
                waiting.remove(each)
                each.close()
            elif word == b"confirm":
                return True
    return False


def _heard(client: socket.socket) -> bytes:
    try:
        return client.recv(16)
    except OSError:
        return b""
