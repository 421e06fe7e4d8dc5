"""Pinhole elements: one netlink message each, in the kernel before the verdict is given.

In: Expectation, skbmark value and mask, timeout in seconds. linux/netfilter/ipset/ip_set.h, protocol 6.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator

from appid.alg.expectation import Expectation
from appid.dataplane.chain import MAX_TIMEOUT, PINHOLES, REFUSED, Family
from appid.dataplane.state import Element, element
from appid.edge.netlink import NLA_F_NET_BYTEORDER, KernelError, Socket, attribute, attributes, nested

_SUBSYSTEM = 6
_LIST, _ADD, _DELETE = 7, 9, 10
_PROTOCOL, _SETNAME, _DATA, _ADT = 1, 2, 7, 8
_IP, _PORT, _TIMEOUT, _PROTO, _LINENO, _IP2, _SKBMARK = 1, 4, 6, 7, 9, 20, 27
_ERRORS = {4096: "protocol error", 4097: "no such command", 4103: "already added", 4104: "set full"}


def _address(kind: int, address: bytes) -> bytes:
    return nested(kind, attribute((1 if len(address) == 4 else 2) | NLA_F_NET_BYTEORDER, address))


def _elements(body: memoryview) -> Iterator[Element]:
    """The elements in one message of a listing (IPSET_ATTR_ADT)."""
    for kind, listed in attributes(body):
        for _, entry in attributes(listed) if kind == _ADT else ():
            fields = dict(attributes(entry))
            if fields.keys() >= {_IP, _PORT, _PROTO, _IP2}:
                inside, peer = (bytes(next(attributes(fields[each]))[1]) for each in (_IP, _IP2))
                yield fields[_PROTO][0], inside, int.from_bytes(fields[_PORT], "big"), peer


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
        self._change(_ADD, PINHOLES, element(expectation), more)

    def shut(self, gone: Element) -> None:
        """Take the element out; nothing happens where it is gone already."""
        self._change(_DELETE, PINHOLES, gone, ())

    def refuse(self, place: Element, mark: int, mask: int) -> None:
        """NEW packets between these two ends get this mark in the kernel, for the set's own time."""
        marked = attribute(_SKBMARK | NLA_F_NET_BYTEORDER, struct.pack(">II", mark, mask))
        self._change(_ADD, REFUSED, place, (marked,))

    def elements(self) -> list[Element]:
        """What the pinhole sets of both families hold; nothing where there is no such set (yet)."""
        found: list[Element] = []
        for name in PINHOLES.values():
            attrs = attribute(_PROTOCOL, b"\x06"), attribute(_SETNAME, name.encode() + b"\0")
            try:
                bodies = self._socket.dump(_SUBSYSTEM, _LIST, 0, *attrs)
            except KernelError:
                continue
            for body in bodies:
                found += _elements(body)
        return found

    def _change(self, command: int, names: dict[Family, str], place: Element, more: tuple[bytes, ...]) -> None:
        proto, inside, port, peer = place
        name = names[6 if len(inside) == 16 else 4]
        answer = self._socket.ask(
            _SUBSYSTEM,
            command,
            0,
            10 if len(inside) == 16 else 2,
            attribute(_PROTOCOL, b"\x06"),
            attribute(_SETNAME, name.encode() + b"\0"),
            nested(
                _DATA,
                _address(_IP, inside),
                attribute(_PORT | NLA_F_NET_BYTEORDER, port.to_bytes(2, "big")),
                attribute(_PROTO, bytes((proto,))),
                _address(_IP2, peer),
                *more,
                attribute(_LINENO | NLA_F_NET_BYTEORDER, bytes(4)),
            ),
        )
        if answer and not (command == _DELETE and answer in (errno.ENOENT, 4103)):
            what = "add" if command == _ADD else "del"
            raise KernelError(f"ipset {what} {name}", _ERRORS.get(answer) or os.strerror(answer))
