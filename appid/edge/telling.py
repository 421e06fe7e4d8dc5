"""Values of the core -> the JSON of the interface (docs/reference/json.md): addresses as text, bytes as hex."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

from communityid import CommunityID

from appid.engine import CallReport, FlowReport, PinholeReport
from appid.flow.key import FlowKey
from appid.identify.identification import Because
from appid.packet.ip import SCTP
from appid.policy import Decision
from appid.wire import ICMP, ICMPV6, TCP, UDP, Endpoint, FactValue, text

COMMUNITY = CommunityID(seed=0)
logging.getLogger("communityid").setLevel(logging.WARNING)  # at INFO it writes each field that it hashes
PROTOCOLS = {TCP: "tcp", UDP: "udp", ICMP: "icmp", ICMPV6: "icmpv6"}


def protocol(number: int) -> str:
    return PROTOCOLS.get(number, str(number))


def plain(name: str, value: FactValue) -> Any:
    """A fact's value for JSON; addresses (facts that hold 4 or 16 packed bytes under an address's name) as text."""
    if isinstance(value, Endpoint):
        return str(value)
    if isinstance(value, bytes):
        if name in ("flow.source", "flow.destination", "sdp.connection") and len(value) in (4, 16):
            return text(value)
        return value.hex()
    if isinstance(value, tuple):
        return [plain(name, one) for one in value]
    return value


def because(reasons: tuple[Because, ...]) -> list[dict[str, Any]]:
    told = []
    for reason in reasons:
        values: dict[str, list[Any]] = {}
        for fact in reason.facts:
            shown, known = plain(fact.name, fact.value), values.setdefault(fact.name, [])
            if shown not in known:
                known.append(shown)
        facts = {name: known[0] if len(known) == 1 else known for name, known in values.items()}
        told.append({"packet": reason.packet, "signature": reason.signature, "facts": facts})
    return told


class _Ordered(NamedTuple):
    """A flow's ends as communityid hashes them: packed, the lower end first."""

    proto: int
    saddr: bytes
    sport: bytes
    daddr: bytes
    dport: bytes

    def has_ports(self) -> bool:
        return self.proto in (TCP, UDP, SCTP)


def community_id(key: FlowKey) -> str | None:
    """Community ID v1 of the 5-tuple, seed 0 (github.com/corelight/community-id-spec). None for ICMP, where it asks for
    a type and a code: a flow here has several.

    The ends are put in order here, and `calc` is left out: it validates and logs what was packed a moment ago, which
    takes ten times as long as the hash.
    """
    if key.proto in (ICMP, ICMPV6):
        return None
    one, other = (key.src, key.sport.to_bytes(2, "big")), (key.dst, key.dport.to_bytes(2, "big"))
    low, high = (one, other) if one <= other else (other, one)
    told: str | None = COMMUNITY.render(COMMUNITY.hash(_Ordered(key.proto, *low, *high)))
    return told


def addresses(key: FlowKey) -> dict[str, Any]:
    return {
        "proto": protocol(key.proto),
        "src": text(key.src),
        "sport": key.sport,
        "dst": text(key.dst),
        "dport": key.dport,
    }


def decision(made: Decision | None, enforced: bool = True) -> dict[str, Any] | None:
    """`enforced` false: monitor mode, what would have been; the key is there only then."""
    if made is None:
        return None
    return {"action": made.action, "rule": made.rule, **({} if enforced else {"enforced": False})}


def identification(report: FlowReport | None, otherwise: str) -> dict[str, Any]:
    """The part of a flow object that says what it is and why."""
    if report is None:
        return {"application": otherwise, "confidence": None, "identified_at": None, "path": [], "shifts": [],
                "because": []}  # fmt: skip
    named = report.identification
    return {
        "application": named.application,
        "confidence": named.confidence,
        "identified_at": report.identified_at,
        "path": list(named.path),
        "shifts": [list(shift) for shift in named.shifts],
        "because": because(named.because),
    }


def call(report: CallReport, flows: list[int]) -> dict[str, Any]:
    return {
        "type": "call",
        "id": report.call,
        "application": report.application,
        "call_id": report.call_id,
        "caller": text(report.caller) if report.caller is not None else None,
        "callee": text(report.callee) if report.callee is not None else None,
        "started_at": report.started_at,
        "answered_at": report.answered_at,
        "ended_at": report.ended_at,
        "end": report.end,
        "flows": flows,
        "media": [
            {"kind": m.kind, "payload_types": list(m.payload_types), "codecs": list(m.codecs)} for m in report.media
        ],
    }


def pinhole(report: PinholeReport) -> dict[str, Any]:
    wanted = report.expectation
    return {
        "type": "pinhole",
        "id": report.pinhole,
        "proto": protocol(wanted.proto),
        "inside": text(wanted.inside),
        "port": wanted.port,
        "peer": text(wanted.peer),
        "peer_port": wanted.peer_port,
        "reason": wanted.reason,
        "opened_at": wanted.opened_at,
        "checked_at": wanted.checked_at,
        "closed_at": report.closed_at,
        "call": wanted.call,
        "application": wanted.application,
    }
