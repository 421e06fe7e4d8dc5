"""Layers -> plain words: what a message is, and what in it is worth saying. One table of protocols, read top to bottom.

In: the layers of one message, outer before inner, and its payload. Out: Said. Mostly facts are read, so that what a
running gateway remembers of a packet is told in the same words; `message` and payload add what facts leave out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from appid.decode import sip
from appid.decode.sdp import Description
from appid.decode.stun import KNOWN
from appid.wire import Endpoint, Fact, FactValue, Layer, text

SHORT = 64
"""Characters of a sender's text that are quoted."""
METHODS = {"allocate": "TURN Allocate", "refresh": "TURN Refresh", "channel-bind": "TURN ChannelBind",
           "create-permission": "TURN CreatePermission", "send": "TURN Send", "data": "TURN Data",
           "binding": "STUN Binding"}  # fmt: skip
CLASSES = {"request": " request", "success": " success", "error": " error", "indication": " indication"}
RTCP = {200: "SR", 201: "RR", 202: "SDES", 203: "BYE", 204: "APP", 205: "RTPFB", 206: "PSFB", 207: "XR"}
UNREACHABLE = "destination unreachable"


class Said(NamedTuple):
    """`kind` is the innermost protocol; `media`: one of many alike, folded; `types`: payload or packet types."""

    kind: str
    what: str
    details: tuple[str, ...] = ()
    media: bool = False
    types: tuple[str, ...] = ()


class Facts:
    """The facts of one layer, by name."""

    def __init__(self, facts: Iterable[Fact]) -> None:
        self.values: dict[str, list[FactValue]] = {}
        for fact in facts:
            self.values.setdefault(fact.name, []).append(fact.value)

    def all(self, name: str) -> list[FactValue]:
        return self.values.get(name, [])

    def one(self, name: str) -> FactValue | None:
        values = self.values.get(name)
        return values[0] if values else None

    def __contains__(self, name: str) -> bool:
        return name in self.values


def say(layers: Sequence[Layer], payload: memoryview | None = None, carrier: str = "udp") -> Said:
    """What the message is. Where a datagram holds several, the first names it."""
    if not layers:
        return Said("", f"{carrier.upper()} that no decoder reads", (), True)
    details: list[str] = []
    said = Said("", "")
    for layer in layers:
        words = WORDS.get(layer.name)
        if words is None or (said.what and layer.name == said.kind):
            continue
        found = words(layer, payload)
        if not said.what or layer.name not in ("sdp",):
            said = found
        details.extend(found.details)
    if not said.what:
        said = Said(layers[0].name, layers[0].name.upper())
    return said._replace(what=printable(said.what), details=tuple(map(printable, dict.fromkeys(details))))


def printable(value: str) -> str:
    return value if value.isprintable() else "".join(c if c.isprintable() else "\ufffd" for c in value)


def quoted(value: object) -> str:
    """A sender's text, short and printable."""
    shown = printable(str(value))
    return shown if len(shown) <= SHORT else shown[: SHORT - 1] + "…"


def shown(name: str, value: FactValue) -> str:
    """A fact's value as text."""
    if isinstance(value, Endpoint):
        return str(value)
    if isinstance(value, bytes):
        address = name in ("flow.source", "flow.destination", "sdp.connection") and len(value) in (4, 16)
        return text(value) if address else value.hex()
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and name in NUMBERS:
        return f"0x{value:04x}"
    if isinstance(value, tuple):
        return "(" + ", ".join(shown("", one) for one in value) + ")"
    return quoted(value)


def reason(facts: Iterable[Fact]) -> str:
    """The facts that counted, names once: "stun.attribute 0x0016 0x0022, stun.method allocate"."""
    values: dict[str, list[str]] = {}
    for name, value in facts:
        known, one = values.setdefault(name, []), shown(name, value)
        if one not in known:
            known.append(one)
    return ", ".join(f"{name} {' '.join(known)}" for name, known in values.items())


NUMBERS = frozenset({"stun.attribute", "stun.type", "turn.channel", "tls.version"})
"""Facts whose numbers the standards write in hexadecimal."""


def recounted(facts: Mapping[str, Any]) -> str:
    """The same of a reason as JSON lines have it: name -> value, or a list of values."""
    words = []
    for name, value in facts.items():
        values = value if isinstance(value, list) else [value]
        shown = [f"0x{v:04x}" if name in NUMBERS and isinstance(v, int) else quoted(_json(v)) for v in values]
        words.append(f"{name} {' '.join(shown)}")
    return ", ".join(words)


def _json(value: object) -> object:
    return ("yes" if value else "no") if isinstance(value, bool) else value


# ---- one function for each protocol --------------------------------------------------------------------------------


