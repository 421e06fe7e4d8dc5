"""Frames that a relay of 2023 hands on: a few optional fields, told by bits, before an RTP packet or a control message.

In: what a ChannelData message holds. Out: layer "relayframe", `inner` the RTP packet or the control message. No RFC; by
captures of 2023 (facetime_wifi_2023_caller from frame 142 on) two bytes say which fields follow, in this order:

    first byte   0x80 a word (2) and a control message     0x06 both: a report (12); 0x02 alone: a counter (2)
                 0x20 a word before the RTP packet (2)     0x08, 0x01: no field of their own
    second byte  0x01 a token (2)      0x02 a list: count (1), so many words     0x04 a participant (8)
                 0x08 a flag (1)       0x20 a counter (1)     0x10 a counter (2)     0x40 RTP, or nothing at all

The report and the counter of the first byte come after those of the second. Claimed is only what ends as this says: in
RTP of a dynamic type or of 0 to 34 (RFC 3551 section 6), in a control message's zero bytes, or exactly with its fields.
"""

from __future__ import annotations

from typing import Final

from appid.wire import Fact, Layer

FIRST: Final = frozenset(byte for byte in range(0xB0) if not byte & 0x50)
CONTROL: Final = 0x80
REPORT: Final = 0x06
COUNTER: Final = 0x02
WORD: Final = 0x20
TOKEN: Final = 0x01
LIST: Final = 0x02
PARTICIPANT: Final = 0x04
FLAG: Final = 0x08
LONG: Final = 0x10
SHORT: Final = 0x20
MEDIA: Final = 0x40
UNKNOWN: Final = 0x80
ZEROS: Final = bytes(16)
RTP_HEADER: Final = 12


def decode(data: memoryview) -> Layer | None:
    if len(data) < 6 or data[0] & 0x50 or data[1] & UNKNOWN:
        return None
    start = _fields(data)
    rest = data[start:] if start <= len(data) else None
    if rest is None:
        return None
    if data[0] & CONTROL:
        return _layer("control", data, rest) if bytes(rest[4 : 4 + len(ZEROS)]) == ZEROS else None
    if not rest:
        return _layer("none", data, None) if data[0] & REPORT else None
    return _layer("rtp", data, rest) if data[1] & MEDIA and _rtp(rest) else None


def _fields(data: memoryview) -> int:
    """Where the fields end, which may be past the data's end."""
    first, second = data[0], data[1]
    offset = 2 + (2 if first & CONTROL else 0) + (2 if second & TOKEN else 0)
    if second & LIST:
        count = data[offset] if offset < len(data) else 0
        offset += 1 + 2 * count
    for bit, size in ((PARTICIPANT, 8), (FLAG, 1), (SHORT, 1), (LONG, 2)):
        offset += size if second & bit else 0
    offset += 12 if first & REPORT == REPORT else 2 if first & COUNTER else 0
    return offset + (2 if first & WORD else 0)


def _rtp(rest: memoryview) -> bool:
    """RFC 3550 section 5.1: version 2, no padding, no contributors; types 64 to 95 are RTCP's, 35 to 63 nobody's."""
    return len(rest) >= RTP_HEADER and rest[0] & 0xEF == 0x80 and not 35 <= rest[1] & 0x7F <= 95


def _layer(content: str, data: memoryview, inner: memoryview | None) -> Layer:
    return Layer("relayframe", (Fact("relayframe.content", content),), len(data), inner)
