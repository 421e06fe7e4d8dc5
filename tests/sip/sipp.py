"""sipp (Debian: sip-tester) in a namespace. In: its place, a scenario's file. Out: a process."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.netns.net import Namespace

SIP, MEDIA = 5060, 16402
PATIENCE = 20
"""Seconds until a scenario that does not end counts as failed."""


def host_port(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


@dataclass(frozen=True)
class Sipp:
    """One process: `space`, own address and port; `to`: where it calls, None for a server of `calls` calls."""

    space: Namespace
    name: str
    address: str
    port: int
    to: tuple[str, int] | None
    calls: int = 1

    def start(
        self,
        folder: Path,
        at: tuple[str, int],
        to: tuple[str, int] | None,
        call_id: str,
        keys: dict[str, str],
        tcp: bool,
    ) -> subprocess.Popen[bytes]:
        """`at`, `to`: where its signalling really is, if relays stand in between. Logs are in `folder`."""
        command = ["sipp", *([host_port(*to)] if to else []), "-sf", f"{self.name}.xml", "-t", "t1" if tcp else "u1",
                   "-i", at[0], "-p", str(at[1]), "-mi", self.address, "-mp", str(MEDIA + (self.port - SIP) * 10),
                   "-m", str(self.calls), "-l", str(self.calls), "-r", "10", "-cid_str", call_id, "-nostdin",
                   "-bind_local", "-timeout", str(PATIENCE), "-timeout_error",
                   "-trace_err", "-error_file", f"{self.name}.err",
                   "-trace_msg", "-message_file", f"{self.name}.msg"]  # fmt: skip
        for key, value in keys.items():
            command += ["-key", key, value]
        with (folder / f"{self.name}.log").open("wb") as log:
            return subprocess.Popen(["ip", "netns", "exec", self.space.name, *command], cwd=folder,
                                    stdin=subprocess.DEVNULL, stdout=log, stderr=log)  # fmt: skip

    def last_error(self, folder: Path) -> str:
        """For people: what it complained of first."""
        path = folder / f"{self.name}.err"
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        told = [line.split(": ", 1)[-1] for line in lines if line.startswith("20")]
        return f": {told[0][:160]}" if told else ""
