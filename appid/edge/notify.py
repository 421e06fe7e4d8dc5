"""Word to the service manager (sd_notify(3)): ready, reloading, alive, stopping. In: a state. Out: one datagram.

Without a service manager nothing is sent. What it does not take is lost: it is told again at the next tick. It also
keeps descriptors for the process that comes after this one (FDSTORE=1, sd_listen_fds(3)).
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from array import array

_FIRST = 3
"""SD_LISTEN_FDS_START."""
READY, STOPPING, ALIVE = "READY=1", "STOPPING=1", "WATCHDOG=1"


def reloading() -> str:
    """Until READY comes again."""
    return f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}"


def tell(state: str, *descriptors: int) -> None:
    """Send `state`, with `descriptors`, to $NOTIFY_SOCKET: a path, or an abstract name that begins with "@"."""
    place = os.environ.get("NOTIFY_SOCKET", "")
    if place[:1] not in ("/", "@"):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out, contextlib.suppress(OSError):
        out.setblocking(False)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))] if descriptors else []
        out.sendmsg([state.encode()], rights, 0, "\0" + place[1:] if place[0] == "@" else place)


def keep(name: str, descriptor: int) -> None:
    """The next process is given it, under this name; whatever befalls it in between (FDPOLL=0)."""
    tell(f"FDSTORE=1\nFDNAME={name}\nFDPOLL=0", descriptor)


def let_go(name: str) -> None:
    """It is kept no more."""
    tell(f"FDSTOREREMOVE=1\nFDNAME={name}")


def kept() -> dict[str, int]:
    """What the process before this one asked to be kept, by name; asked once, nobody we start is told of it."""
    words = {word: os.environ.pop(word, "") for word in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")}
    if words["LISTEN_PID"] != str(os.getpid()) or not words["LISTEN_FDS"].isdecimal():
        return {}
    names = words["LISTEN_FDNAMES"].split(":")
    found = {}
    for descriptor, name in zip(range(_FIRST, _FIRST + int(words["LISTEN_FDS"])), names, strict=False):
        os.set_inheritable(descriptor, False)
        found[name] = descriptor
    return found
