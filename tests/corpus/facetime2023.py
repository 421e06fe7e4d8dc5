"""FaceTime of 2023 as bytes, made anew from its field notes: no byte is a recorded one.

Relay: QUIC to Apple, then ChannelData on 0x6000. Peer to peer: checks of two or three attributes, control indications.
"""

from __future__ import annotations

import random
import struct

from tests.corpus import quic_bytes
from tests.corpus import stun_bytes as stun
from tests.corpus.stage import CLIENT, PEER, Stage
from tests.corpus.stun_bytes import Transaction
from tests.corpus.writer import End, packed

RADIO, LINK, DATA, PAD = 0x8007, 0x8008, 0x0013, 0xAAAA
OWN, FAR, RELAY = End(CLIENT, 16393), End(PEER, 16393), End("17.249.172.142", 3482)


def relay_hello(rng: random.Random, sni: str | None = None, scid: bytes = b"", resumes: bool = True) -> bytes:
    return quic_bytes.initial(quic_bytes.client_hello(rng, sni, resumes), rng.randbytes(8), scid)


def check(rng: random.Random, transaction: Transaction, link: bool = True) -> bytes:
    """Link UUID, radio type (0: Wi-Fi), MESSAGE-INTEGRITY; the short form has no UUID."""
    attributes = [stun.u32(RADIO, 0), (stun.MESSAGE_INTEGRITY, rng.randbytes(20))]
    if link:
        attributes.insert(0, (LINK, rng.randbytes(16)))
    return stun.message(stun.BINDING, stun.REQUEST, transaction, attributes)


def flagged(rng: random.Random, transaction: Transaction, mapped: End) -> bytes:
    """An answer with the two flags and without the link."""
    address = stun.xor_address(stun.XOR_MAPPED_ADDRESS, mapped.host, mapped.port, transaction)
    attributes = [address, stun.u32(0x8023, 1), stun.u32(0x8024, 1), (stun.MESSAGE_INTEGRITY, rng.randbytes(20))]
    return stun.message(stun.BINDING, stun.SUCCESS, transaction, attributes)


def answer(rng: random.Random, transaction: Transaction, mapped: End, v6: bool = False) -> bytes:
    address = stun.xor_address(stun.XOR_MAPPED_ADDRESS, "2001:db8::1" if v6 else mapped.host, mapped.port, transaction)
    attributes = [address, (LINK, rng.randbytes(16)), (stun.MESSAGE_INTEGRITY, rng.randbytes(20))]
    return stun.message(stun.BINDING, stun.SUCCESS, transaction, attributes)


def command(rng: random.Random, number: int, *elements: tuple[int, bytes]) -> bytes:
    """A control message: command, length, 16 zero bytes, elements, and a code of 20 bytes under type 9."""
    coded = b"".join(struct.pack("!HH", kind, len(value)) + value for kind, value in elements)
    coded += struct.pack("!HH", 9, 20) + rng.randbytes(20)
    return struct.pack("!HH", number, len(coded)) + bytes(16) + coded


def control(rng: random.Random, transaction: Transaction, size: int = 50) -> bytes:
    """A Data indication on channel 0 that keeps the link alive (3) or answers (0x8004), with a counter (type 1)."""
    counter, more = (0x0001, rng.randbytes(2)), (0x000C, rng.randbytes(12))
    data = command(rng, 3, counter) if size == 50 else command(rng, 0x8004, counter, more)
    return stun.message(stun.DATA, stun.INDICATION, transaction, [stun.channel_number(0), (DATA, data)])


def media(rng: random.Random, sequence: int, kind: int = 104, ssrc: int = 0x84B74CF9) -> bytes:
    """A frame with RTP: the fields that its second byte announces, any of them (field notes A4)."""
    first, second, fields = 0x01 if kind == 100 else 0x00, 0x40, b""
    for bit, size in ((0x01, 2), (0x04, 8), (0x08, 1), (0x20, 1), (0x10, 2)):
        if rng.random() < 0.5:
            second |= bit
            fields += rng.randbytes(size)
    if rng.random() < 0.2:
        first, fields = first | 0x06, fields + rng.randbytes(12)
    rtp = struct.pack("!BBHII", 0x80, kind, sequence & 0xFFFF, 480 * sequence, ssrc) + rng.randbytes(80)
    return stun.channel_data(0x6000, bytes([first, second]) + fields + rtp)


def channel(rng: random.Random, size: int = 80) -> bytes:
    """ChannelData whose content nobody reads."""
    return stun.channel_data(0x6000, rng.randbytes(size))


def counter(token: bytes, count: int) -> bytes:
    """What the client sends in the first second: a token and a counter, 10 bytes in all."""
    return stun.channel_data(0x6000, b"\x02\x41" + token + struct.pack("!H", count))


def report(rng: random.Random) -> bytes:
    """What the relay answers: 18 bytes."""
    return stun.channel_data(0x6000, b"\x06\x00" + rng.randbytes(12))


def controlled(rng: random.Random) -> bytes:
    """A control message by way of the relay, for one participant."""
    head = b"\x80\x04\x00\x30" + rng.randbytes(8)
    return stun.channel_data(0x6000, head + command(rng, 3, (0x0001, rng.randbytes(2))))


def probe(rng: random.Random, own: End, pad: int = PAD) -> bytes:
    """SNATMAP's request."""
    return struct.pack("!II", 1, rng.randrange(1 << 31)) + packed(own.host) + struct.pack("!HH", own.port, pad)


def relayed(s: Stage, own: End = OWN, relay: End = RELAY) -> None:
    """The relay leg: a handshake, then the channel in both directions."""
    s.udp(own, relay, relay_hello(s.rng))
    framed(s, own, relay)


