"""nDPI's second opinion: the flow lines of an ndpiReader output -> labels, by 5-tuple.

A flow's line: `\\t1\\tUDP 10.0.0.1:40 <-> [2001:db8::1]:53 [VLAN: 1][proto: GTP:5.126/DNS.Google]...[Confidence: DPI]`.
The label is `master.application`, or one name where nDPI knows only one of the two.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

BASES = ("STUN", "SIP", "RTP", "XMPP", "HTTP", "TLS", "QUIC", "DTLS", "DNS")
"""The base protocols that are compared (RTCP counts with RTP, TURN with STUN)."""

Tuple = tuple[str, str, str]
"""Protocol and both ends as `address port`, the lesser end first: the same for both directions."""

MASTERS = {base: base for base in BASES} | {
    "Jabber": "XMPP",
    "SRTP": "RTP", "RTCP": "RTP",
    "HTTP_Proxy": "HTTP", "HTTP_Connect": "HTTP", "WebSocket": "HTTP", "HTTP2": "HTTP",
    "IMAPS": "TLS", "POPS": "TLS", "SMTPS": "TLS", "FTPS": "TLS",
    # One message format and one name here (rules/apps/dns.toml): RFC 6762 and RFC 4795 use RFC 1035's.
    "MDNS": "DNS", "LLMNR": "DNS",
}  # fmt: skip

LINE = re.compile(
    r"\t\d+\t(TCP|UDP) (\[.*?\]|[\d.]+):(\d+) (?:<->|->) (\[.*?\]|[\d.]+):(\d+) .*?"
    r"\[proto: (?:([^\]/]*):)?[\d.]+/([^\]]+)\]"
)


@dataclass(frozen=True, slots=True)
class Label:
    """`text` is nDPI's own, `base` ours for it (None: another protocol). `tunnel` names an encapsulation around the
    flow, `guessed` a label from port or address alone, `empty` a flow without payload."""

    text: str
    base: str | None
    tunnel: str | None
    guessed: bool
    empty: bool


def tuple_of(proto: str, src: str, sport: int | str, dst: str, dport: int | str) -> Tuple:
    low, high = sorted((f"{src} {sport}", f"{dst} {dport}"))
    return proto, low, high


def addresses(text: str) -> list[str]:
    """What an address of nDPI may mean: it writes `::` for each lone zero group too."""
    parts = text.strip("[]").split("::")
    if len(parts) < 2:
        return [str(ip_address(parts[0]))]
    meant = [":0:".join(parts)] + [
        ":0:".join(parts[:at]) + "::" + ":0:".join(parts[at:]) for at in range(1, len(parts))
    ]
    found = []
    for one in meant:
        with suppress(ValueError):
            found.append(str(ip_address(one.strip(":") if "::" not in one and one.count(":") > 7 else one)))
    return found


def base_of(text: str) -> str | None:
    return MASTERS.get(text.split(".")[0])


def read(path: Path, known: Container[Tuple]) -> Iterator[tuple[Tuple, Label]]:
    """Each TCP and UDP flow that nDPI lists. `known` are the capture's flows: they settle what an address means."""
    for line in path.read_text(errors="replace").split("\n"):
        found = LINE.match(line)
        if found is None:
            continue
        proto, src, sport, dst, dport, tunnel, text = found.groups()
        meant = [tuple_of(proto.lower(), a, sport, b, dport) for a in addresses(src) for b in addresses(dst)]
        key = next((one for one in meant if one in known), meant[0])
        guessed = "[Confidence: Match by" in line
        yield key, Label(text, base_of(text), tunnel, guessed, "[Goodput ratio: 0/0]" in line)
