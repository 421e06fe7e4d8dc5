"""XMPP: stream headers, STARTTLS and first-level elements of RFC 6120.

In: bytes of a TCP stream at an element's start. Out: a Layer "xmpp". Stanzas met in mid-stream are claimed only with a
namespace or attributes that no other XML on TCP has. No XML parser runs: tags are read, entities are not expanded.
"""

from __future__ import annotations

import re
from typing import Final

from appid.wire import Fact, Layer

FIRST: Final = frozenset(b"< \t\r\n")

HEADER_LIMIT: Final = 4096
"""Bytes in which a stream header or a first tag must end."""

_SPACE: Final = b" \t\r\n"
_DECLARATION: Final = re.compile(rb"<\?xml [^<>]{0,200}\?>\s{0,16}")
_TAG: Final = re.compile(rb"<(/?[A-Za-z][\w:.-]{0,40})([^<>]{0,4000})>")
_ATTRIBUTE: Final = re.compile(rb"""([\w:.-]{1,64})\s{0,4}=\s{0,4}(?:"([^"]{0,1023})"|'([^']{0,1023})')""")
_STREAMS: Final = b"http://etherx.jabber.org/streams"  # RFC 6120 section 4.8.1
_STARTTLS: Final = b"urn:ietf:params:xml:ns:xmpp-tls"
_OWN: Final = (b"urn:ietf:params:xml:ns:xmpp-", b"jabber:client", b"jabber:server", b"jabber:iq:", b"jabber:component:")
_STANZAS: Final = frozenset({b"iq", b"message", b"presence"})
_NEGOTIATION: Final = frozenset(
    {b"starttls", b"proceed", b"failure", b"auth", b"challenge", b"response", b"success", b"abort"}
)
_IQ_TYPES: Final = frozenset({b"get", b"set", b"result", b"error"})  # section 8.2.3
_TYPES: Final = frozenset(
    b"chat error groupchat headline normal probe subscribe subscribed unavailable unsubscribe unsubscribed".split()
)  # RFC 6121 sections 4.7.1 and 5.2.2


def decode(payload: memoryview) -> Layer | None:
    """One stream header, negotiation element, or all the stanzas that are there. consumed 0: the tag has not ended."""
    raw = bytes(payload[:HEADER_LIMIT])
    start = len(raw) - len(raw.lstrip(_SPACE))
    if declaration := _DECLARATION.match(raw, start):
        start = declaration.end()
    tag = _TAG.match(raw, start)
    if tag is None:
        started = raw.startswith(b"<stream:stream", start) and len(raw) < HEADER_LIMIT
        return Layer("xmpp", (), 0) if started and b"<" not in raw[start + 1 :] else None
    name, local = tag[1], tag[1].rpartition(b":")[2]
    attributes = {key: double or single for key, double, single in _ATTRIBUTE.findall(tag[2])}
    if local == b"stream" and not name.startswith(b"/"):
        return _header(name, attributes, _after(raw, tag.end()))
    if name in (b"/stream:stream", b"stream:error"):
        told = Fact("xmpp.stanza", name.decode())
        return Layer("xmpp", (told,), len(payload) if name[0] == 0x73 else _after(raw, tag.end()))
    if name == b"stream:features":
        facts = (Fact("xmpp.starttls", True),) if b"<starttls" in raw and _STARTTLS in raw else ()
        end = raw.find(b"</stream:features>")
        return Layer("xmpp", facts, len(payload) if end < 0 else _after(raw, end + 18))
    if local in _NEGOTIATION:
        return _negotiation(local, attributes, tag[2].endswith(b"/"), _after(raw, tag.end()), len(payload))
    return _stanza(name, attributes, raw[tag.start() :], len(payload))


def _header(name: bytes, attributes: dict[bytes, bytes], end: int) -> Layer | None:
    """RFC 6120 section 4.7; the prefix is `stream` by custom only (section 4.8.5)."""
    prefix = name.rpartition(b":")[0]
    if attributes.get(b"xmlns:" + prefix if prefix else b"xmlns") != _STREAMS:
        return None
    facts = [
        Fact(fact, attributes[key].decode("utf-8", "replace").lower())
        for fact, key in (("xmpp.stream_to", b"to"), ("xmpp.stream_from", b"from"), ("xmpp.namespace", b"xmlns"))
        if key in attributes
    ]
    return Layer("xmpp", tuple(facts), end)


def _negotiation(local: bytes, attributes: dict[bytes, bytes], empty: bool, end: int, size: int) -> Layer | None:
    """STARTTLS (section 5.4) and SASL (section 6.4): after an empty element the stream may change, so stop there."""
    namespace = attributes.get(b"xmlns", b"")
    if not namespace.startswith(_OWN[0]):
        return None
    facts = (Fact("xmpp.starttls", True),) if namespace == _STARTTLS and local in (b"starttls", b"proceed") else ()
    return Layer("xmpp", facts, end if empty else size)


def _stanza(name: bytes, attributes: dict[bytes, bytes], raw: bytes, size: int) -> Layer | None:
    """iq, message or presence (section 8) in the middle of a stream."""
    if name not in _STANZAS:
        return None
    kind = attributes.get(b"type", b"")
    addressed = b"to" in attributes or b"from" in attributes
    if name == b"iq":
        own = kind in _IQ_TYPES and b"id" in attributes and (addressed or b"xmlns" in raw or kind == b"result")
    else:
        own = any(namespace in raw for namespace in _OWN) or (addressed and (kind in _TYPES or b"@" in raw[:512]))
        own = own or (name == b"presence" and any(tag in raw for tag in (b"<show>", b"<priority>", b"<c xmlns=")))
    return Layer("xmpp", (Fact("xmpp.stanza", name.decode()),), size) if own else None


def _after(raw: bytes, end: int) -> int:
    """Past the white space that follows a tag (section 4.6.1 allows it between elements)."""
    while end < len(raw) and raw[end] in _SPACE:
        end += 1
    return end
