"""The next message of a TCP stream, and what goes on in its place.

In: a stream's bytes from a message's start on, Names. Out: how many of them become what, or how many it takes first.

Only a description changes a body's length, and with it Content-Length: so a message waits for its body where that may
hold one (SDP, or several parts), and only up to LONGEST bytes; else its head goes on as soon as it is whole, and its
body as it comes. RFC 3261 section 18.3 (framing by Content-Length), RFC 8489 section 6.2.2, RFC 8656 section 12.5.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from appid.alg.headers import translate_head
from appid.alg.names import Names
from appid.alg.translate import Result, translate_datagram, translate_message
from appid.decode import sip, stun, turn
from appid.wire import DecodeError

LONGEST: Final = 12288
"""Bytes of a message that may wait. More than its sender's first window (RFC 6928: 14,480) he sends once we have
answered for that, and what is answered for nobody sends again: few segments would be left to carry it."""
LINE: Final = 8192
_CARRIERS: Final = sip.FIRST | frozenset(stun.FIRST) | frozenset(turn.FIRST)


class Framed(NamedTuple):
    """One message, or what is none: `size` bytes become `out`, and `rest` more stay as they are. `over`: what follows
    is not looked at any more."""

    size: int
    out: bytes
    result: Result = "unchanged"
    over: bool = False
    rest: int = 0


def frame(data: memoryview, names: Names) -> Framed | int:
    """Of a stream of SIP. A number: so many bytes must be there."""
    try:
        layer = sip.decode_stream(data)
    except DecodeError:
        return _head_alone(data, names) or Framed(len(data), bytes(data), "unparseable", over=True)
    if layer is None:
        line = bytes(data[:LINE]).lstrip(b"\r\n")
        if not line:
            return Framed(min(len(data), LINE), bytes(data[:LINE]))  # keeps the path alive (RFC 5626 section 3.5.1)
        if b"\n" not in line and len(data) < LINE:
            return len(data) + 1
        return Framed(len(data), bytes(data), "unparseable", over=True)
    if not layer.consumed:
        if len(data) > LONGEST:
            return _head_alone(data, names) or Framed(len(data), bytes(data), "too-long", over=True)
        return _head_alone(data, names) or len(data) + 1
    raw, message = bytes(data[: layer.consumed]), layer.message
    assert isinstance(message, sip.Message)
    if any(fact.name == "sip.anomaly" for fact in layer.facts):
        return Framed(len(raw), raw, "unparseable")
    try:
        out = raw[: raw.find(message.head)] + translate_message(message, names)
    except DecodeError:
        return Framed(len(raw), raw, "unparseable")
    return Framed(len(raw), out, "unchanged" if out == raw else "translated")


def _head_alone(data: memoryview, names: Names) -> Framed | int | None:
    """Of a message that is not whole; None where not even its head is, or it cannot be framed."""
    try:
        found = sip.framing(data)
    except DecodeError:
        return None
    if found is None:
        return None
    if found.described and found.size <= LONGEST:
        return found.size
    raw, rest = bytes(data[: found.head]), found.size - found.head
    if found.odd:
        return Framed(len(raw), raw, "unparseable", rest=rest)
    head = raw.lstrip(b"\r\n")
    names.ahead(head)
    out = raw[: len(raw) - len(head)] + translate_head(head, names)
    result: Result = "too-long" if found.described else "unchanged" if out == raw else "translated"
    return Framed(len(raw), out, result, rest=rest)


def frame_relayed(data: memoryview, names: Names) -> Framed | int:
    """Of a stream between a client and its relay: STUN and ChannelData, which is padded here."""
    if len(data) < 5:
        return 5
    length, channel = int.from_bytes(data[2:4], "big"), data[0] & 0xC0 == 0x40
    if data[0] & 0x80:
        return Framed(len(data), bytes(data), over=True)
    whole = 4 + length if channel else 20 + length
    size = whole + (-whole % 4 if channel else 0)
    if len(data) < size:
        carrier = not channel or data[4] in _CARRIERS
        if carrier and size <= LONGEST:
            return size
        return Framed(len(data), bytes(data), "too-long" if carrier else "unchanged", rest=size - len(data))
    raw = bytes(data[:size])
    told = translate_datagram(raw[:whole], names)
    if told is None or told.result != "translated":
        return Framed(size, raw, told.result if told is not None else "unchanged")
    return Framed(size, told.payload + bytes(-len(told.payload) % 4 if channel else 0), "translated")
