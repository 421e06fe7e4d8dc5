"""Answers of a gateway with one FaceTime call: its relay flow, its direct flow through a pinhole, and a DNS lookup."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

RELAY: dict[str, Any] = {
    "type": "flow", "id": 1, "proto": "udp", "src": "10.0.0.2", "sport": 16402, "dst": "17.173.254.35", "dport": 3478,
    "packets": 40, "bytes": 5000, "application": "facetime", "confidence": "conclusive", "identified_at": 1,
    "path": ["stun", "turn", "facetime"], "shifts": [[1, "facetime"]], "call": 1, "userspace_packets": 40,
    "because": [{"packet": 1, "signature": "allocate", "facts": {"stun.method": "allocate", "x": "\x1b[2J"}}],
    "community_id": "1:x", "alive": True, "decision": {"action": "allow", "rule": "calls"},
}  # fmt: skip
DIRECT = {
    **RELAY, "id": 0, "sport": 16402, "dst": "198.51.100.7", "dport": 16402, "packets": 2000, "bytes": 400_000,
    "path": ["facetime"], "because": [], "userspace_packets": 0,
}  # fmt: skip
LOOKUP = {
    **RELAY, "id": 2, "src": "10.0.0.9", "sport": 5353, "dst": "9.9.9.9", "dport": 53, "application": "dns",
    "bytes": 99, "path": ["dns"], "because": [], "call": None, "alive": False,
    "decision": {"action": "deny", "rule": "no lookups"},
}  # fmt: skip
CALL = {
    "type": "call", "id": 1, "application": "facetime", "call_id": "abc", "caller": "10.0.0.2",
    "callee": "198.51.100.7", "started_at": 3, "answered_at": 9, "ended_at": None, "end": "open", "flows": [1],
    "media": [{"kind": "audio", "payload_types": [104, 119], "codecs": []}],
}  # fmt: skip
PINHOLE = {
    "type": "pinhole", "id": 1, "proto": "udp", "inside": "10.0.0.2", "port": 16402, "peer": "198.51.100.7",
    "peer_port": None, "reason": "sdp-answer", "opened_at": 9, "closed_at": None, "call": 1,
    "application": "facetime",
}  # fmt: skip
STATS = {
    "type": "stats", "packets": 80, "flows": 3, "calls": 1, "pinholes": 1, "monitor": False, "events_lost": 0,
    "policy_warnings": ["rule 'calls': facetime needs sip"],
}  # fmt: skip


def answer(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    match request["ask"]:
        case "flows":
            yield from (RELAY, DIRECT, LOOKUP)
        case "calls":
            yield CALL
        case "pinholes":
            yield PINHOLE
        case "stats":
            yield STATS