def _stun(layer: Layer, _: memoryview | None) -> Said:
    facts = Facts(layer.facts)
    method, cls = str(facts.one("stun.method") or ""), str(facts.one("stun.class") or "")
    what = METHODS.get(method, f"STUN method {method}") + CLASSES.get(cls, "")
    code = facts.one("stun.error_code")
    what += f" {code}" if code is not None else ""
    if facts.one("stun.use_candidate"):
        what += ", USE-CANDIDATE"
    elif facts.one("stun.lifetime") == 0:
        what += ", LIFETIME 0"
    return Said("stun", what, tuple(_stun_details(facts, method, cls)))


def _stun_details(facts: Facts, method: str, cls: str) -> Iterable[str]:
    for name, label in (
        ("stun.peer_address", "XOR-PEER-ADDRESS"), ("stun.relayed_address", "XOR-RELAYED-ADDRESS"),
        ("stun.mapped_address", "MAPPED-ADDRESS"), ("stun.software", "SOFTWARE"), ("stun.realm", "REALM"),
    ):  # fmt: skip
        value = facts.one(name)
        if value is not None:
            yield f"{label} {quoted(value)}"
    channel = facts.one("stun.channel_number")
    if isinstance(channel, int):
        yield f"channel 0x{channel:04x}"
    if "stun.reservation_token" in facts:
        yield "RESERVATION-TOKEN"
    lifetime = facts.one("stun.lifetime")
    if lifetime:
        yield f"LIFETIME {lifetime}"
    yield from _username(facts, method, cls)
    role = facts.one("stun.ice_role")
    if role is not None:
        yield f"ICE-{str(role).upper()}"
    unknown = [f"0x{n:04x}" for n in facts.all("stun.attribute") if isinstance(n, int) and n not in KNOWN]
    if unknown:
        yield f"unknown attributes {' '.join(dict.fromkeys(unknown))}"
    if facts.one("stun.cookie") is False:
        yield "no magic cookie"


def _username(facts: Facts, method: str, cls: str) -> Iterable[str]:
    name = facts.one("stun.username")
    if isinstance(name, bytes):
        if facts.one("stun.username_colon") and name.isascii():
            yield f"USERNAME {quoted(name.decode())}"
        else:
            yield f"USERNAME of {len(name)} binary bytes, no colon"
    elif method == "allocate" and cls == "request" and "stun.attribute" in facts:
        yield "no USERNAME"


def _turn(layer: Layer, _: memoryview | None) -> Said:
    channel = Facts(layer.facts).one("turn.channel")
    return Said("turn", "TURN ChannelData", (f"ChannelData 0x{channel:04x}",) if isinstance(channel, int) else (), True)


def _sip(layer: Layer, _: memoryview | None) -> Said:
    facts = Facts(layer.facts)
    method, status, of = facts.one("sip.method"), facts.one("sip.status"), facts.one("sip.cseq_method")
    message = layer.message if isinstance(layer.message, sip.Message) else None
    kind = str(facts.one("sip.content_type") or "").lower()
    what = f"SIP {quoted(method)}" if method is not None else f"SIP {status}"
    if message is not None and method is None:
        what += f" {quoted(message.reason)}"
    if method is None and of not in (None, "INVITE"):
        what += f" to {quoted(of)}"
    details = []
    if method == "INVITE":
        details += [f"Call-ID {quoted(facts.one('sip.call_id'))}"]
    if facts.one("sip.user_agent") is not None and method is not None:
        details.append(f"User-Agent {quoted(facts.one('sip.user_agent'))}")
    if message is not None:
        if COMPACT.search(message.head):
            details.append("compact header names")
        if message.encoding:
            found = f"{message.encoding} deflate" if message.encoding in ("raw", "zlib") else message.encoding
            details.append(f"body {found}, {len(message.body):,} bytes, inflated {len(message.inflated):,}")
        broken = [quoted(line.decode("utf-8", "replace").strip()) for line in GRAMMAR.findall(message.inflated)[:4]]
        details += [f"against SDP's grammar: {', '.join(broken)}"] if broken and "sdp" in kind else []
    details += [f"broken: {quoted(value)}" for value in facts.all("sip.anomaly")]
    return Said("sip", what, tuple(details))


GRAMMAR = re.compile(rb"^(?:b=(?![\w-]+:\d+\s*$)|a=fmtp:(?!\d)).*$", re.MULTILINE)
"""RFC 8866: bandwidth is one number (section 9, bandwidth-field), a=fmtp begins with a format of the m= line (6.15)."""
COMPACT = re.compile(rb"^[a-z][ \t]*:", re.MULTILINE)


