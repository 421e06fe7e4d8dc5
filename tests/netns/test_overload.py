"""More than the engine can answer: what is decided loses nothing, and every packet is received or counted."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import pytest

from appid.dataplane.chain import FAMILIES
from appid.dataplane.ruleset import VARIANTS, Variant
from tests.netns.live import ALL, Live, live
from tests.netns.net import CLIENT4, PEER4, PEER6, Net, until
from tests.netns.numbered import Numbered

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(200)]
FLOOD = 15_000
DOWN = 'on_stop = "remove"\n[exceptions]\nengine-down = "closed"'
FULL = 'on_stop = "remove"\nqueue_length = 64\nworkers = {}\n[exceptions]\nengine-down = "{}"\nqueue-full = "{}"'
INSIDE = {4: "10.77.1.{}", 6: "fd00:77:1::{}"}
PEER = {4: PEER4, 6: PEER6}


class Case(NamedTuple):
    variant: Variant
    family: Literal[4, 6]
    workers: int
    full: str
    down: str

    @property
    def program(self) -> str:
        return f"{'iptables' if self.family == 4 else 'ip6tables'}-{self.variant}"

    def hosts(self, net: Net) -> list[str]:
        """Inside addresses; by the sixth each worker of two has some."""
        found = [INSIDE[self.family].format(number) for number in range(2, 3 if self.workers == 1 else 8)]
        for each in found[1:]:
            net.client.run("ip", "addr", "add", f"{each}/{24 if self.family == 4 else 64}", "dev", "lan",
                           *(["nodad"] if self.family == 6 else []))  # fmt: skip
        return found


SHORT = {Case("nft", 4, 1, "closed", "closed"), Case("legacy", 6, 2, "open", "closed")}
CASES = [
    pytest.param(case, id="-".join(map(str, case)), marks=[] if case in SHORT else [pytest.mark.slow])
    for variant in VARIANTS for family in FAMILIES for workers in (1, 2)
    for case in (Case(variant, family, workers, full, down)
                 for full, down in (("closed", "closed"), ("open", "closed"), ("open", "open")))
]  # fmt: skip


def media_of(net: Net, host: str = CLIENT4, peer: str = PEER4) -> Numbered:
    """A decided flow: 100 datagrams a second with numbers."""
    port = 6000 + int(host[-1])
    media = Numbered(net.client.udp(host, 5000), net.peer.udp(peer, port), (peer, port), 0.01, b"\xff")
    for _ in range(14):  # more than undecided_packets, one after the other
        media.send()
        time.sleep(0.03)
    media.begin()
    return media


def flood(net: Net, count: int, hosts: Sequence[str] = (CLIENT4,), peer: str = PEER4) -> None:
    """New flows of these hosts, in turn and as fast as can be."""
    socks = [net.client.udp(host) for host in hosts]
    for sock in socks:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
        sock.settimeout(None)
    for number in range(count):
        socks[number % len(socks)].sendto(b"\xff flood", (peer, 10_000 + number))


def arrived(net: Net, program: str) -> int:
    listing = net.peer.run(program, "-L", "INPUT", "-v", "-x", "-n")
    return int(next(line for line in listing.splitlines() if "DROP" in line and "udp" in line).split()[0])


def accounted(gateway: Live) -> tuple[int, int]:
    (stats,) = gateway.ask("stats")
    exceptions = stats["exceptions"]["queue-full"] + stats["exceptions"]["engine-down"]
    return sum(worker["seen"] for worker in stats["workers"]), exceptions


@pytest.mark.parametrize("case", CASES)
def test_of_twice_as_many_as_it_can_answer(bare: Net, tmp_path: Path, case: Case) -> None:
    peer, hosts = PEER[case.family], case.hosts(bare)
    bare.peer.run(case.program, "-A", "INPUT", "-p", "udp", "--dport", "10000:60000", "-j", "DROP")
    options = FULL.format(case.workers, case.down, case.full)
    with live(bare, tmp_path, ALL, case.variant, gateway=options) as gateway:
        media = [media_of(bare, host, peer) for host in hosts]
        before = [worker["seen"] for worker in gateway.ask("stats")[0]["workers"]]
        assert all(before), "each worker has hosts"
        flood(bare, FLOOD, hosts, peer)
        assert until(lambda: sum(accounted(gateway)) - sum(before) >= FLOOD, 20)
        now, counted = accounted(gateway)
        assert [each.stop() for each in media] == [set()] * len(hosts), "what is decided never waits in the queue"
        assert counted > FLOOD // 2, "or it was not too much"
        assert now - sum(before) + counted == FLOOD, "seen, or counted"
        came = arrived(bare, case.program)
        assert came == (FLOOD if case.full == "open" else FLOOD - counted), "received, or counted"
        assert gateway.metric(f'appid_exceptions_total{{action="{case.full}",cause="queue-full"}}') == counted
        if case.full == "closed":
            assert gateway.ask("stats")[0]["dropped"] == {"full": counted}


@contextmanager
def trickle(net: Net) -> Iterator[list[int]]:
    """New flows all the time. Out: their ports, so far."""
    stopped, sent = threading.Event(), list[int]()
    sock = net.client.udp(CLIENT4)

    def send() -> None:
        for number in range(10_000, 60_000):
            if stopped.wait(0.001):
                return
            sock.sendto(b"\xff trickle", (PEER4, number))
            sent.append(number)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield sent
    finally:
        stopped.set()
        thread.join()


def test_segments_are_whole_and_hide_nothing(bare: Net, tmp_path: Path) -> None:
    """The rules see one packet of 60,000 bytes (generic segmentation offload), the queue forty: what is lost later is
    counted all the same, also where it was never quiet meanwhile."""
    with live(bare, tmp_path, ALL, "nft", gateway=DOWN) as gateway:
        listener = bare.peer.listen(PEER4, 7000)
        data = bytes(range(256)) * 2000
        before = gateway.ask("stats")[0]["packets"]
        with trickle(bare) as sent:
            for _ in range(5):
                sender = bare.client.tcp(CLIENT4)
                sender.connect((PEER4, 7000))
                receiver, _ = listener.accept()
                threading.Thread(target=sender.sendall, args=(data,)).start()
                came = b""
                while len(came) < len(data):
                    came += receiver.recv(65536)
                assert came == data
            time.sleep(0.3)
            (stats,) = gateway.ask("stats")
            assert not any(stats["exceptions"].values()), stats["exceptions"]
            assert stats["packets"] - before >= 50, "undecided, it was asked about"
            time.sleep(1.2)  # the supervisor's look
            worker, supervisor = stats["workers"][0]["pid"], gateway_pid(stats["workers"][0]["pid"])
            os.kill(supervisor, signal.SIGSTOP)  # or it would be replaced at once
            try:
                begun = len(sent)
                os.kill(worker, signal.SIGKILL)
                time.sleep(0.05)
                least = 50 - len(sent)
                flood(bare, 50)
                least += len(sent)
            finally:
                os.kill(supervisor, signal.SIGCONT)
            assert until(lambda: gateway.ask("stats")[0]["workers"][0]["alive"], 10)
            most = 50 + len(sent) - begun
        assert until(lambda: gateway.ask("stats")[0]["exceptions"]["engine-down"] >= least, 10)
        assert gateway.ask("stats")[0]["exceptions"]["engine-down"] <= most + 10, "or they waited in its queue"


def gateway_pid(worker: int) -> int:
    return int(Path(f"/proc/{worker}/stat").read_text().rsplit(")", 1)[1].split()[1])
