"""Conntrack by raw ctnetlink: marks, entries for flows denied on their first packet, deletions, flow ends.

In: FlowKeys as seen in mangle/FORWARD, mark values. Out: entries, FlowEnded events with the kernel's counters.
linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from appid.edge.netlink import (
    BUFFER,
    NETLINK_BROADCAST_ERROR,
    NETLINK_NETFILTER,
    NLM_F_CREATE,
    NLM_F_EXCL,
    SOL_NETLINK,
    KernelError,
    Socket,
    attribute,
    attributes,
    messages,
    nested,
)
from appid.engine import FlowEnded
from appid.flow.key import FlowKey
from appid.wire import ICMP, ICMPV6, TCP, UDP, Endpoint

_SUBSYSTEM = 1
_NEW, _GET, _DELETE = 0, 1, 2
_GROUP_DESTROY = 3
_TUPLE_ORIG, _TUPLE_REPLY, _STATUS, _TIMEOUT, _MARK, _COUNTERS_ORIG, _COUNTERS_REPLY = 1, 2, 3, 7, 8, 9, 10
_TIMESTAMP, _MARK_MASK, _FILTER = 20, 21, 25
_PROTOINFO, _BE_LIBERAL = 4, 8  # CTA_PROTOINFO, IP_CT_TCP_FLAG_BE_LIBERAL
_FILTER_ORIG, _FILTER_REPLY = 1, 2
_IP_SRC, _IP_DST, _PROTO_NUM, _SRC_PORT, _DST_PORT = 1, 2, 8, 16, 32  # CTA_FILTER_F_*
_WITH_PORTS = frozenset((TCP, UDP, 33, 47, 132, 136))  # DCCP, GRE (its keys), SCTP, UDP-Lite
log = logging.getLogger("appid")
DENIED_TIMEOUT = 60
"""Seconds that the entry of a flow denied on its first packet lives without traffic."""


class Entry(NamedTuple):
    """One conntrack entry: both tuples as the kernel has them, mark, packets and bytes (orig, reply), seconds that it
    lived (of one that is gone), and when it began; both 0 where the kernel keeps no times."""

    orig: FlowKey
    reply: FlowKey
    mark: int
    packets: tuple[int, int]
    bytes: tuple[int, int]
    seconds: float = 0.0
    began: float = 0.0

    @property
    def key(self) -> FlowKey:
        """The original direction as mangle/FORWARD sees it: after destination NAT, before source NAT."""
        return FlowKey(self.orig.proto, self.orig.src, self.orig.sport, self.reply.src, self.reply.sport)


@dataclass(frozen=True, slots=True)
class TupleFilter:
    """Fields of a tuple to match; None: any."""

    proto: int
    src: bytes | None = None
    sport: int | None = None
    dst: bytes | None = None
    dport: int | None = None


def _tuple(kind: int, key: FlowKey) -> bytes:
    v6 = len(key.src) == 16
    if key.proto in _WITH_PORTS:
        ports = attribute(2, key.sport.to_bytes(2, "big")) + attribute(3, key.dport.to_bytes(2, "big"))
    else:
        ports = b""
    return nested(
        kind,
        nested(1, attribute(3 if v6 else 1, key.src), attribute(4 if v6 else 2, key.dst)),
        nested(2, attribute(1, bytes((key.proto,))), ports),
    )


class Echo(NamedTuple):
    """What tells one ICMP request from another: identifier, type, code (RFC 792, RFC 4443)."""

    number: int
    kind: int
    code: int


_ANSWERS = {8: 0, 13: 14, 15: 16, 17: 18, 128: 129}
"""Requests with an identifier, and what answers them."""


def echo_of(data: bytes) -> Echo | None:
    """Of an IP packet that carries one directly."""
    if data[0] >> 4 == 4:
        start = (data[0] & 15) * 4
        there = data[9] == ICMP and not int.from_bytes(data[6:8], "big") & 0x1FFF
    else:
        start, there = 40, data[6] == ICMPV6
    if not there or len(data) < start + 8 or data[start] not in _ANSWERS:
        return None
    return Echo(int.from_bytes(data[start + 4 : start + 6], "big"), data[start], data[start + 1])


def _echo_tuple(kind: int, key: FlowKey, echo: Echo) -> bytes:
    v6 = len(key.src) == 16
    first = 7 if v6 else 4
    fields = (echo.number.to_bytes(2, "big"), bytes((echo.kind,)), bytes((echo.code,)))
    return nested(
        kind,
        nested(1, attribute(3 if v6 else 1, key.src), attribute(4 if v6 else 2, key.dst)),
        nested(2, attribute(1, bytes((key.proto,))), *(attribute(first + i, field) for i, field in enumerate(fields))),
    )


def _parse_tuple(data: memoryview) -> FlowKey | None:
    src = dst = b""
    proto = sport = dport = 0
    for kind, part in attributes(data):
        for field, value in attributes(part):
            if kind == 1 and field in (1, 3):
                src = bytes(value)
            elif kind == 1 and field in (2, 4):
                dst = bytes(value)
            elif kind == 2 and field == 1:
                proto = value[0]
            elif kind == 2 and field == 2:
                sport = int.from_bytes(value, "big")
            elif kind == 2 and field == 3:
                dport = int.from_bytes(value, "big")
    return FlowKey(proto, src, sport, dst, dport) if src and dst else None


def _counters(data: memoryview) -> tuple[int, int]:
    found = {kind: int.from_bytes(value, "big") for kind, value in attributes(data)}
    return found.get(1, 0), found.get(2, 0)


def _lifetime(data: memoryview) -> tuple[float, float]:
    """CTA_TIMESTAMP, nanoseconds of the first and the last packet's clock -> seconds between them, and of the first."""
    found = {kind: int.from_bytes(value, "big") for kind, value in attributes(data)}
    began = found.get(1, 0)
    return (max(0, found.get(2, 0) - began) / 1e9 if began else 0.0), began / 1e9


