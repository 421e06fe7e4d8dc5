"""Packet Too Big (RFC 4443 section 3.2) to whoever sent an IPv6 packet that translation has made longer.

In: the packet as it came and its length now. Out: an ICMPv6 message to its sender, who splits what he sends from then
on. Routers split no IPv6 packet (RFC 8200 section 5): one that has grown over the path's size is dropped, and the
size that is told for it is one that the sender had kept to. What comes in pieces goes on in pieces, however it has
grown.
"""

from __future__ import annotations

import contextlib
import socket
import struct

SMALL = 1280
"""No path splits less; an ICMPv6 message is no longer (RFC 4443 section 2.4(c))."""
APART = 0.1
"""Seconds between two messages (section 2.4(f))."""
_TYPE, _HEADERS, _FILTER = 2, 48, 1
_UDP = 17


class TooBig:
    """A raw socket, opened while the process may: CAP_NET_RAW is not needed to send."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_ICMPV6)
        self._socket.setsockopt(socket.IPPROTO_ICMPV6, _FILTER, b"\xff" * 32)  # it hears nothing
        self._next = 0.0

    @classmethod
    def opened(cls) -> TooBig | None:
        """None where the process may not, or the host has no IPv6."""
        try:
            return cls()
        except OSError:
            return None

    def close(self) -> None:
        self._socket.close()

    def tell(self, packet: bytes, length: int, now: float) -> bool:
        """`packet` is a UDP packet of that many bytes now. Out: whether its sender was told."""
        size = len(packet)
        if packet[0] >> 4 != 6 or not SMALL < size < length or packet[6] != _UDP or now < self._next:
            return False
        self._next = now + APART
        message = struct.pack(">BxxxI", _TYPE, SMALL) + packet[: SMALL - _HEADERS]
        with contextlib.suppress(OSError):
            self._socket.sendto(message, (socket.inet_ntop(socket.AF_INET6, packet[8:24]), 0))
            return True
        return False
