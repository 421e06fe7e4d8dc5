"""One direction of a TCP connection whose messages change their length on the way (RFC 9293 section 3.4).

In: segments as the sender made them, acknowledgements as the receiver made them. Out: what goes in their place, so that
either end sees one unbroken connection. Whole messages are translated; a segment's place carries what the receiver has
not had yet, whatever the sender put into it.

While a message is incomplete that may have to change (framing.py), its pieces wait here, each answered for: in the
piece's place goes one old byte (a keep-alive, section 3.8.4), and the receiver's answer to it is passed on as covering
all that waits, or a sender that waits for it (Nagle, RFC 1122 section 4.2.3.4) would never send the rest. A message's
last byte is never answered for before the receiver has it, so what is lost on the way is sent again: by the sender,
from here.

Full segments that a message does not end with wait first for what follows them at once (`later`): when the message is
whole, each finds something to carry, and nobody has to send again. One that came back in vain goes on as above.

What the receiver has not acknowledged is kept here, and bounded: a sender that minds no window, or whose receiver reads
slowly, learns of the bound as of any narrow path. New bytes beyond it are lost (`lost`), to be sent again; what was
taken before is sent again from here, and makes room.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final, NamedTuple

from appid.alg.framing import Framed, frame, frame_relayed
from appid.alg.names import Names
from appid.alg.translate import Result
from appid.decode import sip
from appid.flow.stream import Stream

ROOM: Final = 1200
"""Bytes that a segment may carry at least: every path of today does (RFC 8200 section 5: 1280 with headers)."""
PATIENCE: Final = 1 << 20
"""Bytes that waited, added up over the segments that found them waiting: each time they are written down. A message of
LONGEST bytes comes to a twentieth of that; one in thousands of pieces is nobody's."""
LATER: Final = 64
"""Segments of one direction that may wait for what follows them."""
UNACKNOWLEDGED: Final = 1 << 18
"""Bytes of one direction that its receiver may leave unacknowledged before no new ones are taken."""
EDITS: Final = 1024
"""Messages of changed length among them."""
_LIMIT: Final = 4 * sip.MESSAGE
_HALF, _MODULUS = 1 << 31, 1 << 32


class Sent(NamedTuple):
    """What goes in a segment's place; `fin`: it may keep its FIN, for all that comes before is there. `later`: nothing
    yet; the segment is to be shown again in a moment. `lost`: nothing; it must not go on, its sender will repeat it."""

    sequence: int
    payload: bytes
    fin: bool = True
    later: bool = False
    lost: bool = False


class Position(NamedTuple):
    """All that a direction knows, as values: what another process needs to go on. Segments that came out of order are
    not of it: nobody has acknowledged them. `waiting`: of a message that is not whole; `out`: what the receiver has not
    acknowledged; `edits`: as _Edit; `rest`: bytes to come that go on as they are."""

    base: int
    waiting: bytes
    prefix: bytes
    received: int
    high: int
    sent: int
    out: bytes
    out_first: int
    acked: int
    told: int
    delta: int
    edits: tuple[tuple[int, int, int, int], ...]
    fin: int | None
    over: bool
    largest: int
    relayed: bool
    rest: int = 0

    @property
    def awaits(self) -> int:
        """The sequence number of the first byte that waits, or of the next one."""
        return (self.base + self.received - len(self.waiting)) % _MODULUS


class _Edit(NamedTuple):
    """A message whose length changed: positions before and after, in bytes since the connection's first."""

    start: int
    end: int
    out_start: int
    out_end: int


def _out_start(edit: _Edit) -> int:
    return edit.out_start


