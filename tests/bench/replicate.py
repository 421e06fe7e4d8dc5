"""Many captures made into one of a given size: repeated, each time with new client addresses.

In: captures of any link layer. Out: one pcap of raw IP packets behind an empty Ethernet header, in time order, so that
every peer reads it. Only addresses are changed (not checksums, which no measured program verifies); ports, payloads and
the gaps between packets stay.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

from appid.edge.capture import CaptureError, Writer, frames
from appid.packet import strip

ETHERNET = 1
MACS = bytes.fromhex("020000000001020000000002")
TYPES = {4: b"\x08\x00", 6: b"\x86\xdd"}
LARGEST_GAP = 5_000_000_000
"""ns: a longer silence inside a capture is cut to this, or hours of nothing would empty every flow table."""

Packet = tuple[int, bytes]
"""Gap before it in ns, IP packet."""


def ip_packets(path: Path) -> list[Packet]:
    """What a capture holds of IP, up to where it can be read."""
    found: list[Packet] = []
    previous: int | None = None
    try:
        for _, time, linktype, frame in frames(path):
            inner = strip(linktype, frame)
            if inner is None or len(inner) < 40 or inner[0] >> 4 not in TYPES:
                continue
            gap = 0 if previous is None else min(max(time - previous, 0), LARGEST_GAP)
            previous = time
            found.append((gap, bytes(inner)))
    except CaptureError:
        pass
    return found


def moved(packet: bytes, number: int) -> bytes:
    """The packet with its client's address changed for repetition `number` (0: as it was).

    The client is the end with a private address, else the lower one: the same end in both directions. Its last 16 bits
    change, so a network stays a network.
    """
    first, size = (12, 4) if packet[0] >> 4 == 4 else (8, 16)
    middle, end = first + size, first + 2 * size
    at = first if _client(packet[first:middle], packet[middle:end]) else middle
    low = int.from_bytes(packet[at + size - 2 : at + size], "big") ^ number
    return packet[: at + size - 2] + low.to_bytes(2, "big") + packet[at + size :]


def _client(source: bytes, destination: bytes) -> bool:
    """Is the source the client?"""
    here, there = _private(source), _private(destination)
    return source < destination if here == there else here


def _private(address: bytes) -> bool:
    """RFC 1918 section 3; RFC 4193 section 3; link-local of both families."""
    if len(address) == 16:
        return address[0] & 0xFE == 0xFC or (address[0] == 0xFE and address[1] & 0xC0 == 0x80)
    return (
        address[0] == 10
        or (address[0] == 172 and address[1] & 0xF0 == 16)
        or (address[0] == 192 and address[1] == 168)
        or (address[0] == 169 and address[1] == 254)
    )


def replicate(captures: Sequence[Path], target: Path, packets: int) -> int:
    """Write `target`, of `packets` packets or a few less if the last capture does not fit; returns how many."""
    sources = [found for found in map(ip_packets, captures) if found]
    if not sources:
        raise ValueError("no capture with IP packets")
    clock, written = 1_700_000_000 * 1_000_000_000, 0
    with Writer(target, ETHERNET) as out:
        for number, source in _rounds(sources):
            if written and written + len(source) > packets:
                return written
            for gap, packet in source[: packets - written]:
                clock += gap
                out.write(clock, MACS + TYPES[packet[0] >> 4] + moved(packet, number))
            written += min(len(source), packets)
            clock += 1_000_000
    raise AssertionError("unreachable: repetitions end with the packets")


def _rounds(sources: list[list[Packet]]) -> Iterator[tuple[int, list[Packet]]]:
    for number in itertools.count():
        for source in sources:
            yield number, source
