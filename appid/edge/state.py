"""Calls over the death of their worker: JSON lines, written before the verdict that follows from them is given.

In: calls as values, when they begin, change and end. Out: a file that says at any moment what the kernel holds for
whom; and from such a file, whoever wrote it and however it ends, the calls again. What the kernel holds does not
outlive the kernel, so the lines need not reach the disk, and the file of another boot says nothing.

Another version's file is read as far as it can be: unknown keys are passed over, missing ones have defaults, and a key
never comes to mean something else. Where something of it cannot be read, nobody knows what in the kernel has no owner:
it is left to run out.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json

from appid.engine.kept import KeptCall
from appid.engine.kept_stream import KeptStream
from appid.engine.openings import PINHOLE_TIMEOUT
from appid.engine.registered import KeptRegistration
from appid.engine.standing import BINDING_TIMEOUT

VERSION = 4
"""Who wrote it; told where something cannot be read."""
RUN_OUT = max(PINHOLE_TIMEOUT, BINDING_TIMEOUT) + 10.0
"""Seconds in which what the kernel holds of a call goes by itself, where no engine asks for it again."""
MAX_BYTES = 64 << 20
"""Of a file: more than the calls of one worker ever take."""
MAX_LINE = 1 << 18
COMPACT = 4 << 20
"""Bytes of outdated lines that the file may hold beside the living ones."""
BOOT = Path("/proc/sys/kernel/random/boot_id")

log = logging.getLogger("appid")

Kept = KeptCall | KeptStream | KeptRegistration


class _Line(BaseModel):
    """One call, spliced stream or registration as it is now, or the number of one that ended; and the last number given
    to a flow, call, pinhole."""

    model_config = ConfigDict(extra="ignore", ser_json_bytes="hex", val_json_bytes="hex")
    call: KeptCall | None = None
    gone: int | None = None
    stream: KeptStream | None = None
    ended: int | None = None
    registration: KeptRegistration | None = None
    lapsed: int | None = None
    numbers: tuple[int, int, int] = (0, 0, 0)


class _Header(BaseModel):
    model_config = ConfigDict(extra="ignore")
    version: int
    boot: str
    workers: int = 0
    left: float = 0.0


@dataclass
class State:
    """What a file holds. `workers`: how many there were when it was written; `faults`: lines that say nothing; `left`:
    until when (Unix time) what has no owner may be that of a call that could not be read."""

    calls: dict[int, KeptCall] = field(default_factory=dict)
    streams: dict[int, KeptStream] = field(default_factory=dict)
    registrations: dict[int, KeptRegistration] = field(default_factory=dict)
    numbers: tuple[int, int, int] = (0, 0, 0)
    workers: int = 0
    faults: int = 0
    left: float = 0.0


def boot() -> str:
    try:
        return BOOT.read_text().strip()
    except OSError:
        return ""


def read(path: Path) -> State:
    """The file's calls; none where it is missing, or of another boot."""
    state = State()
    now = time.time()
    try:
        with path.open("rb") as file:
            lines = file.read(MAX_BYTES).split(b"\n")
        header = _Header.model_validate_json(lines[0])
    except FileNotFoundError:
        return state
    except (OSError, ValidationError) as error:
        log.warning(
            "%s: not read: %s: what the kernel holds of its calls is left to run out", path, type(error).__name__
        )
        state.faults, state.left = 1, now + RUN_OUT
        return state
    if header.boot != boot():
        log.info("%s: of another boot", path)
        return state
    state.workers = header.workers
    state.left = min(header.left, now + RUN_OUT)
    for line in lines[1:]:
        if line:
            _take(state, line)
    if state.faults:  # another version's, the last line of a full disk, or somebody's mischief
        told = f", written by version {header.version} of the file, not {VERSION}" if header.version != VERSION else ""
        log.warning(
            "%s: %d lines could not be read%s: what the kernel holds of their calls is left to run out",
            path, state.faults, told,
        )  # fmt: skip
        state.left = now + RUN_OUT
    return state


def _take(state: State, line: bytes) -> None:
    try:
        if len(line) > MAX_LINE:
            raise ValueError(len(line))
        said = _Line.model_validate_json(line)
        if said.model_fields_set <= {"numbers"} and not from_json(line).keys() <= {"numbers"}:
            raise ValueError(line)  # it is about something, and we do not know what
    except ValueError:  # pydantic's is one
        state.faults += 1
        return
    if said.call is not None:
        state.calls[said.call.number] = said.call
    if said.gone is not None:
        state.calls.pop(said.gone, None)
    if said.stream is not None:
        state.streams[said.stream.flow.number] = said.stream
    if said.ended is not None:
        state.streams.pop(said.ended, None)
    if said.registration is not None:
        state.registrations[said.registration.flow.number] = said.registration
    if said.lapsed is not None:
        state.registrations.pop(said.lapsed, None)
    state.numbers = larger(state.numbers, said.numbers)


