"""The same traffic without us and with us, every class of flow in it: rules of others around ours count the same."""

from __future__ import annotations

import re
import socket

import pytest

from appid.dataplane.ruleset import Variant
from appid.packet import Packet
from tests.netns.net import CLIENT4, CLIENT6, PEER4, PEER6, Net, received
from tests.netns.playbook import ALLOW, PASS, WATCH, install, running

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120)]
ENDS = ((CLIENT4, PEER4), (CLIENT6, PEER6))
PLACES = (("mangle", "FORWARD"), ("mangle", "POSTROUTING"), ("filter", "FORWARD"))
HOOKS = {"ahead": "mangle - 10", "between": "mangle + 1", "behind": "filter + 1"}
NATIVE = "".join(
    f"table {family} {name} {{\n chain seen {{\n type filter hook forward priority {priority}\n"
    f'counter comment "account {name} {family}"\n}}\n}}\n'
    for family in ("ip", "ip6") for name, priority in HOOKS.items()
)  # fmt: skip
UNDECIDED, DECIDED, SIGNALLING, MEDIA = b"?", b"!", b"\0\1a message of STUN", b"\xff"
FLOWS = {6000: [UNDECIDED] * 5, 6001: [DECIDED] * 5, 6002: [MEDIA, SIGNALLING, MEDIA, SIGNALLING, MEDIA]}


def judge(packet: Packet, number: int) -> int:
    text = bytes(packet.payload)
    return PASS if text in (b"", UNDECIDED) else WATCH if text in (SIGNALLING, MEDIA) else ALLOW


def move_in(net: Net, variant: str) -> None:
    """Ahead of us in time, so behind our first jumps."""
    forwarded = "-m conntrack ! --ctstate UNTRACKED"  # and no neighbour discovery of the gateway's own
    lines = [f'*{table}\n-A {hook} {forwarded} -m comment --comment "account {table} {hook}"\nCOMMIT\n'
             for table, hook in PLACES]  # fmt: skip
    for program in ("iptables", "ip6tables"):
        net.gateway.run(f"{program}-{variant}-restore", "--noflush", text="".join(lines))
    net.gateway.run("nft", "-f", "-", text=NATIVE)


def seen(net: Net, variant: str) -> dict[str, int]:
    """Packets at each rule of others."""
    saved = [(program, net.gateway.run(f"{program}-{variant}-save", "-c")) for program in ("iptables", "ip6tables")]
    rule = re.compile(r'^\[(\d+):\d+\] -A .*--comment "account ([^"]+)"', re.M)
    found = {f"{program} {place}": int(packets) for program, text in saved for packets, place in rule.findall(text)}
    listing = net.gateway.run("nft", "list", "ruleset")
    return found | {place: int(packets) for packets, place in
                    re.findall(r'counter packets (\d+) bytes \d+ comment "account (\w+ ip6?)"', listing)}  # fmt: skip


def exchange(net: Net) -> None:
    """Of each class some packets, one after the other; a port that is closed answers by ICMP."""
    for client, peer in ENDS:
        for port, texts in FLOWS.items():
            ends = net.client.udp(client, port), net.peer.udp(peer, port)
            for text in texts:
                over(*ends, text, (peer, port))
                over(ends[1], ends[0], text, (client, port))
        foreseen = net.peer.udp(peer, 16402), net.client.udp(client, 16402)
        for _ in range(4):
            over(*foreseen, b"media", (client, 16402))
        asking = net.client.udp(client, 5005)
        asking.connect((peer, 6005))
        for _ in range(2):
            asking.settimeout(10)
            asking.send(DECIDED)
            with pytest.raises(ConnectionRefusedError):
                asking.recv(100)
        # No data over TCP: how many ACKs it has is a matter of time.
        with net.peer.listen(peer, 7000) as server, net.client.tcp(client) as out:
            out.connect((peer, 7000))
            accepted, _ = server.accept()
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            accepted.close()  # one RST, and no more
            with pytest.raises(ConnectionResetError):
                out.recv(10)


def over(sender: socket.socket, taker: socket.socket, text: bytes, to: tuple[str, int]) -> None:
    sender.sendto(text, to)
    assert received(taker, 0.01, least=1) == [text]


def test_of_each_class_of_flow_others_see_what_they_see_without_us(bare: Net, variant: Variant) -> None:
    """Undecided and decided, watched and foreseen, an error about a flow, a TCP connection."""
    move_in(bare, variant)
    exchange(bare)
    without = seen(bare, variant)
    bare.gateway.run("conntrack", "-F")
    install(bare, variant)
    for client, peer in ENDS:
        bare.gateway.run("ipset", "add", f"appid-pinholes{'6' if ':' in client else '4'}",
                         f"{client},udp:16402,{peer}", "timeout", "60", "skbmark", f"{ALLOW:#x}/0xffff0f")  # fmt: skip
    with running(bare, judge) as book:
        exchange(bare)
    asked = [bytes(packet.payload) for packet in book.packets]
    assert (asked.count(UNDECIDED), asked.count(SIGNALLING), asked.count(b"media")) == (2 * 10, 2 * 4, 0)
    counts = {place: packets - without[place] for place, packets in seen(bare, variant).items()}
    assert counts == without
    assert len(without) == 12
    assert min(without.values()) > 40
