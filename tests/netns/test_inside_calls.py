"""Calls between two inside hosts, each of another worker: told, counted and let through as by one engine."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from appid.dataplane.bytecode import queue_of
from appid.wire import packed
from tests.netns.live import ALL, Live, live, rule
from tests.netns.net import PEER4, PEER6, Namespace, Net, received, until
from tests.netns.test_nat_calls import Agent, hang_up

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120)]
TWO = 'on_stop = "keep"\nworkers = 2'
LAN4, LAN6 = ("10.77.1.{}", "10.77.3.{}"), ("fd00:77:1::{}", "fd00:77:3::{}")
STRICT = rule("sip", "allow", "sip", service='["udp/5060"]')
SIP = rule("sip", "allow", "sip", service='"any"')


def pair(lans: tuple[str, str]) -> tuple[str, str]:
    """A host in each of the two networks, of different workers, the second lower by its last bits."""
    return next(
        (one, other)
        for one, other in ((lans[0].format(a), lans[1].format(b)) for a in range(2, 20) for b in range(2, 20))
        if queue_of(packed(one), 2) == 0 and queue_of(packed(other), 2) == 1
    )


class Lans(Net):
    """A second inside network behind the same gateway."""

    zones = (
        '[zones]\ninside = { interfaces = ["lan0", "lan1"], networks = '
        '["10.77.1.0/24", "10.77.3.0/24", "fd00:77:1::/64", "fd00:77:3::/64"] }\n'
        'outside = { interfaces = ["wan0"] }\n'
    )

    def __init__(self) -> None:
        super().__init__()
        self.second = self._add("s")
        self._link(self.second, "lan", ("10.77.3.2", "fd00:77:3::2"), "lan1", ("10.77.3.1", "fd00:77:3::1"))
        for version, via in (("-4", "10.77.3.1"), ("-6", "fd00:77:3::1")):
            self.second.run("ip", version, "route", "add", "default", "via", via)

    def host(self, where: Namespace, address: str) -> Namespace:
        length = 64 if ":" in address else 24
        where.run("ip", "addr", "replace", f"{address}/{length}", "dev", "lan", *(["nodad"] if length == 64 else []))
        return where


@pytest.fixture
def lans() -> Iterator[Lans]:
    made = Lans()
    try:
        yield made
    finally:
        made.remove()


@contextmanager
def agents(lans: Lans, ends: tuple[str, str]) -> Iterator[tuple[Agent, Agent]]:
    one = Agent(lans.host(lans.client, ends[0]), ends[0], 16402)
    other = Agent(lans.host(lans.second, ends[1]), ends[1], 30000)
    yield one, other


def answered(caller: Agent, callee: Agent, call: str, through: Agent | None = None) -> None:
    """INVITE, 200, ACK, straight or handed on by `through`."""

    def send(sender: Agent, to: Agent, data: bytes) -> None:
        if through is not None:
            sender.signalling.sendto(data, (through.host, 5060))
            data = through.signalling.recv(65535)
            sender = through
        sender.signalling.sendto(data, (to.host, 5060))
        to.hear()

    tags = (";tag=a", f";tag={call}")
    send(caller, callee, caller.message("INVITE sip:b@y SIP/2.0", "1 INVITE", call, (";tag=a", ""), caller.sdp()))
    via = callee.field(r"^Via: (.*?)\r$")
    send(callee, caller, callee.message("SIP/2.0 200 OK", "1 INVITE", call, tags, callee.sdp(), via))
    send(caller, callee, caller.message("ACK sip:b@y SIP/2.0", "1 ACK", call, tags, b""))


def ended(gateway: Live) -> float | None:
    return gateway.metric('appid_calls_total{application="sip",end="bye"}')


@pytest.mark.parametrize("ends", [pair(LAN4), pytest.param(pair(LAN6), marks=pytest.mark.slow)], ids=["v4", "v6"])
def test_media_that_the_other_workers_host_begins_is_foreseen(
    lans: Lans, tmp_path: Path, ends: tuple[str, str]
) -> None:
    """All else is refused: only an engine that knows the call lets it in."""
    with live(lans, tmp_path, SIP, "nft", gateway=TWO) as gateway, agents(lans, ends) as (one, other):
        answered(one, other, "straight")
        other.media[0].sendto(b"\x80\x00first", (one.host, 16402))
        assert received(one.media[0], least=1) == [b"\x80\x00first"]
        one.media[0].sendto(b"\x80\x00back", (other.host, 30000))
        assert received(other.media[0], least=1) == [b"\x80\x00back"]
        (call,) = gateway.ask("calls")
        assert [flow["call"] for flow in gateway.ask("flows") if flow["dport"] == 16402] == [call["id"]]
        hang_up(one, other, "straight")
        assert until(lambda: gateway.ask("stats")[0]["calls"] == 0)
        assert until(lambda: ended(gateway) == 1)


def test_a_call_through_a_server_outside_is_one_call_whoever_dies(lans: Lans, tmp_path: Path) -> None:
    """Each worker sees the dialog of its own host, as one engine would see both."""
    with live(lans, tmp_path, ALL, "nft", gateway=TWO) as gateway, agents(lans, pair(LAN4)) as (one, other):
        server = Agent(lans.peer, PEER4, 40000)
        answered(one, other, "through", server)
        before = told(gateway, one, other)
        for victim in gateway.ask("stats")[0]["workers"]:
            os.kill(victim["pid"], signal.SIGKILL)
            assert until(lambda: serves(gateway)), "again"
            assert told(gateway, one, other) == before
        gateway.process.kill()
        gateway.process.wait()
        gateway.begin()
        assert told(gateway, one, other) == before, "the same number, the same ends"
        assert len({event["call"]["id"] for event in gateway.events("call")}) == 1
        bye(one, other, server)
        assert until(lambda: gateway.ask("stats")[0]["calls"] == 0)
        assert until(lambda: ended(gateway) == 1), "one end of one call"
        (call,) = gateway.ask("calls")
        assert call["end"] == "bye"


@pytest.mark.slow
def test_a_call_through_a_server_outside_is_one_call_however_many_workers_come_next(lans: Lans, tmp_path: Path) -> None:
    """Its halves meet in one worker, and part again; what no worker has is nobody's and would be shut."""
    with live(lans, tmp_path, STRICT, "nft", gateway=TWO) as gateway, agents(lans, pair(LAN4)) as (one, other):
        server = Agent(lans.peer, PEER4, 40000)
        answered(one, other, "through", server)
        number, call_id, _ = told(gateway, one, other)
        for workers in (1, 2, 3, 2):
            gateway.process.kill()
            gateway.process.wait()
            gateway.config.write_text(re.sub(r"workers = \d", f"workers = {workers}", gateway.config.read_text()))
            gateway.begin()
            assert told(gateway, one, other)[:2] == (number, call_id)
            assert "Closed(pinholes=0, bindings=0, flows=0)" in gateway.text()
            assert lans.gateway.run("ipset", "save", "appid-pinholes4").count("\nadd ") == 4
            other.media[0].sendto(b"\x80\x00%d" % workers, (one.host, 16402))
            assert received(one.media[0], least=1) == [b"\x80\x00%d" % workers]
        bye(one, other, server)
        assert until(lambda: gateway.ask("stats")[0]["calls"] == 0)
        assert until(lambda: ended(gateway) == 1)
        assert "\nadd " not in lans.gateway.run("ipset", "save", "appid-pinholes4")


