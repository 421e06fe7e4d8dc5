"""Other vendors' relays and checks: channels of every number, odd attributes, QUIC relays, softphones behind TURN."""

from __future__ import annotations

import struct

from tests.corpus import facetime2023 as modern
from tests.corpus import quic_bytes
from tests.corpus import stun_bytes as stun
from tests.corpus.lookalikes_calls import dtls_hello, refused, srtp
from tests.corpus.lookalikes_stun import ice_check, signed
from tests.corpus.stage import CLIENT, PEER, SERVER, Stage
from tests.corpus.stun_bytes import Attribute
from tests.corpus.writer import End

OWN, RELAY, FAR = End(CLIENT, 16393), End(SERVER, 3478), End(PEER, 16393)
CHANNELS = (0x4000, 0x4FFF, 0x5000, 0x5FFF, 0x6000, 0x6001, 0x7000, 0x7FFF)


def every_channel(s: Stage) -> None:
    """WebRTC through TURN on channels of RFC 5766 (0x4000 to 0x7FFF), from a port of FaceTime's own."""
    for number, channel in enumerate(CHANNELS):
        own, relay = OWN._replace(port=16393 + number), RELAY._replace(port=3478 + number)
        refused(s, b"turn.example.org", relay)
        for message in (ice_check(s, b"Zk3f:8QpL", True)[0], dtls_hello(s), *(srtp(s, n) for n in range(30))):
            s.udp(own, relay, stun.channel_data(channel, message))


