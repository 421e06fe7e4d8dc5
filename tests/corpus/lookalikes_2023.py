"""What resembles FaceTime of 2023 in one trait each: its attributes, its channel, its QUIC, its probe."""

from __future__ import annotations

import struct

from tests.corpus import facetime2023 as apple
from tests.corpus import quic_bytes
from tests.corpus import stun_bytes as stun
from tests.corpus.facetime2023 import FAR, LINK, OWN, RADIO, RELAY
from tests.corpus.lookalikes_stun import signed
from tests.corpus.stage import SERVER, Stage
from tests.corpus.stun_bytes import Attribute
from tests.corpus.writer import End

WEB, TURN = End(SERVER, 443), End(SERVER, 3478)


def exchange(s: Stage, *attributes: Attribute, to: End = FAR) -> None:
    for _ in range(2):
        t = s.transaction()
        mapped = stun.xor_address(stun.XOR_MAPPED_ADDRESS, "71.15.163.132", 20699, t)
        request = stun.message(stun.BINDING, stun.REQUEST, t, list(attributes))
        s.exchange(OWN, to, request, stun.message(stun.BINDING, stun.SUCCESS, t, [mapped]))


def parts(s: Stage) -> tuple[Attribute, Attribute, Attribute]:
    return (LINK, s.rng.randbytes(16)), stun.u32(RADIO, 0), (stun.MESSAGE_INTEGRITY, s.rng.randbytes(20))


def version_of_microsoft(s: Stage) -> None:
    """MS-VERSION is 0x8008 with 4 bytes ([MS-TURN] section 2.2.2)."""
    _, _, integrity = parts(s)
    exchange(s, stun.u32(LINK, 6), integrity)


def another_order(s: Stage) -> None:
    link, radio, integrity = parts(s)
    exchange(s, radio, link, integrity)


def with_fingerprint(s: Stage) -> None:
    exchange(s, *parts(s), stun.u32(stun.FINGERPRINT, 1))


def with_more_behind(s: Stage) -> None:
    """The very attributes, and four bytes behind the message's length."""
    for _ in range(3):
        t = s.transaction()
        s.udp(OWN, FAR, stun.message(stun.BINDING, stun.REQUEST, t, [*parts(s)]) + s.rng.randbytes(4))


def with_username(s: Stage) -> None:
    """A check of RFC 8445 that carries the two attributes besides."""
    link, radio, _ = parts(s)
    t = s.transaction()
    username = (stun.USERNAME, b"Zk3f:8QpL")
    s.udp(OWN, FAR, signed(stun.BINDING, stun.REQUEST, t, [username, link, radio], s.rng.randbytes(16)))


def longer_radio(s: Stage) -> None:
    link, _, integrity = parts(s)
    exchange(s, link, (RADIO, bytes(8)), integrity)


def radio_alone(s: Stage) -> None:
    exchange(s, stun.u32(RADIO, 0))


def data_of_a_peer(s: Stage) -> None:
    """RFC 8656 section 11.6: a Data indication names its peer; the channel beside it changes nothing."""
    t = s.transaction()
    peer = stun.xor_address(stun.XOR_PEER_ADDRESS, FAR.host, FAR.port, t)
    data = (0x0013, bytes(4) + s.rng.randbytes(46))
    for attributes in ([peer, data], [stun.channel_number(0), peer, data], [stun.channel_number(0x4001), data]):
        s.udp(TURN, OWN, stun.message(stun.DATA, stun.INDICATION, t, attributes))


def other_channel(s: Stage) -> None:
    """Another client's relay: the first channel of RFC 8656, opaque content."""
    for number in range(30):
        s.udp(*((OWN, TURN) if number % 2 else (TURN, OWN)), stun.channel_data(0x4000, s.rng.randbytes(90)))


def few_on_0x6000(s: Stage) -> None:
    """Three datagrams whose length fits by chance, and then none that does: no channel."""
    for number in range(24):
        payload = stun.channel_data(0x6000, s.rng.randbytes(60 + number))
        s.udp(OWN, End(SERVER, 20000), payload if number < 3 else payload + b"\1\2\3\4\5")


def ipv6_in_udp(s: Stage) -> None:
    """Teredo's packets begin with 0x60 too (RFC 4380)."""
    source, destination = bytes.fromhex("20010000") + s.rng.randbytes(12), bytes.fromhex("2001") + s.rng.randbytes(14)
    for _ in range(12):
        head = struct.pack("!IHBB", 0x60000000, 40, 59, 21) + source + destination
        s.udp(End(OWN.host, 3545), End(SERVER, 3544), head + s.rng.randbytes(40))


def quic_with_a_name(s: Stage) -> None:
    """iCloud Private Relay: the same stack, with a server name."""
    for _ in range(3):
        s.udp(OWN, End("17.248.131.4", 443), apple.relay_hello(s.rng, "mask.icloud.com", s.rng.randbytes(8)))


def quic_with_own_id(s: Stage) -> None:
    """No name, but a connection ID of the client's, to a web server."""
    s.udp(OWN, WEB, apple.relay_hello(s.rng, None, s.rng.randbytes(8)))


def quic_of_another_stack(s: Stage) -> None:
    """No name and no ID, yet another ALPN: DNS over QUIC (RFC 9250), on a port of its own choice."""
    hello = quic_bytes.client_hello(s.rng, None, alpn="doq")
    s.udp(OWN, End(SERVER, 8853), quic_bytes.initial(hello, s.rng.randbytes(8)))


def quic_on_the_relays_port(s: Stage) -> None:
    """A name, on a port of the relay's: whoever names a server is none of its clients."""
    s.udp(OWN, RELAY, apple.relay_hello(s.rng, "example.org"))


def probe_of_snatmap(s: Stage) -> None:
    """The probe with 0xAAAA is named for itself: iChat and Game Center send it too."""
    own = End(OWN.host, 16402)
    s.udp(own, End("17.188.181.8", 3480), apple.probe(s.rng, own))
