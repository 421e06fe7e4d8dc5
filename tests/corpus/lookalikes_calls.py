"""Calls of others, one trait of each that tells it: attributes, realms, first bytes, names in TLS."""

from __future__ import annotations

import struct

from tests.corpus import stun_bytes as stun
from tests.corpus import tls_bytes
from tests.corpus.lookalikes_stun import REALM, UDP_TRANSPORT, ice_check, signed
from tests.corpus.stage import CLIENT, PEER, SERVER, Stage
from tests.corpus.writer import End

OWN, RELAY, FAR = End(CLIENT, 50122), End(SERVER, 3478), End(PEER, 50300)


def dtls_hello(s: Stage) -> bytes:
    """A DTLS 1.2 ClientHello with use_srtp (RFC 6347 section 4.3.2, RFC 5764 section 4.1.1)."""
    srtp = tls_bytes.extension(14, b"\0\x02\0\x01\0")
    body = b"\xfe\xfd" + s.rng.randbytes(32) + b"\0\0" + struct.pack("!HH", 2, 0xC02B) + b"\x01\0"
    body += struct.pack("!H", len(srtp)) + srtp
    message = b"\x01" + len(body).to_bytes(3, "big") + b"\0\0" + b"\0\0\0" + len(body).to_bytes(3, "big") + body
    return b"\x16\xfe\xfd" + bytes(8) + struct.pack("!H", len(message)) + message


def srtp(s: Stage, number: int) -> bytes:
    return struct.pack("!BBHII", 0x80, 111, 700 + number, 960 * number, 0x1D2C3B4A) + s.rng.randbytes(90)


def browsers(s: Stage) -> None:
    """Two browsers: checks by ufrag:ufrag, DTLS, SRTP (RFC 8827 section 6.5)."""
    s.exchange(OWN, FAR, *ice_check(s, b"Zk3f:8QpL", True))
    s.udp(OWN, FAR, dtls_hello(s))
    for number in range(20):
        s.udp(OWN, FAR, srtp(s, number))


def browsers_relayed(s: Stage) -> None:
    """The same through TURN: all of it in ChannelData."""
    refused(s, b"turn.example.org")
    inside = [ice_check(s, b"Zk3f:8QpL", True)[0], dtls_hello(s), *(srtp(s, n) for n in range(20))]
    for message in inside:
        s.udp(OWN, RELAY, stun.channel_data(0x4001, message))


def refused(s: Stage, realm: bytes, relay: End = RELAY) -> None:
    t = s.transaction()
    refusal = [stun.error(401, "Unauthorized"), (stun.NONCE, b"0123456789abcdef"), (stun.REALM, realm)]
    request = stun.message(stun.ALLOCATE, stun.REQUEST, t, [UDP_TRANSPORT])
    s.exchange(OWN, relay, request, stun.message(stun.ALLOCATE, stun.ERROR, t, refusal))


def permitted(s: Stage, relay: End = RELAY) -> None:
    """CreatePermission for the peer, granted (RFC 8656 section 9); then the peer is tried directly."""
    t, key = s.transaction(), s.rng.randbytes(16)
    peer = stun.xor_address(stun.XOR_PEER_ADDRESS, FAR.host, FAR.port, t)
    request = signed(stun.CREATE_PERMISSION, stun.REQUEST, t, [peer, (stun.USERNAME, b"1:2"), REALM], key)
    s.exchange(OWN, relay, request, signed(stun.CREATE_PERMISSION, stun.SUCCESS, t, [], key))
    for _ in range(3):
        s.exchange(OWN, FAR, *ice_check(s, b"WJsu:mNwq"))


def signal(s: Stage) -> None:
    refused(s, b"signal.org")
    permitted(s)


def messenger(s: Stage) -> None:
    refused(s, b"turner.facebook", End(SERVER, 40003))
    permitted(s, End(SERVER, 40003))


def whatsapp(s: Stage) -> None:
    """A token in place of REQUESTED-TRANSPORT, and its relay's answer; then checks without USERNAME."""
    for _ in range(2):
        t = s.transaction()
        mapped = stun.xor_address(stun.XOR_MAPPED_ADDRESS, "71.15.163.132", 50122, t)
        request = stun.message(stun.ALLOCATE, stun.REQUEST, t, [(0x4000, s.rng.randbytes(102))])
        s.exchange(OWN, RELAY, request, stun.message(stun.ALLOCATE, stun.SUCCESS, t, [mapped, (0x4002, bytes(8))]))
    integrity = (stun.MESSAGE_INTEGRITY, s.rng.randbytes(20))
    s.udp(OWN, FAR, stun.message(stun.BINDING, stun.REQUEST, s.transaction(), [integrity]))


def meta(s: Stage) -> None:
    """What WhatsApp and Messenger share: methods of no standard, a token with MESSAGE-INTEGRITY."""
    s.udp(OWN, RELAY, struct.pack("!HH", 0x0801, 0) + b"".join(s.transaction()))
    attributes = [(0x4000, s.rng.randbytes(118)), (stun.MESSAGE_INTEGRITY, s.rng.randbytes(20))]
    s.udp(OWN, RELAY, stun.message(stun.ALLOCATE, stun.REQUEST, s.transaction(), attributes))


