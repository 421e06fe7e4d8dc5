"""TURN ChannelData (RFC 8656 section 12.4). In: a datagram or a stream at a message boundary. Out: layer "turn".

Channels are 0x4000-0x4FFF in RFC 8656 and 0x4000-0x7FFF in RFC 5766 section 11, which deployed clients use (FaceTime of
2023: 0x6000). The length field is all there is to check, so neighbours with a fitting one at the same place are told
apart by their own shape: GTPv2-C (3GPP TS 29.274 5.1), Kerberos in DER (RFC 4120 5.10), IPv6 in Teredo (RFC 4380).
"""

from __future__ import annotations

from typing import Final

from appid.wire import Fact, Layer

FIRST: Final = frozenset(range(0x40, 0x80))
HEADER: Final = 4


def decode(data: memoryview) -> Layer | None:
    """One datagram: the length says all that follows, but for up to 3 bytes of padding (RFC 8656 section 12.5)."""
    end = len(data)
    if end < HEADER or data[0] & 0xC0 != 0x40:
        return None
    size = HEADER + (data[2] << 8 | data[3])
    exact = size == end
    if not exact and not (size < end == -(-size // 4) * 4):
        return None
    if _gtp(data) or _der(data) or _ipv6(data):
        return None
    return _layer(data, size, end, exact)


def decode_stream(data: memoryview) -> Layer | None:
    """A stream: messages are padded to a multiple of 4, and the length does not count it (RFC 8656 section 12.5).

    Here the length proves nothing (MySQL's and IEC 104's greetings read as channels): the bytes must look like what is
    relayed, no longer than a datagram that a path carries (text reads as lengths from 8224). consumed is 0 while the
    message is incomplete.
    """
    end = len(data)
    if end < HEADER + 8 or data[0] & 0xC0 != 0x40 or data[2] >= 0x10:
        return None
    size = HEADER + (data[2] << 8 | data[3])
    if not _relayed(data[HEADER:size], size - HEADER):
        return None
    padded = -(-size // 4) * 4
    if padded > end:
        return Layer("turn", (), 0) if data[0] & 0xF0 == 0x40 else None  # RFC 8656's own channels alone
    if padded < end and data[padded] & 0x80:  # neither STUN nor ChannelData follows
        return None
    return _layer(data, size, padded, exact=padded == end)


def decode_framed(data: memoryview) -> Layer | None:
    """A stream that is known to be a relay's (its Allocate or ChannelBind was read): the length alone frames a message,
    whatever is relayed. consumed is 0 while it is incomplete."""
    end = len(data)
    if end < HEADER or data[0] & 0xC0 != 0x40:
        return None
    size = HEADER + (data[2] << 8 | data[3])
    padded = -(-size // 4) * 4
    return _layer(data, size, padded, exact=padded == end) if padded <= end else Layer("turn", (), 0)


def _relayed(inner: memoryview, length: int) -> bool:
    """STUN with its cookie, DTLS, RTP or RTCP (split by RFC 7983 section 7), or SIP; `length` is the header's word."""
    if length < 8 or len(inner) < 8:
        return False
    first = inner[0]
    if first < 4:
        return length >= 20 and bytes(inner[4:8]) == b"\x21\x12\xa4\x42"
    if 20 <= first <= 26:
        return length >= 13 and inner[1] == 0xFE
    if 0x80 <= first < 0xC0:
        return True
    return b"SIP/2.0" in bytes(inner[:512])


def _layer(data: memoryview, size: int, consumed: int, exact: bool) -> Layer:
    facts = (
        Fact("turn.channel", data[0] << 8 | data[1]),
        Fact("turn.length", size - HEADER),
        Fact("turn.exact", exact),
    )
    return Layer("turn", facts, consumed, data[HEADER:size] if size > HEADER else None)


def _gtp(data: memoryview) -> bool:
    """GTPv2-C: version 2, its length where ChannelData's is, information elements that end exactly with the message."""
    flags, end = data[0], len(data)
    if flags & 0xE7 != 0x40 or data[1] == 0:
        return False
    if not flags & 0x08:  # no TEID: an echo, which carries one Recovery element
        return end == 13 and bytes(data[8:12]) == b"\x03\0\x01\0"
    offset = 12  # after TEID (4), sequence (3) and spare (1)
    if offset >= end or data[11] & 0x0F:
        return False
    while offset + 4 <= end:
        offset += 4 + (data[offset + 1] << 8 | data[offset + 2])
    return offset == end


def _der(data: memoryview) -> bool:
    """Kerberos: [APPLICATION n] with a two-byte length, and in it a SEQUENCE that fills it."""
    if data[0] & 0xE0 != 0x60 or data[1] != 0x82 or len(data) < 8:
        return False
    return data[4] == 0x30 and data[5] == 0x82 and (data[6] << 8 | data[7]) == len(data) - 8


def _ipv6(data: memoryview) -> bool:
    """An IPv6 header whose length fits, with Teredo's or link-local addresses: a tunnel, not a channel."""
    end = len(data)
    if data[0] & 0xF0 != 0x60 or end < 40 or (data[4] << 8 | data[5]) != end - 40:
        return False
    source, destination = bytes(data[8:12]), bytes(data[24:28])
    return any(address == b"\x20\x01\0\0" or address[:2] == b"\xfe\x80" for address in (source, destination))
