"""STUN and TURN that others speak: WebRTC, coturn with long-term credentials, RFC 8489's own new attributes."""

from __future__ import annotations

import hashlib
import hmac
import struct
import zlib

from tests.corpus import stun_bytes as stun
from tests.corpus.stage import CLIENT, PEER, SERVER, Stage
from tests.corpus.stun_bytes import Attribute, Transaction
from tests.corpus.writer import End

OWN, RELAY, FAR = End(CLIENT, 50122), End(SERVER, 3478), End(PEER, 16402)
MEDIA = End(CLIENT, 16402)
UDP_TRANSPORT: Attribute = (stun.REQUESTED_TRANSPORT, b"\x11\0\0\0")
REALM: Attribute = (stun.REALM, b"turn.example.org")
USER: Attribute = (stun.USERNAME, b"1425303600:alice")
MAPPED = "71.15.163.132", 50122


def signed(method: int, kind: int, transaction: Transaction, attributes: list[Attribute], key: bytes) -> bytes:
    """With MESSAGE-INTEGRITY and FINGERPRINT (RFC 8489 14.5, 14.7)."""
    body = b"".join(stun.attribute(*a) for a in attributes)
    head = struct.pack("!HH", method | kind, len(body) + 24) + transaction.cookie + transaction.id
    body += stun.attribute(stun.MESSAGE_INTEGRITY, hmac.new(key, head + body, hashlib.sha1).digest())
    head = struct.pack("!HH", method | kind, len(body) + 8) + transaction.cookie + transaction.id
    crc = zlib.crc32(head + body) ^ 0x5354554E
    return head + body + stun.attribute(stun.FINGERPRINT, struct.pack("!I", crc))


def refuse(s: Stage, attributes: list[Attribute]) -> tuple[bytes, bytes]:
    """An Allocate request without credentials and its 401 (RFC 8656 7.2)."""
    t = s.transaction()
    request = stun.message(stun.ALLOCATE, stun.REQUEST, t, attributes)
    nonce = (stun.NONCE, s.rng.randbytes(8).hex().encode())
    return request, stun.message(stun.ALLOCATE, stun.ERROR, t, [stun.error(401, "Unauthorized"), REALM, nonce])


def allocate(s: Stage, first: list[Attribute], more: list[Attribute], answer: list[Attribute]) -> None:
    """401 first, then with credentials."""
    s.exchange(OWN, RELAY, *refuse(s, first))
    t, key, nonce = s.transaction(), s.rng.randbytes(16), (stun.NONCE, s.rng.randbytes(8).hex().encode())
    request = signed(stun.ALLOCATE, stun.REQUEST, t, [*first, *more, USER, REALM, nonce], key)
    given = [stun.xor_address(stun.XOR_RELAYED_ADDRESS, SERVER, 49160, t), stun.u32(stun.LIFETIME, 600), *answer]
    given.append(stun.xor_address(stun.XOR_MAPPED_ADDRESS, *MAPPED, t))
    s.exchange(OWN, RELAY, request, signed(stun.ALLOCATE, stun.SUCCESS, t, given, key))


def ice_check(s: Stage, username: bytes, nominate: bool = False) -> tuple[bytes, bytes]:
    """A check of RFC 8445 and its answer."""
    t, key = s.transaction(), s.rng.randbytes(22)
    attributes = [(stun.USERNAME, username), stun.u32(stun.PRIORITY, 1853824767)]
    attributes.append((stun.ICE_CONTROLLING, s.rng.randbytes(8)))
    if nominate:
        attributes.append((stun.USE_CANDIDATE, b""))
    mapped = stun.xor_address(stun.XOR_MAPPED_ADDRESS, *MAPPED, t)
    answer = signed(stun.BINDING, stun.SUCCESS, t, [mapped], key)
    return signed(stun.BINDING, stun.REQUEST, t, attributes, key), answer


