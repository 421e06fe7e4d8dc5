"""What flows carried is right though userspace saw but their first packets: the kernel's counters, at their end."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from tests.netns.live import ALL, live
from tests.netns.net import CLIENT4, PEER4, Net, received, until

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120)]
SIZE, DECIDING, UNSEEN, BACK = 100, 14, 80, 40


def test_bytes_and_duration_of_flows_that_userspace_never_saw_again(bare: Net, tmp_path: Path) -> None:
    with live(bare, tmp_path, ALL, "nft", gateway='on_stop = "remove"\nworkers = 2') as gateway:
        client, peer = bare.client.udp(CLIENT4, 5000), bare.peer.udp(PEER4, 6000)
        begun = time.monotonic()
        for _ in range(DECIDING):
            client.sendto(b"\xff" * SIZE, (PEER4, 6000))
            time.sleep(0.02)
        seen = gateway.ask("stats")[0]["packets"]
        for number in range(UNSEEN):
            client.sendto(b"\xff" * SIZE, (PEER4, 6000))
            if number < BACK:
                peer.sendto(b"\xfe" * SIZE, (CLIENT4, 5000))
        assert len(received(peer, least=DECIDING + UNSEEN)) == DECIDING + UNSEEN
        assert len(received(client, least=BACK)) == BACK
        assert gateway.ask("stats")[0]["packets"] == seen, "the kernel alone"
        bare.gateway.run("conntrack", "-D", "-p", "udp", "--dport", "6000")
        lasted = time.monotonic() - begun
        assert until(lambda: gateway.ask("stats")[0]["applications"])
        (stats,) = gateway.ask("stats")
        packets = DECIDING + UNSEEN + BACK
        (totals,) = stats["applications"].values()
        assert (totals["flows"], totals["packets"], totals["bytes"]) == (1, packets, packets * (SIZE + 28))
        assert lasted - 1 < totals["seconds"] <= lasted + 0.1
        assert stats["flows_ended"] == 1, "of two workers the one whose host it is"
        flow = gateway.flow(6000)
        assert (flow["packets"], flow["bytes"], flow["alive"]) == (packets, packets * (SIZE + 28), False)


def test_ends_that_come_while_a_worker_is_dead_are_the_next_ones(bare: Net, tmp_path: Path) -> None:
    """Nobody else could tell of them: the entries are gone."""
    with live(bare, tmp_path, ALL, "nft") as gateway:
        (worker,) = gateway.ask("stats")[0]["workers"]
        for port in range(6000, 6005):
            client, peer = bare.client.udp(CLIENT4, 5000), bare.peer.udp(PEER4, port)
            for _ in range(DECIDING):
                client.sendto(b"\xff" * SIZE, (PEER4, port))
                time.sleep(0.01)
            assert len(received(peer)) == DECIDING
            client.close()
        time.sleep(1.1)  # what the supervisor knows of its counts is a second old
        os.kill(gateway.process.pid, signal.SIGSTOP)
        os.kill(worker["pid"], signal.SIGKILL)
        bare.gateway.run("conntrack", "-D", "-p", "udp", "--src", CLIENT4)
        os.kill(gateway.process.pid, signal.SIGCONT)
        assert until(lambda: gateway.ask("stats")[0]["flows_ended"] == 5, 10)
        (totals,) = gateway.ask("stats")[0]["applications"].values()
        assert (totals["flows"], totals["bytes"]) == (5, 5 * DECIDING * (SIZE + 28))


_STARTED = """
import os, sys
for number, descriptor in enumerate(map(int, sys.argv[1].split(",")), 3):
    os.dup2(descriptor, number)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(number - 2), LISTEN_FDNAMES=sys.argv[2])
os.execvp(sys.argv[3], sys.argv[3:])
"""
"""As a service manager starts a process: what it keeps for it begins at descriptor 3 (sd_listen_fds(3))."""


def test_ends_that_come_while_nothing_runs_are_counted_by_the_next_one(
    bare: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service manager keeps the sockets on which the kernel tells of them: over a kill, and over an upgrade."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        with live(bare, tmp_path, ALL, "nft", gateway='on_stop = "keep"\nworkers = 2') as gateway:
            monkeypatch.delenv("NOTIFY_SOCKET")
            kept = dict(stored(manager) for _ in range(2))
            assert list(kept) == ["ends-0-of-2", "ends-1-of-2"]
            for port, end in ((6000, signal.SIGKILL), (6001, signal.SIGTERM)):
                client, peer = bare.client.udp(CLIENT4, 5000), bare.peer.udp(PEER4, port)
                for _ in range(DECIDING):
                    client.sendto(b"\xff" * SIZE, (PEER4, port))
                    time.sleep(0.02)
                assert len(received(peer, least=DECIDING)) == DECIDING
                gateway.process.send_signal(end)
                gateway.process.wait(20)
                bare.gateway.run("conntrack", "-D", "-p", "udp", "--dport", str(port))
                numbers = [os.dup(descriptor) for descriptor in kept.values()]
                starter = [sys.executable, "-c", _STARTED, ",".join(map(str, numbers)), ":".join(kept)]
                gateway.begin(*starter, descriptors=numbers)
                for number in numbers:
                    os.close(number)
                assert until(lambda: gateway.ask("stats")[0]["flows_ended"] == 1), gateway.ask("stats")
                (totals,) = gateway.ask("stats")[0]["applications"].values()
                assert (totals["packets"], totals["bytes"]) == (DECIDING, DECIDING * (SIZE + 28))
            gateway.process.terminate()
            gateway.process.wait(20)
            nothing = [os.open(os.devnull, os.O_RDWR) for _ in kept]
            starter = [sys.executable, "-c", _STARTED, ",".join(map(str, nothing)), ":".join(kept)]
            gateway.begin(*starter, descriptors=nothing)
            assert "ends-1-of-2, as the service manager kept it: " in gateway.text()
        for descriptor in (*kept.values(), *nothing):
            os.close(descriptor)


def stored(manager: socket.socket) -> tuple[str, int]:
    told, (descriptor,), _, _ = socket.recv_fds(manager, 200, 1)
    assert told.startswith(b"FDSTORE=1\nFDNAME=")
    return told.split(b"\n")[1].decode().removeprefix("FDNAME="), descriptor
