"""Other user agents: two baresip whose audio arrives byte by byte; aiortc behind coturn, which needs no help."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.netns.live import ROOT, live, rule
from tests.netns.net import PEER4, Namespace, Net, net, until
from tests.sip import baresip
from tests.sip.load import left
from tests.sip.town import town
from tests.sip.witness import Witness

pytestmark = pytest.mark.kernel
TURN = PEER4
WEBRTC = rule("calls", "allow", "webrtc", "stun", "turn", "dtls", "rtp", "rtcp", service='"any"')
SECONDS = 3


def _no_packet_lost(heard: tuple[baresip.Heard, baresip.Heard]) -> None:
    for direction, way in zip(heard, ("outward", "inward"), strict=True):
        told = (
            f"{way}: {len(direction.sent)} sent, {direction.lost} lost ({direction.which}), {direction.changed} changed"
        )
        assert (direction.lost, direction.changed) == (0, 0), told
        assert len(direction.sent) > 40 * SECONDS, told


@pytest.mark.timeout(120)
def test_baresip_hears_every_byte(tmp_path: Path) -> None:
    with town("ours", True, tmp_path) as (where, gateway):
        assert gateway is not None
        _no_packet_lost(baresip.call(where, tmp_path / "call", v6=False, tcp=False, seconds=SECONDS))
        assert left(where, gateway) == []


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("nat", [False, True], ids=["routed", "nat"])
def test_baresip_is_called_by_both_families(tmp_path: Path, nat: bool) -> None:
    with town("ours", nat, tmp_path) as (where, _):
        for v6, by_callee in ((False, False), (False, True), (True, False), (True, True)):
            _no_packet_lost(baresip.called(where, tmp_path / f"{v6}-{by_callee}", v6, SECONDS, by_callee))


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("nat", [False, True], ids=["routed", "nat"])
def test_two_baresip_behind_one_gateway(tmp_path: Path, nat: bool) -> None:
    """Their proxy is outside; once it stays in the path, once ACK and BYE go from one to the other."""
    with town("ours", nat, tmp_path) as (where, gateway):
        assert gateway is not None
        for v6, stays in ((False, True), (False, False), (True, True), (True, False)):
            _no_packet_lost(baresip.both_inside(where, tmp_path / f"{v6}-{stays}", v6, SECONDS, stays))
            assert left(where, gateway) == []
        ends = [call["end"] for call in gateway.ask("calls")]
        assert ends == ["bye"] * 4


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("nat", [False, True], ids=["routed", "nat"])
def test_baresip_by_both_families_and_transports(tmp_path: Path, nat: bool) -> None:
    with town("ours", nat, tmp_path) as (where, _):
        for v6, tcp in ((False, False), (False, True), (True, False), (True, True)):
            _no_packet_lost(baresip.call(where, tmp_path / f"{v6}-{tcp}", v6, tcp, SECONDS))


class End:
    """tests/sip/webrtc.py in a namespace."""

    def __init__(self, space: Namespace, role: str) -> None:
        command = ["ip", "netns", "exec", space.name, "build/sip-venv/bin/python", "tests/sip/webrtc.py", role, TURN,
                   "alice", "secret", str(SECONDS)]  # fmt: skip
        self.child = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def read(self) -> dict[str, Any]:
        assert self.child.stdout is not None
        return json.loads(self.child.stdout.readline() or "{}")  # type: ignore[no-any-return]

    def write(self, description: dict[str, Any]) -> None:
        assert self.child.stdin is not None
        self.child.stdin.write(json.dumps(description) + "\n")
        self.child.stdin.flush()

    def stop(self) -> None:
        self.child.kill()
        self.child.communicate()


@contextmanager
def turn_server(where: Net, folder: Path) -> Iterator[None]:
    with (folder / "coturn.log").open("wb") as log:
        command = ["turnserver", "-n", "--no-cli", "--no-tls", "--no-dtls", "--lt-cred-mech", "--listening-ip", TURN,
                   "--relay-ip", TURN, "--user", "alice:secret", "--realm", "lab", "--userdb", str(folder / "turndb"),
                   "--pidfile", str(folder / "pid"), "--log-file", "stdout", "--simple-log", "--min-port", "50000",
                   "--max-port", "50099", "--allow-loopback-peers"]  # fmt: skip
        child = subprocess.Popen(["ip", "netns", "exec", where.peer.name, *command], cwd=folder, stdout=log, stderr=log)
    try:
        assert until(lambda: f"{TURN}:3478" in where.peer.run("ss", "-Huln"), 5)
        yield
    finally:
        child.terminate()
        child.wait()


def _webrtc_call(where: Net, folder: Path) -> list[dict[str, Any]]:
    with turn_server(where, folder), ExitStack() as stack:
        caller, callee = End(where.client, "offer"), End(where.peer, "answer")
        for end in (caller, callee):
            stack.callback(end.stop)
        callee.write(caller.read())
        caller.write(callee.read())
        return [caller.read(), callee.read()]


@pytest.mark.timeout(120)
def test_webrtc_behind_a_turn_server_is_not_disturbed(tmp_path: Path) -> None:
    """It crosses the NAT by itself: audio flows, nothing is opened or translated for it."""
    with net() as where:  # few addresses: ICE tries them all
        where.masquerade()
        with (
            Witness(where.client, "lan") as inner,
            Witness(where.peer, "net") as outer,
            live(where, tmp_path, WEBRTC, "nft") as gateway,
        ):
            ends = _webrtc_call(where, tmp_path)
            assert [end.get("heard") for end in ends] == [True, True], ends
            assert min(end["frames"] for end in ends) > 25 * SECONDS
            assert gateway.ask("pinholes") == []
            assert gateway.events("pinhole") == []
    _untouched(inner, outer)


def _untouched(inner: Witness, outer: Witness) -> None:
    """The same UDP payloads on both sides of the gateway."""
    server = (TURN, 3478)
    inside, outside = (
        [s.payload for s in w.seen if server in ((s.src, s.sport), (s.dst, s.dport))] for w in (inner, outer)
    )
    assert len(inside) > 100
    assert set(inside) - set(outside) == set()
