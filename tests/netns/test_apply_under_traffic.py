"""While rule sets are exchanged, over and over, no packet fares otherwise than under both the old and the new ones.

What both let through arrives, all of it, though the host's own policy is DROP; what both refuse never does, though the
host's own rules accept it. With iptables-nft that is one transaction; with iptables-legacy, by tables, it is the order.
"""

from __future__ import annotations

import itertools
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest

from appid.dataplane.chain import Topology
from appid.dataplane.marks import Marks
from appid.dataplane.ruleset import VARIANTS, Variant
from appid.edge import iptables
from appid.policy.rule import Qos
from tests.netns.net import CLIENT4, CLIENT6, PEER4, PEER6, Namespace, Net
from tests.netns.playbook import TOPOLOGY

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]

MARKS = Marks(qos=0x0F000000)
ALLOW, DENY = MARKS.encode("allow", 7), MARKS.encode("drop", 7)
ONE = replace(TOPOLOGY, marks=MARKS)
OTHER = Topology(("wan0", "wan1"), (*TOPOLOGY.inside, "10.99.0.0/16"), (77, 78, 79), media=(16384, 16500),
                 marks=MARKS, qos=(Qos(None), Qos(46)))  # fmt: skip
ENDS = ((CLIENT4, PEER4), (CLIENT6, PEER6))
ALLOWED, DENIED, UNSEEN, FORESEEN = 6000, 6001, 6002, 16402
PAUSE = 0.002
TRACKED = """table inet track {
  chain passing {
    type filter hook forward priority 300
    ct state new counter
  }
}
"""


def host(net: Net, variant: str) -> None:
    """The host's own rules: what we refuse it would accept, what we let through it would drop."""
    for program in (f"iptables-{variant}", f"ip6tables-{variant}"):
        accepted = ("-p", "udp", "-m", "multiport", "--dports", f"{DENIED},{UNSEEN}", "-j", "ACCEPT")
        net.gateway.run(program, "-A", "FORWARD", *accepted)
        net.gateway.run(program, "-P", "FORWARD", "DROP")


class Traffic:
    """One sender a kind; `sent` and `arrived` count by kind and family."""

    def __init__(self, net: Net) -> None:
        self.net, self.sent, self.arrived = net, Counter[tuple[int, str]](), Counter[tuple[int, str]]()
        self._over, self._stopped = threading.Event(), threading.Event()
        self._takers = [self._taker(kind, ends) for ends in ENDS for kind in (ALLOWED, DENIED, UNSEEN, FORESEEN)]
        self._senders: list[threading.Thread] = []

    def decide(self) -> None:
        """First packets pass no chain yet; then the connmarks are as an engine would have set them."""
        self.fixed = {}
        for client, peer in ENDS:
            for kind, mark in ((ALLOWED, ALLOW), (DENIED, DENY)):
                self.fixed[kind, client] = self.net.client.udp(client, kind)
                self.fixed[kind, client].sendto(b"first", (peer, kind))
                family = "ipv6" if ":" in client else "ipv4"
                self.net.gateway.run("conntrack", "-U", "-f", family, "-p", "udp", "--dport", str(kind),
                                     "--mark", f"{mark:#x}")  # fmt: skip
        time.sleep(0.1)
        self.arrived.clear()

    def foresee(self) -> None:
        for family, (client, peer) in zip("46", ENDS, strict=True):
            self.net.gateway.run("ipset", "-exist", "add", f"appid-pinholes{family}", f"{client},udp:{FORESEEN},{peer}",
                                 "timeout", "600", "skbmark", f"{ALLOW:#x}/{MARKS.mask:#x}")  # fmt: skip

    def _taker(self, kind: int, ends: tuple[str, str]) -> threading.Thread:
        client, peer = ends
        where, address = (self.net.client, client) if kind == FORESEEN else (self.net.peer, peer)
        taker = where.udp(address, kind)
        taker.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)  # SO_RCVBUFFORCE

        def take() -> None:
            while not self._over.is_set():
                try:
                    taker.recv(100)
                    self.arrived[kind, peer] += 1
                except TimeoutError:
                    continue

        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        return thread

    def start(self) -> None:
        for client, peer in ENDS:
            for kind in (ALLOWED, DENIED):
                self._repeat(kind, peer, partial(self._again, self.fixed[kind, client], (peer, kind)))
            self._repeat(UNSEEN, peer, partial(anew, self.net.client, client, (peer, UNSEEN)))
            self._repeat(FORESEEN, peer, partial(anew, self.net.peer, peer, (client, FORESEEN)))

    @staticmethod
    def _again(sender: socket.socket, to: tuple[str, int], payload: bytes) -> None:
        sender.sendto(payload, to)

    def _repeat(self, kind: int, peer: str, send: Callable[[bytes], None]) -> None:
        def work() -> None:
            for number in itertools.count():
                if self._stopped.is_set():
                    return
                send(struct.pack("!I", number))
                self.sent[kind, peer] += 1
                time.sleep(PAUSE)

        self._senders.append(threading.Thread(target=work, daemon=True))
        self._senders[-1].start()

    def __enter__(self) -> Traffic:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._senders:
            thread.join(5)
        time.sleep(0.7)
        self._over.set()
        for thread in self._takers:
            thread.join(5)


def anew(where: Namespace, source: str, to: tuple[str, int], payload: bytes) -> None:
    """A flow of its own for one packet."""
    where.enter()
    with socket.socket(socket.AF_INET6 if ":" in source else socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.bind((source, 0))
        made.sendto(payload, to)


def exchanged(
    net: Net, order: list[tuple[Topology, Variant]], times: int, then: Callable[[], None] = lambda: None
) -> Traffic:
    net.gateway.run("nft", "-f", "-", text=TRACKED)
    traffic = Traffic(net)
    traffic.decide()
    net.gateway.call(lambda: iptables.apply(*order[0]))
    traffic.foresee()
    then()
    with traffic:
        for number in range(times):
            topology, variant = order[(number + 1) % len(order)]
            net.gateway.call(partial(iptables.apply, topology, variant))
    return traffic


TIMES = [pytest.param(6, id="6"), pytest.param(100, id="100", marks=pytest.mark.slow)]


@pytest.mark.parametrize("times", TIMES)
def test_no_packet_meets_half_a_change(bare: Net, variant: Variant, times: int) -> None:
    judge(exchanged(bare, [(ONE, variant), (OTHER, variant)], times, lambda: host(bare, variant)))


@pytest.mark.slow
def test_nor_a_change_of_the_program(bare: Net) -> None:
    judge(exchanged(bare, [(ONE, variant) for variant in VARIANTS], 50))


def judge(traffic: Traffic) -> None:
    for _, peer in ENDS:
        for kind in (ALLOWED, FORESEEN):
            assert traffic.sent[kind, peer] > 100
            assert traffic.arrived[kind, peer] == traffic.sent[kind, peer]
        for kind in (DENIED, UNSEEN):
            assert traffic.sent[kind, peer] > 100
            assert traffic.arrived[kind, peer] == 0