def _sdp(layer: Layer, _: memoryview | None) -> Said:
    facts = Facts(layer.facts)
    details = [f"o={quoted(facts.one('sdp.origin'))}"] if facts.one("sdp.origin") else []
    description = layer.message
    if isinstance(description, Description):
        if description.connection is not None:
            details.append(f"c={text(description.connection)}")
        for media in description.media:
            formats = " ".join(str(one) for one in media.formats[:16])
            rtcp = f", a=rtcp:{media.rtcp_port}" if media.rtcp_port is not None else ""
            details.append(f"m={quoted(media.kind)} {media.port}: {formats}{rtcp}")
    else:
        details += [f"m={one}" for one in facts.all("sdp.media")]
    return Said("sip", "SDP", tuple(details))


def _rtp(layer: Layer, _: memoryview | None) -> Said:
    facts = Facts(layer.facts)
    kind = facts.one("rtp.payload_type")
    return Said("rtp", "RTP", (f"sequence {facts.one('rtp.sequence')}",), True, (str(kind),))


def _rtcp(layer: Layer, _: memoryview | None) -> Said:
    kinds = [RTCP.get(n, str(n)) for n in Facts(layer.facts).all("rtcp.packet_type") if isinstance(n, int)]
    compound = " + ".join(kinds)
    return Said("rtcp", f"RTCP {compound}", (), True, (compound,))


def _tls(layer: Layer, payload: memoryview | None) -> Said:
    facts = Facts(layer.facts)
    handshake, content = facts.one("tls.handshake"), str(facts.one("tls.content_type") or "").replace("_", " ")
    sni, alpn = facts.one("tls.sni"), facts.all("tls.alpn")
    if handshake is not None:
        what = f"TLS {HELLOS.get(str(handshake), quoted(handshake))}"
    else:
        what = f"TLS {content or 'record'}"
    details = [f"{len(payload):,} bytes"] if handshake is None and payload is not None else []
    details += [f"SNI {quoted(sni)}"] if sni else []
    details += [f"ALPN {' '.join(map(quoted, alpn))}"] if alpn else []
    return Said("tls", what, tuple(details))


HELLOS = {"client_hello": "ClientHello", "server_hello": "ServerHello"}


def _http(layer: Layer, payload: memoryview | None) -> Said:
    facts = Facts(layer.facts)
    status = facts.one("http.status")
    if status is not None:
        what = f"HTTP {status}"
    else:
        what = f"HTTP {quoted(facts.one('http.method') or '')} {quoted(facts.one('http.path') or '')}".rstrip()
    details = [
        f"{label} {quoted(facts.one(name))}"
        for name, label in (("http.host", "Host"), ("http.server", "Server"), ("http.user_agent", "User-Agent"))
        if facts.one(name)
    ]
    head, blank, body = bytes(payload[:2048]).partition(b"\r\n\r\n") if payload is not None else (b"", b"", b"")
    if blank and head and 0 < len(body) <= SHORT and body.strip().isascii():
        details.append(f"body of {len(body)} bytes: {quoted(body.decode().strip())}")
    return Said("http", what, tuple(details))


def _dns(layer: Layer, _: memoryview | None) -> Said:
    facts = Facts(layer.facts)
    return Said(
        "dns", f"DNS {'answer' if facts.one('dns.response') else 'query'} {quoted(facts.one('dns.query') or '')}"
    )


def _quic(layer: Layer, _: memoryview | None) -> Said:
    facts = Facts(layer.facts)
    kinds = [str(kind) for kind in facts.all("quic.packet_type")]
    return Said("quic", f"QUIC {', '.join(kinds)}" if kinds else "UDP, maybe QUIC's short header", (), not kinds)


def _dtls(layer: Layer, _: memoryview | None) -> Said:
    facts = Facts(layer.facts)
    kinds = facts.all("dtls.handshake") or facts.all("dtls.content_type")
    return Said("dtls", "DTLS " + ", ".join(HELLOS.get(str(k), str(k).replace("_", " ")) for k in kinds))


def _snatmap(layer: Layer, _: memoryview | None) -> Said:
    facts = Facts(layer.facts)
    kind = "reply" if facts.one("snatmap.type") == 2 else "request"
    return Said("snatmap", f"SNATMAP {kind}", (f"address {facts.one('snatmap.endpoint')}",))


def _xmpp(layer: Layer, _: memoryview | None) -> Said:
    return Said("xmpp", f"XMPP {quoted(Facts(layer.facts).one('xmpp.stanza') or 'stream')}")


WORDS: dict[str, Callable[[Layer, memoryview | None], Said]] = {
    "turn": _turn, "stun": _stun, "sip": _sip, "sdp": _sdp, "rtp": _rtp, "rtcp": _rtcp, "tls": _tls, "http": _http,
    "dns": _dns, "quic": _quic, "dtls": _dtls, "snatmap": _snatmap, "xmpp": _xmpp,
}  # fmt: skip
