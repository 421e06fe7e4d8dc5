"""What the workers of a gateway that is gone left behind, to those of the next one.

In: their state files. Out: by worker, its calls and spliced streams. As many workers as before take each their own
file. Of another number, each gets what is of its hosts: a call between two inside hosts by way of the outside comes in
halves, one for each host's worker (halves.py), and is a whole one where both are served by the same.

A start may be interrupted at any moment. So what changes hands is written whole before the first worker begins its own
file: into a folder beside, which counts from the moment that it gets its name, and whose files then take their places,
now or at the next start. Without room for that, an interruption leaves a set of files that is not whole: what of the
kernel has no owner is then left to run out.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from appid.dataplane.bytecode import chooser, queue_of
from appid.edge.state import RUN_OUT, Journal, Kept, State, larger, place_of, read, tidy
from appid.engine.kept import KeptCall, KeptFlow, KeptPinhole

Each = TypeVar("Each")
log = logging.getLogger("appid")


def hand_over(folder: Path, workers: int) -> dict[int, State]:
    """By worker, what the files in `folder` hold; each has one of its own then, and there is no other."""
    _settle(folder)
    files = _files(folder)
    given = _given(folder, files, workers)
    if {path: state.workers for path, state in files.items()} != {place_of(folder, index): workers for index in given}:
        _write(folder, given)
    return given


def hand_out(folder: Path, workers: int) -> dict[int, State]:
    """The same, and all files stay as they are."""
    return _given(folder, _files(folder), workers)


def _write(folder: Path, given: dict[int, State]) -> None:
    place = folder / f"handed-{len(given)}"
    new = place.with_suffix(".new")
    written = True
    for index, state in given.items():
        kept: tuple[Kept, ...] = (*state.calls.values(), *state.streams.values(), *state.registrations.values())
        journal = Journal(place_of(new, index), len(given), kept, state.numbers, state.left)
        journal.close()
        written = written and not journal.lost
    if written:
        try:
            new.rename(place)
        except OSError as error:
            log.error("%s: %s: calls may not outlive a start that is interrupted", place, error.strerror)
    _settle(folder)


def _settle(folder: Path) -> None:
    """The files of a folder that has its name go to their places; one that has not is none."""
    for place in folder.glob("handed-*"):
        workers = place.name.removeprefix("handed-")
        if not workers.isdecimal():
            shutil.rmtree(place, ignore_errors=True)
            continue
        try:
            tidy(folder, int(workers))
            for path in place.iterdir():
                path.rename(folder / path.name)
            place.rmdir()
        except OSError as error:
            log.error("%s: %s: calls may not outlive a start that is interrupted", place, error.strerror)


def _files(folder: Path) -> dict[Path, State]:
    return {path: read(path) for path in sorted(folder.glob("calls-*.jsonl"))} if folder.is_dir() else {}


def _missing(files: dict[Path, State]) -> bool:
    """Whether not all workers' files are there of those who wrote any."""
    found = Counter(
        state.workers for path, state in files.items()
        if (number := path.stem.removeprefix("calls-")).isdecimal() and int(number) < state.workers
    )  # fmt: skip
    return any(count < workers for workers, count in found.items())


def _given(folder: Path, files: dict[Path, State], workers: int) -> dict[int, State]:
    given = {index: State() for index in range(workers)}
    last, left = (0, 0, 0), 0.0
    moved: list[KeptCall] = []
    if _missing(files):
        log.warning("%s: not all workers' files are there: what has no owner in the kernel is left to run out", folder)
        left = time.time() + RUN_OUT
    for path, state in files.items():
        number = path.stem.removeprefix("calls-")
        last, left = larger(last, state.numbers), max(left, state.left)
        same = state.workers == workers and number.isdecimal() and int(number) < workers
        if same:
            given[int(number)].calls.update(state.calls)
        else:
            moved += state.calls.values()
        for stream in state.streams.values():
            owner = int(number) if same else queue_of(_host(stream.flow), workers)
            given[owner].streams[stream.flow.number] = stream
        for each in state.registrations.values():
            owner = int(number) if same else queue_of(_host(each.flow), workers)
            given[owner].registrations[each.flow.number] = each
    for call in _whole(moved):
        for owner, part in _parts(call, workers):
            given[owner].calls.setdefault(part.number, part)  # its own file is the newer one
    for state in given.values():
        state.numbers, state.left = last, left
    return given


