"""RTP (RFC 3550 section 5.1). In: a datagram or the bytes of a relayed one. Out: layer "rtp".

Twelve bytes with two fixed bits are a weak claim: what comes out is a shape, and a run of them is for others to judge.
SRTP (RFC 3711) has the same header in clear.
"""

from __future__ import annotations

from struct import Struct

from appid.wire import Fact, Layer

FIRST = frozenset(range(0x80, 0xC0))  # version 2
HEADER = 12
_FIXED = Struct(">BBHII")


def decode(data: memoryview) -> Layer | None:
    end = len(data)
    if end < HEADER:
        return None
    first, second, sequence, timestamp, ssrc = _FIXED.unpack_from(data)
    payload_type = second & 0x7F
    if first & 0xC0 != 0x80 or 64 <= payload_type <= 95:  # 64-95 read as RTCP's 192-223 (RFC 5761 section 4)
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
