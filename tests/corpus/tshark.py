"""tshark as the oracle: a capture and the fields wanted go in, per frame the values it shows come out."""

from __future__ import annotations

import subprocess
from pathlib import Path

OPTIONS = (
    "-n", "--enable-heuristic", "rtp_udp", "--enable-heuristic", "rtp_stun", "--enable-heuristic", "stun_turn",
    "-o", "ip.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE",
)  # fmt: skip
"""The heuristics that tshark has off; `stun_turn` is STUN inside ChannelData."""

BROKEN = "_ws.malformed || ip.checksum.status == 0 || udp.checksum.status == 0 || tcp.checksum.status == 0"
Values = dict[str, list[str]]


def read(path: Path, fields: tuple[str, ...], frames: set[int], last: int = 0) -> dict[int, Values]:
    """`frames`, and any that is malformed or has a bad checksum (those up to `last`, if given)."""
    wanted = f"frame.number in {{{','.join(map(str, sorted(frames)))}}} || {BROKEN}"
    command = ["tshark", "-r", str(path), *OPTIONS, "-Y", wanted, "-T", "fields", "-E", "aggregator=\x1f"]
    for field in ("frame.number", "_ws.malformed", "_ws.col.Protocol", *fields):
        command += ["-e", field]
    if last:
        command += ["-c", str(last)]
    text = subprocess.run(command, capture_output=True, check=True).stdout.decode("utf-8", "replace")
    found: dict[int, Values] = {}
    for line in text.split("\n")[:-1]:
        number, malformed, protocol, *columns = line.split("\t")
        values = {name: column.split("\x1f") if column else [] for name, column in zip(fields, columns, strict=True)}
        values["malformed"] = [malformed] if malformed else []
        values["protocol"] = [protocol]
        found[int(number)] = values
    return found
