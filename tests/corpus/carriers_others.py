"""Packets that carry the conclusive signatures of every other application, cut into fields as those of carriers.py.

Bytes are made here from each signature's source; what a field is to the signature is said by that source, not by what
the decoders do.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Mapping

from tests.corpus import quic_bytes, tls_bytes
from tests.corpus import stun_bytes as stun
from tests.corpus.carriers import Carrier, Field, Part, stun_fields, text_fields
from tests.corpus.lookalikes_calls import dtls_hello
from tests.corpus.stage import Stage
from tests.corpus.stun_bytes import Attribute, Transaction
from tests.corpus.writer import End, ip_packet, packed, udp_segment

Piece = tuple[str, bytes, Part]
OWN, FAR = "172.16.42.187", "203.0.113.20"


def laid(application: str, signature: str, *pieces: Piece, proto: str = "udp", port: int = 3478) -> Carrier:
    """Fields one after the other."""
    fields, at = [], 0
    for name, value, part in pieces:
        fields.append(Field(name, at, at + len(value), part))
        at += len(value)
    return Carrier(signature, b"".join(value for _, value, _ in pieces), tuple(fields), proto, application, port)


def around(payload: bytes, *marks: Piece) -> tuple[Piece, ...]:
    """`payload` cut at byte strings that occur in it, in this order; what lies between frames."""
    pieces: list[Piece] = []
    at = 0
    for name, value, part in marks:
        start = payload.index(value, at)
        if start > at:
            pieces.append((f"before {name}", payload[at:start], "frames"))
        pieces.append((name, value, part))
        at = start + len(value)
    return (*pieces, ("rest", payload[at:], "frames")) if at < len(payload) else tuple(pieces)


# ---- TLS, DTLS, QUIC


def hello(rng: random.Random, name: str | None, alpn: tuple[str, ...] = ()) -> tuple[bytes, Piece, Piece]:
    """A ClientHello and its two free fields (RFC 5246 section 7.4.1.2)."""
    payload = tls_bytes.client_hello(rng, name, alpn)
    return payload, ("random", payload[11:43], "free"), ("session ID", payload[44:76], "free")


def named_hello(application: str, signature: str, before: str, name: str) -> Carrier:
    """`before` is a number: another digit may be right as well."""
    payload, *free = hello(random.Random(name), before + name)
    number: list[Piece] = [("number of the server's name", before.encode(), "frames")] if before else []
    pieces = around(payload, *free, *number, ("server name", name.encode(), "makes"))
    return laid(application, signature, *pieces, proto="tcp", port=443)


def alpn_hello(application: str, name: str, last: int) -> Carrier:
    """The protocol's name makes it; of its last `last` bytes others may be right as well (v2, v3)."""
    payload, *free = hello(random.Random(name), None, (name,))
    marks: list[Piece] = [("protocol", name[: len(name) - last].encode(), "makes")]
    return laid(application, "alpn", *around(payload, *free, *marks), proto="tcp", port=443)


def of_tls() -> list[Carrier]:
    rng = random.Random("tls")
    plain, *free = hello(rng, "www.example.org")
    handshake = dtls_hello(Stage(rng))
    initial = quic_bytes.initial(quic_bytes.client_hello(rng), rng.randbytes(8))
    return [
        named_hello("apple-push", "courier-name", "", "courier.push.apple.com"),
        named_hello("apple-push", "numbered-courier-name", "7", "-courier.push.apple.com"),
        named_hello("apple-push", "numbered-sandbox-name", "3", "-courier.sandbox.push.apple.com"),
        alpn_hello("apple-push", "apns-security-v3", 1),
        alpn_hello("jabber", "xmpp-client", 0),
        laid("ssl", "handshake", *around(plain, *free), proto="tcp", port=443),
        laid("dtls", "handshake", *around(handshake, ("random", handshake[27:59], "free"))),
        laid(
            "quic", "long-header",
            ("first byte", initial[:1], "frames"), ("version", initial[1:5], "makes"),
            ("length of the server's ID", initial[5:6], "frames"), ("server's ID", initial[6:14], "free"),
            ("lengths", initial[14:18], "frames"), ("sealed", initial[18:], "free"), port=443,
        ),
    ]  # fmt: skip


