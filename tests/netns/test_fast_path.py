"""The chain rules that stand first for speed change no packet's fate: the same packets meet the rule set with and
without them, with every packet mark and connmark that our bits can show."""

from __future__ import annotations

import dataclasses
import socket
import struct
import threading
from collections.abc import Sequence

import pytest

from appid.dataplane.chain import MAIN, ChainSet, chain_set
from appid.dataplane.command import Command, SetMark, SetVerdict
from appid.dataplane.render import ipset_text, restore_text
from appid.dataplane.ruleset import Variant
from appid.edge import iptables
from appid.packet import Packet
from tests.netns.net import CLIENT4, PEER4, Net, received, until
from tests.netns.playbook import ALLOW, DROP, PASS, TOPOLOGY, install, running

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(60)]

FIRST = 20000
SETTLED = 4
MARKS = [(packet, flow) for packet in range(16) for flow in range(8)]
"""Packet mark: state, watch, PASS. Connmark: state, watch (PASS is never saved)."""


def without_fast_rules(rules: ChainSet) -> ChainSet:
    """The order of design.md: every packet goes into the chains, the allow rule of filter behind the PASS rule."""
    chains = []
    for chain in rules.chains:
        if chain.name == MAIN and chain.table == "filter":
            allow, invalid, passing, *rest = chain.rules
            chain = dataclasses.replace(chain, rules=(invalid, passing, allow, *rest))
        chains.append(chain)
    jumps = tuple(dataclasses.replace(jump, matches=()) for jump in rules.jumps)
    return dataclasses.replace(rules, chains=tuple(chains), jumps=jumps)


def marking() -> str:
    """A port for each pair of marks: rules of another that set both before FORWARD."""
    lines = ["*mangle"]
    for index, (packet, flow) in enumerate(MARKS):
        match = f"-A PREROUTING -i lan0 -p udp -m udp --dport {FIRST + index}"
        lines += [f"{match} -j CONNMARK --set-mark {flow:#x}", f"{match} -j MARK --set-mark {packet:#x}"]
    return "\n".join((*lines, "COMMIT", ""))


def fates(net: Net, variant: str) -> dict[tuple[int, int], tuple[bool, bool, int | None]]:
    """(packet mark, connmark) -> (queued, delivered, connmark afterwards; None: no entry), one packet a pair."""
    net.gateway.run("conntrack", "-F")
    sender = net.client.udp(CLIENT4, 5000)
    peer = net.peer.udp(PEER4, 6000)
    queued: set[int] = set()

    def count(packet: Packet, number: int) -> int:
        queued.add(struct.unpack("!H", bytes(packet.payload))[0])
        return PASS

    with running(net, count) as book:
        for index in range(len(MARKS)):
            sender.sendto(struct.pack("!H", index), (PEER4, FIRST + index))
        book.settled()
        delivered = {struct.unpack("!H", data)[0] for data in received(peer)}
    left: dict[int, int] = {}
    for line in net.entries().splitlines():
        fields = dict(part.split("=", 1) for part in reversed(line.split()) if "=" in part)
        if FIRST <= int(fields.get("dport", 0)) < FIRST + len(MARKS):
            left[int(fields["dport"]) - FIRST] = int(fields["mark"])
    sender.close()
    peer.close()
    return {pair: (index in queued, index in delivered, left.get(index)) for index, pair in enumerate(MARKS)}


def test_every_pair_of_marks_meets_the_same_fate(bare: Net, variant: Variant) -> None:
    install(bare, variant)
    bare.gateway.run("nft", "delete", "table", "inet", "appid-clear")  # it would hide the packet marks that are tried
    bare.gateway.run(f"iptables-{variant}-restore", "--noflush", text=marking())
    to_one_port = f"udp -m udp --dport {FIRST}:{FIRST + len(MARKS)} -j REDIRECT --to-ports 6000"
    bare.peer.run("iptables-nft", "-t", "nat", "-A", "PREROUTING", "-p", *to_one_port.split())
    with_them = fates(bare, variant)
    bare.gateway.call(iptables.remove)
    slow = without_fast_rules(chain_set(TOPOLOGY, 4))
    bare.gateway.run("ipset", "restore", text=ipset_text(slow.sets))
    bare.gateway.run(f"iptables-{variant}-restore", "--noflush", text=restore_text(slow))
    without = fates(bare, variant)
    for packet, flow in MARKS:  # "settled" is what the clearing table writes, and of allowed, unwatched flows alone
        if packet & 0xF != SETTLED or flow == 1:
            assert with_them[packet, flow] == without[packet, flow], (packet, flow)
    queued, delivered, left = with_them[0, 1]  # an allowed, unwatched flow; one of its packets
    assert (queued, delivered, left) == (False, True, 1)
    assert with_them[2, 1] == (False, False, None), "a decision that changed while the packet was queued holds"
    assert with_them[0, 2][1] is False
    assert with_them[0, 0][0] is True


