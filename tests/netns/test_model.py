"""The model against the kernel: the same packets in the same order, the same queue decisions and fates."""

from __future__ import annotations

import random
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from appid.alg.expectation import Expectation
from appid.dataplane.command import ClosePinhole, Command, OpenPinhole, SetMark, SetVerdict
from appid.dataplane.model import QUEUE, Kernel
from appid.edge import iptables
from appid.edge.capture import frames
from appid.packet import Packet, parse, strip
from appid.wire import UDP, packed
from tests.netns.net import CLIENT4, CLIENT6, PEER4, PEER6, Net, received, until
from tests.netns.playbook import ALLOW, DENY, DROP, PASS, TOPOLOGY, WATCH, Playbook, running

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(60)]

ENDS = [pytest.param((CLIENT4, PEER4), id="v4"), pytest.param((CLIENT6, PEER6), id="v6")]
PAYLOADS = (b"", b"\0\1", b"\x40\0\0\x02\x80\x68", b"\x40\0\0\x04INVI", b"\x80\x68media", b"OPTIONS", b"\x40\0")
_ACTIONS = (PASS, ALLOW, DENY, DROP, WATCH)


def script(seed: int) -> Callable[[Packet, int], Sequence[Command]]:
    """An engine whose answers depend on the packet's payload alone, so that both runs ask it the same."""

    def answer(packet: Packet, number: int) -> Sequence[Command]:
        draw = random.Random(f"{seed} {bytes(packet.payload)!r} {packet.key.dport} {packet.key.sport}")
        inside_first = packet.key.sport < 6000
        client, peer = (packet.key.src, packet.key.dst) if inside_first else (packet.key.dst, packet.key.src)
        port = packet.key.sport if inside_first else packet.key.dport
        media = Expectation(UDP, client, port + draw.choice((0, 1)), peer, None, None, 0, "x", 1, "sdp-offer", 1, 0.0)
        choice = draw.randrange(8)
        if choice == 0:
            return [OpenPinhole(1, media, draw.choice((ALLOW, DROP, WATCH)), 60), SetVerdict(number, "repeat", PASS)]
        if choice == 1:
            return [ClosePinhole(1, media), SetVerdict(number, "repeat", PASS)]
        if choice == 2:
            return [SetVerdict(number, "drop", 0)]
        if choice == 3:
            return [SetVerdict(number, "repeat", DROP), SetMark(packet.key, DROP, create=True)]
        return [SetVerdict(number, "repeat", draw.choice(_ACTIONS))]

    return answer


def datagrams(seed: int, count: int) -> Iterator[tuple[bool, int, bytes]]:
    """(outward, which of three flows, payload)"""
    draw = random.Random(seed)
    for number in range(count):
        yield draw.random() < 0.6, draw.randrange(3), draw.choice(PAYLOADS) + struct.pack("!H", number)


def as_packet(src: str, sport: int, dst: str, dport: int, payload: bytes) -> memoryview:
    udp = struct.pack("!HHHH", sport, dport, 8 + len(payload), 0) + payload
    if ":" in src:
        return memoryview(struct.pack("!IHBB", 6 << 28, len(udp), UDP, 64) + packed(src) + packed(dst) + udp)
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, UDP, 0)
    return memoryview(header + packed(src) + packed(dst) + udp)


def modelled(seed: int, ends: tuple[str, str], count: int) -> list[tuple[bool, bool]]:
    """(queued, passed) for each datagram, by the model."""
    kernel, answer, results = Kernel(), script(seed), []
    for number, (outward, flow, payload) in enumerate(datagrams(seed, count), 1):
        client, peer = (ends[0], 5000 + flow), (ends[1], 6000 + flow)
        data = as_packet(*client, *peer, payload) if outward else as_packet(*peer, *client, payload)
        queued = kernel.forward(data, float(number) / 100, number) == QUEUE
        outcome = kernel.outcome
        if queued:
            packet = parse(data)
            assert packet is not None
            for command in answer(packet, number):
                kernel.apply(command, float(number) / 100)
                if isinstance(command, SetVerdict):
                    outcome = kernel.outcome
        results.append((queued, outcome == "pass"))
    return results


