"""The registry of decoders and the peel loop that nests them.

In: a payload and the name of what carries it ("udp", "tcp", or the layer it was found in). Out: Peeled. A new decoder
costs one module, its test, and one line in DECODERS. Order in that list is the order of trial among decoders whose
`first` holds the payload's first byte: strict ones before lenient ones (RFC 7983 section 7 splits by first byte, yet
"INVITE" starts in TURN's channel range and RFC 9443's short QUIC headers fill all of 0x40-0x7f).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from appid.decode import (
    dns,
    dtls,
    http,
    linkcontrol,
    quic,
    reflector,
    relayframe,
    rtcp,
    rtp,
    sdp,
    sip,
    snatmap,
    stun,
    tls,
    turn,
    xmpp,
)
from appid.wire import DecodeError, Fact, Layer

MESSAGES: Final = 64
"""Consecutive messages that one payload may hold; the rest is left unread (`Peeled.consumed` says where)."""
DEPTH: Final = 4
"""Layers inside layers: udp > turn > stun > turn > ... ends here."""


class Decoder(NamedTuple):
    """One protocol on some carriers.

    carriers  "udp"; "tcp" (the stream from its offset 0 or from a message boundary); "segment" (of a stream that shows
              nothing at its start), "middle" (of one joined in its middle); layers whose inner bytes it may be
    first     the first bytes a message may have; None: any
    decode    bytes -> Layer; None: not mine, or too short to say; DecodeError: mine, and malformed
    """

    name: str
    carriers: tuple[str, ...]
    first: frozenset[int] | None
    decode: Callable[[memoryview], Layer | None]


DECODERS: Final[tuple[Decoder, ...]] = (
    Decoder("linkcontrol", ("stun", "relayframe"), linkcontrol.FIRST, linkcontrol.decode),
    Decoder("stun", ("udp", "turn", "stun"), stun.FIRST, stun.decode),
    Decoder("stun", ("tcp",), stun.FIRST, stun.decode_stream),
    Decoder("stun", ("relay",), stun.FIRST, stun.decode_relay),
    Decoder("sip", ("udp", "turn", "stun"), sip.FIRST, sip.decode),
    Decoder("sip", ("tcp",), sip.FIRST, sip.decode_stream),
    Decoder("turn", ("udp", "turn", "stun", "middle"), turn.FIRST, turn.decode),
    Decoder("turn", ("tcp",), turn.FIRST, turn.decode_stream),
    Decoder("turn", ("relay",), turn.FIRST, turn.decode_framed),
    Decoder("sdp", ("sip",), sdp.FIRST, sdp.decode),
    Decoder("snatmap", ("udp",), snatmap.FIRST, snatmap.decode),
    Decoder("tls", ("tcp",), tls.FIRST, tls.decode),
    Decoder("tls", ("quic",), tls.HELLO, tls.decode_quic),
    Decoder("tls", ("dtls",), tls.HELLO, tls.decode_dtls),
    Decoder("http", ("tcp",), http.FIRST, http.decode),
    Decoder("xmpp", ("tcp",), xmpp.FIRST, xmpp.decode),
    Decoder("dns", ("tcp",), None, dns.decode_stream),
    Decoder("dtls", ("udp", "turn", "stun"), dtls.FIRST, dtls.decode),
    Decoder("quic", ("udp",), quic.FIRST, quic.decode),
    Decoder("dns", ("udp",), None, dns.decode),
    Decoder("reflector", ("udp",), None, reflector.decode),
    Decoder("relayframe", ("turn",), relayframe.FIRST, relayframe.decode),
    Decoder("rtcp", ("udp", "turn", "stun"), rtcp.FIRST, rtcp.decode),
    # Last: twelve bytes with two fixed bits are the weakest claim.
    Decoder("rtp", ("udp", "turn", "stun", "relayframe"), rtp.FIRST, rtp.decode),
    # What proves nothing by itself, and says so in its facts.
    Decoder("dns", ("udp",), None, dns.decode_damaged),
    Decoder("quic", ("udp",), quic.SHORT, quic.decode_short),
    # A segment of a stream whose start nobody reads (STARTTLS, RDP): TLS alone is looked for; mid-stream also answers.
    Decoder("tls", ("segment", "middle"), tls.RECORD, tls.decode),
    Decoder("http", ("middle",), frozenset(b"H"), http.decode_response),
)

STREAMS: Final = frozenset({"tcp", "segment", "middle", "relay"})
"""Carriers on which any decoder may follow another; elsewhere only the same decoder reads on in a payload."""


def _table(carrier: str) -> tuple[tuple[Decoder, ...], ...]:
    mine = [decoder for decoder in DECODERS if carrier in decoder.carriers]
    return tuple(tuple(d for d in mine if d.first is None or byte in d.first) for byte in range(256))


TABLES: Final[dict[str, tuple[tuple[Decoder, ...], ...]]] = {
    carrier: _table(carrier) for carrier in {carrier for decoder in DECODERS for carrier in decoder.carriers}
}
"""carrier -> 256 tuples of decoders, by first byte."""


class Peeled(NamedTuple):
    """What a payload was: its layers (outer before inner, then the next), the sender's errors, bytes read of it."""

    layers: tuple[Layer, ...]
    anomalies: tuple[DecodeError, ...]
    consumed: int

    def facts(self) -> tuple[Fact, ...]:
        """All layers' facts in order, then one `<protocol>.anomaly` for each error."""
        if len(self.layers) == 1 and not self.anomalies:
            return self.layers[0].facts
        found = [fact for layer in self.layers for fact in layer.facts]
        found += [Fact(f"{error.protocol}.anomaly", error.reason) for error in self.anomalies]
        return tuple(found)


NOTHING: Final = Peeled((), (), 0)


def peel(payload: memoryview, carrier: str) -> Peeled:
    """Read `payload` from its offset 0 as whatever `carrier` may hold. Raises nothing that a sender could cause."""
    table = TABLES.get(carrier)
    if not table or not payload or not table[payload[0]]:
        return NOTHING
    layers: list[Layer] = []
    anomalies: list[DecodeError] = []
    consumed = _messages(payload, carrier, DEPTH, layers, anomalies)
    if not layers and not anomalies:
        return NOTHING
    return Peeled(tuple(layers), tuple(anomalies), consumed)


def _messages(payload: memoryview, carrier: str, depth: int, layers: list[Layer], anomalies: list[DecodeError]) -> int:
    """Append what is found, return how many bytes were understood."""
    table = TABLES.get(carrier)
    offset, end = 0, len(payload)
    if table is None:
        return 0
    only: Decoder | None = None
    for _ in range(MESSAGES):
        if offset >= end:
            break
        rest = payload[offset:] if offset else payload
        candidates = table[rest[0]]
        if only is not None:
            candidates = (only,) if only in candidates else ()
        for decoder in candidates:
            try:
                layer = decoder.decode(rest)
            except DecodeError as error:
                anomalies.append(error.with_traceback(None))  # its frames would keep the payload, in a cycle
                return offset
            if layer is not None:
                break
        else:
            break
        layers.append(layer)
        if layer.inner is not None and depth > 1:
            _messages(layer.inner, layer.name, depth - 1, layers, anomalies)
        if layer.consumed <= 0:
            break
        offset += layer.consumed
        if carrier not in STREAMS:
            only = decoder
    return offset
