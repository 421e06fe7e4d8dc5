"""A model of the kernel chains. In: packets in their order, and the engine's commands. Out: which packets the chains
queue, which pass, which are dropped, and the conntrack entries with their counters.

It stands where chain.py's rules stand, for replaying captures; both are tested with the same packets. What it leaves
out: NAT, TCP windows, several packets in the queue at once. A flow's life ends, for TCP, by FIN from both sides, RST or
a new SYN, for UDP after 300 s of silence.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from appid.alg.expectation import Expectation
from appid.dataplane.bytecode import watched
from appid.dataplane.command import ClosePinhole, Command, CutFlow, OpenPinhole, SetMark, SetVerdict
from appid.dataplane.marks import ALLOW, DENY, UNDECIDED, Marks
from appid.flow.key import FlowKey
from appid.packet import ACK, FIN, RST, SYN, Packet, flow_id, id_of, parse, reversed_id
from appid.wire import ICMP, ICMPV6, TCP, UDP, DecodeError

Outcome = Literal["pass", "drop", "reject", "queue"]
QUEUE: Final = "queue"
INVALID: Final = "invalid"

UDP_SILENCE: Final = 300.0
_OTHER_SILENCE: Final = 600.0  # nf_conntrack_generic_timeout
_TCP_SILENCE: Final = 432000.0  # nf_conntrack_tcp_timeout_established
_RST_LINGER: Final = 10.0  # tcp_timeout_close, _time_wait
_FIN_LINGER: Final = 120.0
_ERRORS: Final[dict[int, tuple[int, ...]]] = {ICMP: (3, 4, 5, 11, 12), ICMPV6: (1, 2, 3, 4)}
_UNTRACKED: Final = frozenset((130, 131, 132, 133, 134, 135, 136, 143))  # neighbours, listeners: never routed
_ENDS: Final = FIN | SYN | RST
_REPLY: Final = SYN | ACK


class Entry:
    """A conntrack entry and one life of a flow. `slot` is the caller's.

    key        the direction of the first packet
    mark       the connmark
    packets    and bytes (whole IP packets): seen in the first packet's direction, and in the other
    queued     packets that the chains sent to userspace
    first, last                 times, seconds
    first_packet, last_packet   the numbers that `forward` was given
    closed     time of the end of a TCP life, else None
    """

    __slots__ = (
        "bytes_back", "bytes_there", "closed", "confirmed", "fast", "fins", "first", "first_packet", "id", "key",
        "last", "last_packet", "linger", "mark", "packets_back", "packets_there", "queued", "slot", "syn", "tcp",
    )  # fmt: skip

    def __init__(self, identity: bytes, key: FlowKey, now: float, packet: int) -> None:
        self.id = identity
        self.key = key
        self.mark = 0
        self.packets_there = self.packets_back = self.bytes_there = self.bytes_back = self.queued = 0
        self.first = self.last = now
        self.first_packet = self.last_packet = packet
        self.closed: float | None = None
        self.linger = UDP_SILENCE if key.proto == UDP else _TCP_SILENCE if key.proto == TCP else _OTHER_SILENCE
        self.confirmed = False
        self.fast: Outcome | None = None  # what becomes of packets that need no second look
        self.tcp = key.proto == TCP
        self.fins = 0
        self.syn: int | None = None
        self.slot: Any = None

    @property
    def packets(self) -> tuple[int, int]:
        return self.packets_there, self.packets_back

    @property
    def bytes(self) -> tuple[int, int]:
        return self.bytes_there, self.bytes_back


_Half = tuple[Entry, bool]
"""An entry, and whether this is the reply direction."""


class Kernel:
    """One gateway's kernel. After `forward` and `apply`, `outcome` says what became of the packet in hand, `current` is
    its entry (None where conntrack has none); `ended` collects entries whose life is over until the caller takes them.

    seen    the packet in hand, parsed, where `forward` had to look closer
    blind   what filter does with packets that the engine never saw
    """

    __slots__ = ("_pending", "_pinholes", "_table", "blind", "current", "ended", "marks", "outcome", "queued", "seen")

    def __init__(self, marks: Marks | None = None, blind: Outcome = "drop") -> None:
        self.marks = marks or Marks()
        self.blind = blind
        self.outcome: Outcome = "pass"
        self.current: Entry | None = None
        self.ended: list[Entry] = []
        self.queued = 0
        self.seen: Packet | None = None
        self._table: dict[bytes, _Half] = {}
        self._pinholes: dict[tuple[int, bytes, int, bytes], tuple[int, float]] = {}
        self._pending = False

    # --- packets ---

    def forward(self, data: memoryview, now: float, packet: int = 0) -> Entry | Literal["queue", "invalid"]:
        """One whole IP packet through mangle and filter. Out: its entry if the kernel dealt with it alone, "queue" if
        the engine is asked (then `apply` its SetVerdict), "invalid" if conntrack makes nothing of it (dropped)."""
        identity = flow_id(data)
        half = self._table.get(identity) if identity is not None else None
        if half is not None:
            entry, back = half
            if entry.fast is not None and now - entry.last <= entry.linger:
                size = len(data)
                at = 33 if data[0] == 0x45 else 53
                if not entry.tcp or (size > at and not data[at] & _ENDS):
                    if back:
                        entry.packets_back += 1
                        entry.bytes_back += size
                    else:
                        entry.packets_there += 1
                        entry.bytes_there += size
                    entry.last = now
                    entry.last_packet = packet
                    self.current = entry
                    self.outcome = entry.fast
                    return entry
        return self._classify(data, identity, now, packet)

    def _classify(
        self, data: memoryview, identity: bytes | None, now: float, packet: int
    ) -> Entry | Literal["queue", "invalid"]:
        try:
            seen = parse(data)
        except DecodeError:
            seen = None
        self.seen = seen
        if seen is None:
            return self._invalid()
        if seen.icmp_type:
            if seen.icmp_type in _ERRORS[seen.key.proto]:
                return self._related(seen.payload)
            if seen.key.proto == ICMPV6 and seen.icmp_type in _UNTRACKED:
                return self._invalid("pass")
        half = self._track(seen, identity or id_of(seen.key), now, packet)
        if half is None:
            return self._invalid()
        entry, back = half
        if back:
            entry.packets_back += 1
            entry.bytes_back += seen.length
        else:
            entry.packets_there += 1
            entry.bytes_there += seen.length
        entry.last = now
        entry.last_packet = packet
        self.current = entry
        if not self._wanted(entry, back, seen, now):
            entry.confirmed = True
            self.outcome = self._filtered(entry)
            self._hasten(entry)
            return entry
        entry.queued += 1
        self.queued += 1
        self._pending = True
        self.outcome = "queue"
        return QUEUE

    def _wanted(self, entry: Entry, back: bool, seen: Packet, now: float) -> bool:
        """mangle/APPID after conntrack: does this packet go to the queue?"""
        marks = self.marks
        if entry.mark & marks.state:
            if not entry.mark & marks.watch or marks.state_of(entry.mark) != ALLOW:
                return False
            return entry.tcp or (entry.key.proto == UDP and watched(seen.payload))
        if self._pinholes and not back and not entry.packets_back:  # ctstate NEW
            key = seen.key
            pinhole = self._pinholes.get((key.proto, key.dst, key.dport, key.src))
            if pinhole is not None and now < pinhole[1] and marks.state_of(pinhole[0]) != UNDECIDED:
                entry.mark = entry.mark & ~marks.saved | pinhole[0] & marks.saved
                return False
        return True

    def _invalid(self, outcome: Outcome = "drop") -> Literal["invalid"]:
        self.current = None
        self.outcome = outcome
        return INVALID

    def _related(self, payload: memoryview) -> Entry | Literal["invalid"]:
        """An ICMP error: the packet it quotes names the flow, filter looks at that flow's connmark (RFC 5508, 4)."""
        half = self._table.get(quoted) if (quoted := _quoted(payload)) is not None else None
        if half is None:
            return self._invalid()
        entry = half[0]
        self.current = entry
        self.outcome = "pass" if self.marks.state_of(entry.mark) == UNDECIDED else self._filtered(entry)
        return entry

    def _filtered(self, entry: Entry) -> Outcome:
        """filter/APPID, for a packet without PASS."""
        state = self.marks.state_of(entry.mark)
        if state == ALLOW:
            return "pass"
        if state == UNDECIDED:
            return self.blind
        return "reject" if state == DENY else "drop"

    def _hasten(self, entry: Entry) -> None:
        marks = self.marks
        if not entry.mark & marks.state:
            entry.fast = None
            return
        settled = entry.confirmed and entry.closed is None
        watching = entry.mark & marks.watch and marks.state_of(entry.mark) == ALLOW
        entry.fast = self._filtered(entry) if settled and not watching and entry.key.proto in (TCP, UDP) else None

    # --- conntrack ---

    def _track(self, seen: Packet, identity: bytes, now: float, packet: int) -> _Half | None:
        """The packet's entry, made if there is none. None: invalid."""
        half = self._table.get(identity)
        if half is not None and self._over(half, seen, now):
            self._remove(half[0])
            half = None
        if half is None:
            if seen.key.proto == TCP and (seen.tcp_flags & _ENDS not in (0, SYN) or seen.tcp_flags & _REPLY == _REPLY):
                return None  # nf_conntrack_tcp: RST, FIN or SYN/ACK begin nothing
            entry = Entry(identity, seen.key, now, packet)
            half = (entry, False)
            self._table[reversed_id(identity)] = (entry, True)
            self._table[identity] = half
        if seen.tcp_flags & _ENDS:
            self._tcp(half[0], half[1], seen, now)
        return half

    def _over(self, half: _Half, seen: Packet, now: float) -> bool:
        entry = half[0]
        if now - entry.last > entry.linger:
            return True
        if entry.tcp and seen.tcp_flags & (SYN | ACK | RST) == SYN:
            if entry.closed is not None:
                return True
            # A repeated SYN has the same sequence number (RFC 9293 section 3.8.1); another one begins a new life.
            return not half[1] and entry.packets_back > 0 and entry.syn != seen.tcp_seq
        return False

    def _tcp(self, entry: Entry, back: bool, seen: Packet, now: float) -> None:
        flags = seen.tcp_flags
        if flags & SYN and not back and not flags & ACK:
            entry.syn = seen.tcp_seq
        if flags & FIN:
            entry.fins |= 2 if back else 1
        if entry.closed is None and (flags & RST or entry.fins == 3):
            entry.closed = now
            entry.linger = _RST_LINGER if flags & RST else _FIN_LINGER
            entry.fast = None

    def _remove(self, entry: Entry) -> None:
        if self._table.pop(entry.id, None) is not None:
            self._table.pop(reversed_id(entry.id), None)
            self.ended.append(entry)

    def expire(self, now: float) -> None:
        """End what has been silent for too long. Walks the whole table: call it now and then."""
        over = [entry for entry, back in self._table.values() if not back and now - entry.last > entry.linger]
        for entry in over:
            self._remove(entry)
        for key in [key for key, (_, until) in self._pinholes.items() if until <= now]:
            del self._pinholes[key]

    def entry(self, key: FlowKey) -> Entry | None:
        """The living entry of a flow, given in either direction."""
        half = self._table.get(id_of(key))
        return half[0] if half else None

    def entries(self) -> list[Entry]:
        """All living entries, oldest first."""
        return [entry for entry, back in self._table.values() if not back]

    # --- commands ---

    def apply(self, command: Command, now: float) -> None:
        """Carry out one command. NAT bindings, rewrites and reports change nothing here."""
        if isinstance(command, SetVerdict):
            self._verdict(command.verdict, command.mark)
            return
        match command:
            case SetMark(key, mark, create):
                self._set_mark(key, mark, create, now)
            case CutFlow(key):
                entry = self.entry(key)
                if entry is not None and entry.confirmed:
                    self._remove(entry)
            case OpenPinhole(_, expectation, mark, timeout):
                self._pinholes[_pinhole(expectation)] = (mark, now + timeout)
            case ClosePinhole(_, expectation):
                self._pinholes.pop(_pinhole(expectation), None)
                self._cut(expectation)
            case _:
                pass

    def _verdict(self, verdict: str, mark: int) -> None:
        """The packet in hand comes back from the engine: NF_REPEAT enters mangle/APPID again."""
        entry = self.current
        if not self._pending or entry is None:
            return
        self._pending = False
        marks = self.marks
        if verdict == "drop":
            self.outcome = "drop"
            return
        decided = mark & marks.state
        if decided:
            entry.mark = entry.mark & ~marks.saved | mark & marks.saved
        # Marks.merge adds PASS where a mark has neither state nor PASS
        self.outcome = "pass" if mark & marks.passing or not decided else self._filtered(entry)
        if self.outcome == "pass":
            entry.confirmed = True
        elif not entry.confirmed:
            entry.mark = 0  # never confirmed: the next packet starts anew
        self._hasten(entry)

    def _set_mark(self, key: FlowKey, mark: int, create: bool, now: float) -> None:
        entry = self.entry(key)
        if entry is None or not (entry.confirmed or create):
            return
        entry.mark = entry.mark & ~self.marks.saved | mark & self.marks.saved
        entry.confirmed = True
        self._hasten(entry)

    def _cut(self, wanted: Expectation) -> None:
        """Delete the entries between the inside host's port and the peer."""
        for entry, back in list(self._table.values()):
            key = entry.key.reversed() if back else entry.key
            if (key.proto, key.src, key.sport, key.dst) == _pinhole(wanted) and wanted.peer_port in (None, key.dport):
                self._remove(entry)


def _pinhole(wanted: Expectation) -> tuple[int, bytes, int, bytes]:
    return wanted.proto, wanted.inside, wanted.port, wanted.peer


def _quoted(payload: memoryview) -> bytes | None:
    """The flow of the packet that an ICMP error quotes: its headers may be all there is of it."""
    identity = flow_id(payload)
    if identity is None:
        try:
            seen = parse(payload)
        except DecodeError:
            return None
        identity = id_of(seen.key) if seen is not None else None
    return identity