def media_on_0x6000_from_the_middle(s: Stage) -> None:
    """SRTP of others, whole calls long, where the first packets are missing."""
    for number in range(60):
        kind = (104, 119, 123, 100, 20)[number % 5]
        head = struct.pack("!BBHII", (0x80, 0x90)[number % 2], kind, number // 5, 480 * number, 7 + number % 5)
        body = head + b"\xbe\xde\0\0" + s.rng.randbytes(60)
        ends = OWN, RELAY
        s.udp(*(ends if number % 2 else ends[::-1]), stun.channel_data(0x6000, body))


def wrapped_on_0x6000(s: Stage) -> None:
    """A vendor's header of four bytes before RTP, a length first: no flags that add up."""
    for number in range(40):
        rtp = struct.pack("!BBHII", 0x80, 100, number, 960 * number, 9) + s.rng.randbytes(60)
        s.udp(OWN, RELAY, stun.channel_data(0x6000, struct.pack("!HH", len(rtp), 0x5A00 + number) + rtp))


def wrapped_in_flags(s: Stage) -> None:
    """Another vendor's few bytes of flags before RTP of static types, where FaceTime's fields would end as well."""
    for number in range(40):
        rtp = struct.pack("!BBHII", 0x80, (0, 8, 9, 96)[number % 4], number, 160 * number, 9) + s.rng.randbytes(80)
        s.udp(*((OWN, RELAY) if number % 2 else (RELAY, OWN)), stun.channel_data(0x6000, b"\0\x40" + rtp))


def data_on_channel_0(s: Stage) -> None:
    """A Data indication without a peer, on channel 0, of the two lengths: what it holds is nobody's control message."""
    for size in (50, 66, 50, 66):
        attributes = [stun.channel_number(0), (0x0013, struct.pack("!HH", 7, size - 4) + s.rng.randbytes(size - 4))]
        s.udp(FAR, OWN, stun.message(stun.DATA, stun.INDICATION, s.transaction(), attributes))


def answers_with_0x8023(s: Stage) -> None:
    """ALTERNATE-SERVER of 8 bytes (RFC 8489 section 14.15) beside a number that nobody owns, and MESSAGE-INTEGRITY."""
    for more in ((stun.address(0x8023, PEER, 3478), (0x8024, bytes(4))), ((0x8023, bytes(12)), (0x8024, bytes(12)))):
        t = s.transaction()
        mapped = stun.xor_address(stun.XOR_MAPPED_ADDRESS, "71.15.163.132", 20699, t)
        given: list[Attribute] = [mapped, *more, (stun.MESSAGE_INTEGRITY, s.rng.randbytes(20))]
        s.exchange(OWN, RELAY, *(stun.message(stun.BINDING, kind, t, given if kind else []) for kind in (0, 0x100)))


def odd_attributes(s: Stage) -> None:
    """Checks with private attributes of many vendors, FaceTime's numbers among them, one or two at a time."""
    private = (0x8000, 0x8004, 0x8005, 0x8006, 0x8007, 0x8008, 0x8009, 0x8023, 0x8024, 0xC001, 0xC057, 0xFFF0, 0xFFFB)
    for first, second in zip(private, (*private[1:], private[0]), strict=True):
        t, key = s.transaction(), s.rng.randbytes(16)
        more = [(stun.USERNAME, b"Zk3f:8QpL"), stun.u32(first, 1), (second, s.rng.randbytes(16))]
        s.udp(OWN, FAR, signed(stun.BINDING, stun.REQUEST, t, more, key))
        s.udp(OWN, FAR, stun.message(stun.BINDING, stun.REQUEST, s.transaction(), [stun.u32(first, 1)]))


def binary_username(s: Stage) -> None:
    """20 binary bytes as USERNAME with three of the four private attributes of 2015."""
    username = (stun.USERNAME, bytes(byte | 0x80 for byte in s.rng.randbytes(20)))
    for left_out in (0x8001, 0x8002, 0x8003, 0x8009):
        numbers = [n for n in (0x8001, 0x8002, 0x8003, 0x8009) if n != left_out]
        attributes = [username, *((n, bytes.fromhex("0002000000010000")) for n in numbers), (0x802A, bytes(8))]
        s.udp(OWN, FAR, stun.message(stun.BINDING, stun.REQUEST, s.transaction(), attributes))


def allocate_of_another(s: Stage) -> None:
    """XOR-RELAYED-ADDRESS and a token of 8 bytes in a request, with what FaceTime's has not."""
    for more in ((stun.EVEN_PORT, b"\x80"), (0x0017, b"\2\0\0\0"), (0x4000, s.rng.randbytes(40)), stun.u32(0x8055, 1)):
        t = s.transaction()
        given = [stun.xor_address(stun.XOR_RELAYED_ADDRESS, SERVER, 3489, t), (stun.RESERVATION_TOKEN, bytes(8)), more]
        s.udp(OWN, RELAY, stun.message(stun.ALLOCATE, stun.REQUEST, t, given))


def refresh_and_bind(s: Stage) -> None:
    """A relay's other requests with both: only an Allocate asks for an allocation."""
    for method in (stun.REFRESH, stun.CREATE_PERMISSION, stun.CHANNEL_BIND):
        t = s.transaction()
        given = [stun.xor_address(stun.XOR_RELAYED_ADDRESS, SERVER, 3489, t), (stun.RESERVATION_TOKEN, bytes(8))]
        s.udp(OWN, RELAY, stun.message(method, stun.REQUEST, t, given))


def chrome_to_an_address(s: Stage) -> None:
    """Another stack's QUIC to a server by its address: no name, no connection ID, h3, another hello."""
    hello = quic_bytes.client_hello(s.rng, None, resumes=False)
    hello = hello.replace(bytes.fromhex("0805080505"), bytes.fromhex("0805080606"))
    for port in (443, 3478, 3482, 4433, 8443):
        s.udp(End(CLIENT, 50122), End(SERVER, port), quic_bytes.initial(hello, s.rng.randbytes(8)))


def quic_relay_from_the_middle(s: Stage) -> None:
    """A MASQUE or TURN-like relay over QUIC on a TURN port, joined in its middle."""
    modern.within_the_handshake_of(s, End(CLIENT, 16393), End(SERVER, 3482))


def softphone_behind_turn(s: Stage) -> None:
    """A whole INVITE in ChannelData with FaceTime's ports and payload types, of another's softphone."""
    refused(s, b"turn.example.org")
    sdp = (
        "v=0\r\no=- 3 3 IN IP4 203.0.113.20\r\ns=mobile\r\nc=IN IP4 203.0.113.20\r\nt=0 0\r\nb=AS:2000\r\n"
        "m=audio 16402 RTP/AVP 104 119\r\na=rtcp:16402\r\nm=video 16402 RTP/AVP 123\r\na=rtpmap:123 H264/90000\r\n"
    )
    invite = (
        "INVITE sip:user@203.0.113.20:16402 SIP/2.0\r\nv: SIP/2.0/UDP 203.0.113.20:16402;branch=z9hG4bK776\r\n"
        "f: <sip:alice@example.org>;tag=1928\r\nt: <sip:bob@example.org>\r\ni: a84b4c76e66710\r\nCSeq: 1 INVITE\r\n"
        f"User-Agent: baresip v1.0.0\r\nc: application/sdp\r\nl: {len(sdp)}\r\n\r\n{sdp}"
    )
    s.udp(OWN, RELAY, stun.channel_data(0x4000, invite.encode()))
    for number in range(40):
        head = struct.pack("!BBHII", 0x80, (104, 119, 123)[number % 3], number // 3, 480 * number, 7 + number % 3)
        s.udp(OWN, RELAY, stun.channel_data(0x4000, head + s.rng.randbytes(60)))


def service_in_other_headers(s: Stage) -> None:
    """The service's name in URI, Call-ID, Subject, and in lines of the SDP that are not its origin."""
    sdp = (
        "v=0\r\no=- 3 3 IN IP4 172.16.42.187\r\ns=-\r\ni=GKVoiceChatService\r\nu=http://GKVoiceChatService/\r\n"
        "c=IN IP4 172.16.42.187\r\nt=0 0\r\na=o=GKVoiceChatService 0 0\r\nm=audio 16402 RTP/AVP 0\r\n"
    )
    invite = (
        "INVITE sip:GKVoiceChatService@198.51.100.9 SIP/2.0\r\n"
        "Via: SIP/2.0/UDP 172.16.42.187:5060;branch=z9hG4bK776\r\n"
        "From: GKVoiceChatService <sip:GKVoiceChatService@example.org>;tag=1928\r\nTo: <sip:bob@example.org>\r\n"
        "Call-ID: GKVoiceChatService\r\nSubject: GKVoiceChatService\r\nCSeq: 1 INVITE\r\nMax-Forwards: 70\r\n"
        f"Content-Type: application/sdp\r\nContent-Length: {len(sdp)}\r\n\r\n{sdp}"
    )
    s.udp(End(CLIENT, 5060), End(PEER, 5060), invite.encode())
