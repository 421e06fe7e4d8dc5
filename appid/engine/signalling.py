"""What the layers of a flow's packet teach about calls: the ALG's part of the engine.

In: a flow that policy allows, and what its packet shows of TURN, STUN and SIP. Out: commands; what is learned stands in
the flow's record and with the calls.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from appid.alg.host import Host
from appid.alg.lessons import LIFETIME, Asked, Lesson
from appid.alg.relay import Relay, checks
from appid.dataplane.command import Command
from appid.decode.sdp import Description
from appid.decode.sip import Message
from appid.engine.read import carrier
from appid.engine.record import FlowRecord
from appid.packet import Packet
from appid.wire import UDP, Endpoint, Layer

if TYPE_CHECKING:
    from appid.engine.core import Engine


def hear(
    engine: Engine,
    record: FlowRecord,
    packet: Packet,
    layers: tuple[Layer, ...],
    outward: bool,
    number: int,
    now: float,
    host: Host,
) -> Iterator[Command]:
    """The ALG's part: what TURN, STUN and SIP on this flow teach about calls."""
    engine.calls.media.host = host
    by_host = outward == record.host_first
    peer: bytes | None = record.remote
    port = record.key.dport if record.host_first else record.key.sport
    checked = Endpoint(record.remote, port) if record.relay is None else None
    behind: Endpoint | None = None
    for position, layer in enumerate(layers):
        if layer.name == "stun":
            record.asked = record.asked or Asked()
            record.asked.keep(record.asked.hear(layer.facts, by_host, checked), now)
            check = not by_host and checks(layer.facts)
            if behind is not None and check and "channel-bind" in engine.functions(record):
                yield from engine.calls.media.checked(record, behind, number, now)
            if position and layers[position - 1].inner is not None:
                continue  # of the peer behind the relay: it says nothing of the relay
            if record.relay is None and any(f.value in ("allocate", "channel-bind") for f in layer.facts[:2]):
                record.relay = Relay()
            if record.relay is not None:
                bound = record.relay.learn(layer.facts, by_host)
                if bound is not None:
                    engine.calls.learned_peer(record, bound.address)
        elif layer.name == "turn":
            record.relay = record.relay or Relay()
            channel = next((f.value for f in layer.facts if f.name == "turn.channel"), None)
            behind = checked = record.relay.channels.get(channel) if isinstance(channel, int) else None
            peer = behind.address if behind is not None else record.remote
        elif layer.name == "sip" and record.opened_with(carrier(layers, position), outward):
            following = layers[position + 1].message if position + 1 < len(layers) else None
            description = following if isinstance(following, Description) else None
            functions = engine.functions(record)
            if not functions:
                continue
            translated = "translation" in functions and not engine.settings.monitor
            nat = engine.calls.nat
            carried = None
            if translated:
                carried = nat.carry(record, packet.payload, layer, description, peer or b"", by_host, number, host)
            if carried is not None:
                yield from carried.commands
                description = carried.description
            yield from engine.calls.signal(record, layer, description, peer or b"", by_host, number, now)
            if carried is not None:
                yield from nat.settle(carried, now)
            if peer == record.remote and isinstance(layer.message, Message):
                engine.registered.hear(engine, record, layer.message, by_host, now)
                if by_host and record.key.proto == UDP and "expectations" in functions:
                    yield from engine.awaited.hear(engine, record, layer.message, now)


def learn(engine: Engine, record: FlowRecord, asked: Asked, number: int) -> None:
    """What a flow whose name can not shift any more teaches about its peers, those of before it had it included."""
    name, watch = record.naming.name, record.naming.watchable
    if name is not None and not engine.lineage.descendants.get(name, True):
        for peer, since in asked.tell():
            engine.calls.lessons.learn(record.host, Lesson(name, peer, record.id, number, watch, since + LIFETIME))
