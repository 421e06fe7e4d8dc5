"""The chain set on a real kernel, both variants and families: what is queued, what passes, what is cut."""

from __future__ import annotations

import socket
from collections.abc import Sequence

import pytest

from appid.dataplane.command import Command, SetMark, SetVerdict
from appid.packet import Packet
from tests.netns.net import CLIENT4, CLIENT6, PEER4, PEER6, PUBLIC4, Net, received, until
from tests.netns.playbook import ALLOW, DENY, DROP, PASS, WATCH, running

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(60)]

ENDS = [pytest.param((CLIENT4, PEER4), id="v4"), pytest.param((CLIENT6, PEER6), id="v6")]
Pair = tuple[str, str]


def sockets(net: Net, ends: Pair) -> tuple[socket.socket, socket.socket]:
    return net.client.udp(ends[0], 5000), net.peer.udp(ends[1], 6000)


@pytest.mark.parametrize("ends", ENDS)
def test_undecided_packets_pass_and_each_is_seen(ruled: Net, ends: Pair) -> None:
    client, peer = sockets(ruled, ends)
    with running(ruled, lambda packet, number: PASS) as book:
        for number in range(5):
            client.sendto(bytes([number]), (ends[1], 6000))
        assert received(peer, least=5) == [bytes([number]) for number in range(5)]
        peer.sendto(b"back", (ends[0], 5000))
        assert received(client, least=1) == [b"back"]
        assert len(book.packets) == 6


@pytest.mark.parametrize("ends", ENDS)
def test_an_allowed_flow_is_the_kernels_alone(ruled: Net, ends: Pair) -> None:
    client, peer = sockets(ruled, ends)
    with running(ruled, lambda packet, number: ALLOW) as book:
        client.sendto(b"first", (ends[1], 6000))
        assert received(peer, least=1) == [b"first"]
        for _ in range(50):
            client.sendto(b"there", (ends[1], 6000))
            peer.sendto(b"back", (ends[0], 5000))
        assert len(received(peer, least=50)) == 50
        assert len(received(client, least=50)) == 50
        assert len(book.packets) == 1
    assert "mark=1793" in ruled.entries()  # 0x701: allow, application 7, no PASS


@pytest.mark.parametrize("ends", ENDS)
def test_a_denied_tcp_flow_is_reset(ruled: Net, ends: Pair) -> None:
    server = ruled.peer.listen(ends[1], 7000)
    client = ruled.client.tcp(ends[0])
    with running(ruled, lambda packet, number: DENY if packet.payload else PASS):
        client.connect((ends[1], 7000))
        accepted, _ = server.accept()
        client.send(b"GET /")
        with pytest.raises(ConnectionResetError):
            client.recv(10)
        accepted.settimeout(0.2)
        with pytest.raises((TimeoutError, ConnectionResetError)):
            accepted.recv(10)


@pytest.mark.parametrize("ends", ENDS)
def test_a_denied_udp_sender_is_told(ruled: Net, ends: Pair) -> None:
    client, peer = sockets(ruled, ends)
    client.connect((ends[1], 6000))
    option = (socket.SOL_IP, 11) if ends[0] == CLIENT4 else (socket.IPPROTO_IPV6, 25)  # IP_RECVERR, IPV6_RECVERR
    client.setsockopt(*option, 1)
    with running(ruled, lambda packet, number: DENY):
        client.send(b"no")
        with pytest.raises(OSError, match=r"(?i)host|permission|refused"):
            client.recv(10)
        assert received(peer) == []


@pytest.mark.parametrize("ends", ENDS)
def test_a_dropped_flow_ends_in_silence(ruled: Net, ends: Pair) -> None:
    client, peer = sockets(ruled, ends)
    client.connect((ends[1], 6000))
    with running(ruled, lambda packet, number: DROP):
        client.send(b"no")
        with pytest.raises(TimeoutError):
            client.recv(10)
        assert received(peer) == []


@pytest.mark.parametrize("ends", ENDS)
def test_a_flow_denied_on_its_first_packet_is_queued_once(ruled: Net, ends: Pair) -> None:
    client, peer = sockets(ruled, ends)

    def deny(packet: Packet, number: int) -> Sequence[Command]:
        return [SetVerdict(number, "repeat", DROP), SetMark(packet.key, DROP, create=True)]

    with running(ruled, deny) as book:
        for _ in range(20):
            client.sendto(b"no", (ends[1], 6000))
            book.settled()
        assert received(peer) == []
        assert len(book.packets) == 1
        assert book.failed == []


def test_what_is_denied_behind_a_port_forwarding_of_the_host_never_passes(ruled: Net) -> None:
    """docs/explanation/limits.md: each packet is asked about, as the tuple before translation is not known here."""
    forward = f"-p udp --dport 9000 -j DNAT --to-destination {CLIENT4}:5000"
    ruled.gateway.run("iptables-nft", "-t", "nat", "-A", "PREROUTING", "-i", "wan0", *forward.split())
    client, peer = sockets(ruled, (CLIENT4, PEER4))

    def deny(packet: Packet, number: int) -> Sequence[Command]:
        return [SetVerdict(number, "repeat", DROP), SetMark(packet.key, DROP, create=True)]

    with running(ruled, deny) as book:
        for _ in range(5):
            peer.sendto(b"no", (PUBLIC4, 9000))
            book.settled()
        assert received(client) == []
        assert len(book.packets) == 5
        assert book.failed == []


