"""Stops, kills and upgrades in the middle of a TCP transfer and of a decided UDP flow: nothing of either is lost."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import threading
import time
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.edge.test_state import newer, older
from tests.netns.live import ALL, Live, live, rule, settle
from tests.netns.net import CLIENT4, PEER4, PUBLIC4, Net, received, until
from tests.netns.numbered import Numbered
from tests.netns.test_nat_calls import SECOND4, Agent, Stream, checked, hang_up, nothing_left, talk
from tests.netns.test_overload import media_of

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(200)]
KEEP = 'on_stop = "keep"\nworkers = 2'
THIRD4 = "198.51.100.3"
PIECE = os.urandom(1 << 16)


class Transfer:
    """A connection that carries pieces until it is told to end; both ends hash what they see."""

    def __init__(self, net: Net) -> None:
        self.listener = net.peer.listen(PEER4, 8080)
        self.sender = net.client.tcp(CLIENT4)
        self.sender.connect((PEER4, 8080))
        self.sender.settimeout(30)
        self.receiver, _ = self.listener.accept()
        self.receiver.settimeout(30)
        self.stopped = threading.Event()
        self.sent, self.came, self.bytes = hashlib.sha256(), hashlib.sha256(), 0
        self.threads = [threading.Thread(target=work) for work in (self._send, self._receive)]
        for thread in self.threads:
            thread.start()

    def _send(self) -> None:
        while not self.stopped.wait(0.01):
            self.sender.sendall(PIECE)
            self.sent.update(PIECE)
        self.sender.shutdown(socket.SHUT_WR)

    def _receive(self) -> None:
        while piece := self.receiver.recv(1 << 16):
            self.came.update(piece)
            self.bytes += len(piece)

    def whole(self) -> bool:
        self.stopped.set()
        for thread in self.threads:
            thread.join(40)
        return self.bytes > 1 << 20 and self.sent.digest() == self.came.digest()


def stop(gateway: Live) -> None:
    assert gateway.stop() == 0


def kill(gateway: Live) -> None:
    gateway.process.kill()
    gateway.process.wait()


def kill_worker(gateway: Live) -> None:
    os.kill(gateway.ask("stats")[0]["workers"][0]["pid"], signal.SIGKILL)


def ask_for_more(gateway: Live, transfer: Transfer) -> bool:
    before = transfer.bytes
    return until(lambda: transfer.bytes > before + (1 << 18))


def test_nothing_is_lost_by_a_stop_an_upgrade_or_a_kill(bare: Net, tmp_path: Path) -> None:
    with live(bare, tmp_path, ALL, "nft", gateway=KEEP) as gateway:
        media, transfer = media_of(bare), Transfer(bare)
        assert ask_for_more(gateway, transfer)
        for end in (stop, kill, kill_worker):
            end(gateway)
            assert ask_for_more(gateway, transfer), f"{end.__name__}: the kernel goes on alone"
            if end is not kill_worker:
                assert "APPID" in bare.gateway.run("iptables-nft-save"), "the chains stay"
                gateway.begin()
            assert ask_for_more(gateway, transfer), f"{end.__name__}: and with the next engine"
        assert media.stop() == set()
        assert transfer.whole()
    assert "APPID" in bare.gateway.run("iptables-nft-save")


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_transfer_and_media_lose_nothing_over_many_kills(bare: Net, tmp_path: Path) -> None:
    """In turn a worker and the supervisor, each at a random moment, under one transfer."""
    moments = Random(7)
    with live(bare, tmp_path, ALL, "nft", gateway=KEEP) as gateway:
        media, transfer = media_of(bare), Transfer(bare)
        assert ask_for_more(gateway, transfer)
        for number in range(30):
            time.sleep(moments.uniform(0, 1))
            if number % 2:
                kill(gateway)
                gateway.begin()
            else:
                kill_worker(gateway)
                assert until(lambda: all(worker["alive"] for worker in gateway.ask("stats")[0]["workers"]), 5)
            assert ask_for_more(gateway, transfer)
        assert media.stop() == set()
        assert media.sent > 1000
        assert transfer.whole()


def test_an_interrupt_takes_everything_away(bare: Net, tmp_path: Path) -> None:
    """Who runs it by hand wants to see it gone."""
    gateway = Live(bare, tmp_path, ALL, "nft", gateway=KEEP)
    gateway.process.send_signal(signal.SIGINT)
    assert gateway.process.wait(20) in (0, 130), gateway.text()
    assert "APPID" not in bare.gateway.run("iptables-nft-save")
    assert "appid-" not in bare.gateway.run("ipset", "-n", "list") + bare.gateway.run("nft", "list", "tables")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_group_ends_it_quietly(bare: Net, tmp_path: Path, number: signal.Signals) -> None:
    """A terminal's Ctrl-C and `timeout` tell the workers, too: no error, no traceback, and nobody is begun again."""
    gateway = Live(bare, tmp_path, ALL, "nft")
    os.killpg(gateway.process.pid, number)
    assert gateway.process.wait(20) in (0, 128 + number), gateway.text()
    said = gateway.text()
    assert "Traceback" not in said, said
    assert "ERROR" not in said, said
    assert "APPID" not in bare.gateway.run("iptables-nft-save")