def parse_entry(body: memoryview) -> Entry | None:
    """Attributes of a conntrack message -> Entry; None where it has no tuples."""
    orig = reply = None
    mark = 0
    there = back = (0, 0)
    seconds = began = 0.0
    for kind, value in attributes(body):
        if kind == _TUPLE_ORIG:
            orig = _parse_tuple(value)
        elif kind == _TUPLE_REPLY:
            reply = _parse_tuple(value)
        elif kind == _MARK:
            mark = int.from_bytes(value, "big")
        elif kind == _COUNTERS_ORIG:
            there = _counters(value)
        elif kind == _COUNTERS_REPLY:
            back = _counters(value)
        elif kind == _TIMESTAMP:
            seconds, began = _lifetime(value)
    if orig is None or reply is None:
        return None
    return Entry(orig, reply, mark, (there[0], back[0]), (there[1], back[1]), seconds, began)


def _family(address: bytes) -> int:
    return socket.AF_INET6 if len(address) == 16 else socket.AF_INET


class Conntrack:
    """Requests. All are synchronous: when a method returns, the kernel has done it."""

    def __init__(self) -> None:
        self._socket = Socket()

    def close(self) -> None:
        self._socket.close()

    def set_mark(self, key: FlowKey, mark: int, mask: int, create: bool = False) -> None:
        """Set the connmark bits `mask` of the entry that `key` belongs to. With `create`, make the entry where there is
        none. KernelError if there is none and none is to be made, or the kernel refuses."""
        bits = attribute(_MARK, struct.pack(">I", mark)) + attribute(_MARK_MASK, struct.pack(">I", mask))
        answer = errno.ENOENT
        for each in (key, key.reversed()):  # a flow begun outside through a binding is known by its reply tuple
            answer = self._socket.ask(_SUBSYSTEM, _NEW, 0, _family(key.src), _tuple(_TUPLE_ORIG, each), bits)
            if answer != errno.ENOENT:
                break
        if answer == errno.ENOENT and create:
            answer = self._create(key, mark)
        if answer:
            raise KernelError(f"conntrack mark {mark:#x}", os.strerror(answer))

    def keep(self, key: FlowKey, seconds: int) -> None:
        """The entry of `key` lives so long if nothing moves; its next packet gives it the kernel's own time again.
        KernelError if the kernel refuses; that there is none (any more) is no fault."""
        time = attribute(_TIMEOUT, struct.pack(">I", seconds))
        for each in (key, key.reversed()):
            answer = self._socket.ask(_SUBSYSTEM, _NEW, 0, _family(key.src), _tuple(_TUPLE_ORIG, each), time)
            if answer != errno.ENOENT:
                break
        if answer not in (0, errno.ENOENT):
            raise KernelError("conntrack timeout", os.strerror(answer))

    def create_echo(self, key: FlowKey, echo: Echo, mark: int) -> None:
        """An entry for an ICMP request and what answers it. KernelError if the kernel refuses it."""
        back = echo._replace(kind=_ANSWERS[echo.kind])
        answer = self._make(
            key, mark, _echo_tuple(_TUPLE_ORIG, key, echo), _echo_tuple(_TUPLE_REPLY, key.reversed(), back)
        )
        if answer and answer != errno.EEXIST:
            raise KernelError(f"conntrack mark {mark:#x}", os.strerror(answer))

    def delete_echo(self, key: FlowKey, echo: Echo) -> None:
        """The entry of an ICMP request goes, if it is there. KernelError if the kernel refuses that."""
        answer = self._socket.ask(_SUBSYSTEM, _DELETE, 0, _family(key.src), _echo_tuple(_TUPLE_ORIG, key, echo))
        if answer not in (0, errno.ENOENT):
            raise KernelError("conntrack delete", os.strerror(answer))

    def _create(self, key: FlowKey, mark: int) -> int:
        return self._make(key, mark, _tuple(_TUPLE_ORIG, key), _tuple(_TUPLE_REPLY, key.reversed()))

    def _make(self, key: FlowKey, mark: int, there: bytes, back: bytes) -> int:
        return self._socket.ask(
            _SUBSYSTEM,
            _NEW,
            NLM_F_CREATE | NLM_F_EXCL,
            _family(key.src),
            there,
            back,
            attribute(_MARK, struct.pack(">I", mark)),
            attribute(_TIMEOUT, struct.pack(">I", DENIED_TIMEOUT)),
        )

    def entry(self, key: FlowKey) -> Entry | None:
        """The entry one of whose tuples is `key`, as the kernel has it."""
        body = self._socket.get(_SUBSYSTEM, _GET, _family(key.src), _tuple(_TUPLE_ORIG, key))
        return parse_entry(body) if body is not None else None

    def mapped(self, key: FlowKey) -> Endpoint | None:
        """As what the source of `key` is seen by its other end, whichever side began; None where no packet has passed
        yet. Without NAT it is the source itself."""
        entry = self.entry(key)
        if entry is None:
            return None
        return entry.reply.destination if entry.orig.source == key.source else entry.orig.destination

    def relax(self, key: FlowKey, mark: int = 0) -> None:
        """Let the TCP connection of `key` be outside its window, both ways, and set these bits of its connmark.
        KernelError if there is none."""
        liberal = bytes((_BE_LIBERAL, _BE_LIBERAL))  # struct nf_ct_tcp_flags: flags, mask
        flags = nested(_PROTOINFO, nested(1, attribute(4, liberal), attribute(5, liberal)))
        if mark:
            bits = struct.pack(">I", mark)
            flags += attribute(_MARK, bits) + attribute(_MARK_MASK, bits)
        answer = self._socket.ask(_SUBSYSTEM, _NEW, 0, _family(key.src), _tuple(_TUPLE_ORIG, key), flags)
        if answer == errno.ENOENT:  # begun by the other side
            key = key.reversed()
            answer = self._socket.ask(_SUBSYSTEM, _NEW, 0, _family(key.src), _tuple(_TUPLE_ORIG, key), flags)
        if answer:
            raise KernelError("conntrack relax", os.strerror(answer))

    def delete(self, key: FlowKey) -> bool:
        """Delete the entry one of whose tuples is `key` or its reverse. Out: whether there was one."""
        for each in (key, key.reversed()):
            answer = self._socket.ask(_SUBSYSTEM, _DELETE, 0, _family(key.src), _tuple(_TUPLE_ORIG, each))
            if not answer:
                return True
            if answer != errno.ENOENT:
                raise KernelError("conntrack delete", os.strerror(answer))
        return False

    def entries(self, family: int = 0, mark: int = 0, mask: int = 0) -> Iterator[Entry]:
        """All entries (family 4, 6 or 0 for both), or those whose mark & mask == mark."""
        attrs = []
        if mask:
            masked = struct.pack(">I", mark & mask)  # an unmasked value matches nothing
            attrs = [attribute(_MARK, masked), attribute(_MARK_MASK, struct.pack(">I", mask))]
        number = {0: 0, 4: socket.AF_INET, 6: socket.AF_INET6}[family]
        for body in self._socket.dump(_SUBSYSTEM, _GET, number, *attrs):
            entry = parse_entry(body)
            if entry is not None:
                yield entry

    def find(self, wanted: TupleFilter, reply: bool = False) -> list[Entry]:
        """Entries whose original (or reply) tuple has these fields; the kernel looks, we parse only what it found."""
        address = wanted.src or wanted.dst
        assert address is not None
        v6 = len(address) == 16
        flags = _PROTO_NUM
        ips = ports = b""
        # IPv6 addresses are compared the wrong way round by kernels up to 6.18 at least: there the ports must do.
        if wanted.src is not None and not v6:
            flags, ips = flags | _IP_SRC, ips + attribute(1, wanted.src)
        if wanted.dst is not None and not v6:
            flags, ips = flags | _IP_DST, ips + attribute(2, wanted.dst)
        if wanted.sport is not None:
            flags, ports = flags | _SRC_PORT, ports + attribute(2, wanted.sport.to_bytes(2, "big"))
        if wanted.dport is not None:
            flags, ports = flags | _DST_PORT, ports + attribute(3, wanted.dport.to_bytes(2, "big"))
        inner = [nested(1, ips)] if ips else []
        inner.append(nested(2, attribute(1, bytes((wanted.proto,))), ports))
        bodies = self._socket.dump(
            _SUBSYSTEM,
            _GET,
            _family(address),
            nested(_TUPLE_REPLY if reply else _TUPLE_ORIG, *inner),
            nested(_FILTER, attribute(_FILTER_REPLY if reply else _FILTER_ORIG, struct.pack("=I", flags))),
        )
        found = [entry for entry in map(parse_entry, bodies) if entry is not None]
        return [entry for entry in found if _matches(entry.reply if reply else entry.orig, wanted)]