def _host(flow: KeptFlow) -> bytes:
    return flow.key.src if flow.host_first else flow.key.dst


def _far(flow: KeptFlow) -> bytes:
    return flow.key.dst if flow.host_first else flow.key.src


def _whole(calls: Iterable[KeptCall]) -> Iterator[KeptCall]:
    """Halves of one call put together, under the number of the first."""
    found: dict[tuple[str | int, str], KeptCall] = {}
    for call in sorted(calls, key=lambda call: call.number):
        key = (call.call_id or call.number, call.dialogs[0].from_tag if call.dialogs else "")
        found[key] = _joined(found[key], call) if key in found else call
    yield from found.values()


def _joined(one: KeptCall, other: KeptCall) -> KeptCall:
    hosts = tuple(sorted({*one.hosts, *other.hosts}))
    places = {_place(pinhole): pinhole for pinhole in (*other.pinholes, *one.pinholes)}
    return replace(
        one, hosts=hosts, peers=_both(one.peers, other.peers), flows=_both(one.flows, other.flows),
        caller=one.caller if one.caller in hosts else other.caller,
        callee=one.callee if one.callee in hosts else other.callee,
        answered_at=one.answered_at if one.answered_at is not None else other.answered_at,
        ending=one.ending or other.ending, media=one.media or other.media,
        dialogs=_both(one.dialogs, other.dialogs), bindings=_both(one.bindings, other.bindings),
        signalling=_both(one.signalling, other.signalling),
        pinholes=tuple(
            replace(each, expectation=replace(each.expectation, call=one.number)) for each in places.values()
        ),
        awaits=tuple(replace(each, call=one.number) for each in _both(one.awaits, other.awaits)),
    )  # fmt: skip


def _both(one: tuple[Each, ...], other: tuple[Each, ...]) -> tuple[Each, ...]:
    return (*one, *(each for each in other if each not in one))


def _place(pinhole: KeptPinhole) -> tuple[int, bytes, int, bytes]:
    wanted = pinhole.expectation
    return wanted.proto, wanted.inside, wanted.port, wanted.peer


def _parts(call: KeptCall, workers: int) -> Iterator[tuple[int, KeptCall]]:
    """What each worker has of the call: the dialogs and flows of its own hosts; what is between two, whoever's queue it
    takes (dataplane/share.py)."""

    def owner(host: bytes, far: bytes) -> int:
        return queue_of(chooser((host, far)) if far in call.hosts else host, workers)

    signalling = [(owner(_host(flow), _far(flow)), flow) for flow in call.signalling]
    dialogs = [(owner(each.host, each.peer), each) for each in call.dialogs]
    pinholes = [(owner(each.expectation.inside, each.expectation.peer), each) for each in call.pinholes]
    awaits = [(owner(each.inside, each.peer), each) for each in call.awaits]
    owners = {index for index, _ in (*signalling, *dialogs, *pinholes, *awaits)}
    if len(owners) < 2:
        yield (owners.pop() if owners else queue_of(chooser(call.hosts), workers) if call.hosts else 0), call
        return
    for index in sorted(owners):
        yield (
            index,
            replace(
                call,
                hosts=tuple(host for host in call.hosts if queue_of(host, workers) == index) or call.hosts,
                dialogs=tuple(each for mine, each in dialogs if mine == index),
                signalling=tuple(each for mine, each in signalling if mine == index),
                pinholes=tuple(each for mine, each in pinholes if mine == index),
                awaits=tuple(each for mine, each in awaits if mine == index),
                bindings=tuple(each for each in call.bindings if queue_of(each.inside, workers) == index),
            ),
        )
