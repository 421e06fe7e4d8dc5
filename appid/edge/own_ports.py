"""Ports at which the gateway itself listens. In: the kernel's sockets (sock_diag, linux/inet_diag.h). Out: endpoints.

Only sockets that hear anybody: TCP's in LISTEN, datagram sockets that are not connected (WireGuard's and other tunnels'
are such sockets as well).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

from appid.edge.netlink import (
    BUFFER,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    KernelError,
    attributes,
    messages,
)
from appid.wire import TCP, UDP, Endpoint

_SOCK_DIAG, _BY_FAMILY = 4, 20
_LISTEN, _CLOSE = 1 << 10, 1 << 7  # include/net/tcp_states.h
_REQUEST = struct.Struct("=IHHIIBBBBI48s")
_MESSAGE, _ONLY_V6 = 72, 11  # struct inet_diag_msg; INET_DIAG_SKV6ONLY
ANY = {4: bytes(4), 16: bytes(16)}

OwnPorts = frozenset[tuple[int, Endpoint]]


def own_ports() -> OwnPorts:
    """Of this network namespace: protocol and endpoint, ANY where it is every address. KernelError if it won't say."""
    found: set[tuple[int, Endpoint]] = set()
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _SOCK_DIAG) as asking:
            asking.settimeout(5.0)
            for family in (socket.AF_INET, socket.AF_INET6):
                for proto, states in ((TCP, _LISTEN), (UDP, _CLOSE)):
                    asking.send(_REQUEST.pack(
                        _REQUEST.size, _BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, 1, 0, family, proto, 0, 0, states, b""
                    ))  # fmt: skip
                    for body in _dumped(asking):
                        found.update((proto, one) for one in _endpoints(body))
    except OSError as error:
        raise KernelError("sock_diag", error.strerror or str(error)) from error
    return frozenset(found)


def _dumped(asking: socket.socket) -> Iterator[memoryview]:
    while True:
        for kind, _, body in messages(asking.recv(BUFFER)):
            if kind == NLMSG_DONE:
                return
            if kind == NLMSG_ERROR:
                raise OSError(-int.from_bytes(body[:4], "little", signed=True), "refused")
            yield body


def _endpoints(body: memoryview) -> Iterator[Endpoint]:
    size = 16 if body[0] == socket.AF_INET6 else 4
    port, address = int.from_bytes(body[4:6], "big"), bytes(body[8 : 8 + size])
    if not port:
        return
    yield Endpoint(address, port)
    if address == ANY[16] and not any(kind == _ONLY_V6 and value[0] for kind, value in attributes(body[_MESSAGE:])):
        yield Endpoint(ANY[4], port)  # it hears IPv4 as well