def larger(one: tuple[int, int, int], other: tuple[int, int, int]) -> tuple[int, int, int]:
    return max(one[0], other[0]), max(one[1], other[1]), max(one[2], other[2])


def place_of(folder: Path, index: int) -> Path:
    """The file of worker `index`."""
    return folder / f"calls-{index}.jsonl"


def tidy(folder: Path, workers: int) -> None:
    """Take away the files of workers that there are no more."""
    ours = {place_of(folder, index) for index in range(workers)}
    for path in folder.glob("calls-*"):
        if path not in ours:
            path.unlink(missing_ok=True)


class Journal:
    """The file of one worker, begun anew with `kept` and `left` (see State). Where it cannot be written, that is logged
    and counted in `lost`, and the gateway goes on; `heal` writes it anew as soon as it can be."""

    def __init__(
        self, path: Path, workers: int, kept: Iterable[Kept], numbers: tuple[int, int, int], left: float = 0.0
    ) -> None:
        self.path = path
        self.lost = 0
        self._broken = False
        header = _Header(version=VERSION, boot=boot(), workers=workers, left=left)
        self._header = header.model_dump_json(exclude_defaults=True).encode() + b"\n"
        self._living = {_place(each): _line(each, numbers) for each in kept}
        self._last = _Line(numbers=numbers).model_dump_json().encode() + b"\n"
        self._descriptor = -1
        self._outdated = 0
        try:
            self._begin()
        except OSError as error:
            self._fault(error)

    def heal(self) -> None:
        """Try again what could not be written."""
        if self._broken:
            with contextlib.suppress(OSError):
                self._begin()
                log.info("%s: written again: calls outlive their worker", self.path)

    def _fault(self, error: OSError) -> None:
        if not self._broken:
            log.error("%s: %s: calls may not outlive their worker", self.path, error.strerror)
        self._broken = True
        self.lost += 1

    def _begin(self) -> None:
        """A file of living calls alone takes the old one's place, whole or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        new = self.path.with_suffix(".new")
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            _whole(descriptor, b"".join((self._header, self._last, *self._living.values())))
            os.rename(new, self.path)
        except OSError:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                new.unlink()
            raise
        self.close()
        self._descriptor, self._outdated, self._broken = descriptor, 0, False

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def write(self, kept: Kept, numbers: tuple[int, int, int]) -> None:
        """The call, stream or registration as it is now."""
        line = _line(kept, numbers)
        place = _place(kept)
        before = self._living.get(place)
        if before != line:
            self._outdated += len(before or b"")
            self._living[place] = line
            self._append(line)

    def gone(self, number: int, numbers: tuple[int, int, int]) -> None:
        """The call has ended, and nothing is left of it in the kernel."""
        self._gone("call", number, _Line(gone=number, numbers=numbers))

    def ended(self, number: int, numbers: tuple[int, int, int]) -> None:
        """So has the stream."""
        self._gone("stream", number, _Line(ended=number, numbers=numbers))

    def lapsed(self, number: int, numbers: tuple[int, int, int]) -> None:
        """So has the registration."""
        self._gone("registration", number, _Line(lapsed=number, numbers=numbers))

    def _gone(self, what: str, number: int, said: _Line) -> None:
        before = self._living.pop((what, number), None)
        if before is not None:
            self._last = said.model_dump_json(exclude_defaults=True).encode() + b"\n"
            self._outdated += len(before) + len(self._last)
            self._append(self._last)

    def _append(self, line: bytes) -> None:
        if self._broken:  # it holds half a line, or lacks one: all of it, or nothing more
            self.lost += 1
            return
        try:
            _whole(self._descriptor, line)
            if self._outdated > COMPACT:
                self._begin()
        except OSError as error:
            self._fault(error)


def _whole(descriptor: int, data: bytes) -> None:
    """OSError if there is room for a part only."""
    if os.write(descriptor, data) < len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _place(kept: Kept) -> tuple[str, int]:
    match kept:
        case KeptCall():
            return "call", kept.number
        case KeptStream():
            return "stream", kept.flow.number
        case KeptRegistration():
            return "registration", kept.flow.number


def _line(kept: Kept, numbers: tuple[int, int, int]) -> bytes:
    match kept:
        case KeptCall():
            said = _Line(call=kept, numbers=numbers)
        case KeptStream():
            said = _Line(stream=kept, numbers=numbers)
        case KeptRegistration():
            said = _Line(registration=kept, numbers=numbers)
    return said.model_dump_json(exclude_defaults=True).encode() + b"\n"
