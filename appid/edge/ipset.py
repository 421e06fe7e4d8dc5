"""Pinhole elements: one netlink message each, in the kernel before the verdict is given.

In: Expectation, skbmark value and mask, timeout in seconds. linux/netfilter/ipset/ip_set.h, protocol 6.
"""

from __future__ import annotations

import errno
import os
import struct

from appid.alg.expectation import Expectation
from appid.dataplane.chain import MAX_TIMEOUT, PINHOLES
from appid.edge.netlink import NLA_F_NET_BYTEORDER, KernelError, Socket, attribute, nested

_SUBSYSTEM = 6
_ADD, _DELETE = 9, 10
_PROTOCOL, _SETNAME, _DATA = 1, 2, 7
_IP, _PORT, _TIMEOUT, _PROTO, _LINENO, _IP2, _SKBMARK = 1, 4, 6, 7, 9, 20, 27
_ERRORS = {4096: "protocol error", 4097: "no such command", 4103: "already added", 4104: "set full"}


def _address(kind: int, address: bytes) -> bytes:
    return nested(kind, attribute((1 if len(address) == 4 else 2) | NLA_F_NET_BYTEORDER, address))


class Pinholes:
    """The pinhole sets of both families."""

    def __init__(self) -> None:
        self._socket = Socket()

    def close(self) -> None:
        self._socket.close()

    def open(self, expectation: Expectation, mark: int, mask: int, timeout: int) -> None:
        """Add the element, or refresh its timeout and mark."""
        seconds = min(max(timeout, 1), MAX_TIMEOUT)  # 0 would mean for ever
        more = (
            attribute(_TIMEOUT | NLA_F_NET_BYTEORDER, struct.pack(">I", seconds)),
            attribute(_SKBMARK | NLA_F_NET_BYTEORDER, struct.pack(">II", mark, mask)),
        )
        self._change(_ADD, expectation, more)

    def shut(self, expectation: Expectation) -> None:
        """Take the element out; nothing happens where it is gone already."""
        self._change(_DELETE, expectation, ())

    def _change(self, command: int, wanted: Expectation, more: tuple[bytes, ...]) -> None:
        name = PINHOLES[6 if len(wanted.inside) == 16 else 4]
        answer = self._socket.ask(
            _SUBSYSTEM,
            command,
            0,
            10 if len(wanted.inside) == 16 else 2,
            attribute(_PROTOCOL, b"\x06"),
            attribute(_SETNAME, name.encode() + b"\0"),
            nested(
                _DATA,
                _address(_IP, wanted.inside),
                attribute(_PORT | NLA_F_NET_BYTEORDER, wanted.port.to_bytes(2, "big")),
                attribute(_PROTO, bytes((wanted.proto,))),
                _address(_IP2, wanted.peer),
                *more,
                attribute(_LINENO | NLA_F_NET_BYTEORDER, bytes(4)),
            ),
        )
        if answer and not (command == _DELETE and answer in (errno.ENOENT, 4103)):
            what = "add" if command == _ADD else "del"
            raise KernelError(f"ipset {what} {name}", _ERRORS.get(answer) or os.strerror(answer))
