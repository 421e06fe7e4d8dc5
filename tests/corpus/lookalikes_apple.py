"""What else Apple's systems say, near FaceTime's addresses, ports and formats."""

from __future__ import annotations

import struct

from tests.corpus import facetime2023 as modern
from tests.corpus import quic_bytes, tls_bytes
from tests.corpus import stun_bytes as stun
from tests.corpus.lookalikes_tcp import tls
from tests.corpus.lookalikes_udp import invite
from tests.corpus.stage import CLIENT, PEER, SERVER, Stage
from tests.corpus.writer import End

OWN, FAR, RELAY = End(CLIENT, 16393), End(PEER, 16393), End("17.249.172.142", 3482)
COURIER, RECEIVER = End("17.57.144.11", 5223), End("172.16.42.30", 7000)


def push_over_443(s: Stage) -> None:
    """The courier by its name, then by its protocol alone (ALPN, RFC 7301)."""
    tls(s, End("17.57.144.12", 443), "23-courier.push.apple.com")
    alpn = tls_bytes.client_hello(s.rng, None, ("apns-security-v3",))
    s.talk(s.tcp(End("17.57.144.13", 443)), alpn, tls_bytes.server_hello(s.rng))


def another_name_to_5223(s: Stage) -> None:
    """Apple's network and the courier's port, yet another server is asked for."""
    tls(s, COURIER, "profile.gc.apple.com")
    tls(s, COURIER, "xmpp.example.org")


def courier_of_no_number(s: Stage) -> None:
    """Numbers run from 1 to 50; anything else before the dash is another host."""
    for name in ("evil-courier.push.apple.com", "0-courier.push.apple.com", "51-courier.push.apple.com"):
        tls(s, End(SERVER, 443), name)


def private_relay(s: Stage) -> None:
    """iCloud Private Relay: the same QUIC with a name, then TLS with another."""
    for name in ("mask.icloud.com", "mask-h2.icloud.com"):
        s.udp(End(CLIENT, 57529), End("17.248.131.4", 443), modern.relay_hello(s.rng, name))
        tls(s, End("17.248.131.4", 443), name)


def private_relay_from_the_middle(s: Stage) -> None:
    """Short headers alone, to Apple on 443."""
    ident = s.rng.randbytes(8)
    for _ in range(24):
        first = bytes([0x40 | s.rng.randrange(0x20)])
        s.udp(End(CLIENT, 57529), End("17.248.131.4", 443), first + ident + s.rng.randbytes(80))


def device_tunnel(s: Stage) -> None:
    """Xcode and its device: the system's QUIC on a port of its own, another protocol inside."""
    hello = quic_bytes.client_hello(s.rng, None, alpn="RemotePairingTunnelProtocol")
    s.udp(End(CLIENT, 50122), End("172.16.42.30", 49152), quic_bytes.initial(hello, s.rng.randbytes(8)))


def screen_sharing(s: Stage) -> None:
    """The same media engine, by its agent, without the service's name (field notes A3)."""
    more = ("b=AS:2000", "a=FLS;VRA:0;RVRA:1;AS:2", "a=rtpmap:126 X-H264/90000", "a=DMBR", "a=CAP")
    origin = "o=ScreenSharing 0 0 IN IP4 172.16.42.187"
    invite(s, End(CLIENT, 16402), End("172.16.42.30", 16402), "Viceroy 1.7.0", origin, "s=mobile", *more)


def agent_without_a_version(s: Stage) -> None:
    invite(s, End(CLIENT, 5060), End(SERVER, 5060), "Viceroy x/GK", "o=alice 1 1 IN IP4 172.16.42.187", "s=-")


def airplay(s: Stage) -> None:
    """A receiver on the network: pairing and set-up as HTTP does it, time by UDP, sound as RTP of type 96."""
    tcp = s.tcp(RECEIVER)
    for path, size in (("/info", 70), ("/pair-verify", 37), ("/feedback", 0)):
        head = (
            f"{'POST' if size else 'GET'} {path} HTTP/1.1\r\nHost: 172.16.42.30:7000\r\nUser-Agent: AirPlay/690.7.1\r\n"
        )
        tcp.send(f"{head}Content-Length: {size}\r\n\r\n".encode() + s.rng.randbytes(size), True)
        tcp.send(b"HTTP/1.1 200 OK\r\nServer: AirTunes/690.7.1\r\nContent-Length: 0\r\n\r\n", False)
    for number in range(24):
        s.udp(End(CLIENT, 16393), End("172.16.42.30", 6001), b"\x80\xd2\0\x07" + s.rng.randbytes(28))
        rtp = struct.pack("!BBHII", 0x80, 96, number, 352 * number, 0)
        s.udp(End(CLIENT, 16394), End("172.16.42.30", 6000), rtp + s.rng.randbytes(200))


def home_kit(s: Stage) -> None:
    """An accessory: HTTP until the session is encrypted, then frames of its own."""
    tcp = s.tcp(End("172.16.42.31", 51827))
    head = "POST /pair-verify HTTP/1.1\r\nHost: lamp._hap._tcp.local\r\nContent-Type: application/pairing+tlv8\r\n"
    tcp.send(f"{head}Content-Length: 37\r\n\r\n".encode() + s.rng.randbytes(37), True)
    tcp.send(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n" + s.rng.randbytes(20), False)
    for turn in range(8):
        tcp.send(struct.pack("<H", 100) + s.rng.randbytes(116), turn % 2 == 0)


def between_two_addresses_of_apples(s: Stage) -> None:
    """Both ends in Apple's network, both ports a relay's: one circumstance, and nothing said."""
    ends = End("17.249.172.142", 3482), End("17.249.172.143", 3489)
    for number in range(24):
        s.udp(*(ends if number % 2 else ends[::-1]), bytes([4 + number % 8]) + s.rng.randbytes(60))


def stun_of_apples_relay(s: Stage) -> None:
    """A Binding request to Apple's address: what anything may ask for its own address with."""
    for _ in range(3):
        t = s.transaction()
        mapped = stun.xor_address(stun.XOR_MAPPED_ADDRESS, "71.15.163.132", 50122, t)
        answer = stun.message(stun.BINDING, stun.SUCCESS, t, [mapped])
        s.exchange(End(CLIENT, 50122), RELAY, stun.message(stun.BINDING, stun.REQUEST, t, []), answer)


def noise_to_apples_relay(s: Stage) -> None:
    """Address and ports are right, and nobody can read what is said."""
    for number in range(24):
        s.udp(*((OWN, RELAY) if number % 2 else (RELAY, OWN)), bytes([4 + number % 8]) + s.rng.randbytes(90))


def noise_between_local_ports(s: Stage) -> None:
    for number in range(24):
        s.udp(*((OWN, FAR) if number % 2 else (FAR, OWN)), bytes([4 + number % 8]) + s.rng.randbytes(90))


def noise_by_udp_to_5223(s: Stage) -> None:
    for _ in range(12):
        s.udp(End(CLIENT, 50122), End("17.1.2.3", 5223), b"\x05" + s.rng.randbytes(90))
