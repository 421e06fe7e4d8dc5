"""The state file: what is written is read again, whatever happened to its end, its owner, or its content."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from appid.dataplane.bytecode import queue_of
from appid.edge import state as room
from appid.edge.handing import hand_out
from appid.edge.state import Journal, place_of, read
from appid.engine.kept import KeptCall
from tests.engine.play import Play
from tests.engine.test_kept import NATTED, connected, kept
from tests.engine.test_kept_stream import begun
from tests.engine.test_registered import Line
from tests.engine.test_registered import kept as registrations


@pytest.fixture(scope="module")
def call() -> KeptCall:
    play = Play(NATTED)
    connected(play)
    return kept(play)


def written(folder: Path, *calls: KeptCall, index: int = 0, workers: int = 1) -> Path:
    Journal(place_of(folder, index), workers, calls, (9, 8, 7)).close()
    return place_of(folder, index)


def test_a_call_comes_back_as_it_was(call: KeptCall, tmp_path: Path) -> None:
    state = read(written(tmp_path, call))
    assert state.calls == {1: call}
    assert (state.numbers, state.workers, state.faults) == ((9, 8, 7), 1, 0)


def test_what_was_written_last_counts(call: KeptCall, tmp_path: Path) -> None:
    journal = Journal(place_of(tmp_path, 0), 1, [], (0, 0, 0))
    journal.write(call, (3, 1, 1))
    journal.write(replace(call, ending=True), (4, 1, 1))
    journal.write(replace(call, number=2), (5, 2, 1))
    assert read(journal.path).calls == {1: replace(call, ending=True), 2: replace(call, number=2)}
    journal.gone(1, (5, 2, 1))
    journal.gone(77, (6, 6, 6))
    state = read(journal.path)
    assert (list(state.calls), state.numbers) == ([2], (5, 2, 1))
    journal.close()


def test_spliced_streams_are_kept_beside_calls(call: KeptCall, tmp_path: Path) -> None:
    stream = begun().kept()
    journal = Journal(place_of(tmp_path, 0), 1, [call, stream], (9, 8, 7))
    state = read(journal.path)
    assert (state.calls, state.streams, state.faults) == ({1: call}, {1: stream}, 0)
    assert hand_out(tmp_path, 1)[0].streams == {1: stream}
    host = stream.flow.key.src
    assert hand_out(tmp_path, 3)[queue_of(host, 3)].streams == {1: stream}, "to the worker that has its host"
    later = replace(stream, there=stream.there._replace(told=7))
    journal.write(later, (9, 8, 7))
    assert read(journal.path).streams == {1: later}
    journal.ended(1, (9, 8, 7))
    assert read(journal.path).streams == {}
    assert read(journal.path).calls == {1: call}
    journal.close()


def test_registrations_are_kept_beside_calls(call: KeptCall, tmp_path: Path) -> None:
    line = Line(Play())
    line.register(600)
    (value,) = registrations(line.play)
    journal = Journal(place_of(tmp_path, 0), 1, [call, value], (9, 8, 7))
    state = read(journal.path)
    number = value.flow.number
    assert (state.calls, state.registrations, state.faults) == ({1: call}, {number: value}, 0)
    host = value.flow.key.src
    assert hand_out(tmp_path, 3)[queue_of(host, 3)].registrations == {number: value}, "to the worker that has its host"
    later = replace(value, until=(("sip:a@b", 9.0),))
    journal.write(later, (9, 8, 7))
    assert read(journal.path).registrations == {number: later}
    journal.lapsed(number, (9, 8, 7))
    assert read(journal.path).registrations == {}
    assert read(journal.path).calls == {1: call}
    journal.close()


def test_a_torn_last_line_costs_that_line(call: KeptCall, tmp_path: Path) -> None:
    path = written(tmp_path, call, replace(call, number=2))
    whole = path.read_bytes()
    for cut in (2, 100, 700):
        path.write_bytes(whole[:-cut])
        state = read(path)
        assert list(state.calls) == [1]
        assert state.faults == 1


NO_STATE = {
    "empty": b"", "newline": b"\n", "binary": b"\xff\xfe", "list": b"[]", "header": b'{"version":1}\n',
    "deep": b"[" * 100_000, "null": b"null\n" * 3, "another version": b'{"version":2,"boot":"","workers":1}\n',
}  # fmt: skip


@pytest.mark.parametrize("content", NO_STATE.values(), ids=NO_STATE)
def test_what_is_no_state_file_says_nothing(content: bytes, tmp_path: Path) -> None:
    path = place_of(tmp_path, 0)
    path.write_bytes(content)
    assert read(path).calls == {}
    assert hand_out(tmp_path, 2)[0].calls == {}


def older(path: Path) -> None:
    """As a version before wrote it, which had the half of the keys."""
    header, last, *lines = path.read_bytes().splitlines()
    tables = [json.loads(line) for line in lines]
    for table in tables:
        for key in ("callee", "answered_at", "media", "situation", "flows", "peers"):
            table["call"].pop(key, None)
    told = {**json.loads(header), "version": room.VERSION - 1}
    told.pop("workers")
    path.write_text("".join(json.dumps(each) + "\n" for each in (told, json.loads(last), *tables)))


def newer(path: Path) -> None:
    """As a later one will write it: keys of which nobody knows, in each table of it."""

    def more(value: object) -> object:
        if isinstance(value, dict):
            return {**{key: more(each) for key, each in value.items()}, "unheard-of": [{"a": 1}]}
        return [more(each) for each in value] if isinstance(value, list) else value

    header, *lines = (json.loads(line) for line in path.read_bytes().splitlines())
    told = [{**header, "version": room.VERSION + 1, "unheard-of": 1}, *(more(line) for line in lines if "call" in line)]
    path.write_text("".join(json.dumps(each) + "\n" for each in told))


@pytest.mark.parametrize("wrote", [older, newer])
def test_what_another_version_wrote_is_read(
    wrote: Callable[[Path], None], call: KeptCall, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = written(tmp_path, call, replace(call, number=2, call_id="another"))
    wrote(path)
    state = read(path)
    assert (sorted(state.calls), state.faults, state.left) == ([1, 2], 0, 0.0)
    kept = state.calls[1]
    assert (kept.pinholes, kept.bindings, kept.dialogs) == (call.pinholes, call.bindings, call.dialogs)
    assert kept == call or wrote is older
    assert list(hand_out(tmp_path, 1)[0].calls) == [1, 2]
    assert not caplog.records


def test_where_not_all_can_be_read_nothing_is_taken_for_ownerless(
    call: KeptCall, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """For as long as the kernel's own timeouts may take, whoever reads the file meanwhile."""
    path = written(tmp_path, call)
    whole = path.read_bytes()
    unread = (b"no header\n", b"", whole + b'{"ring":{"number":2}}\n', whole + b'{"call":{"number":2}}\n', whole[:-9])
    for content in unread:
        caplog.clear()
        path.write_bytes(content)
        state = read(path)
        assert time.time() + 300 < state.left < time.time() + 400
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert all(each.left == state.left for each in hand_out(tmp_path, 3).values()) or state.left < time.time() + 320
    Journal(path, 1, [call], (0, 0, 0), state.left).close()
    assert (read(path).faults, read(path).left) == (0, state.left), "and of the next worker's file"
    assert read(written(tmp_path, call)).left == 0.0