class Splice:
    """Positions count from `base`, the sequence number of the first byte looked at. `prefix`: bytes from there on that
    have gone out already; `relayed`: it is one between a client and its relay."""

    __slots__ = ("_acked", "_base", "_clock", "_delta", "_edits", "_fin", "_high", "_largest", "_later", "_out",
                 "_out_first", "_over", "_prefix", "_received", "_relayed", "_rest", "_sent", "_stream", "_told",
                 "_waited", "_wanted", "results")  # fmt: skip

    def __init__(self, base: int, prefix: bytes = b"", relayed: bool = False) -> None:
        self._base, self._relayed = base, relayed
        self._stream = Stream(_LIMIT)
        self._stream.syn((base - 1) % _MODULUS)
        self._stream.push(base, prefix)
        self._prefix = prefix
        self._received = self._high = self._sent = len(prefix)
        self._out = bytearray(prefix)
        self._out_first = self._acked = self._told = self._delta = 0
        self._edits: list[_Edit] = []
        self._fin: int | None = None
        self._over = False
        self._largest = ROOM
        self._later: set[tuple[int, int]] = set()
        self._clock: int | None = None
        self._rest = self._wanted = self._waited = 0
        self.results: list[Result] = []

    @property
    def position(self) -> Position:
        edits = tuple((e.start, e.end, e.out_start, e.out_end) for e in self._edits)
        return Position(
            self._base, bytes(self._stream.data), self._prefix, self._received, self._high, self._sent,
            bytes(self._out), self._out_first, self._acked, self._told, self._delta, edits, self._fin, self._over,
            self._largest, self._relayed, self._rest,
        )  # fmt: skip

    @property
    def held(self) -> int:
        """Bytes that `position` would hold."""
        return len(self._stream.data) + len(self._prefix) + len(self._out)

    @classmethod
    def at(cls, position: Position) -> Splice:
        """One that goes on there. ValueError where no splice can have been."""
        p = position
        sent = p.acked >= 0 and 0 <= p.out_first <= p.sent <= p.out_first + len(p.out)
        came = p.told <= p.received <= p.high and len(p.waiting) <= p.received
        if not (sent and came) or p.rest < 0 or max(len(p.waiting), len(p.prefix)) >= _LIMIT:
            raise ValueError("no position of a stream")
        made = cls(p.base, relayed=p.relayed)
        made._stream = Stream(_LIMIT)
        made._stream.syn((p.awaits - 1) % _MODULUS)
        made._stream.push(p.awaits, p.waiting)
        made._prefix, made._received, made._high, made._sent = p.prefix, p.received, p.high, p.sent
        made._out, made._out_first, made._acked, made._told = bytearray(p.out), p.out_first, p.acked, p.told
        made._delta, made._edits, made._fin = p.delta, [_Edit(*each) for each in p.edits], p.fin
        made._over, made._largest, made._rest = p.over, p.largest, p.rest
        return made

    # -- from the sender -----------------------------------------------------------------------------------------

    def segment(self, sequence: int, payload: memoryview, fin: bool, names: Names) -> Sent:
        """A segment of the sender, and what goes in its place."""
        start = self._position(sequence, self._high)
        end = start + len(payload)
        if end < 0 or (end == 0 and payload):  # from before our time
            return Sent(sequence, bytes(payload))
        returned = (start, end) in self._later
        self._later.discard((start, end))
        if end > self._received and payload and (len(self._out) >= UNACKNOWLEDGED or len(self._edits) >= EDITS):
            if start >= self._received:
                return Sent(sequence, b"", lost=True)
            payload, end, fin = payload[: self._received - start], self._received, False
        again = len(payload) > 0 and end <= self._high and not returned
        current = start >= self._high
        self._high = max(self._high, end)
        self._largest = max(self._largest, len(payload))
        if payload:
            added = self._stream.push(sequence, payload)
            self._received += len(added) if added is not None else 0
            self._frame(names)
            waits = len(self._stream.data)
            self._waited = self._waited + waits if waits else 0
        if fin and self._received == end:
            self._flush()
            self._fin = end
        whole = self._fin is not None
        full = len(payload) >= ROOM and not (again or returned or fin)
        if full and self._stream.data and self._sent == self._out_first + len(self._out) and len(self._later) < LATER:
            self._later.add((start, end))
            return Sent(sequence, bytes(payload), later=True)
        sequence, sent = self._emit(payload, fin and whole, again, current)
        return Sent(sequence, sent, whole)

    def clock(self, told: int | None) -> int | None:
        """The sender's clock as its segment tells it (RFC 7323), or as one did that came before and went out already:
        the receiver drops what is from an earlier time (section 5)."""
        if told is None:
            return None
        if self._clock is None or (told - self._clock) % _MODULUS < _HALF:
            self._clock = told
        return self._clock

    def _emit(self, payload: memoryview, fin: bool, again: bool, current: bool) -> tuple[int, bytes]:
        at = self._acked if again and self._acked < self._sent else self._sent
        room = len(self._out) if fin else self._largest
        if payload or fin or current:
            chunk = bytes(self._out[at - self._out_first : at - self._out_first + room])
            self._sent = max(self._sent, at + len(chunk))
            if chunk or not payload:
                return self._number(at), chunk
        return self._number(self._sent - 1), self._repeated if payload else b""

    @property
    def _repeated(self) -> bytes:
        """The last byte that was sent, once more: it may have been lost. What the receiver has, he does not look at."""
        at = self._sent - 1 - self._out_first
        return bytes(self._out[at : at + 1]) if at >= 0 else b"\0"

    def _frame(self, names: Names) -> None:
        """Translate what is whole; hand on what is no SIP, and what of a message need not change."""
        while (data := self._stream.data) and not self._over:
            if self._rest:
                raw = bytes(data[: self._rest])
                self._rest -= len(raw)
                self._append(raw, Framed(len(raw), raw))
                continue
            if len(data) < self._wanted and self._waited <= PATIENCE:
                return
            framed = frame_relayed(data, names) if self._relayed else frame(data, names)
            if isinstance(framed, int):
                self._wanted = framed
                if self._waited <= PATIENCE:
                    return
                framed = Framed(len(data), bytes(data), "too-long", over=True)
            self._waited = self._wanted = 0
            self._rest = framed.rest
            self._append(bytes(data[: framed.size]), framed)
        if self._over:
            self._flush()

    def _append(self, raw: bytes, framed: Framed) -> None:
        out, result = framed.out, framed.result
        if self._prefix:
            size = min(len(self._prefix), len(raw))
            if out[:size] != self._prefix[:size]:
                out, result = raw, "partial"
            self._prefix = self._prefix[size:]
            del self._out[len(self._out) - size :]
        start, out_start = self._framed_in, self._out_first + len(self._out)
        if len(out) != len(raw):
            self._edits.append(_Edit(start, start + len(raw), out_start, out_start + len(out)))
        self._out += out
        self._stream.consume(len(raw))
        self._over = framed.over
        if result != "unchanged":
            self.results.append(result)

    @property
    def _framed_in(self) -> int:
        return self._received - len(self._stream.data)

    def _flush(self) -> None:
        """What waits goes as it is."""
        data = bytes(self._stream.data)
        if data:
            self._append(data, Framed(len(data), data, over=self._over))

    # -- from the receiver ---------------------------------------------------------------------------------------

    def acknowledge(self, number: int) -> int:
        """The receiver's acknowledgement number -> the one for the sender."""
        end = self._out_first + len(self._out)
        at = self._position(number, self._sent)
        if at < 0:
            return number
        self._acked = max(self._acked, min(at, end))
        if at < end:
            mine = self._inside(at, up=False)
        else:
            mine = self._received + (1 if self._fin is not None and at > end else 0)
        self._told = max(self._told, mine)
        self._trim()
        return self._number(self._told)

    def selected(self, left: int, right: int) -> tuple[int, int] | None:
        """A SACK block (RFC 2018 section 3) of the receiver -> the sender's; None if it covers no byte of his."""
        low = self._inside(self._position(left, self._sent), up=True)
        high = self._inside(self._position(right, self._sent), up=False)
        return (self._number(low), self._number(high)) if self._told < low < high else None

    def _inside(self, at: int, up: bool) -> int:
        """A position after translation -> before it; within a changed message its end (`up`), or a byte not later."""
        before = bisect_right(self._edits, at, key=_out_start)
        if before == 0:
            return at - self._delta
        edit = self._edits[before - 1]
        if at >= edit.out_end:
            return at - (edit.out_end - edit.end)
        inside = edit.start + min(at - edit.out_start, edit.end - edit.start - 1)
        return edit.end if up and at > edit.out_start else inside

    def _trim(self) -> None:
        gone = min(self._acked, self._sent) - self._out_first
        if gone > 0 and not self._prefix:
            del self._out[:gone]
            self._out_first += gone
        while self._edits and self._edits[0].out_end <= self._acked and self._edits[0].end <= self._told:
            self._delta = self._edits[0].out_end - self._edits[0].end
            del self._edits[0]

    # -- numbers -------------------------------------------------------------------------------------------------

    def _position(self, number: int, near: int) -> int:
        """A sequence number -> a position, taken for the one nearest to `near`."""
        return near + (number - self._base - near + _HALF) % _MODULUS - _HALF

    def _number(self, position: int) -> int:
        return (self._base + position) % _MODULUS
