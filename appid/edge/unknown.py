"""The first packets of flows that stayed unknown, as a capture for later study; bounded.

In: each packet that userspace was asked about, each report of a flow. Out: PATH, and what came before it in PATH.1:
pcaps of raw IP packets, together at most `size` bytes. What a flow showed is held back until it has a name (then it is
forgotten) or stays without one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from appid.edge.capture import Writer
from appid.engine import FlowReport
from appid.identify.identification import INSUFFICIENT_DATA, UNKNOWN_IP, UNKNOWN_TCP, UNKNOWN_UDP
from appid.packet import flow_id, id_of, reversed_id
from appid.policy import Decision

MAX_FLOWS = 4096
MAX_PACKETS = 16
"""Of one flow."""
MAX_HELD = 8 << 20
"""Bytes of packets held back, of all flows together."""
_HEADERS = 16
"""Bytes that a packet costs beside its own (a pcap record's header)."""
_PCAP_HEADER = 24

_UNKNOWN = (UNKNOWN_UDP, UNKNOWN_TCP, UNKNOWN_IP)
_Packets = list[tuple[int, bytes]]


class UnknownFlows:
    """`path` is appended to by this process alone; `close` is not needed, each packet is written out at once."""

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.size = size
        self._waiting: OrderedDict[bytes, _Packets] = OrderedDict()
        self._held = 0
        self._settled: bytes | None = None
        self._writer: Writer | None = None
        self._written = 0

    def report(self, report: FlowReport, wanted: Callable[[Decision | None], bool]) -> None:
        """The flow has a name, or stays without one. `wanted`: whether the rule of a decision wants it captured."""
        identity = self._identity(id_of(report.key))
        name = report.identification.application
        ended = name == INSUFFICIENT_DATA and report.decision is None
        if name not in _UNKNOWN and not ended:
            if report.identification.confidence is not None or report.decision is not None:
                self._forget(identity)
            return
        packets = self._forget(identity)
        if wanted(report.decision):
            self._settled = None if ended else identity
            for time, data in packets:
                self._write(time, data)

    def _forget(self, identity: bytes) -> _Packets:
        packets = self._waiting.pop(identity, [])
        self._held -= sum(len(data) for _, data in packets)
        return packets

    def saw(self, data: bytes, time: int) -> None:
        """A packet, after what it changed was reported; `time` in nanoseconds since 1970."""
        found = flow_id(data)
        if found is None:
            return
        identity = self._identity(found)
        settled, self._settled = self._settled, None
        if identity == settled:  # the packet that settled it: its last one here
            self._write(time, data)
            return
        packets = self._waiting.setdefault(identity, [])
        if len(packets) < MAX_PACKETS:
            packets.append((time, data))
            self._held += len(data)
        self._waiting.move_to_end(identity)
        while len(self._waiting) > MAX_FLOWS or self._held > MAX_HELD:
            self._forget(next(iter(self._waiting)))

    def _identity(self, identity: bytes) -> bytes:
        return min(identity, reversed_id(identity))

    def _write(self, time: int, data: bytes) -> None:
        cost = len(data) + _HEADERS
        if self._writer is None or self._written + cost > self.size // 2:
            self._turn()
        assert self._writer is not None
        self._writer.write(time, data)
        self._writer.flush()
        self._written += cost

    def _turn(self) -> None:
        """A new file; the one of before is kept, the one before that goes."""
        if self._writer is not None:
            self._writer.close()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            self.path.replace(self.path.with_name(self.path.name + ".1"))
        self._writer = Writer(str(self.path))
        self._written = _PCAP_HEADER
