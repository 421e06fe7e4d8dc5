"""Workers on a kernel: several look like one engine, each has its own hosts, and one that dies costs only them."""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from appid.dataplane.bytecode import queue_of
from appid.wire import packed
from tests.netns.live import ALL, live, rule
from tests.netns.net import PEER4, Net, received, until

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120)]
HOSTS = [f"10.77.1.{number}" for number in range(2, 10)]
TWO = 'on_stop = "remove"\nworkers = 2'


@pytest.fixture
def hosts(bare: Net) -> Net:
    """Eight inside hosts behind one wire."""
    for host in HOSTS[1:]:
        bare.client.run("ip", "addr", "add", f"{host}/24", "dev", "lan")
    return bare


def own(host: str) -> int:
    return queue_of(packed(host), 2)


def test_two_workers_are_one_engine(hosts: Net, tmp_path: Path) -> None:
    with live(hosts, tmp_path, ALL, "nft", gateway=TWO) as gateway:
        peer = hosts.peer.udp(PEER4, 6000)
        decide([hosts.client.udp(host, 5000) for host in HOSTS], peer)
        flows = gateway.ask("flows")
        assert [flow["id"] for flow in flows] == sorted({flow["id"] for flow in flows}), "numbers of one engine"
        assert {flow["src"] for flow in flows} == set(HOSTS)
        for flow in flows:
            assert flow["id"] % 2 == (own(flow["src"]) + 1) % 2, "each host's flows are its worker's"
        assert len({own(host) for host in HOSTS}) == 2, "or this shows nothing"
        (stats,) = gateway.ask("stats")
        assert stats["packets"] == sum(worker["seen"] for worker in stats["workers"])
        assert [worker["alive"] for worker in stats["workers"]] == [True, True]
        assert all(worker["seen"] for worker in stats["workers"])
        assert gateway.metric("appid_packets_total") is not None


def test_a_worker_that_is_killed_is_replaced_and_decided_flows_lose_nothing(hosts: Net, tmp_path: Path) -> None:
    with live(hosts, tmp_path, ALL, "nft", gateway=TWO) as gateway:
        peer = hosts.peer.udp(PEER4, 6000)
        clients = [hosts.client.udp(host, 5000) for host in HOSTS]
        decide(clients, peer)
        (stats,) = gateway.ask("stats")
        victim = stats["workers"][own(HOSTS[0])]["pid"]
        os.kill(victim, signal.SIGKILL)
        for count in range(20):
            for client in clients:
                client.sendto(b"after %d" % count, (PEER4, 6000))
        assert len(received(peer, least=20 * len(HOSTS))) == 20 * len(HOSTS)
        assert until(lambda: all(worker["alive"] for worker in gateway.ask("stats")[0]["workers"]))
        (stats,) = gateway.ask("stats")
        assert victim not in [worker["pid"] for worker in stats["workers"]]
        assert gateway.metric("appid_worker_restarts_total") == 1
        hosts.client.udp(HOSTS[0], 5001).sendto(b"new", (PEER4, 6000))
        assert received(peer, least=1) == [b"new"], "its hosts are served again"


def decide(clients: list[socket.socket], peer: socket.socket) -> None:
    """One after the other: of packets that wait in the queue together, each has a conntrack entry of its own."""
    for _ in range(12):  # more than undecided_packets
        for client in clients:
            client.sendto(b"\xff decided", (PEER4, 6000))
        assert len(received(peer, 0.05, least=len(clients))) == len(clients)


def test_a_policy_reaches_all_workers_or_none(hosts: Net, tmp_path: Path) -> None:
    with live(hosts, tmp_path, ALL, "nft", gateway=TWO) as gateway:
        peer = hosts.peer.udp(PEER4, 6000)
        clients = [hosts.client.udp(host, 5000) for host in HOSTS]
        decide(clients, peer)
        assert gateway.load("[[rule]]\nname = 1\n")[0]["type"] == "error"
        decide(clients, peer)
        assert gateway.load(rule("none", "deny", service='"any"'))[0]["type"] == "loaded"
        for client in clients:
            client.sendto(b"refused", (PEER4, 6000))
        assert received(peer) == []


def test_a_second_gateway_is_refused_and_harms_nothing(hosts: Net, tmp_path: Path) -> None:
    with live(hosts, tmp_path, ALL, "nft", gateway=TWO) as gateway:
        command = (sys.executable, "-m", "appid.cli.main", "run", "-c", str(gateway.config))
        with pytest.raises(AssertionError, match="another gateway runs here"):
            hosts.gateway.run(*command)
        assert gateway.ask("stats")[0]["workers"][0]["alive"]
