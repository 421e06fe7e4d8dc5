"""IP packets. In: raw IP bytes. Out: the flow they belong to, or a Packet.

IPv4 RFC 791, IPv6 and its extension headers RFC 8200, UDP RFC 768, TCP RFC 9293. Encapsulations are named, never
entered: the outer flow is what the gateway forwards. `flow_id` is the hot path: one struct for each packet.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from struct import error as struct_error
from typing import Final, final

from appid.wire import ICMP, ICMPV6, TCP, UDP, Buffer, DecodeError, FlowKey, Value

SCTP: Final = 132
DCCP: Final = 33
UDPLITE: Final = 136
FIN: Final = 1
SYN: Final = 2
RST: Final = 4
PSH: Final = 8
ACK: Final = 16

_HOPOPTS, _IPIP, _IPV6, _ROUTING, _FRAGMENT, _GRE, _ESP, _AH, _NONE, _DSTOPTS = 0, 4, 41, 43, 44, 47, 50, 51, 59, 60
# with mobility RFC 6275, HIP 7401, shim6 5533
_EXTENSIONS: Final = frozenset((_HOPOPTS, _ROUTING, _DSTOPTS, 135, 139, 140))
_MAX_EXTENSIONS: Final = 8
# (IP version, protocol) -> name
_TUNNELS: Final = {(v, p): n for p, n in ((_GRE, "gre"), (_ESP, "esp"), (_AH, "ah")) for v in (4, 6)} | {
    (4, _IPIP): "ipip",
    (4, _IPV6): "6in4",
    (6, _IPIP): "4in6",
    (6, _IPV6): "6in6",
}
_VXLAN_PORT: Final = 4789  # RFC 7348, 3GPP TS 29.281, RFC 4380
_GTPU_PORT: Final = 2152
_TEREDO_PORT: Final = 3544


@final
class Packet(Value):
    """An IP packet as sent.

    payload        what the transport header carries, without padding of the link; for ICMP what follows its first 8
                   bytes; for other protocols, and fragments after the first, what follows the IP header.
    length         IP total length in bytes, header included, also where the capture kept less.
    encapsulation  name of what the payload encapsulates: gre esp ah ipip 6in4 4in6 6in6 vxlan gtp-u teredo; else None.
    fragment       a piece of a datagram: see Fragments. Only the first piece has ports.
    """

    __slots__ = (
        "encapsulation", "fragment", "icmp_code", "icmp_type", "key", "length", "payload", "tcp_flags", "tcp_seq",
    )  # fmt: skip
    __match_args__ = (
        "key", "payload", "length", "tcp_flags", "tcp_seq", "icmp_type", "icmp_code", "encapsulation", "fragment",
    )  # fmt: skip

    def __init__(
        self,
        key: FlowKey,
        payload: memoryview,
        length: int,
        tcp_flags: int = 0,
        tcp_seq: int = 0,
        icmp_type: int = 0,
        icmp_code: int = 0,
        encapsulation: str | None = None,
        fragment: bool = False,
    ) -> None:
        self.key: Final = key
        self.payload: Final = payload
        self.length: Final = length
        self.tcp_flags: Final = tcp_flags
        self.tcp_seq: Final = tcp_seq
        self.icmp_type: Final = icmp_type
        self.icmp_code: Final = icmp_code
        self.encapsulation: Final = encapsulation
        self.fragment: Final = fragment


# --- the hot path: a flow's name without a Packet ---

# version+IHL, total length, flags+offset, protocol, addresses+ports
_v4: Final[Callable[[Buffer], tuple[int, int, int, int, bytes]]] = Struct("!BxHxxHxB2x12s").unpack_from
# version, payload length, next header, addresses+ports
_v6: Final[Callable[[Buffer], tuple[int, int, int, bytes]]] = Struct("!BxxxHBx36s").unpack_from
_Split = Callable[[bytes], tuple[int, bytes, bytes, int, int]]
_split4: Final[_Split] = Struct("!B4s4sHH").unpack
_split6: Final[_Split] = Struct("!B16s16sHH").unpack
_join4: Final = Struct("!B4s4sHH").pack
_join6: Final = Struct("!B16s16sHH").pack
_PREFIX: Final = {TCP: bytes((TCP,)), UDP: bytes((UDP,))}


def flow_id(data: memoryview | bytes) -> bytes | None:
    """Protocol, addresses and ports of a plain TCP or UDP packet, in its direction: 13 bytes for IPv4, 37 for IPv6.

    None for all else (options, extension headers, fragments, other protocols, short packets): ask `parse`.
    """
    try:
        first, length, fragment, proto, rest = _v4(data)
        if first == 0x45:
            if fragment & 0x3FFF or (length < 24 and length):  # 0: left to the network card
                return None
            prefix = _PREFIX.get(proto)
            return prefix + rest if prefix is not None else None
        if first >> 4 != 6:
            return None
        first, length, proto, rest = _v6(data)
        prefix = _PREFIX.get(proto)
        return None if prefix is None or (length < 4 and length) else prefix + rest
    except struct_error:
        return None


def reversed_id(flow: bytes) -> bytes:
    """The other direction of a `flow_id`."""
    if len(flow) == 13:
        proto, src, dst, sport, dport = _split4(flow)
        return _join4(proto, dst, src, dport, sport)
    proto, src, dst, sport, dport = _split6(flow)
    return _join6(proto, dst, src, dport, sport)


def key_of(flow: bytes) -> FlowKey:
    """A `flow_id` -> its FlowKey."""
    proto, src, dst, sport, dport = _split4(flow) if len(flow) == 13 else _split6(flow)
    return FlowKey(proto, src, sport, dst, dport)


def id_of(key: FlowKey) -> bytes:
    """A FlowKey -> its `flow_id`; of any protocol."""
    join = _join4 if len(key.src) == 4 else _join6
    return join(key.proto, key.src, key.dst, key.sport, key.dport)


# --- IP ---

_ipv4: Final[Callable[[memoryview], tuple[int, int, int, int, bytes, bytes]]] = Struct("!BxHxxHxBxx4s4s").unpack_from
_ipv6: Final[Callable[[memoryview], tuple[int, int, bytes, bytes]]] = Struct("!4xHBx16s16s").unpack_from
_tcp: Final[Callable[[memoryview, int], tuple[int, int, int, int, int]]] = Struct("!HHI4xBB").unpack_from
_udp: Final[Callable[[memoryview, int], tuple[int, int, int]]] = Struct("!HHH").unpack_from
_ports: Final[Callable[[memoryview, int], tuple[int, int]]] = Struct("!HH").unpack_from


def parse(data: memoryview) -> Packet | None:
    """Raw IPv4 or IPv6 -> Packet. None if it is neither, or the capture kept too little of it; DecodeError if the
    sender's lengths contradict each other."""
    size = len(data)
    if size < 20:
        return None
    first = data[0]
    if first >> 4 == 4:
        first, length, fragment, proto, src, dst = _ipv4(data)
        header = (first & 15) * 4
        if length == 0:  # segmentation left to the network card: what is there is the packet
            length = size
        if header < 20 or length < header:
            raise DecodeError("ipv4", 0, f"header of {header} bytes in a packet of {length}")
        if length < size:
            data = data[:length]
        fragment &= 0x3FFF
        if proto == TCP and not fragment and header + 20 <= len(data):
            sport, dport, seq, high, flags = _tcp(data, header)
            at = header + (high >> 4) * 4
            if header + 20 <= at <= length:
                key = tuple.__new__(FlowKey, (TCP, src, sport, dst, dport))
                return Packet(key, data[at:], length, flags, seq)
        return _transport(data, 4, proto, src, dst, header, length, fragment & 0x1FFF, fragment != 0)
    if first >> 4 == 6 and size >= 40:
        length, proto, src, dst = _ipv6(data)
        length = length + 40 if length else size  # 0: a jumbogram (RFC 2675), or left to the network card
        if length < size:
            data = data[:length]
        if proto in (UDP, TCP):
            return _transport(data, 6, proto, src, dst, 40, length, 0, False)
        return _extensions(data, proto, src, dst, length)
    return None


