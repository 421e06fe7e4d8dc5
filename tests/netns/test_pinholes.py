"""Pinholes and NAT bindings on a real kernel: there before the packet that caused them is released, gone after it."""

from __future__ import annotations

import dataclasses
import select
import time
from collections.abc import Sequence

import pytest

from appid.alg.expectation import Expectation
from appid.dataplane.command import BindNat, ClosePinhole, Command, OpenPinhole, SetVerdict
from appid.edge import iptables
from appid.engine.event import Tick
from appid.packet import Packet
from appid.wire import UDP, packed
from tests.netns.net import CLIENT4, CLIENT6, PEER4, PEER6, PUBLIC4, PUBLIC6, Net, received, until
from tests.netns.playbook import ALLOW, DROP, PASS, TOPOLOGY, running

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(60)]

ENDS = [pytest.param((CLIENT4, PEER4, PUBLIC4), id="v4"), pytest.param((CLIENT6, PEER6, PUBLIC6), id="v6")]
Ends = tuple[str, str, str]


def expectation(client: str, peer: str, outside: str | None = None) -> Expectation:
    public = packed(outside) if outside else None
    return Expectation(
        UDP, packed(client), 16402, packed(peer), None, public, 16402, "facetime", 1, "sdp-answer", 1, time.time() + 60
    )


def opening(ends: Ends, nat: bool) -> Sequence[Command]:
    client, peer, public = ends
    wanted = expectation(client, peer, public if nat else None)
    bind = BindNat(UDP, packed(client), 16402, packed(public), 16402, packed(peer), 60)
    return [*([bind] if nat else []), OpenPinhole(1, wanted, ALLOW, 60)]


class Call:
    """Answers a signalling packet to port 6000 by what it is told; everything else by DROP."""

    def __init__(self, commands: Sequence[Command]) -> None:
        self.commands = commands

    def __call__(self, packet: Packet, number: int) -> Sequence[Command]:
        signalling = 6000 in (packet.key.dport, packet.key.sport)
        return [*(self.commands if signalling else []), SetVerdict(number, "repeat", PASS if signalling else DROP)]


def signal(net: Net, ends: Ends) -> None:
    net.client.udp(ends[0], 5000).sendto(b"INVITE", (ends[1], 6000))


def signalled(net: Net, ends: Ends, text: bytes = b"INVITE") -> None:
    """And the peer has heard it: by then the kernel holds what it caused."""
    peer = net.peer.udp(ends[1], 6000)
    peer.settimeout(10)
    net.client.udp(ends[0], 5000).sendto(text, (ends[1], 6000))
    assert peer.recv(100) == text


@pytest.mark.parametrize("ends", ENDS)
def test_media_of_a_pinhole_takes_its_mark_and_never_meets_userspace(ruled: Net, ends: Ends) -> None:
    media = ruled.client.udp(ends[0], 16402)
    peer = ruled.peer.udp(ends[1], 40000)
    with running(ruled, Call(opening(ends, nat=False))) as book:
        signalled(ruled, ends)
        for _ in range(30):
            peer.sendto(b"\x80media", (ends[0], 16402))
        assert len(received(media, least=30)) == 30
        media.sendto(b"\x80back", (ends[1], 40000))
        assert received(peer, least=1) == [b"\x80back"]
        assert len(book.packets) == 1
        assert book.failed == []
    assert "mark=1793" in ruled.entries()


def test_another_source_another_port_and_a_late_packet_find_no_pinhole(ruled: Net) -> None:
    ruled.peer.run("ip", "addr", "add", "198.51.100.3/24", "dev", "net")
    media, other_port = ruled.client.udp(CLIENT4, 16402), ruled.client.udp(CLIENT4, 16404)
    peer, stranger = ruled.peer.udp(PEER4, 40000), ruled.peer.udp("198.51.100.3", 40000)
    wanted = expectation(CLIENT4, PEER4)
    with running(ruled, Call([OpenPinhole(1, wanted, ALLOW, 1)])):
        signalled(ruled, (CLIENT4, PEER4, PUBLIC4))
        stranger.sendto(b"x", (CLIENT4, 16402))
        peer.sendto(b"x", (CLIENT4, 16404))
        assert received(media) == []
        assert received(other_port) == []
        time.sleep(1.2)  # its timeout
        peer.sendto(b"late", (CLIENT4, 16402))
        assert received(media) == []


