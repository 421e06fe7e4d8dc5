"""What appid says of a capture's flows: one run in this process -> names by 5-tuple, and what the run cost."""

from __future__ import annotations

import hashlib
import json
import time
import traceback
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from appid.cli.check import lines
from appid.dataplane.model import Kernel
from appid.edge.replay import Replay
from appid.edge.rule_files import load_applications
from appid.engine import Engine, Settings
from appid.engine.record import FlowRecord
from appid.identify.identification import STRENGTHS, Confidence
from appid.identify.naming import Lineage, Naming
from appid.wire import TCP, UDP, FlowKey, text
from tests.accuracy.labels import Tuple, tuple_of

NAMES = {
    "stun": "STUN", "turn": "STUN", "sip": "SIP", "rtp": "RTP", "rtcp": "RTP", "jabber": "XMPP",
    "web-browsing": "HTTP", "ssl": "TLS", "quic": "QUIC", "dtls": "DTLS", "dns": "DNS",
}  # fmt: skip
"""Our name -> base protocol."""
LAYERS = {
    "stun": "STUN", "turn": "STUN", "sip": "SIP", "sdp": "SIP", "rtp": "RTP", "rtcp": "RTP", "xmpp": "XMPP",
    "http": "HTTP", "tls": "TLS", "quic": "QUIC", "dtls": "DTLS", "dns": "DNS",
}  # fmt: skip
"""First part of a fact's name -> base protocol."""
OTHERS = frozenset({"netbios-ns"})
"""Names of other protocols that share a format."""


@dataclass(frozen=True, slots=True)
class Named:
    """One life of a flow: the name, how sure (None: a state), the packet that gave it, the life's first packet."""

    application: str
    confidence: str | None
    identified_at: int | None
    first_packet: int


@dataclass(slots=True)
class Flow:
    """One 5-tuple (all its lives): our names for it, the base protocols that they stand for."""

    applications: list[str] = field(default_factory=list)
    bases: set[str] = field(default_factory=set)
    lineage: set[str] = field(default_factory=set)
    """Base protocols that the application may be built on: no claim, but no contradiction either."""
    first_packet: int = 0
    empty: bool = True
    """Nothing but TCP segments without payload."""
    lives: list[Named] = field(default_factory=list)
    spoken: dict[str, Confidence] = field(default_factory=dict)
    """Application -> the strongest evidence that spoke for it, whether it named the flow or not."""


@dataclass(slots=True)
class Run:
    capture: str
    flows: dict[Tuple, Flow]
    packets: int
    seconds: float
    digest: str
    """SHA-256 of the JSON lines."""
    records: int
    """Flows, calls and pinholes that the engine still keeps at the end."""
    error: str | None
    failure: str | None
    """Anything that is not the capture's own fault."""
    memory: int = 0
    """The most that the process ever held, MB."""


@lru_cache(maxsize=1)
def settings() -> tuple[Settings, dict[str, frozenset[str]]]:
    """The shipped applications, and for each the base protocols that it is built on (by lineage)."""
    applications = load_applications()
    lineage = Lineage(applications)
    beneath = {
        name: frozenset(base for parent, base in NAMES.items() if lineage.leads_to(parent, name))
        for name in applications
    }
    return Settings(applications), beneath


def run(path: Path) -> Run:
    """One capture through a fresh engine."""
    loaded, beneath = settings()
    started = time.process_time()
    engine, records = Engine(loaded), dict[int, FlowRecord]()
    engine.on_read = lambda record, *_: records.__setitem__(record.id, record)
    replayed = Replay(engine, Kernel(loaded.marks, "pass")).run(path)
    told = list(lines(replayed, drops=False))
    seconds = time.process_time() - started
    digest = hashlib.sha256("\n".join(json.dumps(line, sort_keys=True) for line in told).encode()).hexdigest()
    flows: dict[Tuple, Flow] = {}
    for line in told:
        if line["type"] != "flow" or line["proto"] not in ("tcp", "udp"):
            continue
        key = tuple_of(line["proto"], line["src"], line["sport"], line["dst"], line["dport"])
        flow = flows.setdefault(key, Flow(first_packet=line["first_packet"]))
        flow.applications.append(line["application"])
        flow.lives.append(Named(line["application"], line["confidence"], line["identified_at"], line["first_packet"]))
        flow.bases |= bases_of(line)
        flow.lineage |= beneath.get(line["application"], frozenset())
        flow.empty &= line["application"] == "incomplete"
    for record in records.values():
        key = tuple_of(*_ends(record.key))
        if key in flows:
            spoke(record.naming, flows[key].spoken)
    error = str(replayed.error) if replayed.error is not None else None
    peak = _peak()
    kept = len(engine.flows) + len(engine.stamps)
    return Run(path.name, flows, replayed.packets, seconds, digest, kept, error, None, peak)


def _peak() -> int:
    """MB; rusage would count what the parent held when it forked."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) >> 10


def _ends(key: FlowKey) -> tuple[str, str, int, str, int]:
    return {UDP: "udp", TCP: "tcp"}.get(key.proto, "ip"), text(key.src), key.sport, text(key.dst), key.dport


def spoke(naming: Naming, told: dict[str, Confidence]) -> None:
    """What the evidence of one life spoke for: its name, names overruled, and names of a single circumstance."""
    found: dict[str, Confidence] = dict.fromkeys(naming.supporting, "supporting")
    found |= naming.overruled
    if naming.name is not None and naming.confidence is not None:
        found[naming.name] = naming.confidence
    for name, strength in found.items():
        told[name] = max(strength, told.get(name, strength), key=STRENGTHS.index)


def safe_run(path: Path) -> Run:
    """What must never happen becomes `failure`."""
    try:
        return run(path)
    except Exception:
        return Run(path.name, {}, 0, 0.0, "", 0, None, traceback.format_exc())


def bases_of(line: dict[str, Any]) -> set[str]:
    """The base protocols that a flow's line claims: by its path, else (named at once) by the facts that named it."""
    shown = {NAMES[name] for name in line["path"] if name in NAMES}
    if not shown and not set(line["path"]) & OTHERS:
        facts = {fact.split(".")[0] for reason in line["because"] for fact in reason["facts"]}
        shown = {LAYERS[layer] for layer in facts if layer in LAYERS}
    return shown
