"""RTCP compounds (RFC 3550 section 6.1), reduced size (RFC 5506) and SRTCP (RFC 3711 section 3.4).

In: a datagram or the bytes of a relayed one. Out: layer "rtcp", one rtcp.packet_type for each packet in clear.
Told from RTP by packet types 192-223 (RFC 5761 section 4).
"""

from __future__ import annotations

from typing import Final

from appid.wire import Fact, Layer

FIRST: Final = frozenset(range(0x80, 0xC0))  # version 2
PACKETS: Final = 64
SRTCP_TRAILER: Final = 8
"""The least that SRTCP appends: E flag and index (4), authentication tag (4 or more)."""

# packet type -> (fixed words after the header, words for each report; the count is the header's low five bits)
WORDS: Final = {
    200: (6, 6),  # SR, section 6.4.1
    201: (1, 6),  # RR, section 6.4.2
    202: (0, 2),  # SDES, section 6.5: a chunk is an SSRC and at least a word of items
    203: (0, 1),  # BYE, section 6.6
    204: (2, 0),  # APP, section 6.7
    205: (2, 0),  # RTPFB, RFC 4585 section 6.1
    206: (2, 0),  # PSFB
    207: (1, 0),  # XR, RFC 3611 section 2
}


def decode(data: memoryview) -> Layer | None:
    end = len(data)
    if end < 8 or data[0] & 0xC0 != 0x80:
        return None
    size = _packet(data, 0)
    if size < 8:
        return None
    facts = [Fact("rtcp.packet_type", data[1]), Fact("rtcp.ssrc", int.from_bytes(data[4:8], "big"))]
    offset = size
    while offset < end:
        size = _packet(data, offset)
        if not size or len(facts) > PACKETS:
            break
        facts.append(Fact("rtcp.packet_type", data[offset + 1]))
        offset += size
    if offset < end:
        # Behind the first header all may be encrypted (RFC 3711 figure 2); then a trailer must fit.
        if end - offset < SRTCP_TRAILER:
            return None
        del facts[2:]
    return Layer("rtcp", tuple(facts), end)


def _packet(data: memoryview, offset: int) -> int:
    """Size in bytes of the RTCP packet at `offset`, 0 if there is none that fits."""
    if offset + 4 > len(data) or data[offset] & 0xC0 != 0x80:
        return 0
    words = WORDS.get(data[offset + 1])
    length = data[offset + 2] << 8 | data[offset + 3]
    size = 4 + 4 * length
    if words is None or offset + size > len(data):
        return 0
    fixed, each = words
    return size if length >= fixed + each * (data[offset] & 0x1F if each else 0) else 0
