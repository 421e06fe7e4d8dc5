"""A call through coturn that is reached over TCP, the client behind source NAT (RFC 8656): on the wire.

The client asks as FaceTime's of 2015 does, so SIP is looked for in its channels. What coturn hands on to the peer names
the gateway alone, the stream stays one unbroken connection, and the peer's direct media comes in.
"""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.corpus import stun_bytes as stun
from tests.netns.live import live, rule
from tests.netns.net import PUBLIC4, received, until
from tests.sip.attacks import Victim, body
from tests.sip.oracle import broken
from tests.sip.town import PROXY4, Place, Town, town

pytestmark = [pytest.mark.kernel, pytest.mark.slow]
CHANNEL, PORT, FAR = 0x4000, 16402, 16402
FACETIME = rule("calls", "allow", "facetime", from_='["inside"]', service='"any"')
RTP = b"\x80\x60" + bytes(10)
REQUESTED_UDP = (0x0019, bytes((17, 0, 0, 0)))


@contextmanager
def coturn(where: Town, folder: Path) -> Iterator[None]:
    command = ["turnserver", "-n", "--no-cli", "--no-tls", "--no-dtls", "--no-auth", "--listening-ip", PROXY4,
               "--relay-ip", PROXY4, "--userdb", str(folder / "turndb"), "--pidfile", str(folder / "pid"),
               "--log-file", "stdout", "--simple-log", "--min-port", "50000", "--max-port", "50099"]  # fmt: skip
    with (folder / "coturn.log").open("wb") as log:
        child = subprocess.Popen(["ip", "netns", "exec", where.peer.name, *command], cwd=folder, stdout=log, stderr=log)
    try:
        assert until(lambda: f"{PROXY4}:3478" in where.peer.run("ss", "-Htln"), 5)
        yield
    finally:
        child.terminate()
        child.wait()


class Client:
    """`size`: bytes that it gives TCP at a time."""

    def __init__(self, where: Town, phone: str, size: int) -> None:
        self.size, self.left = size, b""
        self.transaction = stun.Transaction(stun.COOKIE, bytes(range(12)))
        self.stream = where.client.tcp(phone)
        self.stream.connect((PROXY4, 3478))
        self.stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def write(self, data: bytes) -> None:
        for at in range(0, len(data), self.size):
            self.stream.sendall(data[at : at + self.size])

    def read(self) -> bytes:
        """The next message or ChannelData, without its padding."""
        while True:
            if len(self.left) >= 4:
                channel = self.left[0] & 0xC0 == 0x40
                whole = (4 if channel else 20) + int.from_bytes(self.left[2:4], "big")
                padded = whole + (-whole % 4 if channel else 0)
                if len(self.left) >= padded:
                    found, self.left = self.left[:whole], self.left[padded:]
                    return found
            more = self.stream.recv(65535)
            assert more, "the relay has ended the connection"
            self.left += more

    def ask(self, method: int, *attributes: stun.Attribute) -> bytes:
        self.write(stun.message(method, stun.REQUEST, self.transaction, list(attributes)))
        return self.read()

    def channel(self, data: bytes) -> None:
        self.write(stun.channel_data(CHANNEL, data, padded=True))

    def heard(self) -> bytes:
        found = self.read()
        assert int.from_bytes(found[:2], "big") == CHANNEL
        return found[4:]


def _allocated(client: Client, peer: str) -> None:
    """With a token first, as FaceTime asks; coturn has given none, so once more without."""
    relayed = stun.xor_address(stun.XOR_RELAYED_ADDRESS, PROXY4, 3489, client.transaction)
    client.ask(stun.ALLOCATE, relayed, (stun.RESERVATION_TOKEN, bytes(8)), stun.u32(stun.LIFETIME, 60))
    told = client.ask(stun.ALLOCATE, REQUESTED_UDP)
    assert told[:2] == b"\x01\x03", told
    at = stun.xor_address(stun.XOR_PEER_ADDRESS, peer, FAR, client.transaction)
    assert client.ask(stun.CHANNEL_BIND, stun.channel_number(CHANNEL), at)[:2] == b"\x01\x09"


@pytest.mark.timeout(60)
@pytest.mark.parametrize("size", [65535, 60], ids=["whole", "pieces"])
def test_a_call_through_a_relay_over_tcp_under_nat(tmp_path: Path, size: int) -> None:
    with town("plain", True, tmp_path) as (where, _), coturn(where, tmp_path), live(where, tmp_path, FACETIME, "nft"):
        place = Place.numbered(0, False)
        victim = Victim(where, place, PORT, "relayed")
        media, far = victim.udp(where.client, victim.phone, PORT), victim.udp(where.peer, place.peer, FAR)
        client = Client(where, victim.phone, size)
        _allocated(client, place.peer)
        for number in range(3):
            client.channel(victim.invite(body(victim.phone, PORT, "a=x:" + "y" * (1 + 300 * number)), cseq=number + 1))
            asked, relay = far.recvfrom(65535)
            head, _, content = asked.partition(b"\r\n\r\n")
            assert victim.phone.encode() not in asked
            assert re.findall(rb"Content-Length: (\d+)", head) == [b"%d" % len(content)]
            assert b"c=IN IP4 " + PUBLIC4.encode() in content
        told = int(re.findall(rb"m=audio (\d+)", content)[0])
        far.sendto(victim.answer(asked, body(place.peer, FAR)), relay)
        answer = client.heard()
        assert answer.startswith(b"SIP/2.0 200 OK")
        assert b"SIP/2.0/UDP " + victim.phone.encode() in answer, "its own Via again"
        far.sendto(RTP + b"direct", (PUBLIC4, told))
        assert received(media, least=1) == [RTP + b"direct"]
        other = victim.udp(where.peer, place.stranger, FAR)
        other.sendto(RTP + b"stranger", (PUBLIC4, told))
        assert received(media) == []
        client.channel(victim.bye())
        assert far.recvfrom(65535)[0].startswith(b"BYE")
        far.sendto(victim.answer(victim.bye(), b""), relay)
        assert client.heard().startswith(b"SIP/2.0 200 OK")
        far.sendto(RTP + b"late", (PUBLIC4, told))
        assert received(media) == []
        client.stream.close()
        victim.close()
        capture = where.witnesses[where.peer].write(tmp_path / "outside.pcap")
    assert broken(capture) == []