def test_no_mark_of_another_makes_a_packet_settled(bare: Net, variant: Variant) -> None:
    """The same marks, with the clearing table there: the fate is the connmark's alone."""
    install(bare, variant)
    bare.gateway.run(f"iptables-{variant}-restore", "--noflush", text=marking())
    to_one_port = f"udp -m udp --dport {FIRST}:{FIRST + len(MARKS)} -j REDIRECT --to-ports 6000"
    bare.peer.run("iptables-nft", "-t", "nat", "-A", "PREROUTING", "-p", *to_one_port.split())
    for (_, flow), fate in fates(bare, variant).items():
        queued, delivered, _ = fate
        assert queued == (flow in (0, 4, 5)), "undecided, or watched"
        assert delivered == (flow in (0, 1, 4, 5)), "undecided ones pass, as the engine says here; and allowed ones"


@pytest.mark.parametrize("second", [DROP, ALLOW])
def test_a_decision_that_changes_while_packets_wait_holds_from_that_packet_on(ruled: Net, second: int) -> None:
    """Three packets of one TCP flow in the queue together: the second one's stamp meets an allowed connmark."""
    server = ruled.peer.listen(PEER4, 7000)
    client = ruled.client.tcp(CLIENT4)
    hold = threading.Event()

    def answer(packet: Packet, number: int) -> int:
        if not packet.payload:
            return PASS
        hold.wait(2)
        return ALLOW if bytes(packet.payload).startswith(b"1") else second

    with running(ruled, answer) as book:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.connect((PEER4, 7000))
        accepted, _ = server.accept()
        for text in (b"1", b"2", b"3"):
            client.send(text)
        hold.set()
        assert until(lambda: sum(bool(packet.payload) for packet in book.packets) >= 2)
        accepted.settimeout(0.3)
        got = b""
        try:
            while data := accepted.recv(10):
                got += data
        except (TimeoutError, ConnectionResetError):
            pass
    assert got == (b"123" if second == ALLOW else b"1")


def checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return (total + (total >> 16)) & 0xFFFF ^ 0xFFFF


def reset(source: tuple[str, int], target: tuple[str, int], sequence: int) -> bytes:
    """A TCP RST segment (RFC 9293 section 3.1)."""
    ends = socket.inet_aton(source[0]) + socket.inet_aton(target[0])
    head = struct.pack("!HHIIBBHHH", source[1], target[1], sequence, 0, 5 << 4, 4, 0, 0, 0)
    pseudo = ends + struct.pack("!BBH", 0, socket.IPPROTO_TCP, len(head))
    return head[:16] + struct.pack("!H", checksum(pseudo + head)) + head[18:]


def test_an_invalid_packet_of_an_allowed_flow_is_still_dropped(ruled: Net, variant: str) -> None:
    """A RST far out of the window is INVALID: it has no entry, so no connmark to accept it by."""
    server = ruled.peer.listen(PEER4, 7000)
    client = ruled.client.tcp(CLIENT4)
    with running(ruled, lambda packet, number: ALLOW) as book:
        client.connect((PEER4, 7000))
        accepted, _ = server.accept()
        client.send(b"one")
        assert accepted.recv(10) == b"one"
        before = len(book.packets)
        raw = ruled.client.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP))
        segment = reset(client.getsockname(), (PEER4, 7000), 0x1234567)
        for _ in range(3):
            raw.sendto(segment, (PEER4, 0))
        client.send(b"two")
        assert accepted.recv(10) == b"two", "the flow lives on"
        assert len(book.packets) == before
    saved = ruled.gateway.run(f"iptables-{variant}", "-t", "filter", "-vS", MAIN)
    dropped = [line for line in saved.splitlines() if "INVALID" in line]
    assert len(dropped) == 1
    assert "-c 3 " in dropped[0]


def test_marking_a_decided_flow_anew_holds_for_its_next_packet(ruled: Net) -> None:
    client, peer = ruled.client.udp(CLIENT4, 5000), ruled.peer.udp(PEER4, 6000)

    def answer(packet: Packet, number: int) -> Sequence[Command]:
        if packet.key.dport == 6000:
            return [SetVerdict(number, "repeat", ALLOW)]
        other = packet.key._replace(sport=5000, dport=6000)
        return [SetMark(other, DROP, create=False), SetVerdict(number, "repeat", PASS)]

    with running(ruled, answer) as book:
        client.sendto(b"before", (PEER4, 6000))
        assert received(peer, least=1) == [b"before"]
        ruled.client.udp(CLIENT4, 5001).sendto(b"deny it", (PEER4, 6001))
        assert until(lambda: len(book.packets) == 2)
        client.sendto(b"after", (PEER4, 6000))
        assert received(peer) == []
