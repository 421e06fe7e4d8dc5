"""Calls of which something was not heard."""

from __future__ import annotations

from appid.engine.doubt import GRACE, PATIENCE, Doubt
from appid.engine.record import FlowRecord
from appid.flow.call import Calls
from appid.flow.key import FlowKey
from appid.wire import UDP

HOST, SERVER = b"\x0a\x00\x00\x01", b"\xc0\x00\x02\x01"
SIGNALLING = FlowKey(UDP, HOST, 5060, SERVER, 5060)
ELSEWHERE = FlowKey(UDP, HOST, 5062, SERVER, 5060)


def doubtful(*answered: bool) -> tuple[Doubt, Calls]:
    """One call for each, all in one flow: a phone's to its server."""
    calls, records = Calls(), dict[int, dict[int, FlowRecord]]()
    record = FlowRecord(7, SIGNALLING, True, 1, None)
    for was in answered:
        call = calls.start("sip", [HOST], 0.0, 1)
        call.answered_at, call.call_id = 2 if was else None, f"call-{call.id}"
        records[call.id] = {record.id: record}
    return Doubt(calls, records), calls


def test_all_answered_calls_of_the_flow_are_in_doubt_whichever_way_it_was_seen() -> None:
    doubt, calls = doubtful(True, False, True)
    doubt.unheard([ELSEWHERE], 10.0)
    assert doubt.next() is None
    doubt.unheard([SIGNALLING.reversed()], 10.0)
    assert doubt.next() == 10.0 + PATIENCE
    assert doubt.take(10.0 + PATIENCE - 0.1, 9) == []
    assert doubt.take(10.0 + PATIENCE, 9) == [calls.open[1], calls.open[3]], "the second still rings"
    assert doubt.next() is None
    calls.open[2].call_id = None
    doubt.unheard([SIGNALLING], 20.0)
    assert calls.open[2] in doubt.take(99.0, 9), "nobody heard that it rings: all of it may have passed"


def test_media_that_goes_on_dispels_it_but_not_what_was_on_its_way() -> None:
    doubt, calls = doubtful(True, True)
    doubt.unheard([SIGNALLING], 10.0)
    doubt.moved(1, 10.0 + GRACE / 2)
    doubt.moved(2, 10.0 + GRACE / 2)
    doubt.moved(1, 10.0 + 2 * GRACE)
    assert doubt.take(99.0, 9) == [calls.open[2]]


def test_who_is_heard_or_over_is_not_in_doubt() -> None:
    doubt, calls = doubtful(True, True, True)
    calls.open[3].ending = True
    doubt.unheard([SIGNALLING], 10.0)
    doubt.drop(1)
    calls.remove(calls.open[2])
    assert doubt.take(99.0, 9) == [calls.open[3]], "its BYE was heard, and the answer to that perhaps not"
