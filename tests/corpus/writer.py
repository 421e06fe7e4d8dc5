"""Frames from nothing: Ethernet, ARP, IPv4, IPv6, UDP, TCP, ICMP with right checksums, and the classic pcap file.

In: addresses as text, payload bytes, a time. Out: a Capture, whose frames are numbered from 1 like any viewer's,
and which remembers the flows that were written (RFC 791, 768, 9293, 8200, 792, 826). Nothing of appid is imported.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
ROUTER_MAC = bytes.fromhex("00259c520001")


class End(NamedTuple):
    """A transport address in text: host and port."""

    host: str
    port: int


class FlowId(NamedTuple):
    """A flow as its first packet went."""

    proto: int
    src: End
    dst: End


@lru_cache(maxsize=4096)
def packed(host: str) -> bytes:
    return ip_address(host).packed


def checksum(data: bytes) -> int:
    """RFC 1071: the ones' complement of the ones' complement sum; a big integer modulo 65535 is that sum."""
    if len(data) % 2:
        data += b"\0"
    total = int.from_bytes(data, "big")
    folded = total % 0xFFFF
    return 0xFFFF - (folded or (0xFFFF if total else 0))


def pseudo(src: str, dst: str, proto: int, size: int) -> bytes:
    a, b = packed(src), packed(dst)
    return a + b + (struct.pack("!BBH", 0, proto, size) if len(a) == 4 else struct.pack("!IHBB", size, 0, 0, proto))


def udp_segment(src: End, dst: End, payload: bytes) -> bytes:
    size = 8 + len(payload)
    head = struct.pack("!HHH", src.port, dst.port, size)
    total = checksum(pseudo(src.host, dst.host, UDP, size) + head + b"\0\0" + payload) or 0xFFFF
    return head + struct.pack("!H", total) + payload


def tcp_segment(src: End, dst: End, seq: int, ack: int, flags: int, payload: bytes, options: bytes = b"") -> bytes:
    words = 5 + len(options) // 4
    seq, ack = seq & 0xFFFFFFFF, ack & 0xFFFFFFFF
    start = struct.pack("!HHIIBBH", src.port, dst.port, seq, ack, words << 4, flags, 0xFFFF)
    rest = b"\0\0" + options + payload
    total = checksum(pseudo(src.host, dst.host, TCP, len(start) + 2 + len(rest)) + start + b"\0\0" + rest)
    return start + struct.pack("!H", total) + rest


def ip_packet(src: str, dst: str, proto: int, body: bytes, ident: int, ttl: int, fragment: int = 0) -> bytes:
    """An IPv4 packet; `fragment` is the flags-and-offset word."""
    head = struct.pack("!BBHHHBB", 0x45, 0, 20 + len(body), ident & 0xFFFF, fragment, ttl, proto)
    total = checksum(head + b"\0\0" + packed(src) + packed(dst))
    return head + struct.pack("!H", total) + packed(src) + packed(dst) + body


def ip6_packet(src: str, dst: str, next_header: int, body: bytes, ttl: int) -> bytes:
    return struct.pack("!IHBB", 0x60000000, len(body), next_header, ttl) + packed(src) + packed(dst) + body


def fragments(src: str, dst: str, proto: int, body: bytes, ident: int, ttl: int, size: int) -> list[bytes]:
    """`body` as IP packets whose payload is at most `size` (rounded down to 8) bytes (RFC 791 3.2, RFC 8200 4.5)."""
    size -= size % 8
    parts = [(at, body[at : at + size]) for at in range(0, len(body), size)]
    packets = []
    for at, part in parts:
        more = at + len(part) < len(body)
        if len(packed(src)) == 4:
            packets.append(ip_packet(src, dst, proto, part, ident, ttl, (0x2000 if more else 0) | at // 8))
        else:
            header = struct.pack("!BBHI", proto, 0, at | more, ident)
            packets.append(ip6_packet(src, dst, 44, header + part, ttl))
    return packets


@dataclass
class Capture:
    """Frames in the making. `now` is the clock (seconds since the epoch); each writing method appends one frame.

    `flows` has the frame numbers of each flow's packets, in the order in which the flows began.
    """

    now: float
    frames: list[tuple[float, bytes]] = field(default_factory=list)
    flows: dict[FlowId, list[int]] = field(default_factory=dict)
    replies: set[int] = field(default_factory=set)
    """Frames that went against the direction of their flow's first packet."""
    ident: int = 0x1000
    macs: dict[str, bytes] = field(default_factory=dict)

    @property
    def next(self) -> int:
        """The number that the next frame will have."""
        return len(self.frames) + 1

    def inside(self, *hosts: str) -> None:
        """These hosts are on the Wi-Fi side and have hardware addresses of their own."""
        for host in hosts:
            self.macs[host] = b"\x5c\x95\xae" + packed(host)[-3:]

    def mac(self, host: str) -> bytes:
        """Inside hosts have their own, multicast follows RFC 1112 and RFC 2464, all else is the router's."""
        raw = packed(host)
        if ip_address(host).is_multicast:
            return b"\x01\0\x5e" + bytes([raw[1] & 0x7F]) + raw[2:] if len(raw) == 4 else b"\x33\x33" + raw[12:]
        return self.macs.get(host, ROUTER_MAC)

    def frame(self, data: bytes) -> int:
        self.frames.append((self.now, data))
        return len(self.frames)

    def ip(self, src: str, dst: str, proto: int, body: bytes) -> int:
        return self.frame(self._link(src, dst) + self._packet(src, dst, proto, body))

    def udp(self, src: End, dst: End, payload: bytes) -> int:
        number = self.ip(src.host, dst.host, UDP, udp_segment(src, dst, payload))
        self._note(UDP, src, dst, number)
        return number

    def udp_fragments(self, src: End, dst: End, payload: bytes, size: int, gap: float = 0.0002) -> int:
        """The datagram in as many frames as it takes; returns the number of the last."""
        self.ident += 1
        parts = fragments(
            src.host, dst.host, UDP, udp_segment(src, dst, payload), self.ident, self._ttl(src.host), size
        )
        number = 0
        for part in parts:
            number = self.frame(self._link(src.host, dst.host) + part)
            self._note(UDP, src, dst, number)
            self.now += gap
        return number

    def tcp(self, src: End, dst: End, segment: bytes) -> int:
        number = self.ip(src.host, dst.host, TCP, segment)
        self._note(TCP, src, dst, number)
        return number

    def unreachable(self, router: str, quoted: End, dst: End, payload: bytes) -> int:
        """ICMP port unreachable (RFC 792; RFC 4443 3.1) to the sender of the datagram quoted -> dst."""
        body = self._packet(quoted.host, dst.host, UDP, udp_segment(quoted, dst, payload))
        if len(packed(router)) == 4:
            message = struct.pack("!BBHI", 3, 3, 0, 0) + body[: 28 + 64]
            message = message[:2] + struct.pack("!H", checksum(message)) + message[4:]
            return self.ip(router, quoted.host, ICMP, message)
        message = struct.pack("!BBHI", 1, 4, 0, 0) + body
        total = checksum(pseudo(router, quoted.host, ICMPV6, len(message)) + message)
        return self.ip(router, quoted.host, ICMPV6, message[:2] + struct.pack("!H", total) + message[4:])

    def arp(self, asker: str, asked: str, reply: bool = False) -> int:
        """RFC 826; `asker` wants to know who has `asked`."""
        a, b = self.mac(asker), self.mac(asked)
        operation, src, dst = (2, b, a) if reply else (1, a, b"\xff" * 6)
        sender, target = (asked, asker) if reply else (asker, asked)
        body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation)
        body += src + packed(sender) + (a if reply else bytes(6)) + packed(target)
        return self.frame(dst + src + b"\x08\x06" + body + bytes(18))

    def pcap(self) -> bytes:
        """The file: magic, version 2.4, Ethernet, microseconds."""
        parts = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1)]
        for when, data in self.frames:
            seconds, micro = divmod(round(when * 1_000_000), 1_000_000)
            parts += [struct.pack("<IIII", seconds, micro, len(data), len(data)), data]
        return b"".join(parts)

    def save(self, path: Path) -> None:
        path.write_bytes(self.pcap())

    def flow(self, proto: int, a: End, b: End) -> FlowId:
        """The id under which packets between a and b were noted, whichever side began."""
        backward = FlowId(proto, b, a)
        return backward if backward in self.flows else FlowId(proto, a, b)

    def _packet(self, src: str, dst: str, proto: int, body: bytes) -> bytes:
        self.ident += 1
        if len(packed(src)) == 4:
            return ip_packet(src, dst, proto, body, self.ident, self._ttl(src), 0x4000)
        return ip6_packet(src, dst, proto, body, self._ttl(src))

    def _ttl(self, src: str) -> int:
        return 64 if src in self.macs else 52

    def _link(self, src: str, dst: str) -> bytes:
        return self.mac(dst) + self.mac(src) + (b"\x08\0" if len(packed(src)) == 4 else b"\x86\xdd")

    def _note(self, proto: int, src: End, dst: End, number: int) -> None:
        flow = self.flow(proto, src, dst)
        self.flows.setdefault(flow, []).append(number)
        if flow.src != src:
            self.replies.add(number)