def on_the_kernel(net: Net, seed: int, ends: tuple[str, str], count: int) -> list[tuple[bool, bool]]:
    inside = [net.client.udp(ends[0], 5000 + flow) for flow in range(3)]
    outside = [net.peer.udp(ends[1], 6000 + flow) for flow in range(3)]
    results = []
    with running(net, script(seed)) as book:
        for outward, flow, payload in datagrams(seed, count):
            before = len(book.packets)
            source, target = (inside[flow], outside[flow]) if outward else (outside[flow], inside[flow])
            source.sendto(payload, (ends[1], 6000 + flow) if outward else (ends[0], 5000 + flow))
            book.settled()
            results.append((len(book.packets) > before, received_one(target)))
        assert book.failed == [] or all("No such file" in str(each.reason) for each in book.failed)
    return results


def received_one(sock: socket.socket) -> bool:
    sock.settimeout(0.06)
    try:
        sock.recv(65535)
    except OSError:  # nothing, or the ICMP error of an earlier packet
        return False
    return True


@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("seed", range(3))
def test_the_same_datagrams_meet_the_same_fate(bare: Net, seed: int, ends: tuple[str, str]) -> None:
    bare.gateway.call(lambda: iptables.apply(TOPOLOGY, "nft"))
    expected = modelled(seed, ends, 100)
    assert len(set(expected)) == 4, "the script must show all four fates"
    assert on_the_kernel(bare, seed, ends, 100) == expected


def test_tcp_and_icmp_errors(bare: Net, tmp_path: Path) -> None:
    """A recorded exchange on the kernel, replayed through the model: the same packets are asked about."""
    bare.gateway.call(lambda: iptables.apply(TOPOLOGY, "nft"))
    dump = str(tmp_path / "lan.pcap")
    book = exchange(bare, dump)
    kernel, queued = Kernel(), []
    for number, _, linktype, frame in frames(dump):
        data = strip(linktype, frame)
        assert data is not None
        if kernel.forward(data, float(number)) == QUEUE:
            packet = parse(data)
            assert packet is not None
            queued.append((packet.key, packet.tcp_flags, bytes(packet.payload)))
            kernel.apply(SetVerdict(0, "repeat", tcp_answer(packet, 0)), 0.0)
    assert queued == [(packet.key, packet.tcp_flags, bytes(packet.payload)) for packet in book.packets]


def tcp_answer(packet: Packet, number: int) -> int:
    return ALLOW if packet.payload else PASS


def exchange(net: Net, dump: str) -> Playbook:
    recorder = subprocess.Popen(
        [
            "ip",
            "netns",
            "exec",
            net.client.name,
            "tcpdump",
            "-Z",
            "root",
            "--immediate-mode",
            "-U",
            "-i",
            "lan",
            "-w",
            dump,
            "tcp or udp or icmp",
        ],
        stderr=subprocess.PIPE,
    )
    try:
        assert recorder.stderr is not None
        recorder.stderr.readline()
        server = net.peer.listen(PEER4, 7000)
        with running(net, tcp_answer) as book:
            for _ in range(3):
                client = net.client.tcp(CLIENT4)
                client.connect((PEER4, 7000))
                accepted, _ = server.accept()
                for _ in range(3):
                    client.send(b"there")
                    assert accepted.recv(10) == b"there"
                    accepted.send(b"back")
                    assert client.recv(10) == b"back"
                client.close()
                accepted.close()
            unreachable = net.client.udp(CLIENT4, 5000)
            for _ in range(2):  # nobody listens: port unreachable comes back
                unreachable.sendto(b"", (PEER4, 9))
                time.sleep(0.05)
            assert until(lambda: len(book.packets) > 5)
            time.sleep(0.3)
            received(unreachable, 0.05)
    finally:
        recorder.terminate()
        recorder.wait(5)
    return book
