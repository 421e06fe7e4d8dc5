"""Processes of our own: forked from the supervisor, which has one thread; gone when it is gone.

In: a function to run in the child. Out: a Child, whose descriptor tells its end.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Collection

_PR_SET_PDEATHSIG = 1
_STANDARD = (0, 1, 2)

log = logging.getLogger("appid")


class Child:
    """A running process. `fileno` is readable once it has ended; `ours` is our end of the socket pair with it."""

    def __init__(self, name: str, pid: int, ours: socket.socket) -> None:
        self.name, self.pid, self.ours = name, pid, ours
        self._descriptor = os.pidfd_open(pid)

    def fileno(self) -> int:
        return self._descriptor

    def reap(self) -> str | None:
        """How it ended, in words; None while it runs. Call it once more, and it is forgotten."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if not pid:
            return None
        os.close(self._descriptor)
        code = os.waitstatus_to_exitcode(status)
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"status {code}"

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._descriptor, number)


def start(name: str, work: Callable[[socket.socket], None], keep: Collection[int] = ()) -> Child:
    """Fork. The child runs `work` with its end of a socket pair, holding no other descriptor of ours but `keep`, and
    ends with it: status 0, or 1 if it raised (what, is logged)."""
    ours, theirs = socket.socketpair()
    parent = os.getpid()
    pid = os.fork()
    if pid:
        theirs.close()
        return Child(name, pid, ours)
    status = 1
    try:
        _settle(parent, {*_STANDARD, theirs.fileno(), *keep})
        work(theirs)
        status = 0
    except BaseException as error:
        log.error("%s: %s", name, error)
        if not isinstance(error, Exception) or log.isEnabledFor(logging.DEBUG):
            traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _settle(parent: int, keep: Collection[int]) -> None:
    """Signals as at a program's start, but for those of the terminal, which are the supervisor's; an end with it."""
    gc.freeze()  # the supervisor's objects are not this process's to finalise
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it ended before the line above
        os._exit(1)
    low = 0
    for descriptor in sorted(keep):
        if low < descriptor:  # an empty range would be taken for all of them
            os.closerange(low, descriptor)
        low = descriptor + 1
    os.closerange(low, 1 << 16)
