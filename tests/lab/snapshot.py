"""The gateway's kernel at one step of a call: chains with counters, sets, NAT maps, bindings.

In: a Lab, a directory. Out: one text file per program, `<step>/<program>.txt`; and numbers read from them.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from tests.lab.net import Lab

STEPS = ("before", "ringing", "relayed", "direct", "after")
PROGRAMS = {
    "iptables-save": ("iptables-save", "-c"),
    "ip6tables-save": ("ip6tables-save", "-c"),
    "iptables-legacy-save": ("iptables-legacy-save", "-c"),
    "ip6tables-legacy-save": ("ip6tables-legacy-save", "-c"),
    "ipset": ("ipset", "list"),
    "nft": ("nft", "list", "ruleset"),
    "conntrack": ("conntrack", "-L", "-o", "extended"),
}


async def snapshot(lab: Lab, directory: Path, step: str) -> None:
    """All at once; text of what the kernel said, errors included."""
    folder = directory / step
    folder.mkdir(parents=True, exist_ok=True)
    answers = await asyncio.gather(*(lab.ask("gw", *argv) for argv in PROGRAMS.values()))
    for name, (_, output) in zip(PROGRAMS, answers, strict=True):
        (folder / f"{name}.txt").write_text(output)


def read(directory: Path, step: str, program: str) -> str:
    path = directory / step / f"{program}.txt"
    return path.read_text() if path.exists() else ""


def queued_packets(directory: Path, step: str) -> int:
    """Packets that the NFQUEUE rules have counted by then, both families, whichever variant."""
    texts = [read(directory, step, program) for program in PROGRAMS if program.endswith("-save")]
    return sum(int(n) for text in texts for n in re.findall(r"^\[(\d+):\d+\] .*-j NFQUEUE", text, re.MULTILINE))


def has_binding(directory: Path, step: str, peer: str, client: str) -> bool:
    """An element of a NAT map that is keyed by the peer and names the client."""
    text = re.sub(r"\s+", " ", read(directory, step, "nft"))
    return any(peer in element and client in element for element in re.findall(r"[^,{}]*:[^,{}]*", text))


def pinholes(directory: Path, step: str, client: str, peer: str) -> list[str]:
    """Elements of the pinhole sets between the two, as `ipset list` prints them."""
    lines = read(directory, step, "ipset").splitlines()
    return [line for line in lines if line.startswith(f"{client},") and f",{peer} " in f"{line} "]
