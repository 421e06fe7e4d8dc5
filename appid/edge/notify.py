"""Word to the service manager (sd_notify(3)): ready, reloading, alive, stopping. In: a state. Out: one datagram.

Without a service manager nothing is sent. What it does not take is lost: it is told again at the next tick.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time

READY, STOPPING, ALIVE = "READY=1", "STOPPING=1", "WATCHDOG=1"


def reloading() -> str:
    """Until READY comes again."""
    return f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}"


def tell(state: str) -> None:
    """Send `state` to $NOTIFY_SOCKET: a path, or an abstract name that begins with "@"."""
    place = os.environ.get("NOTIFY_SOCKET", "")
    if place[:1] not in ("/", "@"):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out, contextlib.suppress(OSError):
        out.setblocking(False)
        out.sendto(state.encode(), "\0" + place[1:] if place[0] == "@" else place)
