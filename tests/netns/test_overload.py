"""More than the engine can answer: what is decided loses nothing, and every packet is received or counted."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from tests.netns.live import ALL, Live, live
from tests.netns.net import CLIENT4, PEER4, Net, until
from tests.netns.numbered import Numbered

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(200)]
FLOOD = 15_000
COUNTED = "-p udp --dport 10000:60000"
DOWN = 'on_stop = "remove"\n[exceptions]\nengine-down = "closed"'
FULL = 'on_stop = "remove"\nqueue_length = 64\n[exceptions]\nengine-down = "{down}"\nqueue-full = "{full}"'


def media_of(net: Net) -> Numbered:
    """A decided flow: 100 datagrams a second with numbers."""
    media = Numbered(net.client.udp(CLIENT4, 5000), net.peer.udp(PEER4, 6000), (PEER4, 6000), 0.01, b"\xff")
    for _ in range(14):  # more than undecided_packets, one after the other
        media.send()
        time.sleep(0.03)
    media.begin()
    return media


def flood(net: Net, count: int) -> None:
    """New flows of one socket, as fast as it can."""
    sock = net.client.udp(CLIENT4)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
    sock.settimeout(None)
    for number in range(count):
        sock.sendto(b"\xff flood", (PEER4, 10_000 + number))


def arrived(net: Net) -> int:
    listing = net.peer.run("iptables-nft", "-L", "INPUT", "-v", "-x", "-n")
    return int(next(line for line in listing.splitlines() if "DROP" in line and "udp" in line).split()[0])


def accounted(gateway: Live) -> tuple[int, int]:
    (stats,) = gateway.ask("stats")
    return stats["workers"][0]["seen"], stats["exceptions"]["queue-full"] + stats["exceptions"]["engine-down"]


BOTH = [("closed", "closed"), ("open", "closed"), pytest.param("open", "open", marks=pytest.mark.slow)]


@pytest.mark.parametrize(("full", "down"), BOTH)
def test_of_twice_as_many_as_it_can_answer(bare: Net, tmp_path: Path, full: str, down: str) -> None:
    bare.peer.run("iptables-nft", "-A", "INPUT", *COUNTED.split(), "-j", "DROP")
    with live(bare, tmp_path, ALL, "nft", gateway=FULL.format(full=full, down=down)) as gateway:
        media = media_of(bare)
        seen, _ = accounted(gateway)
        flood(bare, FLOOD)
        assert until(lambda: sum(accounted(gateway)) - seen >= FLOOD, 20)
        now, counted = accounted(gateway)
        assert media.stop() == set(), "what is decided never waits in the queue"
        assert counted > FLOOD // 2, "or it was not too much"
        assert now - seen + counted == FLOOD, "seen, or counted"
        came = arrived(bare)
        assert came == (FLOOD if full == "open" else FLOOD - counted), "received, or counted"
        assert gateway.metric(f'appid_exceptions_total{{action="{full}",cause="queue-full"}}') == counted
        if full == "closed":
            assert gateway.ask("stats")[0]["dropped"] == {"full": counted}


def test_segments_are_whole_and_hide_nothing(bare: Net, tmp_path: Path) -> None:
    """The rules see one packet of 60,000 bytes (generic segmentation offload), the queue forty: what is lost later is
    counted all the same."""
    with live(bare, tmp_path, ALL, "nft", gateway=DOWN) as gateway:
        listener = bare.peer.listen(PEER4, 7000)
        sender = bare.client.tcp(CLIENT4)
        sender.connect((PEER4, 7000))
        receiver, _ = listener.accept()
        before = gateway.ask("stats")[0]["packets"]
        data = bytes(range(256)) * 200
        threading.Thread(target=sender.sendall, args=(data,)).start()
        came = b""
        while len(came) < len(data):
            came += receiver.recv(65536)
        assert came == data
        queued = gateway.ask("stats")[0]["packets"] - before
        assert queued >= 10, "undecided, it was asked about"
        time.sleep(0.3)
        (stats,) = gateway.ask("stats")
        assert not any(stats["exceptions"].values()), stats["exceptions"]
        worker, supervisor = stats["workers"][0]["pid"], gateway_pid(stats["workers"][0]["pid"])
        os.kill(supervisor, signal.SIGSTOP)  # or it would be replaced at once
        try:
            os.kill(worker, signal.SIGKILL)
            time.sleep(0.2)
            flood(bare, 12)
        finally:
            os.kill(supervisor, signal.SIGCONT)
        assert until(lambda: gateway.ask("stats")[0]["exceptions"]["engine-down"] == 12, 10)


def gateway_pid(worker: int) -> int:
    return int(Path(f"/proc/{worker}/stat").read_text().rsplit(")", 1)[1].split()[1])