@pytest.mark.parametrize("ends", ENDS)
def test_a_watched_flow_sends_its_signalling_only(ruled: Net, ends: Pair) -> None:
    client, peer = sockets(ruled, ends)
    stun, sip, channel_sip = b"\0\1\0\0", b"INVITE sip:a SIP/2.0", b"\x40\x00\x00\x10INVITE"
    rtp, channel_rtp, empty, short = b"\x80\x68" + bytes(20), b"\x40\x00\x00\x10\x80\x68", b"", b"\x40\x00"
    with running(ruled, lambda packet, number: WATCH) as book:
        client.sendto(b"first", (ends[1], 6000))
        assert received(peer, least=1) == [b"first"]
        for payload in (stun, rtp, sip, channel_rtp, empty, channel_sip, short):
            client.sendto(payload, (ends[1], 6000))
        assert len(received(peer, least=7)) == 7
        assert [bytes(packet.payload) for packet in book.packets] == [b"first", stun, sip, channel_sip]


def test_a_watched_tcp_flow_is_seen_whole(ruled: Net) -> None:
    server = ruled.peer.listen(PEER4, 7000)
    client = ruled.client.tcp(CLIENT4)
    with running(ruled, lambda packet, number: WATCH) as book:
        client.connect((PEER4, 7000))
        accepted, _ = server.accept()
        for _ in range(3):
            client.send(b"REGISTER")
            accepted.recv(100)
        assert sum(bool(packet.payload) for packet in book.packets) == 3


def test_a_foreign_mark_is_no_decision_and_others_bits_are_kept(ruled: Net) -> None:
    gateway = ruled.gateway
    mangle = ("iptables-nft", "-t", "mangle", "-A")
    gateway.run(*mangle, "PREROUTING", "-p", "udp", "-j", "MARK", "--set-mark", "0xab000001")
    gateway.run(*mangle, "FORWARD", "-m", "mark", "--mark", "0xab000000/0xff000000")
    client, peer = sockets(ruled, (CLIENT4, PEER4))
    with running(ruled, lambda packet, number: PASS) as book:
        for _ in range(3):
            client.sendto(b"x", (PEER4, 6000))
        assert len(received(peer, least=3)) == 3
        assert len(book.packets) == 3
    assert "-c 3 " in gateway.run("iptables-nft", "-t", "mangle", "-S", "FORWARD", "-v")


def test_rules_of_others_after_ours_still_see_every_packet_once(ruled: Net, variant: str) -> None:
    program = f"iptables-{variant}"
    ruled.gateway.run(program, "-t", "mangle", "-A", "FORWARD", "-p", "udp", "-j", "DSCP", "--set-dscp", "46")
    client, peer = sockets(ruled, (CLIENT4, PEER4))
    with running(ruled, lambda packet, number: PASS if number < 3 else ALLOW) as book:
        for _ in range(10):
            client.sendto(b"x", (PEER4, 6000))
            book.settled()
        assert len(received(peer, least=10)) == 10
    listing = ruled.gateway.run(program, "-t", "mangle", "-nvxL", "FORWARD")
    assert [line.split()[0] for line in listing.splitlines() if "DSCP" in line] == ["10"]


def test_blind_without_an_engine(ruled: Net) -> None:
    client, peer = sockets(ruled, (CLIENT4, PEER4))
    client.sendto(b"x", (PEER4, 6000))
    assert received(peer) == []
    with running(ruled, lambda packet, number: ALLOW):
        client.sendto(b"y", (PEER4, 6000))
        assert received(peer, least=1) == [b"y"]
    client.sendto(b"z", (PEER4, 6000))
    assert received(peer, least=1) == [b"z"], "a decided flow outlives its engine"


@pytest.mark.parametrize("on_error", ["pass", "drop"])
def test_an_exception_costs_one_packet_its_identification(ruled: Net, on_error: str) -> None:
    client, peer = sockets(ruled, (CLIENT4, PEER4))

    def broken(packet: Packet, number: int) -> int:
        if bytes(packet.payload) == b"bad":
            raise RuntimeError("a bug")
        return PASS

    with running(ruled, broken, on_error=on_error) as book:
        for payload in (b"good", b"bad", b"good"):
            client.sendto(payload, (PEER4, 6000))
        assert received(peer, least=2) == [b"good", *([b"bad"] if on_error == "pass" else []), b"good"]
        assert len(book.packets) == 3


def test_flow_ends_arrive_with_counters(ruled: Net) -> None:
    client, peer = sockets(ruled, (CLIENT4, PEER4))
    with running(ruled, lambda packet, number: ALLOW) as book:
        for _ in range(4):
            client.sendto(bytes(100), (PEER4, 6000))
        assert len(received(peer, least=4)) == 4
        peer.sendto(bytes(10), (CLIENT4, 5000))
        assert len(received(client, least=1)) == 1
        ruled.gateway.run("conntrack", "-F")
        assert until(lambda: book.ended)
        end = next(each for each in book.ended if each.key.proto == 17)
        assert (end.key.sport, end.key.dport, end.mark) == (5000, 6000, ALLOW)
        assert (end.packets, end.bytes) == ((4, 1), (4 * 128, 38))


@pytest.mark.parametrize("ends", ENDS)
def test_whole_datagrams_up_to_64_kib_are_seen(ruled: Net, ends: Pair) -> None:
    client, peer = sockets(ruled, ends)
    with running(ruled, lambda packet, number: PASS) as book:
        client.sendto(bytes(30000), (ends[1], 6000))
        assert received(peer, least=1) == [bytes(30000)]
        assert [len(packet.payload) for packet in book.packets] == [30000]
