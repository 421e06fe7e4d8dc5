"""The flow table's bound. In: the flows, in the order in which they were heard of; a limit. Out: who gives way.

A flow that is watched or serves a call is protected: a flood of new flows takes the place of the flood. Only where all
that is looked at is protected, the new flow itself finds no room.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from appid.dataplane.command import Command, Report, SetMark
from appid.engine.record import FlowRecord, Settings
from appid.engine.report import ExceptionReport
from appid.engine.stamps import Stamps
from appid.flow.key import FlowKey

TRIES = 64
"""Protected flows passed over in the search for one that is not; each is put last, so the next search begins after."""
SHORT_OF_MEMORY = 16
"""One in so many gives way then, and the rest may not become more: a new flow takes the place of one."""
FEW = 256
"""Flows that there is always room for."""
ANY = 1 << 40
"""More flows than there ever are."""

Flows = OrderedDict[FlowKey, FlowRecord]


def give_way(flows: Flows, limit: int, new: FlowRecord) -> FlowRecord | None:
    """Take one flow out if there are more than `limit`; `new` is the last of them."""
    if len(flows) <= limit:
        return None
    return _oldest(flows) or flows.pop(new.key)


def give_up(flows: Flows) -> list[FlowRecord]:
    """Memory is short: take out a share of those that are not protected."""
    gone = []
    for _ in range(len(flows) // SHORT_OF_MEMORY):
        record = _oldest(flows)
        if record is None:
            break
        gone.append(record)
    return gone


def ceiling(flows: Flows, short: bool | None, before: int) -> int:
    """How many flows there may be: while memory is short, no more than were left; None lifts it."""
    if short is None:
        return ANY
    return max(len(flows), FEW) if short else before


def decided(record: FlowRecord, settings: Settings, stamps: Stamps, now: float) -> Iterator[Command]:
    """The exception policy decides a flow that gave way: nobody follows it any more, so it must not stay undecided."""
    failure = settings.failure("table-full")
    name = record.naming.name
    number = settings.applications[name].number if name is not None else 0
    mark = settings.marks.encode("allow" if failure == "open" else "deny", number)
    stamps.put(record.key, mark, now)
    if record.userspace_packets:  # else its first packet is in hand
        yield SetMark(record.key, mark, create=False)
    yield Report("exception", ExceptionReport("table-full", failure))


def _oldest(flows: Flows) -> FlowRecord | None:
    for _ in range(min(TRIES, len(flows) - 1)):
        key, record = next(iter(flows.items()))
        if not record.watch and record.call is None:
            del flows[key]
            return record
        flows.move_to_end(key)
    return None
