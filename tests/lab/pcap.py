"""A pcap file's IPv4 packets. In: tcpdump's file or the gateway's record. Out: (frame number from 1, IP packet)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from socket import inet_ntoa

from tests.lab.wire_call import kind
from tests.lab.wire_facetime import read_channel_data

_ETHERNET, _RAW, _RAW_OLD = 1, 101, 12
UDP = 17


def packets(path: Path) -> Iterator[tuple[int, bytes]]:
    """Frames of other protocols are left out, but keep their numbers. Stops at a torn last record."""
    data = path.read_bytes()
    if len(data) < 24:
        return
    order = "<" if data[:4] in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1") else ">"
    link = struct.unpack_from(f"{order}I", data, 20)[0]
    offset, number = 24, 0
    while offset + 16 <= len(data):
        size = struct.unpack_from(f"{order}I", data, offset + 8)[0]
        frame = data[offset + 16 : offset + 16 + size]
        offset += 16 + size
        number += 1
        if link == _ETHERNET:
            if frame[12:14] != b"\x08\x00":
                continue
            frame = frame[14:]
        if frame and frame[0] >> 4 == 4:
            yield number, frame[: struct.unpack_from(">H", frame, 2)[0]]


def normalised(packet: bytes) -> bytes:
    """Without TTL and checksums: the same on both sides of a router, and with a checksum still to be filled in."""
    header = (packet[0] & 15) * 4
    cleared = bytearray(packet)
    cleared[8] = 0
    cleared[10:12] = b"\0\0"
    checksum = {6: 16, UDP: 6}.get(packet[9])
    if checksum is not None:
        cleared[header + checksum : header + checksum + 2] = b"\0\0"
    return bytes(cleared)


@dataclass(frozen=True)
class Datagram:
    """A UDP packet of a capture."""

    frame: int
    src: str
    sport: int
    dst: str
    dport: int
    payload: bytes

    @property
    def what(self) -> str:
        """stun, sip, rtp, rtcp, other: inside ChannelData if it is that."""
        framed = read_channel_data(self.payload)
        return kind(framed[1]) if framed is not None else kind(self.payload)

    def between(self, one: str, other: str) -> bool:
        return {self.src, self.dst} == {one, other}


def datagrams(path: Path) -> list[Datagram]:
    found = []
    for frame, packet in packets(path):
        header = (packet[0] & 15) * 4
        if packet[9] == UDP and len(packet) >= header + 8:
            sport, dport = struct.unpack_from(">HH", packet, header)
            ends = inet_ntoa(packet[12:16]), sport, inet_ntoa(packet[16:20]), dport
            found.append(Datagram(frame, *ends, packet[header + 8 :]))
    return found
