"""What one gateway's workers left, to another number of them."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from appid.dataplane.bytecode import chooser, queue_of
from appid.edge.handing import hand_out, hand_over
from appid.edge.state import State, place_of, tidy
from appid.engine.kept import KeptCall
from appid.flow.key import FlowKey
from appid.wire import packed
from tests.edge.test_state import call, room_for, written

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


class Killed(BaseException):
    """As by kill -9: nothing of ours is done any more."""


STEPS = ((os, "rename"), (os, "unlink"), (os, "rmdir"), (os, "mkdir"), (os, "write"), (os, "open"))


def killed_before_each_step(folder: Path, workers: int) -> Iterator[Path]:
    """Copies of `folder`, each as it is if who hands over dies before its first, second ... change of a file."""
    for last in range(1000):
        copy = folder.with_name(f"{folder.name}-{workers}-{last}")
        shutil.copytree(folder, copy)
        steps = iter(range(last))

        def step(real: object, steps: Iterator[int] = steps) -> object:
            def doing(*given: object, **named: object) -> object:
                if next(steps, None) is None:
                    raise Killed
                return real(*given, **named)  # type: ignore[operator]

            return doing

        with pytest.MonkeyPatch.context() as patched:
            for module, name in STEPS:
                patched.setattr(module, name, step(getattr(module, name)))
            killed = False
            try:
                hand_over(copy, workers)
            except Killed:
                killed = True
        yield copy
        if not killed:
            return
    raise AssertionError("no end")


def known(given: dict[int, State]) -> dict[str | None, int]:
    return {call.call_id: index for index, state in given.items() for call in state.calls.values()}


def calls_of(call: KeptCall, workers: int) -> dict[int, list[KeptCall]]:
    """Six calls of six hosts, by worker."""
    calls: dict[int, list[KeptCall]] = {index: [] for index in range(workers)}
    (hole, *_), (dialog, *_), (flow, *_) = call.pinholes, call.dialogs, call.signalling
    for number in range(1, 7):
        host = packed(f"10.0.0.{number}")
        wanted = replace(hole.expectation, call=number, inside=host, outside=None)
        calls[queue_of(host, workers)].append(
            replace(
                call,
                number=number,
                hosts=(host,),
                call_id=f"call {number}",
                bindings=(),
                flows=(),
                dialogs=(replace(dialog, host=host),),
                pinholes=(replace(hole, number=number, expectation=wanted, binding=None),),
                signalling=(replace(flow, number=number, key=flow.key._replace(src=host)),),
            )
        )
    return calls


@pytest.mark.parametrize(("before", "after", "then"), [(2, 3, 3), (2, 3, 2), (3, 2, 2), (1, 2, 1), (2, 1, 3)])
def test_a_start_that_is_killed_at_any_moment_forgets_no_call(
    before: int, after: int, then: int, call: KeptCall, tmp_path: Path
) -> None:
    """Whether the next one has as many workers or not, and whether a worker had begun its own file."""
    folder = tmp_path / "state"
    for index, calls in calls_of(call, before).items():
        written(folder, *calls, index=index, workers=before)
    owners = {each.call_id: index for index, calls in calls_of(call, then).items() for each in calls}
    assert len(owners) == 6
    for copy in killed_before_each_step(folder, after):
        given = hand_over(copy, then)
        assert known(given) == owners
        assert all(state.left == 0.0 for state in given.values())
    given = hand_over(folder, after)
    written(folder, *given[0].calls.values(), index=0, workers=after)  # the first one serves: killed
    assert known(hand_over(folder, then)) == owners
    assert sorted(path.name for path in folder.iterdir()) == [f"calls-{index}.jsonl" for index in range(then)]
    assert int(copy.name.rpartition("-")[2]) > 5, "steps there were"


def test_without_room_to_hand_over_nothing_is_taken_for_ownerless(call: KeptCall, tmp_path: Path) -> None:
    for index, calls in calls_of(call, 2).items():
        written(tmp_path, *calls, index=index, workers=2)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with room_for(100):
        given = hand_over(tmp_path, 3)
    assert len(known(given)) == 6, "its workers have them all the same"
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    written(tmp_path, *given[0].calls.values(), index=0, workers=3)
    again = hand_over(tmp_path, 3)  # after the first of three had begun, when it was interrupted
    assert all(time.time() + 300 < state.left < time.time() + 400 for state in again.values())
    assert place_of(tmp_path, 2).exists()
    assert hand_over(tmp_path, 3)[1].left == again[1].left, "for as long as that takes, whoever starts meanwhile"
