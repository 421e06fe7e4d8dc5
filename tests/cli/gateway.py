"""A control socket that answers as a gateway would, in a thread of its own."""

from __future__ import annotations

import selectors
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from appid.edge.control import ControlSocket


class Loop:
    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()

    def register(self, source: Any, callback: Callable[[], None], events: int = selectors.EVENT_READ) -> None:
        self.selector.register(source, events, callback)

    def unregister(self, source: Any) -> None:
        self.selector.unregister(source)


@contextmanager
def answering(folder: Path, answer: Callable[[dict[str, Any]], Iterable[dict[str, Any]]]) -> Iterator[Path]:
    """The configuration file of a gateway that gives these answers."""
    loop, stop = Loop(), threading.Event()
    control = ControlSocket(folder / "control.sock", loop, lambda request, reply: reply(answer(request)))

    def serve() -> None:
        while not stop.is_set():
            for key, _ in loop.selector.select(0.02):
                key.data()

    thread = threading.Thread(target=serve)
    thread.start()
    path = folder / "appid.toml"
    path.write_text(f'[listen]\ncontrol = "{control.path}"\n')
    try:
        yield path
    finally:
        stop.set()
        thread.join()
        control.close()