# ---- STUN


def of_message(
    application: str, signature: str, kind: int, attributes: list[Attribute], makes: Mapping[int, Part]
) -> Carrier:
    """`makes`: as in carriers.stun_fields; the cookie only frames where RFC 3489 is read as well."""
    payload = stun.message(kind, 0, Transaction(stun.COOKIE, random.Random(signature).randbytes(12)), attributes)
    fields = stun_fields(payload, makes, 0, "frames", frozenset({0x4000, 0x4001}))
    return Carrier(signature, payload, tuple(_type(field, signature) for field in fields), "udp", application)


def _type(field: Field, signature: str) -> Field:
    """Only an Allocate request with a token is about one class; elsewhere another type may be as good."""
    loose = field.name in ("type", "length") and not signature.startswith("allocate-with")
    return Field(field.name, field.start, field.end, "frames") if loose else field


def of_stun() -> list[Carrier]:
    rng = random.Random("stun")
    t = Transaction(stun.COOKIE, rng.randbytes(12))
    mapped = stun.xor_address(stun.XOR_MAPPED_ADDRESS, "71.15.163.132", 50122, t)
    error, nonce = stun.error(401, "Unauthorized"), (stun.NONCE, b"0123456789abcdef")
    user, integrity = (stun.USERNAME, b"gppe:zWyk"), (stun.MESSAGE_INTEGRITY, rng.randbytes(20))
    refused = stun.ALLOCATE | stun.ERROR
    teams: Mapping[int, Part] = {0x8054: "free", 0x8070: "free"}
    relay: Mapping[int, Part] = {0x8008: "free", 0x8055: "free"}
    token: Mapping[int, Part] = {0x4000: "free"}
    return [
        of_message("stun", "message", stun.BINDING | stun.SUCCESS, [mapped], {}),
        of_message("turn", "turn-method", stun.REFRESH, [stun.u32(stun.LIFETIME, 600)], {}),
        of_message(
            "facebook-messenger-call", "relay-realm", refused, [error, nonce, (stun.REALM, b"turner.facebook")],
            {stun.REALM: "makes"},
        ),
        of_message(
            "signal-call", "relay-realm", refused, [error, nonce, (stun.REALM, b"signal.org")], {stun.REALM: "makes"}
        ),
        of_message(
            "meta-call", "check-with-0xdaba", stun.BINDING, [user, (0xDABA, rng.randbytes(8)), stun.u32(0x8028, 1)],
            {0xDABA: "free", stun.FINGERPRINT: "free"},
        ),
        of_message(
            "microsoft-teams", "check-by-ms-ice2", stun.BINDING, [user, (0x8054, b"1"), stun.u32(0x8070, 3)], teams
        ),
        of_message(
            "microsoft-teams", "allocate-by-ms-turn", stun.ALLOCATE, [stun.u32(0x8008, 4), stun.u32(0x8055, 1)], relay
        ),
        of_message("whatsapp-call", "allocate-with-token-alone", stun.ALLOCATE, [(0x4000, rng.randbytes(102))], token),
        of_message(
            "whatsapp-call", "allocate-with-second-token", stun.ALLOCATE, [(0x4001, rng.randbytes(8)), integrity],
            {0x4001: "free"},
        ),
    ]  # fmt: skip


# ---- text


def lines(
    application: str, signature: str, text: str, makes: tuple[bytes, ...], free: tuple[bytes, ...], proto: str = "tcp"
) -> Carrier:
    """What neither makes nor is free frames."""
    payload = text.encode()
    fields = text_fields(payload, makes, (rb"(?s).",))
    cut: list[Field] = []
    for field in fields:
        cut += _freed(field, payload, free) if field.part == "frames" else [field]
    return Carrier(signature, payload, tuple(cut), proto, application, 80 if proto == "tcp" else 5060)


def _freed(field: Field, payload: bytes, free: tuple[bytes, ...]) -> list[Field]:
    for value in free:
        start = payload.find(value, field.start, field.end)
        if start >= 0:
            end = start + len(value)
            parts = (field.start, start, "frames"), (start, end, "free"), (end, field.end, "frames")
            return [Field(field.name, low, high, part) for low, high, part in parts if high > low]  # type: ignore[arg-type]
    return [field]


