"""Fragments. In: IP packets that are pieces of a datagram. Out: the datagram, as IP bytes, once it is whole.

IPv4: RFC 791 section 3.2, RFC 815. IPv6: RFC 8200 section 4.5. Overlap, other than an exact repetition, discards the
datagram and all its later pieces (RFC 5722), for IPv4 as well: what the receiver would make of it cannot be known.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from typing import NamedTuple

MAX_AGE = 30.0  # seconds from the first piece: Linux's ipfrag_time
MAX_DATAGRAMS = 1024
MAX_BYTES = 4 << 20
MAX_PIECES = 256  # of one datagram: 64 KiB in pieces of 256 bytes
_OVERHEAD = 128  # bytes that holding a piece costs besides its payload
_EXTENSIONS = frozenset((0, 43, 60))  # may stand before a fragment header (RFC 8200 section 4.1)


class _Piece(NamedTuple):
    """What one packet says: datagram, place in it, and the header that it would have unfragmented."""

    name: bytes
    offset: int
    more: bool
    payload: memoryview
    header: bytes


class _Datagram:
    """Pieces in order of offset; `total` is the payload's size once the last piece is here. `poisoned`: overlapped."""

    __slots__ = ("cost", "have", "header", "offsets", "packets", "pieces", "poisoned", "started", "total")

    def __init__(self, started: float) -> None:
        self.started = started
        self.offsets: list[int] = []
        self.pieces: list[bytes] = []
        self.packets: list[int] = []
        self.header = b""
        self.total = -1
        self.have = 0
        self.cost = _OVERHEAD
        self.poisoned = False

    def discard(self) -> None:
        self.offsets, self.pieces, self.packets = [], [], []
        self.header, self.total, self.have, self.cost = b"", -1, 0, _OVERHEAD
        self.poisoned = True


class Fragments:
    """Bounded reassembly: at most 1024 datagrams, 4 MiB, 30 s; the oldest goes first.

    packets  numbers of the packets that made the last whole datagram, in order of arrival.
    dropped  datagrams given up so far: overlap, malformed pieces, age, caps.
    """

    def __init__(
        self, max_datagrams: int = MAX_DATAGRAMS, max_bytes: int = MAX_BYTES, max_age: float = MAX_AGE
    ) -> None:
        self._max_datagrams = max_datagrams
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._held: OrderedDict[bytes, _Datagram] = OrderedDict()
        self._bytes = 0
        self.packets: tuple[int, ...] = ()
        self.dropped = 0

    def __len__(self) -> int:
        """Datagrams held, discarded ones that wait for their age included."""
        return len(self._held)

    def add(self, data: memoryview, now: float, packet: int) -> memoryview | None:
        """A piece, as IP bytes, seen at `now` seconds in packet number `packet` -> the whole datagram, or None.

        The whole has the first piece's header without its fragmentation. What is no fragment comes back as it is.
        """
        self._expire(now)
        piece = _piece(data)
        if piece is None:
            return data
        datagram = self._held.get(piece.name)
        if datagram is None:
            datagram = self._held[piece.name] = _Datagram(now)
            self._bytes += datagram.cost
        if datagram.poisoned:
            return None
        if not self._insert(datagram, piece, packet):
            self._discard(datagram)
        whole = None
        if datagram.have == datagram.total and datagram.header:
            del self._held[piece.name]
            self._bytes -= datagram.cost
            whole = _whole(datagram.header, b"".join(datagram.pieces))
            self.packets = tuple(datagram.packets)
        self._shed()
        return whole

    def _insert(self, datagram: _Datagram, piece: _Piece, packet: int) -> bool:
        """False if the datagram must be discarded."""
        start, size = piece.offset, len(piece.payload)
        stop = start + size
        at = bisect_left(datagram.offsets, start)
        if at < len(datagram.offsets) and datagram.offsets[at] == start and datagram.pieces[at] == piece.payload:
            return True  # an exact repetition (RFC 8200 section 4.5)
        if size == 0 or (piece.more and size & 7) or stop > 0xFFFF:
            return False
        if at and datagram.offsets[at - 1] + len(datagram.pieces[at - 1]) > start:
            return False
        if at < len(datagram.offsets) and datagram.offsets[at] < stop:
            return False
        if not piece.more:
            if datagram.total >= 0 or at < len(datagram.offsets):
                return False
            datagram.total = stop
        elif datagram.total >= 0 and stop > datagram.total:
            return False
        if len(datagram.pieces) >= MAX_PIECES:
            return False
        datagram.offsets.insert(at, start)
        datagram.pieces.insert(at, bytes(piece.payload))
        datagram.packets.append(packet)
        datagram.have += size
        datagram.cost += size + _OVERHEAD
        self._bytes += size + _OVERHEAD
        if start == 0:
            datagram.header = piece.header
        return True

    def _discard(self, datagram: _Datagram) -> None:
        """Forget the bytes, remember the name: its other pieces are discarded too."""
        self.dropped += 1
        self._bytes -= datagram.cost - _OVERHEAD
        datagram.discard()

    def _expire(self, now: float) -> None:
        while self._held:
            oldest = next(iter(self._held.values()))
            if now - oldest.started <= self._max_age:
                return
            self._drop_oldest()

    def _shed(self) -> None:
        while len(self._held) > self._max_datagrams or self._bytes > self._max_bytes:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        _, datagram = self._held.popitem(last=False)
        self._bytes -= datagram.cost
        self.dropped += not datagram.poisoned


