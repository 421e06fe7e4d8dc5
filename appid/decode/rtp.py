"""RTP (RFC 3550 section 5.1). In: a datagram or the bytes of a relayed one. Out: layer "rtp".

Twelve bytes with two fixed bits are a weak claim: what comes out is a shape, and a run of them is for others to judge.
SRTP (RFC 3711) has the same header in clear. Refused is what reads well as DNS, BACnet/IP or IKE.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from appid.wire import Fact, Layer

FIRST: Final = frozenset(range(0x80, 0xC0))  # version 2
HEADER: Final = 12
_FIXED: Final = Struct(">BBHII")


def decode(data: memoryview) -> Layer | None:
    end = len(data)
    if end < HEADER:
        return None
    first, second, sequence, timestamp, ssrc = _FIXED.unpack_from(data)
    payload_type = second & 0x7F
    if first & 0xC0 != 0x80 or 64 <= payload_type <= 95:  # 64-95 read as RTCP's 192-223 (RFC 5761 section 4)
        return None
    if sequence == end or _dns(timestamp, ssrc) or _ike(data):  # a length in place of the sequence: BACnet/IP (annex J)
        return None
    offset = HEADER + 4 * (first & 0x0F)
    if first & 0x10:  # extension: profile (2), length in words (2), RFC 3550 section 5.3.1
        if offset + 4 > end:
            return None
        offset += 4 + 4 * (data[offset + 2] << 8 | data[offset + 3])
    if offset > end:
        return None
    if first & 0x20 and not 0 < data[end - 1] <= end - offset:  # padding counts itself, RFC 3550 section 5.1
        return None
    facts = (
        Fact("rtp.payload_type", payload_type),
        Fact("rtp.ssrc", ssrc),
        Fact("rtp.sequence", sequence),
        Fact("rtp.timestamp", timestamp),
        Fact("rtp.marker", second >= 0x80),
    )
    return Layer("rtp", facts, end)


def _dns(timestamp: int, ssrc: int) -> bool:
    """DNS and NetBIOS names: four counts, all small, not all zero (RFC 1035 section 4.1.1, RFC 1002 section 4.2.1)."""
    return not (timestamp | ssrc) & 0xFFC0FFC0 and bool(timestamp | ssrc)


def _ike(data: memoryview) -> bool:
    """ISAKMP and IKEv2: version 1.x or 2.x, and a length that is the datagram's (RFC 7296 section 3.1)."""
    return len(data) >= 28 and data[17] in (0x10, 0x20) and int.from_bytes(data[24:28], "big") == len(data)
