"""At a worker's beginning: what the kernel holds of calls, and what the engine knows of them, made one.

In: the executor, after the calls were put back into the engine; whose hosts are this worker's. Out: pinholes, bindings
and flows without an owner are gone from the kernel. What the engine knows and the kernel lacks, it has opened again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from appid.dataplane.marks import ALLOW
from appid.dataplane.state import Element, element
from appid.edge.execute import Executor, place_of


class Closed(NamedTuple):
    """What had no owner."""

    pinholes: int
    bindings: int
    flows: int


def ownerless(execute: Executor, holds: Callable[[bytes], bool]) -> set[Element]:
    """The kernel's pinholes that no call has."""
    wanted = execute.desired.elements()
    return {place for place in execute.pinholes.elements() if holds(place[1]) and place not in wanted}


def reconcile(execute: Executor, holds: Callable[[bytes], bool]) -> Closed:
    """Elements first, then bindings, then flows: what is cut cannot come back by what is still there."""
    orphans = ownerless(execute, holds)
    for place in orphans:
        execute.pinholes.shut(place)
    bound = {element(binding) for binding, _ in execute.desired.bindings()}
    bindings = [each for each in execute.bindings.listed() if holds(each.inside) and element(each) not in bound]
    execute.bindings.unbind(bindings)
    flows = 0
    if orphans:
        entries = [entry for entry in execute.conntrack.entries() if execute.marks.state_of(entry.mark) == ALLOW]
        for entry in entries:
            if place_of(entry, orphans) is not None:
                flows += execute.conntrack.delete(entry.orig)
    return Closed(len(orphans), len(bindings), flows)
