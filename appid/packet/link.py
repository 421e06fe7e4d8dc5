"""Link layers. In: a captured frame and its LINKTYPE_ number (registry of tcpdump.org). Out: the IP packet in it.

IEEE 802.3, 802.1Q, 802.1ad, 802.2, 802.11; MPLS RFC 3032, PPP RFC 1661, PPPoE RFC 2516, frame relay RFC 2427, radiotap.
Nothing is copied: what comes out is a view into the frame. Ethernet with IPv4 is the hot path.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import error as struct_error
from typing import Final

ETHERNET: Final = 1
RAW: Final = 101
_IP_TYPES: Final = frozenset((0x0800, 0x86DD))
_VLAN_TYPES: Final = frozenset((0x8100, 0x88A8, 0x9100, 0x9200))
_MPLS_TYPES: Final = frozenset((0x8847, 0x8848))
_PPPOE_SESSION: Final = 0x8864
_FABRICPATH: Final = 0x8903  # Cisco: a 2-byte tag, then an Ethernet frame
_MAX_TAGS: Final = 8


def strip(linktype: int, frame: memoryview) -> memoryview | None:
    """A frame of a link layer -> the IP packet in it (perhaps with the link's padding behind it), or None."""
    try:
        if linktype == 1:
            if frame[12] == 8 and frame[13] == 0:
                return frame[14:]
            return _ethertype(frame, 14, frame[12] << 8 | frame[13])
        layer = _LINKS.get(linktype)
        return layer(frame) if layer is not None else None
    except (IndexError, struct_error):  # too short for its link layer
        return None


def known(linktype: int) -> bool:
    """Whether frames of this LINKTYPE_ can be read at all."""
    return linktype == ETHERNET or linktype in _LINKS


def _u16(data: memoryview, at: int) -> int:
    return data[at] << 8 | data[at + 1]


def _ethertype(frame: memoryview, at: int, kind: int) -> memoryview | None:
    """What follows an EtherType that ends at `at`: IP, behind any VLAN tags, MPLS labels or PPPoE session header."""
    for _ in range(_MAX_TAGS):
        if kind in _IP_TYPES:
            return _raw(frame[at:])
        if kind in _VLAN_TYPES:  # IEEE 802.1Q, 802.1ad
            kind = _u16(frame, at + 2)
            at += 4
        elif kind in _MPLS_TYPES:
            return _mpls(frame, at)
        elif kind == _PPPOE_SESSION:
            return _pppoe(frame[at:])
        elif kind == _FABRICPATH:
            kind, at = _u16(frame, at + 14), at + 16
        elif kind <= 1500:  # IEEE 802.3: a length, then LLC
            return _llc(frame[at:])
        else:
            return None
    return None


def _raw(frame: memoryview) -> memoryview | None:
    return frame if frame[0] >> 4 in (4, 6) else None


def _mpls(frame: memoryview, at: int) -> memoryview | None:
    """RFC 3032: 4-byte labels, the last with bit S; then IP, or a pseudowire's Ethernet frame (RFC 4448)."""
    for _ in range(_MAX_TAGS):
        bottom = frame[at + 2] & 1
        at += 4
        if bottom:
            if frame[at] >> 4 in (4, 6):
                return frame[at:]
            if frame[at] >> 4 == 0:  # control word
                at += 4
            return strip(ETHERNET, frame[at:])
    return None


def _pppoe(frame: memoryview) -> memoryview | None:
    """RFC 2516 section 4: a session's data has code 0."""
    return _ppp(frame[6:]) if frame[1] == 0 else None


def _ppp(frame: memoryview) -> memoryview | None:
    """RFC 1661 and 1662: address and control, and the first byte of the protocol, may be left out."""
    at = 2 if frame[0] == 0xFF and frame[1] == 3 else 0
    if frame[at] & 1:
        kind, at = frame[at], at + 1
    else:
        kind, at = _u16(frame, at), at + 2
    if kind in (0x21, 0x57):
        return _raw(frame[at:])
    return _mpls(frame, at) if kind in (0x281, 0x283) else None


def _llc(frame: memoryview) -> memoryview | None:
    """IEEE 802.2 with SNAP (RFC 1042), or with the SAP of IP."""
    if frame[0] == 0xAA and frame[1] == 0xAA and frame[2] == 3:
        return _ethertype(frame, 8, kind) if (kind := _u16(frame, 6)) > 1500 else None
    return _raw(frame[3:]) if frame[0] == 6 and frame[1] == 6 else None


def _null(frame: memoryview) -> memoryview | None:
    """BSD loopback: address family in the byte order of the host that captured (NULL), or of the network (LOOP)."""
    family = frame[0] | frame[3] if not frame[1] | frame[2] else 0
    return _raw(frame[4:]) if family in (2, 10, 24, 28, 30) else None


def _sll(frame: memoryview) -> memoryview | None:
    kind = _u16(frame, 14)
    return _llc(frame[16:]) if kind == 4 else _ethertype(frame, 16, kind)


def _sll2(frame: memoryview) -> memoryview | None:
    kind = _u16(frame, 0)
    return _llc(frame[20:]) if kind == 4 else _ethertype(frame, 20, kind)


def _radiotap(frame: memoryview) -> memoryview | None:
    """radiotap.org: little-endian length, presence words, then fields; FLAGS tells of an FCS and of padding."""
    length = frame[2] | frame[3] << 8
    present, at = frame[4], 8
    while frame[at - 1] & 0x80:  # another presence word
        at += 4
    if present & 1:  # TSFT, aligned to 8
        at = (at + 7 & ~7) + 8
    flags = frame[at] if present & 2 else 0
    return _wlan(frame[length : len(frame) - 4 if flags & 0x10 else len(frame)], bool(flags & 0x20))


def _wlan(frame: memoryview, padded: bool = False) -> memoryview | None:
    """IEEE 802.11 section 9.2: an unencrypted data frame with LLC/SNAP; A-MSDU and null data are left alone."""
    kind, flags = frame[0], frame[1]
    if kind & 0x0C != 0x08 or kind & 0x40 or flags & 0x40:  # no data, or protected
        return None
    at = 30 if flags & 3 == 3 else 24
    if kind & 0x80:  # QoS control, and HT control if +HTC
        if frame[at] & 0x80:
            return None
        at += 6 if flags & 0x80 else 2
    return _llc(frame[at + 3 & ~3 if padded else at :])


def _ppi(frame: memoryview) -> memoryview | None:
    """PPI 1.0.7: a header of a little-endian length, for another link type."""
    linktype = int.from_bytes(frame[4:8], "little")
    return None if linktype == 192 else strip(linktype, frame[frame[2] | frame[3] << 8 :])


def _pktap(frame: memoryview) -> memoryview | None:
    """Apple's: a little-endian header length, the record's type, and the link type of what follows."""
    linktype = int.from_bytes(frame[8:12], "little")
    return None if linktype == 258 else strip(linktype, frame[int.from_bytes(frame[:4], "little") :])


def _prism(frame: memoryview) -> memoryview | None:
    """Before 802.11: Prism's header, its length little-endian, or AVS's (version 0x8021100x), big-endian."""
    avs = bytes(frame[:3]) == b"\x80\x21\x10"
    return _wlan(frame[int.from_bytes(frame[4:8], "big" if avs else "little") :])


def _token_ring(frame: memoryview) -> memoryview | None:
    """IEEE 802.5: two bytes of control, addresses, and a route where the source's first bit says so."""
    return _llc(frame[14 + (frame[14] & 0x1F if frame[8] & 0x80 else 0) :])


def _frame_relay(frame: memoryview) -> memoryview | None:
    """RFC 2427: Q.922 address of 2 bytes, UI, NLPID; or Cisco's: an EtherType right after the address."""
    if frame[2] != 3:
        return _ethertype(frame, 4, kind) if (kind := _u16(frame, 2)) > 1500 else None
    at = 3 if frame[3] else 4  # an optional pad byte of 0
    if frame[at] in (0xCC, 0x8E):
        return _raw(frame[at + 1 :])
    return _ethertype(frame, at + 6, _u16(frame, at + 4)) if frame[at] == 0x80 else None


def _chdlc(frame: memoryview) -> memoryview | None:
    return _ethertype(frame, 4, kind) if (kind := _u16(frame, 2)) > 1500 else None


def _nflog(frame: memoryview) -> memoryview | None:
    """LINKTYPE_NFLOG: TLVs in the capturing host's byte order (nearly always little); the packet is type 9."""
    at = 4
    while at + 4 <= len(frame):
        length, kind = frame[at] | frame[at + 1] << 8, frame[at + 2] | frame[at + 3] << 8
        if length < 4:
            return None
        if kind == 9:
            return _raw(frame[at + 4 : at + length])
        at += length + (-length & 3)
    return None


_LINKS: Final[dict[int, Callable[[memoryview], memoryview | None]]] = {
    0: _null,
    6: _token_ring,
    9: _ppp,
    10: lambda frame: _llc(frame[13:]),  # FDDI: control, addresses
    12: _raw,
    14: _raw,
    50: _ppp,
    51: _pppoe,
    100: _llc,  # RFC 2684 over ATM
    101: _raw,
    104: _chdlc,
    105: _wlan,
    107: _frame_relay,
    108: _null,
    109: lambda frame: _raw(frame[12:]),  # OpenBSD's enc: family, SPI, flags
    113: _sll,
    117: lambda frame: _raw(frame[frame[0] + 3 & ~3 :]),  # pflog: a header that begins with its length
    119: _prism,
    127: _radiotap,
    138: lambda frame: _ethertype(frame, 18, _u16(frame, 16)),  # IP over IEEE 1394 (RFC 2734), as captured
    163: _prism,
    192: _ppi,
    204: lambda frame: _ppp(frame[1:]),  # a byte of direction first
    228: _raw,
    229: _raw,
    239: _nflog,
    258: _pktap,
    276: _sll2,
}
