"""Events: JSON lines in the shape of Suricata's EVE, to a file, standard output or a unix datagram socket.

In: reports of the engine. Out: one line each, with one object named as the event type. Nothing here waits: a reader
that is slower than the events, a full disk, a socket that nobody reads lose lines, counted in `lost`, never a packet.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from appid.dataplane.command import Report
from appid.edge import telling
from appid.engine import AnomalyReport, CallReport, DecisionReport, FlowReport, PinholeReport
from appid.flow.key import FlowKey
from appid.wire import text

SOCKET = "unix:"
WAITING = 1 << 20
"""Bytes kept for a reader that is slow just now."""


class _Out(Protocol):
    """Where lines go. `put` takes what it can at once and says how many bytes; OSError: none."""

    def put(self, line: bytes) -> int: ...

    def close(self) -> None: ...


class _Descriptor:
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def put(self, line: bytes) -> int:
        return os.write(self._descriptor, line)

    def close(self) -> None:
        os.close(self._descriptor)


class _Stream:
    """Standard output that is a socket, as under systemd."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=os.dup(descriptor))

    def put(self, line: bytes) -> int:
        return self._socket.send(line, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def close(self) -> None:
        self._socket.close()


class _Datagrams:
    """One datagram an event. The reader may come, go and come back: each is sent to the path anew."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)

    def put(self, line: bytes) -> int:
        return self._socket.sendto(line, self._path)

    def close(self) -> None:
        self._socket.close()


def _standard_output() -> _Out:
    """An open file of its own: not to wait there must not become the habit of whoever shares standard output."""
    if stat.S_ISSOCK(os.fstat(1).st_mode):
        return _Stream(1)
    try:
        return _Descriptor(os.open("/proc/self/fd/1", os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC))
    except PermissionError:  # another user's terminal
        return _Descriptor(os.dup(1))


def _open(place: str) -> _Out:
    if place == "-":
        return _standard_output()
    if place.startswith(SOCKET):
        return _Datagrams(place.removeprefix(SOCKET))
    Path(place).parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISFIFO(os.stat(place).st_mode):
            flags = os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC  # read, too: or it could not be opened before its reader
    return _Descriptor(os.open(place, flags, 0o640))


class Events:
    """`place`: a path, "-" for standard output, "unix:PATH" for a datagram socket, None for nowhere. `enforced`: False
    in monitor mode. OSError if the path can not be opened at the beginning."""

    def __init__(self, place: str | None, enforced: bool = True) -> None:
        self.place = place
        self.enforced = enforced
        self.lost = 0
        self._waiting: list[bytes] = []
        self._bytes = 0
        self._out = _open(place) if place is not None else None

    def reopen(self) -> None:
        """Open the file again, after its rotation (SIGUSR1). What was open stays if that fails. OSError."""
        if self.place is not None and self.place != "-":
            opened = _open(self.place)
            self.flush()
            if self._out is not None:
                self._out.close()
            self._out = opened

    def close(self) -> None:
        self.flush()
        self.lost += len(self._waiting)
        self._waiting.clear()
        if self._out is not None:
            self._out.close()
        self._out = None

    def write(self, report: Report, now: float) -> None:
        if self._out is None:
            return
        line = (json.dumps(event(report, now, self.enforced), separators=(",", ":")) + "\n").encode()
        if self._bytes + len(line) > WAITING:
            self.flush()
        if self._bytes + len(line) > WAITING:
            self.lost += 1
            return
        self._waiting.append(line)
        self._bytes += len(line)
        self.flush()

    def flush(self) -> None:
        """What waits goes out as far as the reader takes it now. What nobody will ever take is lost."""
        done = 0
        for line in self._waiting:
            try:
                sent = self._out.put(line) if self._out is not None else 0
            except OSError as error:
                if error.errno in (errno.EAGAIN, errno.ENOBUFS):
                    break
                self.lost += 1
                sent = len(line)
            if sent < len(line):
                self._waiting[done] = line[sent:]
                break
            done += 1
        del self._waiting[:done]
        self._bytes = sum(map(len, self._waiting)) if self._waiting else 0


def event(report: Report, now: float, enforced: bool = True) -> dict[str, Any]:
    """One EVE object. A key for which this report has no value is null; `config`, which is of no flow, has none."""
    told: dict[str, Any] = {
        "timestamp": datetime.fromtimestamp(now, UTC).isoformat(timespec="microseconds"),
        "event_type": report.kind,
        **(_NOTHING if report.kind != "config" else {}),
    }
    match report.body:
        case FlowReport() as flow:
            told["flow_id"] = flow.flow
            told.update(_ends(flow.key))
            told["app_proto"] = flow.identification.application
            told["flow"] = {
                **telling.identification(flow, ""), "packet": flow.packet, "call": flow.call,
                "foreseen": flow.foreseen, "userspace_packets": flow.userspace_packets,
                "decision": telling.decision(flow.decision, enforced),
            }  # fmt: skip
        case DecisionReport() as judged:
            told.update(_ends(judged.key))
            told["app_proto"] = judged.application
            told["decision"] = telling.decision(judged.decision, enforced)
        case CallReport() as call:
            told["call"] = telling.call(call, list(call.flows))
            told.update(app_proto=call.application, src_ip=told["call"]["caller"], dest_ip=told["call"]["callee"])
        case PinholeReport() as pinhole:
            wanted = pinhole.expectation
            told.update(src_ip=text(wanted.peer), src_port=wanted.peer_port)
            told.update(dest_ip=text(wanted.inside), dest_port=wanted.port)
            told.update(proto=telling.protocol(wanted.proto).upper(), app_proto=wanted.application)
            told["pinhole"] = telling.pinhole(pinhole)
        case AnomalyReport() as anomaly:
            told["flow_id"] = anomaly.flow
            if anomaly.key is not None:
                told.update(_ends(anomaly.key))
            told["app_proto"] = anomaly.protocol
            told["anomaly"] = {"packet": anomaly.packet, "protocol": anomaly.protocol, "reason": anomaly.reason}
        case other:
            told[report.kind] = other
    return told


_NOTHING = dict.fromkeys(
    ("flow_id", "src_ip", "src_port", "dest_ip", "dest_port", "proto", "app_proto", "community_id")
)


def _ends(key: FlowKey) -> dict[str, Any]:
    return {
        "src_ip": text(key.src), "src_port": key.sport, "dest_ip": text(key.dst), "dest_port": key.dport,
        "proto": telling.protocol(key.proto).upper(), "community_id": telling.community_id(key),
    }  # fmt: skip
