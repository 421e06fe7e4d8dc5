"""The loop: it stops, wakes, ticks, records, and outlives what fails in it. Packets on a kernel: tests/netns."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from appid.dataplane.command import Command
from appid.edge.capture import frames
from appid.edge.gateway import Gateway, GatewayOptions
from appid.engine.event import Event, PacketQueued, Tick
from appid.packet import Packet
from tests.netns.net import CLIENT4, PEER4, Net, received, until
from tests.netns.playbook import PASS, Playbook, running

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(60)]


class Failing(Playbook):
    """Raises at every tick, and at every packet."""

    def handle(self, event: Event, now: float) -> Sequence[Command]:
        if isinstance(event, (Tick, PacketQueued)):
            raise RuntimeError("a bug")
        return []


def test_it_stops_from_another_thread_at_once(ruled: Net) -> None:
    book = Playbook(lambda packet, number: PASS)
    gateway = ruled.gateway.call(lambda: Gateway(book, GatewayOptions(queue=77, tick=30)))
    thread = ruled.gateway.start(gateway.run)
    time.sleep(0.1)
    begun = time.monotonic()
    gateway.stop()
    thread.join(20)
    assert time.monotonic() - begun < 10, "it does not wait for the tick"
    gateway.close()


def test_accounting_and_events_are_switched_on(ruled: Net) -> None:
    with running(ruled, lambda packet, number: PASS):
        for name in ("acct", "events"):
            assert ruled.gateway.run("sysctl", "-n", f"net.netfilter.nf_conntrack_{name}").strip() == "1"


def test_what_others_register_is_called_and_may_fail(ruled: Net) -> None:
    gateway = ruled.gateway.call(lambda: Gateway(Playbook(lambda packet, number: PASS), GatewayOptions(queue=77)))
    ours, theirs = socket.socketpair()
    calls: list[bytes] = []

    def control() -> None:
        calls.append(theirs.recv(100))
        raise ValueError("a bug of a control client")

    gateway.loop.register(theirs, control)
    thread = ruled.gateway.start(gateway.run)
    for _ in range(2):
        ours.send(b"stats")
        assert until(lambda: calls and calls.pop() == b"stats")
    assert until(lambda: gateway.loop.errors == 2)
    gateway.loop.unregister(theirs)
    gateway.stop()
    thread.join(5)
    gateway.close()


@pytest.mark.parametrize(("on_error", "arrive"), [("pass", 2), ("drop", 0)])
def test_a_failing_engine_leaves_packets_to_the_exception_policy(ruled: Net, on_error: str, arrive: int) -> None:
    options = GatewayOptions(queue=77, on_error=on_error, tick=0.05)  # type: ignore[arg-type]
    gateway = ruled.gateway.call(lambda: Gateway(Failing(lambda packet, number: PASS), options))
    thread = ruled.gateway.start(gateway.run)
    client, peer = ruled.client.udp(CLIENT4, 5000), ruled.peer.udp(PEER4, 6000)
    for _ in range(2):
        client.sendto(b"x", (PEER4, 6000))
    assert len(received(peer, least=arrive)) == arrive
    assert gateway.stats.rescued == 2
    assert gateway.queue.errors == 2
    assert gateway.loop.errors > 0, "ticks fail too, and the loop goes on"
    gateway.stop()
    thread.join(5)
    gateway.close()


def test_every_queued_packet_is_recorded(ruled: Net, tmp_path: Path) -> None:
    path = tmp_path / "queued.pcap"
    client, peer = ruled.client.udp(CLIENT4, 5000), ruled.peer.udp(PEER4, 6000)
    seen: list[bytes] = []

    def answer(packet: Packet, number: int) -> int:
        seen.append(bytes(packet.payload))
        return PASS

    begun = time.time()
    with running(ruled, answer, record=str(path)):
        for payload in (b"one", b"two"):
            client.sendto(payload, (PEER4, 6000))
        assert len(received(peer, least=2)) == 2
        assert len(list(frames(path))) == 2, "written out while it runs"
    for (_, nanoseconds, linktype, frame), payload in zip(frames(path), seen, strict=True):
        assert linktype == 101
        assert bytes(frame[28:]) == payload
        assert abs(nanoseconds / 1e9 - begun) < 10


def test_interfaces_and_marks_are_told(ruled: Net) -> None:
    events: list[PacketQueued] = []
    book = Playbook(lambda packet, number: PASS)
    handle = book.handle

    def keep(event: Event, now: float) -> Sequence[Command]:
        if isinstance(event, PacketQueued):
            events.append(event)
        return handle(event, now)

    book.handle = keep  # type: ignore[method-assign]
    mark = ("-j", "MARK", "--set-mark", "0xab000001")
    ruled.gateway.run("iptables-nft", "-t", "mangle", "-A", "PREROUTING", *mark)
    gateway = ruled.gateway.call(lambda: Gateway(book, GatewayOptions(queue=77)))
    thread = ruled.gateway.start(gateway.run)
    client, peer = ruled.client.udp(CLIENT4, 5000), ruled.peer.udp(PEER4, 6000)
    client.sendto(b"x", (PEER4, 6000))
    assert len(received(peer, least=1)) == 1
    gateway.stop()
    thread.join(5)
    gateway.close()
    assert [(event.packet, event.indev, event.outdev, event.mark) for event in events] == [
        (1, "lan0", "wan0", 0xAB000000)
    ]


def test_a_tick_tells_how_many_packets_came_before_it(ruled: Net) -> None:
    ticks: list[Tick] = []
    book = Playbook(lambda packet, number: PASS)
    handle = book.handle

    def keep(event: Event, now: float) -> Sequence[Command]:
        if isinstance(event, Tick):
            ticks.append(event)
        return handle(event, now)

    book.handle = keep  # type: ignore[method-assign]
    gateway = ruled.gateway.call(lambda: Gateway(book, GatewayOptions(queue=77, tick=0.05)))
    thread = ruled.gateway.start(gateway.run)
    client, peer = ruled.client.udp(CLIENT4, 5000), ruled.peer.udp(PEER4, 6000)
    client.sendto(b"x", (PEER4, 6000))
    assert len(received(peer, least=1)) == 1
    assert until(lambda: ticks and ticks[-1].packet == 1)
    gateway.stop()
    thread.join(5)
    gateway.close()