def teams(s: Stage) -> None:
    """CANDIDATE-IDENTIFIER and IMPLEMENTATION-VERSION of [MS-ICE2]."""
    more = [(stun.USERNAME, b"gppe:zWyk"), stun.u32(stun.PRIORITY, 1), (0x8054, b"1"), stun.u32(0x8070, 3)]
    t, key = s.transaction(), s.rng.randbytes(16)
    mapped = stun.xor_address(stun.XOR_MAPPED_ADDRESS, "71.15.163.132", 50122, t)
    answer = signed(stun.BINDING, stun.SUCCESS, t, [mapped, stun.u32(0x8070, 3)], key)
    s.exchange(OWN, FAR, signed(stun.BINDING, stun.REQUEST, t, more, key), answer)


def teams_relay(s: Stage) -> None:
    """[MS-TURN]: MS-VERSION, which is 0x8008, and MS-SERVICE-QUALITY."""
    t = s.transaction()
    attributes = [(0x000F, stun.COOKIE), stun.u32(0x8008, 4), (stun.USERNAME, s.rng.randbytes(56)), stun.u32(0x8055, 1)]
    s.udp(OWN, RELAY, stun.message(stun.ALLOCATE, stun.REQUEST, t, attributes))


def zoom(s: Stage) -> None:
    server = End(SERVER, 8801)
    s.udp(OWN, server, bytes.fromhex("010003") + s.rng.randbytes(120))
    s.udp(server, OWN, bytes.fromhex("020003") + s.rng.randbytes(41))


def discord(s: Stage) -> None:
    """IP discovery as its documentation has it, then media, then the keepalive."""
    server, ssrc = End(SERVER, 50004), s.rng.randbytes(4)
    s.udp(OWN, server, b"\0\x01\0\x46" + ssrc + bytes(66))
    s.udp(server, OWN, b"\0\x02\0\x46" + ssrc + b"71.15.163.132".ljust(64, b"\0") + struct.pack("!H", 50122))
    s.exchange(OWN, server, *(bytes.fromhex("1337cafe") + struct.pack("<I", 7),) * 2)


def zoom_in_a_browser(s: Stage) -> None:
    """Two UUIDs as the check's names."""
    name = b"E04D943F-C271-4C96-827D-DCBD09778680:2040F7EC-3FBF-41F7-9AC2-AAD5D4610A8E"
    s.udp(OWN, End(SERVER, 8801), ice_check(s, name)[0])


def long_names_to_8801(s: Stage) -> None:
    """As long as two UUIDs, and no UUIDs."""
    s.udp(OWN, End(SERVER, 8801), ice_check(s, b"a" * 36 + b":" + b"b" * 36)[0])


def reflected(s: Stage, word: bytes, size: int = 8) -> bytes:
    return b"\x05" + s.rng.randbytes(15) + b"\xff" * 12 + word + s.rng.randbytes(size)


def telegram(s: Stage) -> None:
    """A reflector is asked and answers (libtgvoip): peer tag, twelve 0xFF, what it is."""
    reflector = End(SERVER, 598)
    for _ in range(3):
        s.exchange(OWN, reflector, reflected(s, b"\xfe\xff\xff\xff"), reflected(s, bytes.fromhex("c77215c0"), 32))


def ones_of_another(s: Stage) -> None:
    """Twelve 0xFF at the same place, and another word behind; a first byte of no protocol in use."""
    for number in range(12):
        s.udp(OWN, End(SERVER, 598), reflected(s, b"\xfd\xff\xff\xff" if number % 2 else b"\0\1\2\3"))


def meet(s: Stage) -> None:
    """A media server's name of 26 letters, on Google's port, with the library's own attribute."""
    t, key = s.transaction(), s.rng.randbytes(22)
    name = bytes(s.rng.choices(b"abcdefghijklmnopqrstuvwxyz", k=26)) + b":P8/L"
    more = [(stun.USERNAME, name), stun.u32(0xC057, 1), (stun.ICE_CONTROLLING, s.rng.randbytes(8))]
    s.udp(OWN, End(SERVER, 19305), signed(stun.BINDING, stun.REQUEST, t, [*more, stun.u32(stun.PRIORITY, 1)], key))


def messenger_on_a_phone(s: Stage) -> None:
    """What made one take it for FaceTime: Apple's push connection, then ChannelData with payload types of 2015."""
    push = s.tcp(End("17.57.144.11", 5223), handshake=False)
    for n in range(4):
        push.send(tls_bytes.application_data(s.rng, 1100), n % 2 == 0)
    refused(s, b"turner.facebook", End(SERVER, 40003))
    for number in range(60):
        head = struct.pack("!BBHII", 0x80, (104, 119, 123)[number % 3], number // 3, 480 * number, 7 + number % 3)
        s.udp(OWN, End(SERVER, 40003), stun.channel_data(0x4000, head + s.rng.randbytes(60)))


def game_center(s: Stage) -> None:
    rng = s.rng
    turns = [tls_bytes.client_hello(rng, "service.gc.apple.com"), tls_bytes.server_hello(rng)]
    s.talk(s.tcp(End("17.154.66.10", 443)), *turns, tls_bytes.client_finished(rng))