def webrtc(s: Stage) -> None:
    """Allocate, 401, Allocate again; ufrag:ufrag checks; SRTP with consent checks every 5 s (RFC 7675)."""
    allocate(s, [UDP_TRANSPORT, (stun.SOFTWARE, b"libwebrtc")], [], [])
    for nominate in (False, True):
        s.exchange(OWN, FAR, *ice_check(s, b"Zk3f:8QpL", nominate))
    for number in range(300):
        head = struct.pack("!BBHII", 0x80, 111, 700 + number, 960 * number, 0x1D2C3B4A)
        s.udp(*((OWN, FAR) if number % 2 else (FAR, OWN)), head + s.rng.randbytes(90))
        if number % 100 == 99:
            s.exchange(OWN, FAR, *ice_check(s, b"Zk3f:8QpL"))


def authenticated(s: Stage) -> None:
    """What coturn and its clients do; CreatePermission and a Send indication follow."""
    allocate(s, [UDP_TRANSPORT], [stun.u32(stun.LIFETIME, 60)], [])
    t, key = s.transaction(), s.rng.randbytes(16)
    peer = stun.xor_address(stun.XOR_PEER_ADDRESS, PEER, 16402, t)
    answer = signed(stun.CREATE_PERMISSION, stun.SUCCESS, t, [], key)
    s.exchange(OWN, RELAY, signed(stun.CREATE_PERMISSION, stun.REQUEST, t, [peer, USER, REALM], key), answer)


def reserved(s: Stage) -> None:
    """RFC 8656 7.1: EVEN-PORT with the R bit, the server's RESERVATION-TOKEN, then an Allocate with that token."""
    token = (stun.RESERVATION_TOKEN, s.rng.randbytes(8))
    allocate(s, [UDP_TRANSPORT, (stun.EVEN_PORT, b"\x80")], [], [token])
    request, refusal = refuse(s, [UDP_TRANSPORT, token])
    s.exchange(End(CLIENT, 50123), RELAY, request, refusal)


def short_token(s: Stage) -> None:
    """0x0022 of 4 bytes is no RESERVATION-TOKEN (RFC 8656 18.10)."""
    t = s.transaction()
    attributes = [stun.xor_address(stun.XOR_RELAYED_ADDRESS, SERVER, 3489, t)]
    attributes += [(stun.RESERVATION_TOKEN, s.rng.randbytes(4)), stun.u32(stun.LIFETIME, 60)]
    refusal = stun.message(stun.ALLOCATE, stun.ERROR, t, [stun.error(400, "Bad Request")])
    s.exchange(OWN, RELAY, stun.message(stun.ALLOCATE, stun.REQUEST, t, attributes), refusal)


def token_with_username(s: Stage) -> None:
    """FaceTime's attributes, but with long-term credentials: not its client."""
    t, key = s.transaction(), s.rng.randbytes(16)
    attributes = [UDP_TRANSPORT, stun.xor_address(stun.XOR_RELAYED_ADDRESS, SERVER, 3489, t)]
    attributes += [(stun.RESERVATION_TOKEN, s.rng.randbytes(8)), stun.u32(stun.LIFETIME, 60), USER, REALM]
    refusal = stun.message(stun.ALLOCATE, stun.ERROR, t, [stun.error(437, "Allocation Mismatch")])
    s.exchange(OWN, RELAY, signed(stun.ALLOCATE, stun.REQUEST, t, attributes, key), refusal)


def bind_16402(s: Stage) -> None:
    """A channel to a peer's port 16402, from local port 16402: ports are no identity."""
    t, key = s.transaction(), s.rng.randbytes(16)
    attributes = [stun.channel_number(0x4000), stun.xor_address(stun.XOR_PEER_ADDRESS, PEER, 16402, t), USER, REALM]
    request = signed(stun.CHANNEL_BIND, stun.REQUEST, t, attributes, key)
    s.exchange(MEDIA, RELAY, request, signed(stun.CHANNEL_BIND, stun.SUCCESS, t, [], key))
    for _ in range(4):
        s.exchange(MEDIA, RELAY, stun.channel_data(0x4000, s.rng.randbytes(120)))