def test_hostile_lines_are_passed_over_and_the_rest_is_read(call: KeptCall, tmp_path: Path) -> None:
    path = written(tmp_path, call)
    good = path.read_bytes().splitlines()[-1]
    table = json.loads(good)
    with path.open("ab") as file:
        changes: tuple[dict[str, object], ...] = (
            {"number": "one"}, {"hosts": ["zz"]}, {"hosts": 5}, {"pinholes": [{}]}, {"decision": {"action": "own"}},
            {"situation": []}, {"end": "never"}, {"application": None},
        )  # fmt: skip
        for change in changes:
            file.write(json.dumps({**table, "call": {**table["call"], "number": 2, **change}}).encode() + b"\n")
        file.write(b"x" * (room.MAX_LINE + 1) + b"\n" + b"[" * 1000 + b"\n" + b"\0\n")
        file.write(good.replace(b'"number":1,"application"', b'"number":3,"application"') + b"\n")
    state = read(path)
    assert sorted(state.calls) == [1, 3]
    assert state.faults == 11


def test_the_file_of_another_boot_says_nothing(call: KeptCall, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, call)
    monkeypatch.setattr(room, "boot", lambda: "another")
    assert read(path).calls == {}, "what it tells of went with the kernel"


def test_outdated_lines_are_left_out_before_they_are_many(
    call: KeptCall, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "COMPACT", 20_000)
    journal = Journal(place_of(tmp_path, 0), 1, [call], (0, 0, 0))
    for packet in range(500):
        journal.write(replace(call, last_packet=packet), (packet, 0, 0))
        assert journal.path.stat().st_size < 30_000
    assert read(journal.path).calls == {1: replace(call, last_packet=499)}
    journal.close()


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file of ours may grow beyond (setrlimit(2)): what is written at its end is cut short, then refused."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_is_full_costs_state_for_as_long_and_nothing_else(call: KeptCall, tmp_path: Path) -> None:
    journal = Journal(place_of(tmp_path, 0), 1, [], (0, 0, 0))
    journal.write(call, (1, 1, 1))
    with room_for(journal.path.stat().st_size + 100):
        journal.write(replace(call, number=2), (2, 1, 1))
        journal.write(replace(call, number=3), (3, 1, 1))
        journal.gone(1, (3, 1, 1))
        journal.heal()
        assert journal.lost == 3
        torn = read(journal.path)
        assert (list(torn.calls), torn.faults) == ([1], 1), "the last line is half of one, and nothing follows it"
    journal.heal()
    assert list(read(journal.path).calls) == [2, 3], "there is room again: nothing that lives is missing"
    assert read(journal.path).faults == 0
    journal.write(replace(call, number=4), (4, 1, 1))
    assert list(read(journal.path).calls) == [2, 3, 4]
    assert journal.lost == 3
    journal.close()
    assert [path.name for path in tmp_path.iterdir()] == [journal.path.name]


def test_a_place_that_cannot_be_written_from_the_beginning_is_tried_again(call: KeptCall, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("no directory")
    journal = Journal(place_of(tmp_path / "state", 0), 1, [call], (1, 1, 1))
    journal.heal()
    assert journal.lost == 1
    (tmp_path / "state").unlink()
    journal.heal()
    assert list(read(journal.path).calls) == [1]
    journal.close()


def test_writing_a_call_costs_little_beside_its_packet(call: KeptCall, tmp_path: Path) -> None:
    journal = Journal(place_of(tmp_path, 0), 1, [], (0, 0, 0))
    begun = time.perf_counter()
    for packet in range(200):
        journal.write(replace(call, last_packet=packet), (0, 0, 0))
    each = (time.perf_counter() - begun) / 200
    assert each < 0.002, "a verdict waits for it"
    journal.close()
