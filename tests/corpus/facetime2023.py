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

RADIO, LINK, PAD = 0x8007, 0x8008, 0xAAAA
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


def control(rng: random.Random, transaction: Transaction, size: int = 50) -> bytes:
    """A Data indication on channel 0: command 3 (keepalive), length, 18 zero bytes, counter, HMAC."""
    head = struct.pack("!HH", 3, size - 4) + bytes(18) + rng.randbytes(size - 22 - 24) + b"\0\x09\0\x14"
    data = (head + rng.randbytes(20))[:size]
    return stun.message(stun.DATA, stun.INDICATION, transaction, [stun.channel_number(0), (0x0013, data)])


def channel(rng: random.Random, size: int = 80) -> bytes:
    """Media flags, then what nobody reads."""
    return stun.channel_data(0x6000, b"\0\x01" + rng.randbytes(size))


def probe(rng: random.Random, own: End, pad: int = PAD) -> bytes:
    """SNATMAP's request."""
    return struct.pack("!II", 1, rng.randrange(1 << 31)) + packed(own.host) + struct.pack("!HH", own.port, pad)


def relayed(s: Stage) -> None:
    """The relay leg: a handshake, then the channel in both directions."""
    s.udp(OWN, RELAY, relay_hello(s.rng))
    for number in range(40):
        s.udp(*((OWN, RELAY) if number % 2 else (RELAY, OWN)), channel(s.rng))


def relayed_from_the_middle(s: Stage) -> None:
    for number in range(40):
        s.udp(*((OWN, RELAY) if number % 2 else (RELAY, OWN)), channel(s.rng))


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
    """Somebody else's TURN relay that hands out the same channel (RFC 5766 section 11: 0x4000 to 0x7FFF)."""
    for turn in range(12):
        ends = (OWN, End("203.0.113.20", 3478))
        s.udp(*(ends if turn % 2 else ends[::-1]), channel(s.rng))


def controls_alone(s: Stage) -> None:
    for _ in range(3):
        s.udp(FAR, OWN, control(s.rng, s.transaction()), after=5.0)


__all__ = ["check", "control", "direct", "relayed"]
