"""What is told of a call is what it is."""

from __future__ import annotations

from appid.engine import CallReport
from appid.engine.report import told_call
from appid.flow.call import Call, CallMedia
from appid.wire import packed


def test_a_call_is_told_as_it_stands() -> None:
    call = Call(7, "facetime", 169, 5.0, 5790)
    call.call_id, call.caller, call.callee = "8d3c", packed("172.16.42.187"), packed("71.230.89.52")
    call.answered_at, call.media = 172, (CallMedia("audio", (104,), (None,)),)
    call.flows += [1, 4]
    call.close("bye", 5786)
    told = told_call(call)
    assert told.kind == "call"
    assert told.body == CallReport(
        7, "facetime", "8d3c", call.caller, call.callee, 169, 172, 5786, "bye", (1, 4), call.media, None
    )
    assert told_call(call, into=3).body.into == 3
