"""Stories of the re-enacted sessions, and of any frames a test writes, as values and as JSON lines."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from appid.cli import check
from appid.dataplane.model import Kernel
from appid.edge.replay import Replay
from appid.edge.rule_files import load_applications
from appid.engine import Engine, Settings
from appid.story import Story
from appid.story.compose import compose
from appid.story.plain import lines
from appid.story.teller import Storyteller
from tests.corpus import sessions
from tests.corpus.variation import Variation

Line = dict[str, Any]


@cache
def settings() -> Settings:
    return Settings(load_applications(None))


def of_file(path: Path, call: int | None = None, flow: int | None = None, known: Settings | None = None) -> Story:
    known = known or settings()
    engine = Engine(known)
    teller = Storyteller(engine, flow)
    kernel = Kernel(known.marks, "pass" if known.judge is None else "drop")
    replayed = Replay(engine, kernel, observer=teller).run(path)
    assert replayed.error is None
    return compose(check.lines(replayed, False), teller, call)


@cache
def session(number: int, seed: int = 0, v6: bool = False, flow: int | None = None) -> Story:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"session{number}.pcap"
        sessions.build(number, Variation.from_seed(seed, v6=v6)).capture.save(path)
        return of_file(path, flow=flow)


@cache
def told(number: int, seed: int = 0, v6: bool = False) -> tuple[Line, ...]:
    return tuple(lines(session(number, seed, v6)))
