"""What one gateway's workers left, to another number of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from appid.dataplane.bytecode import chooser, queue_of
from appid.edge.handing import hand_out
from appid.edge.state import tidy
from appid.engine.kept import KeptCall
from appid.flow.key import FlowKey
from appid.wire import packed
from tests.edge.test_state import call, written

__all__ = ["call"]


def test_calls_go_to_whom_their_hosts_are_if_there_are_other_workers(call: KeptCall, tmp_path: Path) -> None:
    written(tmp_path, call, index=1, workers=2)
    assert list(hand_out(tmp_path, 2)[1].calls) == [1], "as it was"
    for workers in (1, 3, 5):
        given = hand_out(tmp_path, workers)
        (owner,) = (index for index, state in given.items() if state.calls)
        assert owner == queue_of(call.hosts[0], workers)
        assert all(state.numbers == (9, 8, 7) for state in given.values())
    tidy(tmp_path, 1)
    assert list(tmp_path.iterdir()) == []


def half(call: KeptCall, number: int, host: str, other: str, server: str = "198.51.100.9") -> KeptCall:
    """What the worker of `host` knows of a call with `other`, inside, by way of a server: its own dialog, and the way
    of the media in both directions."""
    ours, far, via = packed(host), packed(other), packed(server)
    (hole, *_), (flow, *_), (dialog, *_) = call.pinholes, call.signalling, call.dialogs
    holes = [
        replace(hole, number=number * 10 + i,
                expectation=replace(hole.expectation, call=number, inside=a, peer=b, outside=None), binding=None)
        for i, (a, b) in enumerate(((ours, far), (far, ours)))
    ]  # fmt: skip
    key = FlowKey(flow.key.proto, ours, 5060, via, 5060)
    return replace(
        call, number=number, hosts=(ours,), peers=(far, via), caller=ours if number == 1 else via,
        callee=via if number == 1 else ours, pinholes=tuple(holes), bindings=(), flows=(number,),
        awaits=(replace(holes[0].expectation, peer=via),),
        dialogs=(replace(dialog, host=ours, peer=via),), signalling=(replace(flow, number=number, key=key),),
    )  # fmt: skip


def test_halves_of_a_call_become_one_and_one_becomes_halves(call: KeptCall, tmp_path: Path) -> None:
    one, other = next(
        (f"10.0.0.{a}", f"10.0.1.{b}") for a in range(1, 99) for b in range(1, 99)
        if queue_of(packed(f"10.0.0.{a}"), 2) == 0 and queue_of(packed(f"10.0.1.{b}"), 2) == 1
    )  # fmt: skip
    halves = {0: half(call, 1, one, other), 1: half(call, 2, other, one)}
    for index, each in halves.items():
        written(tmp_path, each, index=index, workers=2)
    assert {index: list(state.calls) for index, state in hand_out(tmp_path, 2).items()} == {0: [1], 1: [2]}
    (whole,) = hand_out(tmp_path, 1)[0].calls.values()
    assert (whole.number, whole.caller, whole.callee) == (1, packed(one), packed(other))
    assert set(whole.hosts) == {packed(one), packed(other)}
    assert {dialog.host for dialog in whole.dialogs} == {packed(one), packed(other)}
    places = {(hole.expectation.inside, hole.expectation.peer, hole.expectation.call) for hole in whole.pinholes}
    assert places == {(packed(one), packed(other), 1), (packed(other), packed(one), 1)}
    assert len(whole.pinholes) == 2
    assert [(wanted.inside, wanted.call) for wanted in whole.awaits] == [(packed(one), 1), (packed(other), 1)]

    for path in tmp_path.glob("calls-*"):
        path.unlink()
    written(tmp_path, whole, index=0, workers=1)
    given = hand_out(tmp_path, 2)
    between = queue_of(chooser((packed(one), packed(other))), 2)
    for index, host in ((0, one), (1, other)):
        (part,) = given[index].calls.values()
        assert [dialog.host for dialog in part.dialogs] == [packed(host)]
        assert [flow.key.src for flow in part.signalling] == [packed(host)]
        assert part.hosts == (packed(host),)
        assert [wanted.inside for wanted in part.awaits] == [packed(host)]
        assert len(part.pinholes) == (2 if index == between else 0), "they are whose queue these flows take"


def test_a_call_straight_between_two_hosts_is_one_workers(call: KeptCall, tmp_path: Path) -> None:
    one, other = packed("10.0.0.1"), packed("10.0.1.2")
    whole = half(call, 1, "10.0.0.1", "10.0.1.2", server="10.0.1.2")
    written(tmp_path, replace(whole, hosts=(one, other)), index=0, workers=1)
    for workers in (2, 3, 5, 8):
        holding = {index for index, state in hand_out(tmp_path, workers).items() if state.calls}
        assert holding == {queue_of(chooser((one, other)), workers)}
