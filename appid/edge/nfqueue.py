"""One NFQUEUE, without its traps. Out: a Held packet per callback, to be answered once (nfnetlink_queue.h).

The traps: the library copies 4016 bytes a packet (so the copy range is set here), reads into 4096 bytes (so a socket of
ours reads for it), hides ENOBUFS (so it is counted), and lets a callback's exception unwind through its C loop (so none
leaves it).
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import struct
import warnings
from collections.abc import Callable
from typing import Any

from netfilterqueue import NetfilterQueue

from appid.edge.netlink import NLM_F_ACK, NLMSG_ERROR, KernelError, attribute, messages, request
from appid.edge.tally import Tally

LENGTH = 8192
"""Packets that may wait in the kernel's queue; beyond it the fail-open flag lets them pass."""
SOCKET_BUFFER = 32 << 20
_READ = 131072
_SUBSYSTEM, _CONFIG = 3, 2
_PARAMS, _MASK, _FLAGS = 2, 4, 5
_COPY_PACKET = 2
_FAIL_OPEN = 1
_BATCH = 64  # packets answered before the loop looks at its other descriptors again

log = logging.getLogger(__name__)


class Held:
    """A queued packet. `data` is its own copy of the IP packet, taken once; `repeat` or `drop` answers it."""

    __slots__ = ("_packet", "answered", "data", "indev", "mark", "outdev")

    def __init__(self, packet: Any, names: dict[int, str]) -> None:
        self._packet = packet
        self.data: bytes = packet.get_payload()
        self.mark: int = packet.get_mark()
        self.indev = names.get(packet.indev) or _name(packet.indev, names)
        self.outdev = names.get(packet.outdev) or _name(packet.outdev, names)
        self.answered = False

    def replace(self, data: bytes) -> None:
        """Send these bytes on in the packet's place: a whole IP packet, lengths and checksums right."""
        self.data = data
        self._packet.set_payload(data)

    def repeat(self, mark: int) -> None:
        """Back to the head of mangle/FORWARD with this whole mark."""
        self.answered = True
        self._packet.set_mark(mark)
        self._packet.repeat()

    def wait(self) -> None:
        """It is answered later, by `repeat`."""
        self.answered = True

    def drop(self) -> None:
        self.answered = True
        self._packet.drop()


def _name(index: int, names: dict[int, str]) -> str:
    if not index:
        return ""
    try:
        name = socket.if_indextoname(index)
    except OSError:  # gone meanwhile
        return ""
    names[index] = name
    return name


class Queue:
    """Queue `number`; `on_packet` gets each packet, from the first `read` on, and may answer it. What it leaves
    unanswered, or raises over, `rescue` answers; what that leaves unanswered is dropped.

    tally      what was seen, and what is missing between it: messages that the kernel could not hand over
    overruns   how often it said so (ENOBUFS)
    refused    verdicts or settings that the kernel answered with an error
    errors     exceptions that a callback raised
    """

    def __init__(
        self,
        number: int,
        on_packet: Callable[[Held], None],
        rescue: Callable[[Held], None] = Held.drop,
        *,
        fail_open: bool = True,
        length: int = LENGTH,
        tally: Tally | None = None,
    ) -> None:
        self.number = number
        self.tally = tally or Tally()
        self.seen = self.overruns = self.refused = self.errors = 0
        self._on_packet = on_packet
        self._rescue = rescue
        self._names: dict[int, str] = {}
        self._left = 0
        self._early: list[Any] | None = []
        self._queue = NetfilterQueue()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # a capped receive buffer only means more fail-open
                self._queue.bind(number, self._callback, max_len=length, sock_len=SOCKET_BUFFER)
        except OSError as error:
            raise KernelError(f"NFQUEUE {number}", "another program holds it, or CAP_NET_ADMIN is missing") from error
        self._socket = socket.socket(fileno=os.dup(self._queue.get_fd()))
        self._force_buffer()
        self._configure(1, attribute(_PARAMS, struct.pack(">IB", 0xFFFF, _COPY_PACKET)))
        if fail_open:
            flags = struct.pack(">I", _FAIL_OPEN)
            self._configure(2, attribute(_MASK, flags), attribute(_FLAGS, flags))

    def _force_buffer(self) -> None:
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, 33, SOCKET_BUFFER)  # SO_RCVBUFFORCE
        except OSError:
            return

    def _configure(self, sequence: int, *attrs: bytes) -> None:
        """Send a setting and wait for its answer; packets that come first wait for `read`."""
        self._socket.send(request(_SUBSYSTEM, _CONFIG, NLM_F_ACK, sequence, 0, *attrs, resource=self.number))
        self._left = _BATCH
        before = self.refused
        self._awaiting = sequence
        while self._awaiting:
            self._left = 1
            self._queue.run_socket(self)  # type: ignore[arg-type]
        if self.refused > before:
            self.close()
            raise KernelError(f"NFQUEUE {self.number} setting {sequence}", "refused")

    _awaiting = 0

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        """Leave the queue; what still waits in it is dropped by the kernel."""
        self._queue.unbind()
        self._socket.close()

    def read(self) -> int:
        """Answer up to one batch of what waits. Out: how many packets that were."""
        before = self.seen
        early, self._early = self._early, None
        for packet in early or ():
            self._answer(packet)
        self._left = _BATCH
        self._queue.run_socket(self)  # type: ignore[arg-type]
        return self.seen - before

    def recv(self, _size: int) -> bytes:
        """What the library's loop calls: one datagram of the kernel; BlockingIOError ends its loop."""
        while self._left > 0:
            try:
                data = self._socket.recv(_READ, 0 if self._awaiting else socket.MSG_DONTWAIT)
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    self.overruns += 1
                    continue
                if error.errno == errno.EINTR:
                    continue
                raise
            self._left -= 1
            if int.from_bytes(data[4:6], "little") != NLMSG_ERROR:
                return data
            for _, sequence, body in messages(data):
                if int.from_bytes(body[:4], "little", signed=True):
                    self.refused += 1
                if sequence == self._awaiting:
                    self._awaiting = 0
        raise BlockingIOError(errno.EAGAIN, "batch done")

    def _callback(self, packet: Any) -> None:
        if self._early is None:
            self._answer(packet)
        else:  # who opens the queue is not ready yet: it has no calls of before, perhaps
            packet.retain()
            self._early.append(packet)

    def _answer(self, packet: Any) -> None:
        self.seen += 1
        self.tally.took(packet.id)
        held = None
        try:
            held = Held(packet, self._names)
            self._on_packet(held)
        except Exception:
            self.errors += 1
            log.exception("queue %d: a packet stays unidentified", self.number)
        try:
            if held is None:
                packet.drop()
            elif not held.answered:
                self._rescue(held)
                if not held.answered:
                    held.drop()
        except Exception:
            self.errors += 1
            log.exception("queue %d: a packet stays unanswered", self.number)