@pytest.mark.parametrize("ends", [pair(LAN4), pytest.param(pair(LAN6), marks=pytest.mark.slow)], ids=["v4", "v6"])
def test_media_that_is_quicker_than_the_other_worker_waits_for_it(
    lans: Lans, tmp_path: Path, ends: tuple[str, str]
) -> None:
    """The callee's worker stands still while its answer is in the queue; what the callee sends goes through the other's
    queue, which knows of no answer. Media at the port that is announced waits for it, anything else in vain."""
    with live(lans, tmp_path, STRICT, "nft", gateway=TWO) as gateway, agents(lans, ends) as (one, other):
        server = Agent(lans.peer, PEER6 if ":" in ends[0] else PEER4, 40000)
        other_port = lans.client.udp(one.host, 17000)
        slow = gateway.ask("stats")[0]["workers"][1]["pid"]
        one.signalling.sendto(one.message("INVITE sip:b@y SIP/2.0", "1 INVITE", "q", (";tag=a", ""), one.sdp()),
                              (server.host, 5060))  # fmt: skip
        server.signalling.sendto(server.signalling.recv(65535), (other.host, 5060))
        other.hear()
        via = other.field(r"^Via: (.*?)\r$")
        answer = other.message("SIP/2.0 200 OK", "1 INVITE", "q", (";tag=a", ";tag=b"), other.sdp(), via)
        os.kill(slow, signal.SIGSTOP)
        try:
            other.signalling.sendto(answer, (server.host, 5060))
            for number in range(3):
                other.media[0].sendto(b"\x80\x00early%d" % number, (one.host, 16402))
                other.media[0].sendto(b"\x80\x00never%d" % number, (one.host, 17000))
            assert received(one.media[0], 0.03) == []
        finally:
            os.kill(slow, signal.SIGCONT)
        assert sorted(received(one.media[0], 2, least=3)) == [b"\x80\x00early%d" % number for number in range(3)]
        assert received(other_port, 0.8) == []

        def judged() -> set[tuple[int, str]]:
            flows = [flow for flow in gateway.ask("flows") if (flow["src"], flow["dst"]) == (other.host, one.host)]
            return {(flow["dport"], flow["decision"]["action"]) for flow in flows}

        assert until(lambda: (17000, "deny") in judged(), 5)
        assert (16402, "deny") not in judged()


def serves(gateway: Live) -> bool:
    return all(worker["alive"] for worker in gateway.ask("stats")[0]["workers"])


def told(gateway: Live, one: Agent, other: Agent) -> tuple[int, str, list[int]]:
    """What the gateway says of its only call."""
    (call,) = gateway.ask("calls")
    assert (call["caller"], call["callee"], call["end"]) == (one.host, other.host, "open")
    assert gateway.ask("stats")[0]["calls"] == 1
    assert until(lambda: gateway.metric("appid_calls") == 1)
    return call["id"], call["call_id"], sorted(call["flows"])


def bye(one: Agent, other: Agent, server: Agent) -> None:
    tags = (";tag=a", ";tag=through")
    for sender, to, data in (
        (one, other, one.message("BYE sip:b@y SIP/2.0", "2 BYE", "through", tags, b"")),
        (other, one, other.message("SIP/2.0 200 OK", "2 BYE", "through", tags, b"")),
    ):
        sender.signalling.sendto(data, (PEER4, 5060))
        server.signalling.sendto(server.signalling.recv(65535), (to.host, 5060))
        to.hear()
