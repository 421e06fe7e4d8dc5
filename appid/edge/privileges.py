"""Capabilities: what a process keeps, and what the programs that it starts may have (capabilities(7)).

Workers hold CAP_NET_ADMIN alone, the metrics endpoint nothing. The supervisor works with CAP_NET_ADMIN, too, but lets
the short-lived programs that change rules have CAP_NET_RAW besides: iptables-legacy speaks through a raw socket.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Collection
from pathlib import Path

from appid.edge.netlink import KernelError

NET_BIND_SERVICE, NET_ADMIN, NET_RAW = 10, 12, 13
_VERSION_3 = 0x20080522
_BOUNDING_READ, _BOUNDING_DROP = 23, 24
_AMBIENT, _AMBIENT_RAISE, _AMBIENT_CLEAR = 47, 2, 4
_NO_NEW_PRIVS = 38
_LAST = Path("/proc/sys/kernel/cap_last_cap")


def drop_to_net_admin() -> None:
    """For a worker, before it starts any thread (capabilities are a thread's): CAP_NET_ADMIN and nothing else, also for
    what it might start."""
    keep({NET_ADMIN}, {NET_ADMIN})


def drop_all(but: Collection[int] = ()) -> None:
    """For the metrics endpoint, which strangers speak to, before it starts any thread: none at all, but for those."""
    keep(but, but)


def keep_for_rules() -> None:
    """For the supervisor: CAP_NET_ADMIN; the programs it starts also have CAP_NET_RAW."""
    keep({NET_ADMIN}, {NET_ADMIN, NET_RAW})


def keep(effective: Collection[int], passed_on: Collection[int]) -> None:
    """Give up everything else, for good. KernelError if the process has not got what it is to keep."""
    libc = ctypes.CDLL(None, use_errno=True)

    def call(what: str, *arguments: object) -> None:
        if getattr(libc, what)(*arguments) < 0:
            raise KernelError(what, os.strerror(ctypes.get_errno()))

    # What is already out of the bounding set needs no dropping, nor CAP_SETPCAP for it.
    gone = [number for number in range(int(_LAST.read_text()) + 1)
            if number not in passed_on and libc.prctl(_BOUNDING_READ, number, 0, 0, 0) == 1]  # fmt: skip
    if gone and _may(8):
        for number in gone:
            call("prctl", _BOUNDING_DROP, number, 0, 0, 0)
    low = struct.pack("=3I", _bits(effective), _bits(passed_on), _bits(passed_on))
    call("capset", struct.pack("=Ii", _VERSION_3, 0), low + bytes(12))
    call("prctl", _NO_NEW_PRIVS, 1, 0, 0, 0)  # so that root's programs, too, get no more than is passed on
    call("prctl", _AMBIENT, _AMBIENT_CLEAR, 0, 0, 0)
    for number in passed_on:
        call("prctl", _AMBIENT, _AMBIENT_RAISE, number, 0, 0)


def _bits(numbers: Collection[int]) -> int:
    return sum(1 << number for number in numbers)


def held(process: int | str = "self", kind: str = "CapEff") -> set[int]:
    """Capabilities of a process, by number, as /proc/PID/status says."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    bits = next(int(line.split()[1], 16) for line in lines if line.startswith(f"{kind}:"))
    return {number for number in range(64) if bits >> number & 1}


def _may(capability: int) -> bool:
    return capability in held("thread-self")
