"""NAT in payloads: SIP as a datagram, in ChannelData, in Send and Data indications. In: a UDP payload or one SIP
message, Names. Out: the payload with the other side's addresses, and what came of it.

Everything that counts bytes follows: Content-Length, a deflated body (deflated again), ChannelData's length (RFC 8656
section 12.4), STUN's attribute and message lengths and FINGERPRINT (RFC 8489 sections 5 and 14.7). What is under a
MESSAGE-INTEGRITY stays as it is: its key is not ours (section 14.5). So does what cannot be parsed.
"""

from __future__ import annotations

import gzip
import zlib
from typing import Literal, NamedTuple

from appid.alg.headers import translate_head
from appid.alg.names import Names
from appid.alg.session import translate_session
from appid.decode import sdp, sip, stun, turn
from appid.wire import DecodeError, Layer

Result = Literal["translated", "unchanged", "unparseable", "integrity", "too-long", "no-port", "partial"]
"""translated   addresses were replaced              unchanged   nothing in it is ours
unparseable  it begins like SIP and breaks its format  integrity   a MESSAGE-INTEGRITY covers it
too-long     it would not fit its length field        no-port     no outside port was free for one that it names
partial      some of it had gone out before it was whole"""

DEPTH = 3
_DATA, _INTEGRITY, _INTEGRITY_SHA256, _FINGERPRINT = 0x0013, 0x0008, 0x001C, 0x8028
_INDICATIONS = frozenset({"send", "data"})
_LONGEST = 0xFFFF - 48  # IPv6 and UDP headers
_DEFLATE = {"zlib": 15, "raw": -15}


class Translated(NamedTuple):
    payload: bytes
    result: Result


def translate_datagram(
    payload: bytes, names: Names, depth: int = DEPTH, read: Layer | None = None
) -> Translated | None:
    """A UDP payload, or what a relay carries; None if it is nothing that holds SIP. `read`: a SIP message found
    in it."""
    if not payload or depth == 0:
        return None
    data = memoryview(payload)
    try:
        if read is not None and read.consumed == len(payload):  # all of it
            return _whole(payload, read, names)
        if payload[0] in stun.FIRST and (layer := stun.decode(data)) is not None:
            return _indication(payload, layer, names, depth)
        if payload[0] in sip.FIRST and (layer := sip.decode(data)) is not None:
            return _whole(payload, layer, names)
        if payload[0] in turn.FIRST and (layer := turn.decode(data)) is not None:
            return _channel(payload, layer, names, depth)
    except DecodeError as error:
        return Translated(payload, "unparseable") if error.protocol in ("sip", "sdp") else None
    return None


def translate_message(message: sip.Message, names: Names) -> bytes:
    """One SIP message: head and body as sent, translated."""
    body = _body(message, names)
    length = None if body is message.body else len(body)
    return translate_head(message.head, names, length) + body


def _whole(payload: bytes, layer: Layer, names: Names) -> Translated:
    message = layer.message
    assert isinstance(message, sip.Message)
    start = payload.find(message.head)
    end = start + len(message.head) + len(message.body)
    if any(fact.name == "sip.anomaly" for fact in layer.facts) or start < 0:
        return Translated(payload, "unparseable")
    return _result(payload, payload[:start] + translate_message(message, names) + payload[end:])


def _body(message: sip.Message, names: Names) -> bytes:
    span = sip.description(message.header("content-type") or "", message.inflated)
    if span is None:
        return message.body
    text = message.inflated
    sdp.decode(memoryview(text)[span[0] : span[1]])  # what the decoder refuses, nobody opens ports for
    told = translate_session(text[span[0] : span[1]], names)
    if told == text[span[0] : span[1]]:
        return message.body
    text = text[: span[0]] + told + text[span[1] :]
    if message.encoding == "gzip":
        return gzip.compress(text, mtime=0)
    if message.encoding in _DEFLATE:
        packer = zlib.compressobj(9, zlib.DEFLATED, _DEFLATE[message.encoding])
        return packer.compress(text) + packer.flush()
    return text


def _channel(payload: bytes, layer: Layer, names: Names, depth: int) -> Translated | None:
    if layer.inner is None:
        return None
    inner = translate_datagram(bytes(layer.inner), names, depth - 1)
    if inner is None or inner.result != "translated":
        return None if inner is None else Translated(payload, inner.result)
    size = len(inner.payload)
    padding = bytes(-size % 4) if turn.HEADER + len(layer.inner) < len(payload) else b""
    return _result(payload, payload[:2] + size.to_bytes(2, "big") + inner.payload + padding)


def _indication(payload: bytes, layer: Layer, names: Names, depth: int) -> Translated | None:
    message = layer.message
    assert isinstance(message, stun.Message)
    if message.cls != "indication" or message.method not in _INDICATIONS or layer.inner is None:
        return None
    inner = translate_datagram(bytes(layer.inner), names, depth - 1)
    if inner is None or inner.result != "translated":
        return None if inner is None else Translated(payload, inner.result)
    kinds = [kind for kind, _ in message.attributes]
    if _INTEGRITY in kinds or _INTEGRITY_SHA256 in kinds:
        return Translated(payload, "integrity")
    if kinds.count(_DATA) != 1 or len(inner.payload) > _LONGEST:
        return Translated(payload, "too-long" if kinds.count(_DATA) == 1 else "unparseable")
    rebuilt = _rebuilt(payload[: stun.HEADER], message, inner.payload)
    return _result(payload, rebuilt + payload[layer.consumed :])


def _rebuilt(header: bytes, message: stun.Message, data: bytes) -> bytes:
    """The same attributes in the same order, DATA with other bytes, FINGERPRINT made again."""
    out = bytearray(header)
    for kind, value in message.attributes:
        if kind == _FINGERPRINT:
            # Section 14.7: the length counts the attribute itself.
            out[2:4] = (len(out) - stun.HEADER + 8).to_bytes(2, "big")
            value = (zlib.crc32(out) ^ 0x5354554E).to_bytes(4, "big")
        elif kind == _DATA:
            value = data
        out += kind.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value + bytes(-len(value) % 4)
    out[2:4] = (len(out) - stun.HEADER & 0xFFFF).to_bytes(2, "big")
    return bytes(out)


def _result(before: bytes, after: bytes) -> Translated:
    if len(after) > _LONGEST:
        return Translated(before, "too-long")
    return Translated(after, "unchanged" if after == before else "translated")