def _extensions(data: memoryview, proto: int, src: bytes, dst: bytes, length: int) -> Packet | None:
    """RFC 8200 section 4. AH ends the walk: it is named, like ESP."""
    at, offset, fragment = 40, 0, False
    for _ in range(_MAX_EXTENSIONS):
        if proto == _FRAGMENT:
            step = 8
        elif proto not in _EXTENSIONS:
            return _transport(data, 6, proto, src, dst, at, length, offset, fragment)
        else:
            step = 8 + data[at + 1] * 8 if at + 2 <= len(data) else 8
        if at + step > len(data):
            if len(data) < length:
                return None
            raise DecodeError("ipv6", at, "extension header beyond the packet")
        if proto == _FRAGMENT:
            word = data[at + 2] << 8 | data[at + 3]
            offset, fragment = word >> 3, word & 0xFFF9 != 0  # neither: an atomic fragment (RFC 6946)
        proto = data[at]
        at += step
        if offset:  # what follows belongs to the first fragment's chain
            return _transport(data, 6, proto, src, dst, at, length, offset, True)
    raise DecodeError("ipv6", at, "too many extension headers")


def _transport(
    data: memoryview,
    version: int,
    proto: int,
    src: bytes,
    dst: bytes,
    at: int,
    length: int,
    offset: int,
    fragment: bool,
) -> Packet | None:
    """The header at `at`, of a packet whose IP length is `length`, of which `data` may hold less."""
    if offset:
        return Packet(FlowKey(proto, src, 0, dst, 0), data[at:], length, fragment=True)
    size = len(data)
    try:
        if proto == UDP:
            sport, dport, told = _udp(data, at)
            if at + 8 > size:
                return _short("udp", at, size, length)
            stop = at + told
            if told == 0:  # jumbogram (RFC 2675), or left to the network card
                stop = size
            elif told < 8 or (stop > length and not fragment):
                raise DecodeError("udp", at + 4, f"length {told} in {length - at} bytes")
            payload = data[at + 8 : stop]
            name = None
            if dport in _UDP_TUNNELS or sport in _UDP_TUNNELS:
                name = _udp_tunnel(sport, dport, payload)
            key = tuple.__new__(FlowKey, (UDP, src, sport, dst, dport))
            return Packet(key, payload, length, 0, 0, 0, 0, name, fragment)
        if proto == TCP:
            sport, dport, seq, high, flags = _tcp(data, at)
            header = (high >> 4) * 4
            if header < 20 or at + header > length:
                raise DecodeError("tcp", at + 12, f"header of {header} bytes in {length - at}")
            key = FlowKey(TCP, src, sport, dst, dport)
            return Packet(key, data[at + header :], length, flags, seq, 0, 0, None, fragment)
        return _other(data, version, proto, src, dst, at, length, fragment)
    except struct_error:
        return _short("tcp" if proto == TCP else "udp" if proto == UDP else "ip", at, size, length)