def _piece(data: memoryview) -> _Piece | None:
    """None if `data` is no fragment. A piece of which the capture kept too little has no payload."""
    size = len(data)
    if size >= 20 and data[0] >> 4 == 4:
        word, length, header = data[6] << 8 | data[7], data[2] << 8 | data[3], (data[0] & 15) * 4
        if not word & 0x3FFF:
            return None
        payload = data[header:length] if 20 <= header <= length <= size else data[:0]
        name = bytes(data[12:20]) + bytes(data[4:6]) + bytes(data[9:10])
        return _Piece(name, (word & 0x1FFF) * 8, bool(word & 0x2000), payload, bytes(data[:header]))
    if size < 40 or data[0] >> 4 != 6:
        return None
    at, link = 40, 6
    for _ in range(8):
        if data[link] == 44 or data[link] not in _EXTENSIONS or at + 8 > size:
            break
        at, link = at + 8 + data[at + 1] * 8, at
    if data[link] != 44 or at + 8 > size:
        return None
    word = data[at + 2] << 8 | data[at + 3]
    if not word & 0xFFF9:  # atomic: whole as it is (RFC 6946)
        return None
    length = 40 + (data[4] << 8 | data[5])
    payload = data[at + 8 : length] if at + 8 <= length <= size else data[:0]
    header_bytes = bytearray(data[:at])
    header_bytes[link] = data[at]
    name = bytes(data[8:40]) + bytes(data[at + 4 : at + 8])
    return _Piece(name, word & 0xFFF8, bool(word & 1), payload, bytes(header_bytes))


def _whole(header: bytes, payload: bytes) -> memoryview | None:
    """The unfragmented packet; None if it would be longer than IP allows."""
    data = bytearray(header + payload)
    if header[0] >> 4 == 6:
        if len(data) > 0xFFFF + 40:
            return None
        data[4:6] = (len(data) - 40).to_bytes(2, "big")
        return memoryview(bytes(data))
    if len(data) > 0xFFFF:
        return None
    data[2:4] = len(data).to_bytes(2, "big")
    data[6:8] = data[10:12] = b"\0\0"
    total = sum(data[at] << 8 | data[at + 1] for at in range(0, len(header), 2))
    total = (total & 0xFFFF) + (total >> 16)  # RFC 1071
    data[10:12] = (~(total + (total >> 16)) & 0xFFFF).to_bytes(2, "big")
    return memoryview(bytes(data))