STREAM = (
    "<?xml version='1.0'?><stream:stream from='a@example.org' to='example.org' version='1.0' "
    "xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"
)


def of_text() -> list[Carrier]:
    via = "Via: SIP/2.0/UDP 172.16.42.187:16402;branch=z9hG4bK776asdhds\r\n"
    ends = "From: <sip:alice@example.org>;tag=1928\r\nTo: <sip:bob@example.org>\r\nCall-ID: a84b4c76e66710\r\n"
    sdp = "v=0\r\no=user 0 0 IN IP4 172.16.42.187\r\ns=user\r\na=iChatEncryption:YES\r\n"
    body = f"Content-Type: application/sdp\r\nContent-Length: {len(sdp)}\r\n\r\n{sdp}"
    head = f"INVITE sip:bob@198.51.100.9 SIP/2.0\r\n{via}{ends}CSeq: 1 INVITE\r\n"
    request = "GET /index.html HTTP/1.1\r\nHost: www.example.org\r\nUser-Agent: Mozilla/5.0\r\n\r\n"
    response = "HTTP/1.1 200 OK\r\nServer: Apache/2.4\r\nContent-Length: 0\r\n\r\n"
    free = (b"alice", b"bob", b"a84b4c76e66710")
    return [
        lines("sip", "request", f"{head}Content-Length: 0\r\n\r\n", (rb"SIP/2.0(?=\r\nVia)",), free, "udp"),
        lines("sip", "response", f"SIP/2.0 180 Ringing\r\n{via}{ends}CSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n",
              (rb"^SIP/2.0",), (b"Ringing", *free), "udp"),
        lines("ichat-av", "ichat-encryption", head + body, (rb"(?<=a=)iChatEncryption",), free, "udp"),
        lines("web-browsing", "request", request, (rb"HTTP/",), (b"www.example.org", b"Mozilla"), "tcp"),
        lines("web-browsing", "response", response, (rb"^HTTP/",), (b"OK", b"Apache"), "tcp"),
        lines("jabber", "stream", STREAM, (rb"http://etherx\.jabber\.org/streams",), (b"a@example.org",), "tcp"),
        lines("jabber", "stream-to", STREAM.replace("jabber:client", "urn:example:other"),
              (rb"http://etherx\.jabber\.org/streams",), (b"a@example.org",), "tcp"),
    ]  # fmt: skip


# ---- by first bytes, and by IP protocol


def question(name: bytes, kind: int) -> bytes:
    """A question's counts, name, type and class (RFC 1035 section 4.1)."""
    return struct.pack("!4H", 1, 0, 0, 0) + bytes([len(name)]) + name + b"\0" + struct.pack("!HH", kind, 1)


def of_datagrams() -> list[Carrier]:
    rng = random.Random("datagrams")
    wildcard = b"CK" + b"A" * 30  # RFC 1001 section 14.1: "*"
    nonce, own = rng.randrange(1 << 31).to_bytes(4, "big"), packed(OWN) + struct.pack("!H", 50122)
    asked, told = rng.randbytes(4) + bytes(66), rng.randbytes(4) + b"71.15.163.132".ljust(66, b"\0")
    return [
        laid("dns", "message", ("ID", b"\x12\x34", "free"), ("flags", b"\1\0", "frames"),
             ("counts, name, type, class", question(b"example", 1), "frames"), port=53),
        laid("dns", "netbios-name-to-dns", ("ID", b"\x12\x34", "free"), ("flags", b"\0\0", "frames"),
             ("counts, name, type, class", question(wildcard, 33), "frames"), port=53),
        laid("netbios-ns", "message", ("ID", b"\x12\x34", "free"), ("flags", b"\1\x10", "frames"),
             ("counts, name, type, class", question(wildcard, 32), "frames"), port=137),
        laid("discord", "ip-discovery", ("type", b"\0\1", "makes"), ("length", b"\0\x46", "makes"),
             ("SSRC, address, port", asked, "free"), port=50004),
        laid("discord", "ip-discovery-answered", ("type", b"\0\2", "makes"), ("length", b"\0\x46", "makes"),
             ("SSRC, address, port", told, "free"), port=50004),
        laid("telegram-call", "reflector-ping", ("peer tag", b"\x05" + rng.randbytes(15), "free"),
             ("ones", b"\xff" * 12, "makes"), ("-2", b"\xfe\xff\xff\xff", "makes"),
             ("identifier", rng.randbytes(8), "free"), port=598),
        laid("telegram-call", "reflector-answer", ("peer tag", b"\x05" + rng.randbytes(15), "free"),
             ("ones", b"\xff" * 12, "makes"), ("what it is", bytes.fromhex("c77215c0"), "makes"),
             ("date, query, address", rng.randbytes(32), "free"), port=598),
        laid("snatmap", "probe", ("type", struct.pack("!I", 1), "makes"), ("nonce's first byte", nonce[:1], "frames"),
             ("nonce", nonce[1:], "free"), ("own address and port", own, "makes"),
             ("pad, 0xAAAA or 0xFFFF", b"\xaa\xaa", "frames"), port=3480),
    ]  # fmt: skip


