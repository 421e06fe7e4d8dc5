"""One change of rule sets at a time, whoever makes it: a command, a gateway, the guard of an unconfirmed change.

In: the file to lock, and what for. Out: the turn, for the length of a `with`; KernelError says who has it. A process
that is forked in between has a share in the turn: it ends with the last of them, however they end.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from appid.edge.netlink import KernelError

REMOVE = "appid rules remove"
"""Who takes the rules away by intent, as it tells its turn."""
PATIENCE = 10.0
"""Seconds to wait for one's turn: a change takes less than one."""
_LOOK = 0.02


def beside(control: Path) -> Path:
    """Where the gateway's control socket is."""
    return control.parent / "rules.lock"


@contextlib.contextmanager
def taken(place: Path, what: str, patience: float | None = None) -> Iterator[int]:
    """`patience`: PATIENCE where it is not given. Out: the descriptor, for `tell` after a fork."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise KernelError(str(place), error.strerror or str(error)) from error
    try:
        _wait(descriptor, place, time.monotonic() + (PATIENCE if patience is None else patience))
        tell(descriptor, what)
        yield descriptor
    finally:
        os.close(descriptor)


def last(place: Path) -> str:
    """Who has the turn, or had it last: "process 7, appid rules remove"; "" where nobody ever had."""
    try:
        return place.read_text(errors="replace")[:200]
    except OSError:
        return ""


def tell(descriptor: int, what: str) -> None:
    """Who has the turn now, for those who wait in vain."""
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"process {os.getpid()}, {what}".encode(), 0)


def _wait(descriptor: int, place: Path, end: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= end:
                who = os.pread(descriptor, 200, 0).decode(errors="replace") or "another process"
                raise KernelError(str(place), f"the rules are being changed by {who}") from None
            time.sleep(_LOOK)


def gateway_runs(control: Path) -> bool:
    """Whether a gateway, or a worker that outlived its supervisor, holds the lock beside its control socket."""
    try:
        descriptor = os.open(control.with_suffix(".lock"), os.O_RDWR | os.O_CLOEXEC)
    except OSError:  # there was never one
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