def address_error(s: Stage) -> None:
    """RFC 8656 18.12: 0x8001 is ADDRESS-ERROR-CODE, in the success answer to a dual-stack Allocate."""
    family = (0x8000, b"\x02\0\0\0")
    wrong = (0x8001, b"\x02\0\x04\x28Peer Address Family")
    allocate(s, [UDP_TRANSPORT, family], [], [wrong])


def rfc8489(s: Stage) -> None:
    """0x8002 PASSWORD-ALGORITHMS in a 401, 0x8003 ALTERNATE-DOMAIN in a 300 (RFC 8489 14.11, 14.16)."""
    one, two = s.transaction(), s.transaction()
    server = End(SERVER, 3478)
    algorithms = (0x8002, bytes.fromhex("0002000000010000"))
    nonce = (stun.NONCE, b"obMatJos2AAACf//499k954d6OL34oL9FSTvy64sA")
    refusal = stun.message(stun.BINDING, stun.ERROR, one, [stun.error(401, "Unauthorized"), REALM, nonce, algorithms])
    other = [stun.error(300, "Try Alternate"), stun.address(0x8023, PEER, 3478), (0x8003, b"stun.example.net")]
    s.exchange(OWN, server, stun.message(stun.BINDING, stun.REQUEST, one, []), refusal)
    away = stun.message(stun.BINDING, stun.ERROR, two, other)
    s.exchange(OWN, server, stun.message(stun.BINDING, stun.REQUEST, two, [algorithms]), away)


def twenty_letters(s: Stage) -> None:
    """A long-term username of 20 bytes without a colon, in a Binding request (RFC 8489 9.2)."""
    t, key = s.transaction(), s.rng.randbytes(16)
    attributes = [(stun.USERNAME, b"alice.liddell@oxford"), REALM, (stun.NONCE, b"0123456789abcdef")]
    mapped = stun.xor_address(stun.XOR_MAPPED_ADDRESS, *MAPPED, t)
    request = signed(stun.BINDING, stun.REQUEST, t, attributes, key)
    s.exchange(OWN, RELAY, request, signed(stun.BINDING, stun.SUCCESS, t, [mapped], key))


def ice_twenty(s: Stage) -> None:
    """ufrag:ufrag that happens to be 20 bytes long, between two ports 16402."""
    for _ in range(3):
        s.exchange(MEDIA, FAR, *ice_check(s, b"kQ2xLmP9a:Vw7Bn3zR8t"))


def slipstream(s: Stage) -> None:
    """A whole INVITE as the USERNAME of an Allocate: text inside an attribute is no SIP."""
    text = b"INVITE sip:a@198.51.100.9 SIP/2.0\r\nc: application/sdp\r\n\r\n"
    text += b"o=GKVoiceChatService 0 0 IN IP4 198.51.100.9\r\n"
    t = s.transaction()
    request = stun.message(stun.ALLOCATE, stun.REQUEST, t, [UDP_TRANSPORT, (stun.USERNAME, text)])
    s.exchange(
        OWN, RELAY, request, stun.message(stun.ALLOCATE, stun.ERROR, t, [stun.error(401, "Unauthorized"), REALM])
    )


def sip_in_channel(s: Stage) -> None:
    """Another softphone behind a relay."""
    allocate(s, [UDP_TRANSPORT], [], [])
    sip = (
        "OPTIONS sip:bob@example.org SIP/2.0\r\nv: SIP/2.0/UDP 203.0.113.20:49160;branch=z9hG4bK776asd\r\n"
        "f: <sip:alice@example.org>;tag=1928\r\nt: <sip:bob@example.org>\r\ni: a84b4c76e66710\r\nCSeq: 63 OPTIONS\r\n"
        "User-Agent: Linphone/3.8.1\r\nMax-Forwards: 70\r\nl: 0\r\n\r\n"
    )
    s.exchange(OWN, RELAY, stun.channel_data(0x4001, sip.encode()))
    head, _, rest = sip.partition("\r\n")
    assert head
    s.udp(RELAY, OWN, stun.channel_data(0x4001, f"SIP/2.0 200 OK\r\n{rest}".encode()))


