"""One call, told once, though its two inside hosts belong to different workers: each of these has one half of it.

In: each worker's calls, as they are reported. Out: the number by which the gateway tells of a call, the first half's;
and which worker counts it. The table is in memory that the workers share, by Call-ID and the caller's tag, as one
engine finds the dialogs of one call (RFC 3261 sections 8.1.1.3 and 4); its file outlives them all, and says nothing
after another boot.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from collections import OrderedDict
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from appid.dataplane.command import Report
from appid.edge.state import boot
from appid.engine import CallReport, FlowReport, PinholeReport

BUCKETS, DEPTH = 1024, 8
"""Calls that are found so: 8192 at most, 8 of one hash. Of more, each half is told by itself."""
REMEMBERED = 4096
"""Calls of another number than their worker's that can still be told of."""
_HEADER = struct.Struct("=32s32s")  # of which boot; what the hashes are salted with
_SLOT = struct.Struct("=8sQ?32s")


class _Slot(NamedTuple):
    """`key`: of Call-ID and tag; `number`: the call's; `ended`: its end was counted; `holders`: a bit a worker."""

    key: bytes
    number: int
    ended: bool
    holders: int


class Table:
    """Shared by processes; each call is one step, under a lock that goes with its process. OSError."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        size = _HEADER.size + BUCKETS * DEPTH * _SLOT.size
        try:
            os.ftruncate(self._descriptor, size)
            os.posix_fallocate(self._descriptor, 0, size)  # as in tally.py
        except OSError:
            os.close(self._descriptor)
            raise
        self._shared = mmap.mmap(self._descriptor, size)
        now = blake2b(boot().encode(), digest_size=32).digest()
        with self._locked():
            before, self._salt = _HEADER.unpack_from(self._shared)
            if before != now:
                self._salt = os.urandom(32)
                self._shared[:] = _HEADER.pack(now, self._salt) + bytes(size - _HEADER.size)

    def fileno(self) -> int:
        return self._descriptor

    def close(self) -> None:
        self._shared.close()
        os.close(self._descriptor)

    def key(self, call_id: str, tag: str) -> bytes:
        """Under which the call stands here. Neither has a line's end in it."""
        return blake2b(f"{call_id}\n{tag}".encode(errors="replace"), digest_size=8, key=self._salt).digest()

    def hold(self, key: bytes, number: int, worker: int) -> int:
        """`worker` has a half of this call, `number` of its own. Out: the number to tell of it by."""
        with self._locked():
            at, slot = self._find(key)
            if at is None:
                return number
            slot = slot or _Slot(key, number, False, 0)
            self._put(at, slot._replace(holders=slot.holders | 1 << worker))
            return slot.number

    def end(self, key: bytes) -> bool:
        """A half of the call has ended. Out: whether it is the first to."""
        with self._locked():
            at, slot = self._find(key)
            if at is None or slot is None:
                return True
            self._put(at, slot._replace(ended=True))
            return not slot.ended

    def leave(self, key: bytes, worker: int) -> None:
        with self._locked():
            at, slot = self._find(key)
            if at is not None and slot is not None:
                self._put(at, slot._replace(holders=slot.holders & ~(1 << worker)))

    def counts(self, key: bytes, worker: int) -> bool:
        """Whether it is for `worker` to count the call: of those that hold it, the first. Without the lock: who asks
        asks of many, and again in a moment."""
        _, slot = self._find(key)
        return slot is None or slot.holders & -slot.holders == 1 << worker

    def keep(self, keys: Collection[bytes], worker: int) -> None:
        """What `worker` holds is this and no more."""
        with self._locked():
            for at in range(BUCKETS * DEPTH):
                slot = self._get(at)
                if slot.holders >> worker & 1 and slot.key not in keys:
                    self._put(at, slot._replace(holders=slot.holders & ~(1 << worker)))

    def only(self, workers: int) -> None:
        """There are no more than so many."""
        with self._locked():
            for at in range(BUCKETS * DEPTH):
                slot = self._get(at)
                if slot.holders >> workers:
                    self._put(at, slot._replace(holders=slot.holders & (1 << workers) - 1))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fcntl.lockf(self._descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN)

    def _find(self, key: bytes) -> tuple[int | None, _Slot | None]:
        """Where the call stands, or, with no slot, may stand; nowhere where there is no room."""
        first = int.from_bytes(key[:4], "big") % BUCKETS * DEPTH
        free = None
        for at in range(first, first + DEPTH):
            slot = self._get(at)
            if slot.holders and slot.key == key:
                return at, slot
            if not slot.holders and free is None:
                free = at
        return free, None

    def _get(self, at: int) -> _Slot:
        key, number, ended, holders = _SLOT.unpack_from(self._shared, _HEADER.size + at * _SLOT.size)
        return _Slot(key, number, ended, int.from_bytes(holders, "little"))

    def _put(self, at: int, slot: _Slot) -> None:
        holders = slot.holders.to_bytes(32, "little")
        _SLOT.pack_into(self._shared, _HEADER.size + at * _SLOT.size, slot.key, slot.number, slot.ended, holders)


class Halves:
    """One worker's side of it. Without a table (a worker alone) each call is its own."""

    def __init__(self, table: Table | None, worker: int) -> None:
        self._table, self._worker = table, worker
        self._keys: dict[int, bytes] = {}
        self._names: OrderedDict[int, int] = OrderedDict()

    def heard(self, report: CallReport, living: bool) -> None:
        """What is reported of a call, before anybody is told. `living`: the worker has it still."""
        if self._table is None or report.call_id is None:
            return
        if living and report.call not in self._keys:
            key = self._keys[report.call] = self._table.key(report.call_id, report.tag)
            name = self._table.hold(key, report.call, self._worker)
            if name != report.call:
                self._names[report.call] = name
                while len(self._names) > REMEMBERED:
                    self._names.popitem(last=False)
        elif not living and (held := self._keys.pop(report.call, None)) is not None:
            self._table.leave(held, self._worker)

    def ends(self, report: CallReport) -> bool:
        """Of a report of a call's end: whether it is the first that the gateway hears of it. Before `heard`."""
        if self._table is None or report.call_id is None:
            return True
        return self._table.end(self._table.key(report.call_id, report.tag))

    def name(self, call: int) -> int:
        """The number by which the gateway tells of the worker's call."""
        return self._names.get(call, call)

    def named(self, report: Report) -> Report:
        """The same report, by that number."""
        match report.body:
            case CallReport() as call if call.call in self._names:
                return report._replace(body=replace(call, call=self.name(call.call)))
            case FlowReport(call=int(number)) as flow if number in self._names:
                return report._replace(body=flow._replace(call=self.name(number)))
            case PinholeReport() as pinhole if pinhole.expectation.call in self._names:
                wanted = replace(pinhole.expectation, call=self.name(pinhole.expectation.call))
                return report._replace(body=replace(pinhole, expectation=wanted))
            case _:
                return report

    def settle(self) -> None:
        """What a process before this one held, and was not taken over, is let go."""
        if self._table is not None:
            self._table.keep(set(self._keys.values()), self._worker)

    def counted(self, calls: Collection[int]) -> int:
        """How many of the worker's open calls are its to count."""
        if self._table is None:
            return len(calls)
        return sum(key is None or self._table.counts(key, self._worker) for key in map(self._keys.get, calls))