def framed(s: Stage, own: End = OWN, relay: End = RELAY, frames: int = 40) -> None:
    """Sound and pictures by way of the relay."""
    for number in range(frames):
        frame = media(s.rng, number, (104, 100)[number % 3 == 2], 7 + number % 3)
        s.udp(*((own, relay) if number % 2 else (relay, own)), frame)


def relayed_from_the_middle(s: Stage) -> None:
    framed(s)


def relayed_by_another(s: Stage) -> None:
    """The same frames where addresses and ports say nothing: a relay of Apple's behind a translation."""
    framed(s, End(CLIENT, 50122), End("203.0.113.20", 5000))


def relayed_from_the_start_of_the_channel(s: Stage) -> None:
    """The handshake is over, media has not begun."""
    own, relay, token = End(CLIENT, 50122), End("203.0.113.20", 5000), s.rng.randbytes(2)
    for number in range(12):
        s.udp(own, relay, counter(token, number))
        if number % 4 == 0:
            s.udp(relay, own, report(s.rng))


def controlled_through_the_relay(s: Stage) -> None:
    for _ in range(3):
        s.udp(OWN, End("203.0.113.20", 3482), controlled(s.rng))


def within_the_handshake_of(s: Stage, own: End, relay: End) -> None:
    """The ClientHello went by: short headers, the client's with the relay's connection ID, the relay's without."""
    ident = s.rng.randbytes(8)
    for number in range(24):
        mine = bytes([0x40 | s.rng.randrange(0x20)]) + ident + s.rng.randbytes(30 + number)
        theirs = bytes([0x40 | s.rng.randrange(0x20)]) + s.rng.randbytes(60)
        s.udp(*((relay, own, theirs) if number % 4 == 3 else (own, relay, mine)))


def within_the_handshake(s: Stage, own: End = OWN, relay: End = RELAY) -> None:
    within_the_handshake_of(s, own, relay)
    framed(s, own, relay)


def direct(s: Stage) -> None:
    """The peer's address is tried, answers, and the pair is kept alive."""
    for link in (True, False):
        t = s.transaction()
        s.exchange(OWN, FAR, check(s.rng, t, link), answer(s.rng, t, End("71.15.163.132", 20699)))
    for size in (50, 66):
        s.udp(OWN, FAR, control(s.rng, s.transaction(), size))


def direct_unanswered(s: Stage) -> None:
    t = s.transaction()
    for _ in range(4):
        s.udp(OWN, FAR, check(s.rng, t), after=1.0)


def flags_alone(s: Stage) -> None:
    s.udp(FAR, OWN, flagged(s.rng, s.transaction(), End("71.15.163.132", 20699)))


def bandwidth_probed(s: Stage) -> None:
    """The relay asks how much the way bears; only who it is makes that FaceTime's."""
    for number in range(12):
        s.udp(RELAY, OWN, bytes.fromhex("deadbeefcafe0002") + s.rng.randbytes(4) + struct.pack("!6I", *[number] * 6))


def bandwidth_probed_by_another(s: Stage) -> None:
    for number in range(12):
        probe = bytes.fromhex("deadbeefcafe0002") + s.rng.randbytes(4) + struct.pack("!6I", *[number] * 6)
        s.udp(End("203.0.113.20", 3482), OWN, probe)


def first_relayed(s: Stage) -> None:
    """No session to resume: the hello that was computed, not seen."""
    s.udp(OWN, RELAY, relay_hello(s.rng, resumes=False))


def other_groups(s: Stage) -> None:
    """Another key exchange offered: JA3 is another, JA4 the same."""
    hello = quic_bytes.client_hello(s.rng).replace(bytes.fromhex("001d00170018"), bytes.fromhex("11ec001d0017"))
    s.udp(OWN, End("203.0.113.20", 3482), quic_bytes.initial(hello, s.rng.randbytes(8)))


def another_release(s: Stage, server: End = RELAY) -> None:
    """A cipher the less: neither fingerprint is known, the rest is as it was."""
    hello = quic_bytes.client_hello(s.rng).replace(bytes.fromhex("130113021303"), bytes.fromhex("130113031303"))
    s.udp(OWN, server, quic_bytes.initial(hello, s.rng.randbytes(8)))


def another_release_elsewhere(s: Stage) -> None:
    """The same to a server that is not Apple's."""
    another_release(s, End("203.0.113.20", 3482))


def greeted_elsewhere(s: Stage) -> None:
    """The system's own hello to a web server by its address: there is no name to send (RFC 6066 section 3)."""
    s.udp(OWN, End("203.0.113.20", 443), relay_hello(s.rng))


def foreign_relay(s: Stage) -> None:
    """Somebody else's TURN relay that hands out the same channel (RFC 5766 section 11: 0x4000 to 0x7FFF): SRTP."""
    for turn in range(60):
        ends = (OWN, End("203.0.113.20", 3478))
        head = (
            struct.pack("!BBHII", (0x80, 0x90)[turn % 2], (111, 100, 0)[turn % 3], turn, 960 * turn, 9)
            + b"\xbe\xde\0\0"
        )
        s.udp(*(ends if turn % 2 else ends[::-1]), stun.channel_data(0x6000, head + s.rng.randbytes(70)))


def foreign_relay_of_secrets(s: Stage) -> None:
    """The same with content that nobody reads."""
    for turn in range(60):
        ends = (OWN, End("203.0.113.20", 3478))
        s.udp(*(ends if turn % 2 else ends[::-1]), channel(s.rng))


def controls_alone(s: Stage) -> None:
    for _ in range(3):
        s.udp(FAR, OWN, control(s.rng, s.transaction()), after=5.0)


__all__ = ["check", "control", "direct", "relayed"]
