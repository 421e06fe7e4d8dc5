"""A phone behind a gateway, its messages, and the names that both sides have for its endpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from appid.alg.translate import translate_datagram
from appid.wire import Endpoint, packed


@dataclass(frozen=True, slots=True)
class Table:
    """Names that are known beforehand."""

    endpoints: Mapping[Endpoint, Endpoint] = field(default_factory=dict)
    ports: Mapping[Endpoint, Endpoint] = field(default_factory=dict)
    hosts: Mapping[bytes, bytes] = field(default_factory=dict)

    def signalling(self, named: Endpoint) -> Endpoint | None:
        return self.endpoints.get(named)

    def via(self, named: Endpoint) -> Endpoint | None:
        return self.endpoints.get(named)

    def media(self, named: Endpoint) -> Endpoint | None:
        return self.ports.get(named)

    def host(self, named: bytes) -> bytes | None:
        return self.hosts.get(named)

    def seen(self, named: bytes) -> bytes | None:
        return self.hosts.get(named)

    def session(self, named: bytes) -> bytes | None:
        return self.hosts.get(named)

    def ahead(self, head: bytes) -> None: ...


def at(host: str, port: int) -> Endpoint:
    return Endpoint(packed(host), port)


PHONE, GATE, PEER = "10.1.3.33", "203.0.113.77", "198.51.100.20"
OUT = Table(
    {at(PHONE, 5060): at(GATE, 6060), at(PHONE, 5070): at(GATE, 5070)},
    {at(PHONE, 49172): at(GATE, 31000), at(PHONE, 49173): at(GATE, 31001), at(PHONE, 51372): at(GATE, 51372),
     at(PHONE, 53000): at(GATE, 53000), at(GATE, 16402): at(GATE, 16404)},
    {packed(PHONE): packed(GATE)},
)  # fmt: skip
BACK = Table(
    {there: here for here, there in OUT.endpoints.items()},
    {there: here for here, there in OUT.ports.items() if here.address != there.address},
    {packed(GATE): packed(PHONE)},
)
OUT6 = Table(
    {at("fd00::5", 5060): at("2001:db8::7", 5061)},
    {at("fd00::5", 49172): at("2001:db8::7", 49172)},
    {packed("fd00::5"): packed("2001:db8::7")},
)

SDP = """v=0
o=jdoe 2890844526 2890842807 IN IP4 10.1.3.33
s=SDP Seminar
c=IN IP4 10.1.3.33
t=2873397496 2873404696
a=recvonly
m=audio 49172 RTP/AVP 0
a=rtcp:53000
m=video 51372 RTP/AVP 99
c=IN IP4 10.1.3.33
a=rtpmap:99 h263-1998/90000
"""
"""After the example of RFC 8866 section 5, with the attribute of RFC 3605 section 2.1."""


def lf(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode()


def sip(body: bytes = b"", first: str = "INVITE sip:bob@198.51.100.20 SIP/2.0", *more: str) -> bytes:
    """RFC 3261 section 24.2's INVITE from a phone behind the gateway."""
    head = [
        first,
        f"Via: SIP/2.0/UDP {PHONE}:5060;branch=z9hG4bKnashds8;rport",
        "Max-Forwards: 70",
        "To: Bob <sip:bob@biloxi.example.com>",
        f"From: Alice <sip:alice@{PHONE}>;tag=1928301774",
        "Call-ID: a84b4c76e66710",
        "CSeq: 314159 INVITE",
        f'Contact: "sip:x@{PHONE}" <sip:alice@{PHONE}>',
        *more,
        *(["Content-Type: application/sdp"] if body else []),
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join([*head, "", ""]).encode() + body


def fields(raw: bytes) -> dict[str, str]:
    head = raw.partition(b"\r\n\r\n")[0].decode()
    return dict(line.split(": ", 1) for line in head.split("\r\n")[1:])


def told(raw: bytes, names: Table = OUT) -> bytes:
    found = translate_datagram(raw, names)
    assert found is not None
    assert found.result == "translated"
    return found.payload