@dataclass
class Tcp:
    """One TCP connection; each method writes one frame. `client` began it (perhaps before the capture did)."""

    capture: Capture
    client: End
    server: End
    client_seq: int
    server_seq: int

    def open(self) -> Iterable[int]:
        """SYN, SYN+ACK, ACK: one frame for each step of the iterator."""
        mss = bytes.fromhex("020405b4")
        yield self._write(True, SYN, b"", mss)
        self.client_seq += 1
        yield self._write(False, SYN | ACK, b"", mss)
        self.server_seq += 1
        yield self._write(True, ACK, b"")

    def send(self, data: bytes, from_client: bool) -> int:
        number = self._write(from_client, PSH | ACK, data)
        self._advance(from_client, len(data))
        return number

    def ack(self, from_client: bool) -> int:
        return self._write(from_client, ACK, b"")

    def fin(self, from_client: bool) -> int:
        number = self._write(from_client, FIN | ACK, b"")
        self._advance(from_client, 1)
        return number

    def _advance(self, from_client: bool, size: int) -> None:
        if from_client:
            self.client_seq += size
        else:
            self.server_seq += size

    def _write(self, from_client: bool, flags: int, data: bytes, options: bytes = b"") -> int:
        if from_client:
            src, dst, seq, ack = self.client, self.server, self.client_seq, self.server_seq
        else:
            src, dst, seq, ack = self.server, self.client, self.server_seq, self.client_seq
        segment = tcp_segment(src, dst, seq, ack if flags & ACK else 0, flags, data, options)
        return self.capture.tcp(src, dst, segment)
