"""Raw netfilter netlink: messages by hand, because 5 us an entry beats a library's 300.

In: attributes as bytes. Out: framed requests, parsed answers. linux/netlink.h, linux/netfilter/nfnetlink.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator

NETLINK_NETFILTER = 12
SOL_NETLINK = 270
NETLINK_BROADCAST_ERROR = 4
NETLINK_NO_ENOBUFS = 5

NLMSG_ERROR = 2
NLMSG_DONE = 3
NLM_F_REQUEST, NLM_F_ACK, NLM_F_ROOT, NLM_F_MATCH, NLM_F_CREATE, NLM_F_EXCL = 1, 4, 0x100, 0x200, 0x400, 0x200
NLM_F_DUMP = NLM_F_ROOT | NLM_F_MATCH
NLA_F_NESTED = 0x8000
NLA_F_NET_BYTEORDER = 0x4000
NLA_TYPE_MASK = 0x3FFF

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_GENERIC = struct.Struct(">BBH")
BUFFER = 1 << 17


class KernelError(Exception):
    """The host's fault: the kernel, or a program that speaks to it, refused `command`."""

    def __init__(self, command: str, reason: str) -> None:
        super().__init__(command, reason)
        self.command = command
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.command}: {self.reason}"


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    size = len(value)
    return _ATTRIBUTE.pack(4 + size, kind) + value + b"\0" * (-size % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    return attribute(kind | NLA_F_NESTED, b"".join(attributes))


def attributes(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """(type without flags, value) of each attribute in `data`."""
    offset, end = 0, len(data)
    while offset + 4 <= end:
        size, kind = _ATTRIBUTE.unpack_from(data, offset)
        if size < 4 or offset + size > end:
            return
        yield kind & NLA_TYPE_MASK, data[offset + 4 : offset + size]
        offset += (size + 3) & ~3


def request(
    subsystem: int, command: int, flags: int, sequence: int, family: int, *attrs: bytes, resource: int = 0
) -> bytes:
    """A whole nfnetlink request; `resource` is a queue's number, else 0."""
    body = _GENERIC.pack(family, 0, resource) + b"".join(attrs)
    return _HEADER.pack(_HEADER.size + len(body), subsystem << 8 | command, NLM_F_REQUEST | flags, sequence, 0) + body


def messages(data: bytes) -> Iterator[tuple[int, int, memoryview]]:
    """(type, sequence, body after the netlink header) of each message of a datagram."""
    view = memoryview(data)
    offset, end = 0, len(view)
    while offset + _HEADER.size <= end:
        size, kind, _, sequence, _ = _HEADER.unpack_from(view, offset)
        if size < _HEADER.size or offset + size > end:
            return
        yield kind, sequence, view[offset + _HEADER.size : offset + size]
        offset += (size + 3) & ~3


class Socket:
    """A blocking request socket of this process's network namespace. One request at a time."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
        self._socket.bind((0, 0))
        self._socket.settimeout(5.0)
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def _send(self, subsystem: int, command: int, flags: int, family: int, attrs: tuple[bytes, ...]) -> int:
        self._sequence = self._sequence + 1 & 0xFFFFFFFF
        self._socket.send(request(subsystem, command, flags, self._sequence, family, *attrs))
        return self._sequence

    def ask(self, subsystem: int, command: int, flags: int, family: int, *attrs: bytes) -> int:
        """Send one request and wait for its ack. Out: 0, or the kernel's errno (ETIMEDOUT if none came)."""
        sequence = self._send(subsystem, command, flags | NLM_F_ACK, family, attrs)
        try:
            while True:
                for kind, number, body in messages(self._socket.recv(BUFFER)):
                    if number == sequence and kind == NLMSG_ERROR:
                        return -int.from_bytes(body[:4], "little", signed=True)
        except TimeoutError:
            return errno.ETIMEDOUT

    def get(self, subsystem: int, command: int, family: int, *attrs: bytes) -> memoryview | None:
        """The one answer to a request (its body after the nfgenmsg); None if the kernel has none."""
        sequence = self._send(subsystem, command, 0, family, attrs)
        try:
            while True:
                for kind, number, body in messages(self._socket.recv(BUFFER)):
                    if number == sequence:
                        return None if kind == NLMSG_ERROR else body[4:]
        except TimeoutError:
            return None

    def dump(self, subsystem: int, command: int, family: int, *attrs: bytes) -> list[memoryview]:
        """Bodies (after the nfgenmsg) of all answers to a dump; KernelError if the kernel refuses it."""
        sequence = self._send(subsystem, command, NLM_F_DUMP, family, attrs)
        found: list[memoryview] = []
        try:
            while True:
                for kind, number, body in messages(self._socket.recv(BUFFER)):
                    if number != sequence:
                        continue
                    if kind == NLMSG_DONE:
                        return found
                    if kind == NLMSG_ERROR:
                        code = -int.from_bytes(body[:4], "little", signed=True)
                        raise KernelError("netlink dump", os.strerror(code))
                    found.append(body[4:])
        except OSError as error:
            raise KernelError("netlink dump", str(error)) from error
