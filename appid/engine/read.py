"""A packet of a flow -> its layers and facts: a datagram as it is, a stream from the message boundary it has reached.

In: the flow's record, a packet, its direction. Out: Read. What several packets tell together is joined here: streams,
QUIC's ClientHello over several datagrams (RFC 9000 section 19.6), a body that goes on after its header (RFC 9112
section 6).
"""

from __future__ import annotations

from typing import Final, final

from appid.decode import Peeled, peel, sip
from appid.decode.quic import join
from appid.engine.record import FlowRecord
from appid.flow.stream import Stream
from appid.packet import SYN, Packet
from appid.wire import TCP, UDP, DecodeError, Endpoint, Fact, Layer

MAX_CRYPTO: Final = 32
"""CRYPTO pieces kept of a flow whose ClientHello is not whole."""
START: Final = 16
"""Bytes of a datagram that no decoder reads, shown to signatures of private protocols as `flow.start`."""
NOTHING: Final[tuple[Layer, ...]] = ()
UNFINISHED: Final = Peeled((Layer("sip", (), 0),), (), 0)
"""A message of a stream of SIP of which more must come."""
NO_LAYERS: Final = Peeled(NOTHING, (), 0)


@final
class Read:
    """What a packet is made of: layers, outer before inner; facts, those of the flow first; what was malformed."""

    __slots__ = ("anomalies", "facts", "layers")

    def __init__(self, layers: tuple[Layer, ...], facts: list[Fact], anomalies: tuple[DecodeError, ...]) -> None:
        self.layers: Final = layers
        self.facts: Final = facts
        self.anomalies: Final = anomalies


def read(record: FlowRecord, packet: Packet, outward: bool) -> Read:
    """What this packet tells; `outward`: it goes the way of the flow's first packet."""
    facts = [*record.facts, Fact("flow.length", len(packet.payload))]
    if packet.fragment:  # a piece of a datagram is none: what a later piece begins with is its sender's choice
        return Read(NOTHING, facts, ())
    if packet.encapsulation is not None:
        facts.append(Fact("flow.encapsulation", packet.encapsulation))
        return Read(NOTHING, facts, ())
    if packet.key.proto == TCP:
        peeled = _stream(record, packet, outward)
    elif packet.key.proto == UDP and packet.payload:
        peeled = peel(packet.payload, "udp")
    else:
        return Read(NOTHING, facts, ())
    layers = peeled.layers
    facts.extend(peeled.facts())
    if layers and layers[0].name == "http":
        facts.extend(_requests(record, layers))
    elif layers and layers[0].name == "quic":
        layers += _hello_over_datagrams(record, layers[0], facts)
    elif not layers and packet.key.proto == UDP:
        facts.append(Fact("flow.start", bytes(packet.payload[:START])))
    elif layers and layers[0].name == "snatmap" and Endpoint(packet.key.src, packet.key.sport) == _endpoint(layers[0]):
        facts.append(Fact("snatmap.of_sender", True))
    return Read(layers, facts, peeled.anomalies)


def carrier(layers: tuple[Layer, ...], position: int) -> str:
    """What a stream must have begun with, if the SIP at this position is its sender's own (`FlowRecord.opened_with`):
    SIP, or, behind a channel's header, the relay's STUN."""
    return "stun" if position and layers[position - 1].name == "turn" else "sip"


def _requests(record: FlowRecord, layers: tuple[Layer, ...]) -> list[Fact]:
    """Which requests of their connection these are, from 1: one may follow another at once (RFC 9112 section 9.3.2)."""
    facts = []
    for layer in layers:
        if layer.consumed > 0 and layer.facts and layer.facts[0].name == "http.method":
            record.requests += 1
            facts.append(Fact("http.request", record.requests))
    return facts


def _stream(record: FlowRecord, packet: Packet, outward: bool) -> Peeled:
    assert record.streams is not None
    side = 0 if outward else 1
    stream = record.streams[side]
    added = stream.push(packet.tcp_seq + (1 if packet.tcp_flags & SYN else 0), packet.payload)
    if added is None and record.opening[side]:
        return NO_LAYERS  # a retransmission, or out of order: what is there has been read
    body = min(record.bodies[side], len(stream.data))
    if body:  # still the body of a message before: nobody looks for a message in it
        stream.consume(body)
        record.bodies[side] -= body
    data, peeled = stream.data, NO_LAYERS
    if len(data) < record.awaited[side]:
        return UNFINISHED
    if record.relay is not None:
        peeled = peel(data, "relay")
    if data and not peeled.layers and not peeled.anomalies:
        peeled = peel(data, "tcp")
    record.awaited[side] = 0
    if peeled.layers and peeled.layers[0].name == "sip" and not peeled.consumed:
        begun = sip.framing(data)
        record.awaited[side] = begun.size if begun is not None else 0  # until then its head need not be read again
    elif peeled.consumed:
        stream.consume(peeled.consumed)
        record.bodies[side] = next(
            (f.value for f in peeled.layers[-1].facts if f.name == "http.body_left" and isinstance(f.value, int)), 0
        )
    if not peeled.layers and not peeled.anomalies and packet.payload and not record.opening[side]:
        peeled = _segment(record, packet, side)
    elif peeled.layers and not record.opening[side]:
        record.opening[side] = "" if stream.midstream else peeled.layers[0].name
    return peeled


def _segment(record: FlowRecord, packet: Packet, side: int) -> Peeled:
    """The stream's start says nothing, and no flow's name: TLS may begin in a later segment (RFC 3207 and other
    STARTTLS, RDP), or the capture in the middle of a record. From there on the stream is read as ever."""
    assert record.streams is not None
    if record.naming.name is not None or len(record.streams[side].data) == len(packet.payload):
        return NO_LAYERS
    peeled = peel(packet.payload, "middle" if record.streams[side].midstream else "segment")
    if peeled.layers:
        stream = Stream()
        stream.push(packet.tcp_seq, packet.payload)
        stream.consume(peeled.consumed)
        record.streams = (stream, record.streams[1]) if side == 0 else (record.streams[0], stream)
    return peeled


def _hello_over_datagrams(record: FlowRecord, layer: Layer, facts: list[Fact]) -> tuple[Layer, ...]:
    """The ClientHello, once its CRYPTO pieces of several Initials are whole."""
    pieces = [f.value for f in layer.facts if f.name == "quic.crypto" and isinstance(f.value, tuple)]
    if not pieces:
        return NOTHING
    record.crypto = [*record.crypto, *pieces][:MAX_CRYPTO]
    hello = join(record.crypto)
    if hello is None:
        return NOTHING
    record.crypto = []
    peeled = peel(memoryview(hello), "quic")
    facts.extend(peeled.facts())
    return peeled.layers


def _endpoint(layer: Layer) -> object:
    return next((f.value for f in layer.facts if f.name == "snatmap.endpoint"), None)
