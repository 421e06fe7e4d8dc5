"""Events: JSON lines in the shape of Suricata's EVE, to a file or standard output.

In: reports of the engine. Out: one line each, with one object named as the event type. A writer that fails loses the
line, counted in `lost`, never a packet.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from appid.dataplane.command import Report
from appid.edge import telling
from appid.engine import AnomalyReport, CallReport, DecisionReport, FlowReport, PinholeReport
from appid.flow.key import FlowKey
from appid.wire import text


class Events:
    """`place`: a path, or "-" for standard output, or None for nowhere. `enforced`: False in monitor mode."""

    def __init__(self, place: str | None, enforced: bool = True) -> None:
        self.place = place
        self.enforced = enforced
        self.lost = 0
        self._file: TextIO | None = None
        self.reopen()

    def reopen(self) -> None:
        """Open the file (again: after its rotation)."""
        self.close()
        if self.place == "-":
            self._file = sys.stdout
        elif self.place is not None:
            Path(self.place).parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self.place, "a", encoding="utf-8")  # noqa: SIM115 - closed by `close`

    def close(self) -> None:
        if self._file is not None and self._file is not sys.stdout:
            self._file.close()
        self._file = None

    def write(self, report: Report, now: float) -> None:
        if self._file is None:
            return
        try:
            self._file.write(json.dumps(event(report, now, self.enforced), separators=(",", ":")) + "\n")
            self._file.flush()
        except (OSError, ValueError):
            self.lost += 1


def event(report: Report, now: float, enforced: bool = True) -> dict[str, Any]:
    """One EVE object."""
    told: dict[str, Any] = {
        "timestamp": datetime.fromtimestamp(now, UTC).isoformat(timespec="microseconds"),
        "event_type": report.kind,
    }
    match report.body:
        case FlowReport() as flow:
            told["flow_id"] = flow.flow
            told.update(_ends(flow.key))
            told["app_proto"] = flow.identification.application
            told["community_id"] = telling.community_id(flow.key)
            told["flow"] = {
                **telling.identification(flow, ""), "packet": flow.packet, "call": flow.call,
                "foreseen": flow.foreseen, "userspace_packets": flow.userspace_packets,
                "decision": telling.decision(flow.decision, enforced),
            }  # fmt: skip
        case DecisionReport() as judged:
            told.update(_ends(judged.key))
            told["app_proto"] = judged.application
            told["community_id"] = telling.community_id(judged.key)
            told["decision"] = telling.decision(judged.decision, enforced)
        case CallReport() as call:
            told["app_proto"] = call.application
            told["call"] = telling.call(call, list(call.flows))
        case PinholeReport() as pinhole:
            wanted = pinhole.expectation
            told.update(src_ip=text(wanted.peer), dest_ip=text(wanted.inside), dest_port=wanted.port)
            told.update(proto=telling.protocol(wanted.proto).upper(), app_proto=wanted.application)
            told["pinhole"] = telling.pinhole(pinhole)
        case AnomalyReport() as anomaly:
            told["flow_id"] = anomaly.flow
            told["anomaly"] = {"packet": anomaly.packet, "protocol": anomaly.protocol, "reason": anomaly.reason}
        case other:
            told[report.kind] = other
    return told


def _ends(key: FlowKey) -> dict[str, Any]:
    return {
        "src_ip": text(key.src), "src_port": key.sport, "dest_ip": text(key.dst), "dest_port": key.dport,
        "proto": telling.protocol(key.proto).upper(),
    }  # fmt: skip
