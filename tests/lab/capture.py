"""tcpdump beside an actor. In: a place, a device, a file. Out: the file, complete when the `with` ends."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from subprocess import Popen

from tests.lab.net import Lab, nobody_else

_TCPDUMP = ("tcpdump", "-n", "-U", "-s", "0", "-B", "16384", "-Z", "root")
_DUMPCAP = ("dumpcap", "-q", "-P", "-B", "16")
"""Where tcpdump, as root, could not become root (it sets its groups)."""


class Capture:
    def __init__(self, lab: Lab, place: str, device: str, path: Path) -> None:
        self.lab = lab
        self.place = place
        self.device = device
        self.path = path
        self.child: Popen[bytes] | None = None

    async def __aenter__(self) -> Capture:
        log = self.lab.directory / f"tcpdump-{self.device}.log"
        program, begun = (_DUMPCAP, b"File: ") if nobody_else() else (_TCPDUMP, b"listening on")
        command = (*program, "-i", self.device, "-w", str(self.path))
        matching = ("-f", "ip or ip6") if program is _DUMPCAP else ("ip or ip6",)
        self.child = self.lab.spawn(self.place, *command, *matching, log=log)
        for _ in range(200):
            if log.exists() and begun in log.read_bytes():
                return self
            await asyncio.sleep(0.02)
        raise RuntimeError(f"{program[0]} on {self.device}: {log.read_text()}")

    async def __aexit__(self, *_: object) -> None:
        """tcpdump writes what its buffer holds when it is interrupted; give the last packets a moment to get there."""
        await asyncio.sleep(0.3)
        if self.child is not None:
            self.lab.stop(self.child, signal.SIGINT)
