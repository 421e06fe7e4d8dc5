"""Captures. In: a pcap or pcapng file, plain or gzipped. Out: its frames, numbered as in Wireshark; and a pcap writer.

pcap: draft-ietf-opsawg-pcap section 4 and 5, micro- and nanoseconds, both byte orders, also the "modified" form with
24-byte record headers. pcapng: draft-ietf-opsawg-pcapng section 4; several sections and interfaces, if_tsresol and
if_tsoffset, enhanced, simple and obsolete packet blocks. Read in chunks of 64 KiB, so memory is bounded for any file.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from struct import Struct
from types import TracebackType
from typing import BinaryIO, Final, NamedTuple, Self

Frame = tuple[int, int, int, memoryview]
"""Number from 1; time in ns since 1970; LINKTYPE_ number; captured bytes (a view into a chunk: copy what you keep)."""

Record = Callable[[bytes, int], tuple[int, int, int]]
"""Unpacks a record's header: seconds, fraction, captured bytes."""

CHUNK: Final = 1 << 16  # larger ones leave the cache: 1 MiB costs half as much again per frame
MAX_FRAME: Final = 262_144  # Wireshark's limit for a frame, and tcpdump's largest snapshot length
MAX_BLOCK: Final = 16 << 20  # Wireshark's limit for a pcapng block

SECTION: Final = 0x0A0D0D0A
INTERFACE: Final = 1
PACKET: Final = 2
SIMPLE: Final = 3
ENHANCED: Final = 6
JOURNAL: Final = 9  # a systemd journal entry: no packet, but Wireshark numbers it

# magic -> byte order, ns per unit of the fraction, size of a record header
_PCAP: Final[dict[bytes, tuple[str, int, int]]] = {
    b"\xd4\xc3\xb2\xa1": ("<", 1000, 16),
    b"\xa1\xb2\xc3\xd4": (">", 1000, 16),
    b"\x4d\x3c\xb2\xa1": ("<", 1, 16),
    b"\xa1\xb2\x3c\x4d": (">", 1, 16),
    b"\x34\xcd\xb2\xa1": ("<", 1000, 24),
    b"\xa1\xb2\xcd\x34": (">", 1000, 24),
}


class CaptureError(Exception):
    """`file` cannot be read (further): `reason`, in one line."""

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(file, reason)
        self.file = file
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.file}: {self.reason}"


def frames(path: str | Path) -> Iterator[Frame]:
    """The frames of a capture in file order. CaptureError when the file is missing or no capture, or, after the
    frames that could be read, when it is cut short or damaged."""
    file = str(path)
    try:
        with open(path, "rb") as raw:
            start = raw.read(2)
            raw.seek(0)
            stream = gzip.GzipFile(fileobj=raw) if start == b"\x1f\x8b" else raw
            yield from _frames(file, lambda missing: stream.read(max(CHUNK, missing)))
    except OSError as error:
        raise CaptureError(file, error.strerror or str(error)) from error
    except (EOFError, zlib.error) as error:
        raise CaptureError(file, "the compressed file is cut short or damaged") from error


def _frames(file: str, read: Callable[[int], bytes]) -> Iterator[Frame]:
    """`read(missing)` gives the file's next bytes: those that are missing from a record, and a chunk at least."""
    data = read(0)
    magic = data[:4]
    if magic in _PCAP:
        return chain.from_iterable(_pcap(file, data, read))
    if magic == b"\n\r\r\n":
        return _pcapng(file, data, read)
    raise CaptureError(file, "not a pcap or pcapng capture" if data else "the file is empty")


def _pcap(file: str, data: bytes, read: Callable[[int], bytes]) -> Iterator[list[Frame]]:
    """The frames of each chunk."""
    order, scale, header = _PCAP[data[:4]]
    if len(data) < 24:
        raise CaptureError(file, "cut short in the file header")
    # the upper bits of the link type say whether frames end in an FCS (pcap section 4)
    linktype = Struct(order + "I").unpack_from(data, 20)[0] & 0xFFFF
    # before version 2.3 a record had its two lengths the other way round (libpcap, sf-pcap.c)
    swapped = Struct(order + "HH").unpack_from(data, 4) < (2, 3)
    record: Record = Struct(order + ("II4xI" if swapped else "III")).unpack_from
    number, offset = 0, 24
    while True:
        found, offset, size = _records(data, offset, header, record, number, scale, linktype)
        number += len(found)
        yield found
        if size > MAX_FRAME:
            raise CaptureError(file, f"frame {number + 1} claims {size} bytes; it may hold {MAX_FRAME}")
        more = read(offset + header + size - len(data) if size else 0)
        if not more:
            if offset < len(data):
                raise CaptureError(file, f"cut short in frame {number + 1}")
            return
        data, offset = data[offset:] + more, 0


def _records(
    data: bytes, offset: int, header: int, record: Record, number: int, scale: int, linktype: int
) -> tuple[list[Frame], int, int]:
    """The frames that are whole, where the next record begins, and, if its header is there, its frame's size."""
    found: list[Frame] = []
    view, end = memoryview(data), len(data)
    while offset + header <= end:
        seconds, fraction, size = record(data, offset)
        start = offset + header
        if start + size > end:
            return found, offset, size
        offset = start + size
        number += 1
        found.append((number, seconds * 1_000_000_000 + fraction * scale, linktype, view[start:offset]))
    return found, offset, 0


class _Interface(NamedTuple):
    linktype: int
    snaplen: int
    multiply: int  # ns = ticks * multiply // divide + add
    divide: int
    add: int