@pytest.mark.parametrize("ends", ENDS)
def test_a_binding_is_in_the_kernel_before_the_packet_that_made_it_is_released(bare: Net, ends: Ends) -> None:
    """The peer answers the signalling packet at once with media: it must find binding and pinhole."""
    bare.masquerade()
    bare.gateway.call(lambda: iptables.apply(TOPOLOGY, "nft"))
    media = bare.client.udp(ends[0], 16402)
    peer, peer_signalling = bare.peer.udp(ends[1], 40000), bare.peer.udp(ends[1], 6000)
    with running(bare, Call(opening(ends, nat=True))) as book:
        signal(bare, ends)
        peer_signalling.recv(100)
        peer.sendto(b"\x80early", (ends[2], 16402))
        assert received(media, least=1) == [b"\x80early"]
        media.sendto(b"\x80back", (ends[1], 40000))
        data, source = peer.recvfrom(100)
        assert (data, source[:2]) == (b"\x80back", (ends[2], 16402))
        assert len(book.packets) == 1
        assert book.failed == []


@pytest.mark.parametrize("ends", ENDS)
def test_media_that_races_the_released_packet_never_comes_too_early(bare: Net, ends: Ends) -> None:
    """By ordering, not by luck: 200 answers, each followed by media the moment the peer has it; none is lost."""
    bare.masquerade()
    bare.gateway.call(lambda: iptables.apply(TOPOLOGY, "nft"))
    client, peer, public = ends
    ports = range(17000, 17200)
    media = {port: bare.client.udp(client, port) for port in ports}
    answering, source = bare.peer.udp(peer, 6000), bare.peer.udp(peer, 40000)

    def race() -> None:
        for _ in ports:
            source.sendto(b"\x80media", (public, int(answering.recv(100))))

    def answer(packet: Packet, number: int) -> Sequence[Command]:
        if packet.key.dport != 6000:
            return [SetVerdict(number, "repeat", DROP)]
        port = int(bytes(packet.payload))
        wanted = dataclasses.replace(expectation(client, peer, public), port=port, outside_port=port)
        bind = BindNat(UDP, packed(client), port, packed(public), port, packed(peer), 60)
        return [bind, OpenPinhole(port, wanted, ALLOW, 60), SetVerdict(number, "repeat", PASS)]

    answering.settimeout(20)
    with running(bare, answer) as book:
        racer = bare.peer.start(race)
        signalling = bare.client.udp(client, 5000)
        for port in ports:
            signalling.sendto(str(port).encode(), (peer, 6000))
        racer.join(40)
        assert until(lambda: len(select.select(list(media.values()), [], [], 0)[0]) == len(ports), 10)
        lost = [port for port in ports if media[port].recv(100) != b"\x80media"]
        assert (lost, book.failed, len(book.packets)) == ([], [], len(ports))


def test_two_clients_on_one_port_are_told_apart_by_the_outside_port(bare: Net) -> None:
    bare.masquerade()
    bare.client.run("ip", "addr", "add", "10.77.1.3/24", "dev", "lan")
    bare.gateway.call(lambda: iptables.apply(TOPOLOGY, "nft"))
    first, second = bare.client.udp(CLIENT4, 16402), bare.client.udp("10.77.1.3", 16402)
    peer = bare.peer.udp(PEER4, 40000)
    commands: list[Command] = []
    for number, (client, port) in enumerate(((CLIENT4, 16402), ("10.77.1.3", 16404)), 1):
        commands.append(BindNat(UDP, packed(client), 16402, packed(PUBLIC4), port, packed(PEER4), 60))
        commands.append(OpenPinhole(number, expectation(client, PEER4, PUBLIC4), ALLOW, 60))
    with running(bare, Call(commands)) as book:
        signalled(bare, (CLIENT4, PEER4, PUBLIC4))
        peer.sendto(b"one", (PUBLIC4, 16402))
        peer.sendto(b"two", (PUBLIC4, 16404))
        assert received(first, least=1) == [b"one"]
        assert received(second, least=1) == [b"two"]
        assert book.failed == []


def test_an_early_check_of_the_peer_does_not_poison_the_binding(bare: Net) -> None:
    bare.masquerade()
    bare.gateway.call(lambda: iptables.apply(TOPOLOGY, "nft"))
    media, peer = bare.client.udp(CLIENT4, 16402), bare.peer.udp(PEER4, 16402)
    ends = (CLIENT4, PEER4, PUBLIC4)
    peer.sendto(b"too early", (PUBLIC4, 16402))
    time.sleep(0.1)
    assert "198.51.100.2" not in bare.entries(), "dropped in INPUT before it is confirmed"
    with running(bare, Call(opening(ends, nat=True))):
        signalled(bare, ends)
        peer.sendto(b"now", (PUBLIC4, 16402))
        assert received(media, least=1) == [b"now"]