def of_protocol(application: str, signature: str, number: int, body: bytes) -> Carrier:
    """A whole IPv4 packet: only its protocol's number counts (its length and version frame)."""
    raw = ip_packet(OWN, FAR, number, body, 7, 64)
    return laid(
        application, signature,
        ("version, header length", raw[:1], "frames"), ("service", raw[1:2], "free"),
        ("total length", raw[2:4], "frames"),
        ("identification", raw[4:6], "free"), ("flags, offset", raw[6:8], "frames"), ("time to live", raw[8:9], "free"),
        ("protocol", raw[9:10], "makes"), ("checksum", raw[10:12], "free"), ("addresses", raw[12:20], "free"),
        ("body", body, "frames"), proto="ip",
    )  # fmt: skip


def of_tunnel(application: str, port: int, *pieces: Piece) -> Carrier:
    """A datagram that holds a packet, whole with its IPv4 and UDP headers."""
    body = b"".join(value for _, value, _ in pieces)
    raw = ip_packet(OWN, FAR, 17, udp_segment(End(OWN, 50122), End(FAR, port), body), 7, 64)
    head: tuple[Piece, ...] = (
        ("IPv4 header, source port", raw[:22], "frames"), ("destination port", raw[22:24], "makes"),
        ("length, checksum", raw[24:28], "frames"),
    )  # fmt: skip
    return laid(application, "encapsulation", *head, *pieces, proto="ip")


def of_packets() -> list[Carrier]:
    rng = random.Random("packets")
    inner6 = struct.pack("!IHBB", 0x60000000, 8, 59, 64) + rng.randbytes(40)
    frame = rng.randbytes(12) + b"\x08\0" + ip_packet(OWN, FAR, 17, rng.randbytes(20), 1, 64)
    return [
        of_protocol("icmp", "protocol", 1, b"\x08\0" + rng.randbytes(30)),
        of_protocol("gre", "protocol", 47, b"\0\0\x08\0" + ip_packet(OWN, FAR, 17, bytes(12), 1, 64)),
        of_protocol("esp", "protocol", 50, rng.randbytes(64)),
        of_protocol("6in4", "protocol", 41, inner6),
        of_tunnel("vxlan", 4789, ("flags", b"\x08\0\0\0", "makes"), ("network", rng.randbytes(3), "free"),
                  ("reserved", b"\0", "makes"), ("frame", frame, "free")),
        of_tunnel("gtp", 2152, ("version, type, length", b"\x30\xff\0\x18", "frames"),
                  ("tunnel and packet", rng.randbytes(28), "free")),
        of_tunnel("teredo", 3544, ("version, class", inner6[:1], "frames"), ("class, flow", inner6[1:4], "free"),
                  ("length", inner6[4:6], "makes"), ("rest", inner6[6:], "free")),
    ]  # fmt: skip


def carriers_others() -> list[Carrier]:
    return [*of_tls(), *of_stun(), *of_text(), *of_datagrams(), *of_packets()]
