"""UDP on FaceTime's ports that is not FaceTime's, and SIP that only mentions its names."""

from __future__ import annotations

import struct

from tests.corpus.stage import CLIENT, PEER, SERVER, Stage
from tests.corpus.writer import End, packed

MEDIA, FAR, PROXY, OWN = End(CLIENT, 16402), End(PEER, 16402), End(SERVER, 5060), End(CLIENT, 5060)
SNATMAP, PROBED = End(CLIENT, 16403), End("17.173.255.222", 16384)


def noise_16402(s: Stage) -> None:
    """Random datagrams whose first byte is of no protocol in use (RFC 7983: 4 to 15 are unassigned)."""
    for number in range(24):
        payload = bytes([4 + number % 8]) + s.rng.randbytes(s.rng.randint(40, 400))
        s.udp(*((MEDIA, FAR) if number % 2 == 0 else (FAR, MEDIA)), payload)


def no_pad(s: Stage) -> None:
    """Right in all but the pad: neither 0xFFFF (2015) nor 0xAAAA."""
    for pad in (0x0000, 0x1234, 0xFF00):
        body = struct.pack("!II", 1, s.rng.randrange(1 << 31)) + packed(CLIENT) + struct.pack("!HH", 16403, pad)
        s.udp(SNATMAP, PROBED, body)


def padded(s: Stage) -> None:
    """The report's own words: padded with 0xFF to 16 bytes; here ten bytes that nobody can read, and six of padding."""
    for _ in range(3):
        s.exchange(SNATMAP, PROBED, *(b"\x07" + s.rng.randbytes(9) + b"\xff" * 6 for _ in range(2)))


def other_address(s: Stage) -> None:
    """16 bytes and the pad, yet the address inside is not the sender's."""
    for _ in range(3):
        body = struct.pack("!II", 1, s.rng.randrange(1 << 31)) + packed("10.9.8.7") + struct.pack("!HH", 1234, 0xFFFF)
        s.udp(SNATMAP, PROBED, body)


def lone_rtp(s: Stage) -> None:
    """Payload types 104, 119 and 123 are dynamic: anyone's (RFC 3551 section 3)."""
    for number in range(120):
        kind = (104, 119, 123)[number % 3]
        head = struct.pack("!BBHII", 0x80, kind, 100 + number // 3, 480 * number, 0x10203040 + kind)
        s.udp(MEDIA, FAR, head + s.rng.randbytes(100))


def service_in_noise(s: Stage) -> None:
    for _ in range(12):
        s.udp(MEDIA, FAR, b"\x05" + s.rng.randbytes(20) + b"o=GKVoiceChatService 0 0 IN IP4 1.2.3.4\r\n")


def service_as_agent(s: Stage) -> None:
    invite(s, OWN, PROXY, "GKVoiceChatService", "o=alice 2890844526 2890844526 IN IP4 172.16.42.187", "s=-")


def service_as_session(s: Stage) -> None:
    invite(s, OWN, PROXY, "Linphone/3.8.1", "o=alice 1 1 IN IP4 172.16.42.187", "s=GKVoiceChatService")


def service_prefix(s: Stage) -> None:
    """The user name of o= is another one that only begins alike."""
    invite(s, OWN, PROXY, "Linphone/3.8.1", "o=GKVoiceChatServiceX 1 1 IN IP4 172.16.42.187", "s=-")


def agents_of_no_version(s: Stage) -> None:
    """The media engine's name, and no version number of its own behind it."""
    for n, agent in enumerate(("Viceroy 1.x softphone", "Viceroy 1.4.1-compatible", "Viceroy 1. and more/GK",
                               "Viceroy 1.7.0/GKX", "Viceroy 1.7.0/GK (like)", "Viceroy  1.7.0/GK")):  # fmt: skip
        a, b = End(CLIENT, 16402 + n), End(PEER, 16402 + n)
        invite(s, a, b, agent, "o=user 0 0 IN IP4 172.16.42.187", "s=user")
        bye(s, a, b, agent)


def bye(s: Stage, a: End, b: End, agent: str) -> None:
    s.udp(a, b, (
        f"BYE sip:user@{b.host}:{b.port} SIP/2.0\r\nv: SIP/2.0/UDP {a.host}:{a.port};branch=z9hG4bK77\r\n"
        f"f: <sip:user@{a.host}:{a.port}>;tag=1\r\nt: <sip:user@{b.host}:{b.port}>;tag=2\r\ni: b1@{a.host}\r\n"
        f"CSeq: 2 BYE\r\nUser-Agent: {agent}\r\nl: 0\r\n\r\n"
    ).encode())  # fmt: skip


def goodbye_of_the_media_engine(s: Stage) -> None:
    """The end of a call of either of its applications: no description says whose."""
    for number in range(3):
        s.udp(MEDIA, FAR, struct.pack("!BBHII", 0x80, 104, number, 480 * number, 7) + s.rng.randbytes(60))
    bye(s, MEDIA, FAR, "Viceroy 1.4.1")


def ichat(s: Stage) -> None:
    """iChat AV's INVITE of 2010: Viceroy too, on 16402 too, but its own SDP (field notes A3)."""
    more = ("a=hwi:17412:2:3600", "a=iChatEncryption:YES", "a=bandwidthDetection:NO", "a=FLS;VRA:0;RVRA:1;AS:2")
    invite(s, MEDIA, FAR, "Viceroy 1.4.1", "o=user 0 0 IN IP4 172.16.42.187", "s=user", *more)


def invite(s: Stage, a: End, b: End, agent: str, origin: str, name: str, *more: str) -> None:
    """INVITE, 100 and 486, ACK: long header names, a plain body."""
    sdp = [
        "v=0",
        origin,
        name,
        "c=IN IP4 172.16.42.187",
        "t=0 0",
        *more,
        "m=audio 16402 RTP/AVP 0 8 101",
        "a=rtcp:16402",
    ]
    body = "\r\n".join([*sdp, ""])
    shared = (
        f"Via: SIP/2.0/UDP {a.host}:{a.port};branch=z9hG4bK{s.rng.randbytes(5).hex()}\r\n"
        f"From: <sip:alice@{a.host}:{a.port}>;tag={s.rng.randrange(1 << 30)}\r\n"
        f"Call-ID: {s.rng.randbytes(8).hex()}@{a.host}\r\n"
    )
    to = f"To: <sip:bob@{b.host}:{b.port}>"
    request = f"INVITE sip:bob@{b.host}:{b.port} SIP/2.0\r\n{shared}{to}\r\nCSeq: 1 INVITE\r\nMax-Forwards: 70\r\n"
    request += f"Contact: <sip:alice@{a.host}:{a.port}>;isfocus\r\nUser-Agent: {agent}\r\n"
    request += f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    refused = f"SIP/2.0 486 Busy Here\r\n{shared}{to};tag=77\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n"
    trying = f"SIP/2.0 100 Trying\r\n{shared}{to}\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n"
    s.exchange(a, b, request.encode(), trying.encode(), refused.encode())
    ack = f"ACK sip:bob@{b.host}:{b.port} SIP/2.0\r\n{shared}{to};tag=77\r\nCSeq: 1 ACK\r\nMax-Forwards: 70\r\n"
    s.udp(a, b, f"{ack}Content-Length: 0\r\n\r\n".encode())