def _matches(key: FlowKey, wanted: TupleFilter) -> bool:
    """Checked again here: a kernel before 5.8 ignores the filter and sends everything."""
    return (
        key.proto == wanted.proto
        and wanted.src in (None, key.src)
        and wanted.sport in (None, key.sport)
        and wanted.dst in (None, key.dst)
        and wanted.dport in (None, key.dport)
    )


class FlowEnds:
    """Destroy events. `fileno` for a poll loop; `read` gives what has come since. `kept`: a socket that has listened
    for longer; OSError if it is none for that."""

    def __init__(self, buffer: int = 8 << 20, kept: int | None = None) -> None:
        self.overruns = 0
        if kept is not None:
            self._socket = socket.socket(fileno=kept)
            if (self._socket.family, self._socket.proto) != (socket.AF_NETLINK, NETLINK_NETFILTER):
                self._socket.close()
                raise OSError(errno.ENOTSOCK, "not a socket for flow ends")
            return
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, NETLINK_NETFILTER
        )
        force = 33  # SO_RCVBUFFORCE; without CAP_NET_ADMIN in the first user namespace the plain option has to do
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, force, buffer)
        except OSError:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        # The kernel keeps the entry and sends again later where our buffer is full: no end is lost.
        self._socket.setsockopt(SOL_NETLINK, NETLINK_BROADCAST_ERROR, 1)
        self._socket.bind((0, 1 << _GROUP_DESTROY - 1))

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def read(self, limit: int = 256) -> list[FlowEnded]:
        """Up to about `limit` ends; empty when there are no more for now."""
        ended: list[FlowEnded] = []
        while len(ended) < limit:
            try:
                data = self._socket.recv(BUFFER)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self.overruns += 1
                continue
            for _, _, body in messages(data):
                entry = parse_entry(body[4:])
                if entry is not None:
                    ended.append(FlowEnded(entry.key, entry.mark, entry.packets, entry.bytes, entry.seconds))
        return ended


def prepare(root: Path = Path("/proc/sys/net/netfilter")) -> None:
    """Accounting, and destroy events for every flow (2, the default, gives none for flows older than the listener).
    What had been off is told: flows that began before have no counters. KernelError names what cannot be set."""
    for name in ("nf_conntrack_acct", "nf_conntrack_events"):
        try:
            before = (root / name).read_text().strip()
            if before != "1":
                (root / name).write_text("1\n")
        except OSError as error:
            raise KernelError(f"sysctl {name}", str(error)) from error
        if before == "0":
            log.warning("%s was off, and is on now: of flows that began before, the statistics are not whole", name)
    with contextlib.suppress(OSError):  # not every kernel keeps times
        (root / "nf_conntrack_timestamp").write_text("1\n")
