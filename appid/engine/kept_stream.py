"""What of a spliced stream outlives its engine: its two ends number their bytes differently; nobody else knows how.

In: a flow's record, before the verdict on the packet that moved it. Out: a KeptStream, and from one the stream again.
It is kept by itself, not with a call: a phone's connection stands for hours between two.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from appid.alg.names import Natted
from appid.alg.splice import Position, Splice
from appid.dataplane.command import BindNat, Command, SetMark
from appid.engine.event import Kept
from appid.engine.kept import KeptFlow, kept_flow, record_of
from appid.engine.record import FlowRecord
from appid.flow.stream import Stream
from appid.wire import TCP, Endpoint

if TYPE_CHECKING:
    from appid.engine.core import Engine

MAX_BYTES = 16384
"""Of messages that are not whole or not acknowledged: a stream in which more waits is not kept while it does."""


@dataclass(frozen=True, slots=True)
class KeptStream:
    """`outside`: as what its far end sees its inside one; `there` and `back`: its directions."""

    flow: KeptFlow
    outside: Endpoint
    knows: bool
    knows_via: bool
    there: Position
    back: Position
    bindings: tuple[BindNat, ...] = ()


def kept_stream(engine: Engine, record: FlowRecord) -> KeptStream | None:
    """None where it has ended, or too much of it waits."""
    natted, spliced = record.natted, record.spliced
    if natted is None or spliced is None or engine.flows.get(record.key) is not record:
        return None
    if spliced[0].held + spliced[1].held > MAX_BYTES:  # before anything of it is copied
        return None
    there, back = spliced[0].position, spliced[1].position
    bindings = tuple(engine.calls.nat.held(record.id))
    return KeptStream(kept_flow(record), natted.outside, natted.knows, natted.knows_via, there, back, bindings)


def go_on(engine: Engine, kept: KeptStream, now: float) -> Iterator[Command]:
    """The stream goes on where it was. What cannot be one of this engine is passed over."""
    key, nat = kept.flow.key, engine.calls.nat
    record = engine.flows.get(key) or record_of(kept.flow, None, now)
    ends = {len(each) for each in (key.src, key.dst, kept.outside.address)}
    if key.proto != TCP or kept.flow.number <= 0 or len(ends) != 1 or ends > {4, 16}:
        return
    if not engine.topology.inside(record.host) or engine.topology.inside(record.remote):
        return
    try:
        record.spliced = (Splice.at(kept.there), Splice.at(kept.back))
    except ValueError:
        return
    natted = record.natted = Natted(TCP, Endpoint(record.host, record.host_port), kept.outside, record.far)
    natted.knows, natted.knows_via, record.placed = kept.knows, kept.knows_via, True
    record.streams = (_stream(kept.there), _stream(kept.back))
    record.opening[:] = kept.flow.opening
    engine.follow_again(record)
    nat.mappings.note(TCP, natted.inside, kept.outside, record.remote, record.id)
    for binding in kept.bindings:
        if binding.inside == record.host:
            nat.restore(binding, record.id, now)
            yield binding
    engine.calls.resume()


def torn(engine: Engine, kept: Iterable[Kept]) -> Iterator[Command]:
    """Spliced streams that nobody remembers: their ends can not understand each other any more, and are told so."""
    marks = engine.settings.marks
    for flow in kept:
        if flow.mark & marks.passing and flow.key.proto == TCP:
            record = engine.flows.get(flow.key) or engine.flows.get(flow.key.reversed())
            if record is not None and record.spliced is not None:
                continue
            if record is not None:
                del engine.flows[record.key]
            yield SetMark(flow.key, marks.encode("deny"), create=False)


def _stream(position: Position) -> Stream:
    """What the decoder has read of it, which is what was whole."""
    made = Stream()
    made.syn((position.awaits - 1) % (1 << 32))
    made.push(position.awaits, position.waiting)
    return made
