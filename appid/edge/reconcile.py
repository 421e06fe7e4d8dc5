"""At a worker's beginning: what the kernel holds of calls, and what the engine knows of them, made one.

In: the executor, after the calls were put back into the engine; which hosts and flows are this worker's. Out: pinholes,
bindings and flows without an owner are gone from the kernel. What the engine knows and the kernel lacks, it has opened
again.
"""

from __future__ import annotations

from typing import NamedTuple

from appid.dataplane.marks import ALLOW
from appid.dataplane.share import Share
from appid.dataplane.state import Element, element
from appid.edge.execute import Executor, place_of
from appid.flow.key import FlowKey


class Closed(NamedTuple):
    """What had no owner."""

    pinholes: int
    bindings: int
    flows: int


def ownerless(execute: Executor, share: Share) -> set[Element]:
    """The kernel's pinholes that no call has. One between two inside hosts is that worker's who sees its flows."""
    wanted = execute.desired.elements()
    return {
        (proto, inside, port, peer)
        for proto, inside, port, peer in execute.pinholes.elements()
        if share.owns(FlowKey(proto, inside, port, peer, 0)) and (proto, inside, port, peer) not in wanted
    }


def reconcile(execute: Executor, share: Share) -> Closed:
    """Elements first, then bindings, then flows: what is cut cannot come back by what is still there."""
    orphans = ownerless(execute, share)
    for place in orphans:
        execute.pinholes.shut(place)
    bound = {element(binding) for binding, _ in execute.desired.bindings()}
    bindings = [each for each in execute.bindings.listed() if share.holds(each.inside) and element(each) not in bound]
    execute.bindings.unbind(bindings)
    flows = 0
    if orphans:
        entries = [entry for entry in execute.conntrack.entries() if execute.marks.state_of(entry.mark) == ALLOW]
        for entry in entries:
            if place_of(entry, orphans) is not None:
                flows += execute.conntrack.delete(entry.orig)
    return Closed(len(orphans), len(bindings), flows)