def _pcapng(file: str, data: bytes, read: Callable[[int], bytes]) -> Iterator[Frame]:
    section = _Section(file)
    offset = 0
    while True:
        view, end, missing = memoryview(data), len(data), 0
        while offset + 12 <= end:
            size = section.block(data, offset)
            stop = offset + size
            if stop > end:
                missing = stop - end
                break
            frame = section.frame(data, view, offset, stop)
            offset = stop
            if frame is not None:
                yield frame
        more = read(missing)
        if not more:
            if offset < end:
                raise CaptureError(file, f"cut short after frame {section.number}")
            return
        data, offset = data[offset:] + more, 0


class _Section:
    """What the blocks of a pcapng file have said so far: byte order, interfaces, frame number."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.number = 0
        self.time = 0
        self.interfaces: list[_Interface] = []
        self.order("<")

    def order(self, order: str) -> None:
        self.byte_order = order
        self.two = Struct(order + "II").unpack_from
        self.word = Struct(order + "I").unpack_from
        self.enhanced = Struct(order + "IIII").unpack_from
        self.obsolete = Struct(order + "HHIII").unpack_from
        self.option = Struct(order + "HH").unpack_from

    def error(self, reason: str) -> CaptureError:
        return CaptureError(self.file, f"{reason} after frame {self.number}")

    def block(self, data: bytes, offset: int) -> int:
        """Size of the block at `offset`, of which 12 bytes are there. A section header sets the byte order (4.1)."""
        kind, size = self.two(data, offset)
        if kind == SECTION:  # the same in both byte orders
            magic = data[offset + 8 : offset + 12]
            if magic not in (b"\x4d\x3c\x2b\x1a", b"\x1a\x2b\x3c\x4d"):
                raise self.error("a section without byte-order magic")
            self.order("<" if magic[0] == 0x4D else ">")
            size = self.word(data, offset + 4)[0]
        if size < 12 or size & 3:
            raise self.error(f"a block of impossible length {size}")
        if size > MAX_BLOCK:
            raise self.error(f"a block claims {size} bytes; it may hold {MAX_BLOCK}")
        return int(size)

    def frame(self, data: bytes, view: memoryview, offset: int, stop: int) -> Frame | None:
        """The whole block from `offset` to `stop`: a frame, or None for a block that is none."""
        kind: int = self.word(data, offset)[0]
        body, stop = offset + 8, stop - 4
        if self.word(data, stop)[0] != stop + 4 - offset:
            raise self.error("a block whose two lengths differ")
        if kind == ENHANCED and stop - body >= 20:  # 4.3
            which, high, low, length = self.enhanced(data, body)
            return self._emit(view, which, high << 32 | low, body + 20, length, stop)
        if kind == SECTION:
            self.interfaces = []
        elif kind == INTERFACE and stop - body >= 8:
            self.interfaces.append(self._interface(data, body, stop))
        elif kind == SIMPLE and stop - body >= 4:  # 4.4: interface 0, no time: that of the frame before
            length = self.word(data, body)[0]
            if self.interfaces and self.interfaces[0].snaplen:
                length = min(length, self.interfaces[0].snaplen)
            return self._emit(view, 0, None, body + 4, min(length, stop - body - 4), stop)
        elif kind == PACKET and stop - body >= 20:  # appendix A: obsolete
            which, _, high, low, length = self.obsolete(data, body)
            return self._emit(view, which, high << 32 | low, body + 20, length, stop)
        elif kind in (ENHANCED, INTERFACE, SIMPLE, PACKET):
            raise self.error("a block too short for its type")
        elif kind == JOURNAL:
            self.number += 1
        return None

    def _emit(self, view: memoryview, which: int, ticks: int | None, start: int, length: int, stop: int) -> Frame:
        if which >= len(self.interfaces):
            raise self.error(f"a frame of interface {which}, which was not described,")
        if start + length > stop:
            raise self.error("a frame longer than its block")
        interface = self.interfaces[which]
        if ticks is not None:
            self.time = ticks * interface.multiply // interface.divide + interface.add
        self.number += 1
        return self.number, self.time, interface.linktype, view[start : start + length]

    def _interface(self, data: bytes, body: int, stop: int) -> _Interface:
        """Interface description block (4.2)."""
        linktype: int = self.option(data, body)[0]
        snaplen: int = self.word(data, body + 4)[0]
        units, add, offset = 10**6, 0, body + 8
        while offset + 4 <= stop:
            code, length = self.option(data, offset)
            value = data[offset + 4 : min(offset + 4 + length, stop)]
            offset += 4 + length + (-length & 3)
            if code == 0:
                break
            if code == 9 and len(value) == 1:  # if_tsresol: a power of ten, or of two if the high bit is set
                units = 2 ** (value[0] & 0x7F) if value[0] & 0x80 else 10 ** value[0]
            elif code == 14 and len(value) == 8:  # if_tsoffset: seconds
                add = int.from_bytes(value, "little" if self.byte_order == "<" else "big", signed=True) * 10**9
        if 10**9 % units == 0:
            return _Interface(linktype, snaplen, 10**9 // units, 1, add)
        return _Interface(linktype, snaplen, 10**9, units, add)


class Writer:
    """A pcap file with nanosecond times, by default of raw IP packets (LINKTYPE_RAW). A context manager.

    `path` is created or overwritten; OSError if that fails.
    """

    def __init__(self, path: str | Path, linktype: int = 101) -> None:
        self._file: BinaryIO = open(path, "wb")  # noqa: SIM115 - closed by close()
        self._file.write(Struct("<IHHiIII").pack(0xA1B23C4D, 2, 4, 0, 0, MAX_FRAME, linktype))
        self._record = Struct("<IIII").pack

    def write(self, time: int, frame: bytes | memoryview) -> None:
        """`time` in ns since 1970."""
        seconds, fraction = divmod(time, 1_000_000_000)
        size = len(frame)
        self._file.write(self._record(seconds, fraction, size, size))
        self._file.write(frame)

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