def viceroy_in_channel(s: Stage) -> None:
    """The media engine's agent behind a relay, and a session that is not FaceTime's: the origin tells."""
    allocate(s, [UDP_TRANSPORT], [], [])
    for turn, agent in enumerate(("Viceroy 1.4.1", "Viceroy 1.7.0/GK")):
        sdp = (
            "v=0\r\no=ScreenSharing 0 0 IN IP4 203.0.113.20\r\ns=mobile\r\nc=IN IP4 203.0.113.20\r\nt=0 0\r\n"
            "m=video 16402 RTP/AVP 123\r\n"
        )
        sip = (
            "INVITE sip:bob@example.org SIP/2.0\r\nv: SIP/2.0/UDP 203.0.113.20:49160;branch=z9hG4bK776asd\r\n"
            f"f: <sip:alice@example.org>;tag=1928\r\nt: <sip:bob@example.org>\r\ni: a84b4c76e6671{turn}\r\n"
            f"CSeq: 63 INVITE\r\nUser-Agent: {agent}\r\nMax-Forwards: 70\r\nc: application/sdp\r\nl: {len(sdp)}\r\n\r\n"
        )
        s.udp(OWN, RELAY, stun.channel_data(0x4001, f"{sip}{sdp}".encode()))


def relayed_and_token_otherwise(s: Stage) -> None:
    """Two tokens; an address of three bytes; one that is signed (RFC 8489 14.5): each in one trait not FaceTime's."""
    for trait in range(3):
        t = s.transaction()
        relayed = stun.xor_address(stun.XOR_RELAYED_ADDRESS, SERVER, 3489, t)
        token = (stun.RESERVATION_TOKEN, s.rng.randbytes(8))
        more = ([token], [], [(stun.MESSAGE_INTEGRITY, s.rng.randbytes(20))])[trait]
        attributes = [(relayed[0], relayed[1][:3]) if trait == 1 else relayed, token, *more]
        s.udp(OWN, RELAY, stun.message(stun.ALLOCATE, stun.REQUEST, t, [*attributes, stun.u32(stun.LIFETIME, 60)]))


def refresh_with_code_0x0022(s: Stage) -> None:
    """0x0022 in a Refresh means nothing (RFC 8656 section 18), of whatever length."""
    for size in (4, 8, 12, 20):
        t = s.transaction()
        attributes = [(stun.RESERVATION_TOKEN, s.rng.randbytes(size)), stun.u32(stun.LIFETIME, 0)]
        answer = stun.message(stun.REFRESH, stun.SUCCESS, t, [stun.u32(stun.LIFETIME, 0)])
        s.exchange(OWN, RELAY, stun.message(stun.REFRESH, stun.REQUEST, t, attributes), answer)


def other_lengths(s: Stage) -> None:
    """XOR-RELAYED-ADDRESS in a request, and 0x0022 of lengths that no token has."""
    for size in (0, 6, 12, 16):
        t = s.transaction()
        attributes = [stun.xor_address(stun.XOR_RELAYED_ADDRESS, SERVER, 3489, t)]
        attributes += [(stun.RESERVATION_TOKEN, s.rng.randbytes(size)), stun.u32(stun.LIFETIME, 60)]
        s.udp(OWN, RELAY, stun.message(stun.ALLOCATE, stun.REQUEST, t, attributes))


def kerberos(s: Stage) -> None:
    """The outside of an AS-REQ: [APPLICATION 10], a length of two bytes, a SEQUENCE that fills it (RFC 4120 5.10)."""
    for size in (180, 300):
        inner = s.rng.randbytes(size)
        body = b"\x30\x82" + struct.pack("!H", size) + inner
        s.udp(OWN, End(SERVER, 20088), b"\x6a\x82" + struct.pack("!H", len(body)) + body)


def gtp(s: Stage) -> None:
    """GTPv2-C: an Echo Request with its Recovery element (3GPP TS 29.274 section 7.1.1)."""
    for number in range(3):
        s.udp(OWN, End(SERVER, 2123), b"\x40\x01\0\x09" + number.to_bytes(3, "big") + b"\0" + b"\x03\0\x01\0\x07")