def test_binding_deletes_the_entry_of_an_early_check_that_got_in(bare: Net) -> None:
    """Where the gateway's INPUT guard was not there yet."""
    bare.masquerade()
    media, peer = bare.client.udp(CLIENT4, 16402), bare.peer.udp(PEER4, 16402)
    own = bare.gateway.udp(PUBLIC4, 16402)
    peer.sendto(b"too early", (PUBLIC4, 16402))
    assert received(own, least=1) == [b"too early"]
    bare.gateway.call(lambda: iptables.apply(TOPOLOGY, "nft"))
    ends = (CLIENT4, PEER4, PUBLIC4)
    with running(bare, Call(opening(ends, nat=True))):
        signalled(bare, ends)
        peer.sendto(b"now", (PUBLIC4, 16402))
        assert received(media, least=1) == [b"now"]


@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("nat", [False, True])
def test_closing_cuts_an_established_flow(bare: Net, nat: bool, ends: Ends) -> None:
    if nat:
        bare.masquerade()
    bare.gateway.call(lambda: iptables.apply(TOPOLOGY, "nft"))
    media, peer = bare.client.udp(ends[0], 16402), bare.peer.udp(ends[1], 40000)
    to = (ends[2] if nat else ends[0], 16402)
    call = Call(opening(ends, nat))
    with running(bare, call) as book:
        signalled(bare, ends)
        peer.sendto(b"during", to)
        assert received(media, least=1) == [b"during"]
        media.sendto(b"during", (ends[1], 40000))
        assert received(peer, least=1) == [b"during"]
        call.commands = [ClosePinhole(1, expectation(ends[0], ends[1], ends[2] if nat else None))]
        signalled(bare, ends, b"BYE")
        assert until(lambda: "sport=40000" not in bare.entries()), "right after the BYE"
        peer.sendto(b"after", to)
        media.sendto(b"after", (ends[1], 40000))
        assert received(media) == []
        assert received(peer) == []
        assert book.failed == []
    assert ends[1] not in bare.gateway.run("nft", "list", "table", "inet", "appid-nat")
    assert ends[0] not in bare.gateway.run("ipset", "list")


def test_a_pinhole_that_two_calls_share_stays_until_both_are_closed(bare: Net) -> None:
    bare.gateway.call(lambda: iptables.apply(TOPOLOGY, "nft"))
    wanted = expectation(CLIENT4, PEER4)
    media, peer = bare.client.udp(CLIENT4, 16402), bare.peer.udp(PEER4, 40000)
    call = Call([OpenPinhole(1, wanted, ALLOW, 60), OpenPinhole(2, wanted, ALLOW, 60), ClosePinhole(1, wanted)])
    with running(bare, call):
        signalled(bare, (CLIENT4, PEER4, PUBLIC4))
        peer.sendto(b"still", (CLIENT4, 16402))
        assert received(media, least=1) == [b"still"]


def test_what_the_kernel_refuses_is_told_and_tried_again_at_the_next_tick(bare: Net) -> None:
    bare.gateway.call(lambda: iptables.apply(TOPOLOGY, "nft"))
    bare.gateway.run("nft", "delete", "table", "inet", "appid-nat")
    ends = (CLIENT4, PEER4, PUBLIC4)
    answered = bare.peer.udp(PEER4, 6000)
    with running(bare, Call(opening(ends, nat=True)), tick=0.2) as book:
        signal(bare, ends)
        assert received(answered, least=1) == [b"INVITE"], "the packet is answered all the same"
        assert [type(failure.command) for failure in book.failed] == [BindNat]
        assert "appid-nat" in book.failed[0].reason or "No such file" in book.failed[0].reason
        bare.gateway.call(lambda: iptables.apply(TOPOLOGY, "nft"))
        assert until(lambda: PEER4 in bare.gateway.run("nft", "list", "table", "inet", "appid-nat"))


def test_a_calls_moving_flows_are_told_at_ticks(bare: Net) -> None:
    bare.gateway.call(lambda: iptables.apply(TOPOLOGY, "nft"))
    ends = (CLIENT4, PEER4, PUBLIC4)
    media, peer = bare.client.udp(CLIENT4, 16402), bare.peer.udp(PEER4, 40000)
    ticks: list[Tick] = []
    with running(bare, Call(opening(ends, nat=False)), tick=0.1) as book:
        handle = book.handle

        def watch(event: object, now: float) -> Sequence[Command]:
            if isinstance(event, Tick):
                ticks.append(event)
            return handle(event, now)  # type: ignore[arg-type]

        book.handle, book.deadline = watch, 1.0  # type: ignore[method-assign]
        signalled(bare, ends)
        peer.sendto(b"media", (CLIENT4, 16402))
        assert received(media, least=1) == [b"media"]
        assert until(lambda: any(tick.active for tick in ticks), 7)
        active = next(tick.active[0] for tick in ticks if tick.active)
        assert (active.key.sport, active.key.dport) == (40000, 16402)