def killed_worker(gateway: Live) -> None:
    """And the next one serves."""

    def pid() -> Any:
        workers = gateway.ask("stats")[0].get("workers") or [{}]
        return workers[0].get("pid")

    before = pid()
    kill_worker(gateway)
    assert until(lambda: pid() not in (before, None), 10)


def killed(gateway: Live) -> None:
    kill(gateway)
    gateway.begin()


def test_sip_over_tcp_goes_on_under_nat(bare: Net, tmp_path: Path) -> None:
    """Each message changes its length, so both ends number their bytes differently. A worker that is killed, a gateway
    that is: the next one counts on; a message in its middle comes whole; nothing is reset."""
    bare.masquerade()
    with live(
        bare, tmp_path, rule("sip", "allow", "sip", service='"any"'), "nft", gateway='on_stop = "keep"'
    ) as gateway:
        stream = Stream(bare)
        stream.phone.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream.phone.sendall(stream.request(1))
        first = stream.take(stream.server)
        checked(first, stream)
        stream.server.sendall(stream.answer(first))
        assert stream.own in stream.take(stream.phone).decode()
        for number, end in enumerate((killed_worker, killed), 2):
            raw = stream.request(number)
            stream.phone.sendall(raw[:150])
            settle(0.1)
            end(gateway)
            stream.phone.sendall(raw[150:])
            got = stream.take(stream.server)
            assert f"CSeq: {number} INVITE" in checked(got, stream), end.__name__
            stream.server.sendall(stream.answer(got))
            assert f"Call-ID: call-{number}\r" in stream.take(stream.phone).decode()
        media, far = bare.client.udp(CLIENT4, 16402), bare.peer.udp(PEER4, 30000)
        far.sendto(b"\x80in", (PUBLIC4, 16402))
        assert received(media, least=1) == [b"\x80in"]
        stream.close()


def nobodys(path: Path) -> None:
    """As a version wrote it of whose calls nothing can be understood."""
    header, *lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join((header, *(line.replace(b'"call"', b'"ring"') for line in lines), b"")))


def test_a_call_goes_on_whatever_version_wrote_of_it(bare: Net, tmp_path: Path) -> None:
    """Behind source NAT: an upgrade, a downgrade, and a file of which nothing can be read: what the kernel holds is not
    taken for nobody's, and not by the next worker either."""
    bare.masquerade()
    policy = rule("sip", "allow", "sip", service='"any"')
    with live(bare, tmp_path, policy, "nft", gateway='on_stop = "keep"\nworkers = 1') as gateway:
        phone, far = Agent(bare.client, CLIENT4, 16402), Agent(bare.peer, PEER4, 30000)
        talk(phone, far, "one")
        voice = Numbered(phone.media[0], far.media[0], phone.far(), 0.02, b"\x80")
        voice.begin()
        for wrote, calls in ((older, 1), (newer, 1), (nobodys, 0)):
            kill(gateway)
            wrote(tmp_path / "state" / "calls-0.jsonl")
            gateway.begin()
            settle(0.4)
            assert len(gateway.ask("calls")) == calls, wrote.__name__
            assert ("WARNING" in gateway.text()) == (not calls), gateway.text()
        killed_worker(gateway)
        settle(0.4)
        assert voice.stop() == set()
        assert voice.sent > 100
        assert "left to run out" in gateway.text()
        far.media[0].sendto(b"\x80back", (PUBLIC4, 16402))
        assert received(phone.media[0], least=1) == [b"\x80back"]


def test_a_call_is_in_the_kernel_again_before_anything_is_judged(bare: Net, tmp_path: Path) -> None:
    """A stop that takes the sets away with the chains, in mid-call: when the next one says that it is ready, pinhole
    and binding stand, and nothing was asked of sets that were not there yet."""
    bare.masquerade()
    with live(bare, tmp_path, rule("sip", "allow", "sip", service='"any"'), "nft") as gateway:
        phone, far = Agent(bare.client, CLIENT4, 16402), Agent(bare.peer, PEER4, 30000)
        talk(phone, far, "one")
        voice = Numbered(phone.media[0], far.media[0], phone.far(), 0.02, b"\x80")
        voice.begin()
        stop(gateway)
        assert "appid" not in bare.gateway.run("nft", "list", "ruleset") + bare.gateway.run("ipset", "-n", "list")
        gateway.begin()
        sets = bare.gateway.run("ipset", "save", "appid-pinholes4")
        maps = bare.gateway.run("nft", "list", "map", "inet", "appid-nat", "snat4")
        assert f"{CLIENT4},udp:16402,{PEER4}" in sets
        assert f"{CLIENT4} . 16402 . {PEER4}" in maps
        assert "WARNING" not in gateway.text(), gateway.text()
        far.media[0].sendto(b"\x80back", (PUBLIC4, 16402))
        assert received(phone.media[0], least=1) == [b"\x80back"]
        assert voice.stop() == set()