def _other(
    data: memoryview, version: int, proto: int, src: bytes, dst: bytes, at: int, length: int, fragment: bool
) -> Packet | None:
    key = FlowKey(proto, src, 0, dst, 0)
    if (proto == ICMP and version == 4) or (proto == ICMPV6 and version == 6):
        if at + 8 > len(data):
            return _short("icmp", at, len(data), length)
        return Packet(key, data[at + 8 :], length, 0, 0, data[at], data[at + 1], None, fragment)
    if proto in (SCTP, DCCP, UDPLITE):  # RFC 9260, 4340, 3828: ports where UDP has them
        sport, dport = _ports(data, at)
        header = 8 if proto == UDPLITE else 12
        return Packet(FlowKey(proto, src, sport, dst, dport), data[at + header :], length, fragment=fragment)
    return Packet(key, data[at:], length, 0, 0, 0, 0, _TUNNELS.get((version, proto)), fragment)


def _short(protocol: str, at: int, size: int, length: int) -> Packet | None:
    """Too little for a header: the capture's fault (None), or the sender's."""
    if size >= length:
        raise DecodeError(protocol, at, "truncated")
    return None


# --- encapsulations in UDP: by port and by structure ---

_UDP_TUNNELS: Final = frozenset((_VXLAN_PORT, _GTPU_PORT, _TEREDO_PORT))


def _udp_tunnel(sport: int, dport: int, payload: memoryview) -> str | None:
    size = len(payload)
    if dport == _VXLAN_PORT:  # RFC 7348 section 5: I flag alone, reserved bits 0, then an Ethernet frame
        if size >= 22 and payload[0] == 8 and payload[1] | payload[2] | payload[3] == 0 and payload[7] == 0:
            return "vxlan"
    elif dport == _GTPU_PORT or sport == _GTPU_PORT:  # TS 29.281 section 5.1: version 1, PT; length of what follows
        if size >= 8 and payload[0] & 0xF0 == 0x30 and payload[1] in (1, 2, 26, 31, 254, 255):
            return "gtp-u" if (payload[2] << 8 | payload[3]) == size - 8 else None
    elif _TEREDO_PORT in (sport, dport) and _teredo(payload):
        return "teredo"
    return None


def _teredo(payload: memoryview) -> bool:
    """RFC 4380 section 5.1.1: optional authentication, optional origin indication, then an IPv6 packet to the end."""
    at, size = 0, len(payload)
    if size >= 13 and payload[0] == 0 and payload[1] == 1:
        at = 13 + payload[2] + payload[3]
    if size >= at + 8 and payload[at] | payload[at + 1] == 0:
        at += 8
    return size >= at + 40 and payload[at] >> 4 == 6 and (payload[at + 4] << 8 | payload[at + 5]) == size - at - 40
