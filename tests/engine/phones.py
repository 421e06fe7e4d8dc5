"""SIP phones of few words: messages as RFC 3261 section 24.2 writes them, through an engine behind source NAT."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from appid.alg.host import Host
from appid.dataplane.command import BindNat, Command, RewritePayload, UnbindNat
from appid.policy.rule import PolicyRule
from appid.wire import Endpoint, FlowKey, packed, text
from tests.corpus.writer import End
from tests.engine.play import PUBLIC, Play, of, settings, udp

GATE = PUBLIC
PROVIDER = End("198.51.100.20", 5060)
SIP = PolicyRule("sip", "allow", applications=frozenset({"sip", "rtp", "rtcp"}), service="any")


def gateway(*rules: PolicyRule) -> Play:
    """An engine whose host translates the inside networks to GATE. Media decisions are those of the call."""
    made = settings(*(rules or (SIP,)), outside=GATE)
    return Play(replace(made, masqueraded=((packed("172.16.42.0"), 24),)))


def body(host: str, port: int, *more: str) -> bytes:
    lines = [
        "v=0",
        f"o=alice 1 1 IN IP4 {host}",
        "s=-",
        f"c=IN IP4 {host}",
        "t=0 0",
        f"m=audio {port} RTP/AVP 0",
        *more,
    ]
    return "\r\n".join([*lines, ""]).encode()


@dataclass
class Phone(Host):
    """One phone behind the gateway. `seen` maps its flow for the engine once a packet has passed (conntrack's word)."""

    play: Play
    end: End
    provider: End = PROVIDER
    rtp: int = 16402
    call_id: str = "a84b4c76e66710"
    seen: dict[FlowKey, Endpoint] = field(default_factory=dict)

    def head(self, first: str, cseq: str, to_tag: str, content: bytes, via: str = "", contact: str = "") -> bytes:
        lines = [first, f"Via: SIP/2.0/UDP {via or f'{self.end.host}:{self.end.port}'};branch=z9hG4bK776;rport",
                 "From: <sip:alice@atlanta.example>;tag=1928301774", f"To: <sip:bob@biloxi.example>{to_tag}",
                 f"Call-ID: {self.call_id}", f"CSeq: {cseq}",
                 f"Contact: <sip:x@{contact or f'{self.end.host}:{self.end.port}'}>"]  # fmt: skip
        lines += ["Content-Type: application/sdp"] if content else []
        return "\r\n".join([*lines, f"Content-Length: {len(content)}", "", ""]).encode() + content

    def out(self, message: bytes) -> list[Command]:
        return self.play.queue(udp(self.end, self.provider, message), self)

    def back(self, message: bytes) -> list[Command]:
        """What comes in, after destination NAT."""
        return self.play.queue(udp(self.provider, self.end, message), self)

    def mapped(self, key: FlowKey) -> Endpoint | None:
        return self.seen.get(key)

    def invite(self, *more: str, cseq: int = 1, to_tag: str = "") -> list[Command]:
        content = body(self.end.host, self.rtp, *more)
        return self.out(self.head("INVITE sip:bob@198.51.100.20 SIP/2.0", f"{cseq} INVITE", to_tag, content))

    def respond(self, status: str, cseq: str = "1 INVITE", port: int = 30000, host: str = "") -> list[Command]:
        """An answer of the far side to what the phone asked."""
        content = body(host or self.provider.host, port) if port else b""
        via = f"{GATE}:{self.outside.port}"
        message = self.head(f"SIP/2.0 {status}", cseq, ";tag=314159", content, via, self.provider.host)
        return self.back(message.replace(b";rport", f";received={GATE};rport={self.outside.port}".encode()))

    @property
    def outside(self) -> Endpoint:
        """As what the far side sees the phone."""
        found = self.play.engine.calls.nat.mappings.outside_of(17, self.inside, packed(self.provider.host))
        assert found is not None
        return found

    @property
    def inside(self) -> Endpoint:
        return Endpoint(packed(self.end.host), self.end.port)


def rewritten(commands: list[Command]) -> str:
    (one,) = of(commands, RewritePayload)
    return one.payload.decode()


def bindings(commands: list[Command]) -> list[tuple[str, int, int, str]]:
    """Inside address and port, outside port, peer."""
    return [(text(b.inside), b.port, b.outside_port, text(b.peer)) for b in of(commands, BindNat)]


def unbound(commands: list[Command]) -> list[tuple[str, int, int, str]]:
    return [(text(b.inside), b.port, b.outside_port, text(b.peer)) for b in of(commands, UnbindNat)]


def named(text_: str, name: str) -> str:
    found = re.search(rf"^{name}:? ?(.*?)\r?$", text_, re.M)
    assert found is not None, text_
    return found[1]