def test_who_hung_up_while_nobody_listened_is_gone_in_five_seconds(bare: Net, tmp_path: Path) -> None:
    """Two calls that were answered: the BYE of one passes unheard. The other says nothing, neither then nor later: a
    call on hold, that is, and nobody's business."""
    bare.masquerade()
    for host, place in ((bare.client, (SECOND4, "lan")), (bare.peer, (THIRD4, "net"))):
        host.run("ip", "addr", "add", f"{place[0]}/24", "dev", place[1])
    policy = rule("sip", "allow", "sip", service='"any"')
    with live(bare, tmp_path, policy, "nft", '[exceptions]\nengine-down = "open"\n', gateway=KEEP) as gateway:
        phone, far = Agent(bare.client, CLIENT4, 16402), Agent(bare.peer, PEER4, 30000)
        held, hers = Agent(bare.client, SECOND4, 16404), Agent(bare.peer, THIRD4, 30004)
        talk(phone, far, "one")
        talk(held, hers, "two")
        kill(gateway)
        assert until(lambda: not bare.gateway.run("cat", "/proc/net/netfilter/nfnetlink_queue"))
        hang_up(phone, far, "one")
        gateway.begin()
        assert until(lambda: nothing_left(bare, 16402, 30000), 5), "what a call had in the kernel goes with it"
        settle(1.0)
        assert {call["call_id"]: call["end"] for call in gateway.ask("calls")} == {"one": "lost", "two": "open"}
        held.media[0].sendto(b"\x80again", (THIRD4, 30004))
        assert received(hers.media[0], least=1) == [b"\x80again"]


def test_a_call_that_talks_goes_on_whatever_nobody_heard(bare: Net, tmp_path: Path) -> None:
    """Something else was said in its signalling's flow while nobody listened: its media shows that it lives."""
    policy = rule("sip", "allow", "sip", service='"any"')
    with live(bare, tmp_path, policy, "nft", '[exceptions]\nengine-down = "open"\n', gateway=KEEP) as gateway:
        phone, far = Agent(bare.client, CLIENT4, 16402), Agent(bare.peer, PEER4, 30000)
        talk(phone, far, "one")
        voice = Numbered(phone.media[0], far.media[0], (PEER4, 30000), 0.02, b"\x80")
        voice.begin()
        kill(gateway)
        assert until(lambda: not bare.gateway.run("cat", "/proc/net/netfilter/nfnetlink_queue"))
        ping = phone.message("OPTIONS sip:b@example.org SIP/2.0", "9 OPTIONS", "another", (";tag=z", ""), b"")
        phone.signalling.sendto(ping, (PEER4, 5060))
        assert far.hear().startswith("OPTIONS")
        gateway.begin()
        settle(6.0)
        assert voice.stop() == set()
        assert [call["end"] for call in gateway.ask("calls")] == ["open"]


@pytest.mark.slow
def test_while_nobody_serves_its_bytes_wait(bare: Net, tmp_path: Path) -> None:
    """A queue without a listener lets packets go on; these, under their sender's numbers, would tear the stream."""
    bare.masquerade()
    policy = rule("sip", "allow", "sip", service='"any"')
    open_ = '[exceptions]\nengine-down = "open"\n'
    with live(bare, tmp_path, policy, "nft", open_, gateway='on_stop = "keep"') as gateway:
        stream = Stream(bare)
        stream.phone.sendall(stream.request(1))
        checked(stream.take(stream.server), stream)
        kill(gateway)
        listening = ("cat", "/proc/net/netfilter/nfnetlink_queue")
        assert until(lambda: not bare.gateway.run(*listening)), "its worker answers what it has, and goes"
        stream.phone.sendall(stream.request(2))
        stream.server.settimeout(0.5)
        with pytest.raises(TimeoutError):
            stream.server.recv(1)
        stream.server.settimeout(5)
        gateway.begin()
        assert "CSeq: 2 INVITE" in checked(stream.take(stream.server), stream)
        stop(gateway)
        for path in (tmp_path / "state").glob("calls-*"):
            path.unlink()
        gateway.begin()
        stream.phone.sendall(stream.request(3))
        with pytest.raises(ConnectionResetError):
            stream.phone.recv(1)
