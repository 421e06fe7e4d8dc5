"""Another policy under a running gateway: SIGHUP, the control socket, `appid policy load`; established flows are judged
again, and those that stay allowed lose nothing."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from appid.cli.main import main
from appid.dataplane.ruleset import Variant
from tests.netns.live import ALL, NFT_OR_SLOW, ZONES, live, rule
from tests.netns.net import CLIENT4, CLIENT6, PEER4, PEER6, Net, received, until
from tests.netns.test_nat_calls import Agent, talk
from tests.netns.test_policy_live import QUERY, asked, reset, web

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120)]
ENDS = ((CLIENT4, PEER4), (CLIENT6, PEER6))
Pair = tuple[str, str]
NO_LOOKUPS = rule("no lookups", "deny", "dns", service='"any"')
LOOKUPS = rule("lookups", "allow", "dns", service='"any"')


class Stream:
    """RTP (RFC 3550 section 5.1) to `place`, 500 packets a second, until it is told to stop."""

    def __init__(self, sender: socket.socket, receiver: socket.socket, place: tuple[str, int]) -> None:
        self.sender, self.receiver, self.place = sender, receiver, place
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.sent = self.refused = 0
        self.arrived: list[tuple[int, float]] = []
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._send, self._receive)]
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        while not self._stopped.is_set():
            header = struct.pack("!BBHII", 0x80, 104, self.sent & 0xFFFF, self.sent * 160, 0x1234)
            try:
                self.sender.sendto(header + bytes(20), self.place)
            except OSError:
                self.refused += 1
            self.sent += 1
            time.sleep(0.002)

    def _receive(self) -> None:
        self.receiver.settimeout(0.2)
        while True:
            try:
                (sequence,) = struct.unpack_from("!H", self.receiver.recv(2048), 2)
                self.arrived.append((sequence, time.monotonic()))
            except TimeoutError:
                if self._stopped.is_set():
                    return

    def stop(self) -> list[int]:
        """The sequence numbers that arrived, sorted: where a flow is decided a packet may overtake one in the queue."""
        self._stopped.set()
        for thread in self._threads:
            thread.join(5)
        return sorted(sequence for sequence, _ in self.arrived)

    def last(self) -> float:
        return self.arrived[-1][1] if self.arrived else 0.0


@contextmanager
def streaming(net: Net, ends: Pair, port: int = 16402) -> Iterator[Stream]:
    """From the client to the peer."""
    stream = Stream(net.client.udp(ends[0]), net.peer.udp(ends[1], port), (ends[1], port))
    try:
        yield stream
    finally:
        stream.stop()


@NFT_OR_SLOW
@pytest.mark.parametrize("ends", [pytest.param(ENDS[0], marks=pytest.mark.slow), ENDS[1]], ids=["v4", "v6"])
def test_a_whole_call_over_reloads_loses_nothing_until_it_is_denied(
    bare: Net, variant: Variant, tmp_path: Path, ends: Pair
) -> None:
    """Media goes both ways on ports that only the call's messages name; nothing else allows what comes in."""
    calls = rule("calls", "allow", "sip", from_='["inside"]', to='["outside"]')
    with live(bare, tmp_path, calls, variant) as gateway:
        phone, far = Agent(bare.client, ends[0], 16402), Agent(bare.peer, ends[1], 30000)
        talk(phone, far, "one")
        streams = [
            Stream(phone.media[0], far.media[0], (ends[1], 30000)),
            Stream(far.media[0], phone.media[0], (ends[0], 16402)),
        ]
        assert until(lambda: all(len(stream.arrived) > 100 for stream in streams))
        for policy in (rule("ping", "allow", "icmp") + calls, calls):
            assert gateway.load(policy)[0]["type"] == "loaded"
            time.sleep(0.5)
        before = [stream.sent for stream in streams]
        assert gateway.load(rule("no calls", "drop", "sip") + calls)[0]["type"] == "loaded"
        loaded = time.monotonic()
        time.sleep(1.3)
        (call,) = gateway.ask("calls")
        for stream, sent in zip(streams, before, strict=True):
            assert stream.last() < loaded + 1, "cut within a second"
            assert stream.stop()[:sent] == list(range(sent)), "until then not one packet is lost"
        assert call["end"] == "refused"


def test_a_reload_cuts_what_is_denied_now_within_a_second_and_loses_nothing_of_the_rest(
    bare: Net, variant: Variant, tmp_path: Path
) -> None:
    with (
        live(bare, tmp_path, ALL, variant) as gateway,
        streaming(bare, ENDS[0]) as four,
        streaming(bare, ENDS[1]) as six,
    ):
        assert until(lambda: len(four.arrived) > 50 and len(six.arrived) > 50)
        only_six = rule("no rtp by IPv4", "drop", "rtp", "unknown-udp", source='["10.77.1.0/24"]', service='"any"')
        begun = time.monotonic()
        (answer,) = gateway.load(only_six + ALL)
        assert (answer["type"], answer["rules"]) == ("loaded", 2)
        time.sleep(1.5)
        assert four.last() - begun < 1.0
        decided = {flow["src"]: flow["decision"] for flow in gateway.ask("flows") if flow.get("dport") == 16402}
        assert decided == {
            CLIENT4: {"action": "drop", "rule": "no rtp by IPv4"},
            CLIENT6: {"action": "allow", "rule": "all"},
        }
        gateway.hang_up(ALL)  # and back: deny -> allow
        assert until(lambda: four.last() > begun + 1.5)
        sequence = six.stop()
        assert sequence == list(range(six.sent)), "not one packet of the flow that stayed allowed is lost"
        told = [event["decision"] for event in gateway.events("decision")]
        assert {"action": "drop", "rule": "no rtp by IPv4"} in told
        assert gateway.metric("appid_config_reload_success") == 1


def test_a_bad_file_changes_nothing(
    bare: Net, variant: Variant, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with live(bare, tmp_path, LOOKUPS, variant) as gateway:
        assert asked(bare, ENDS[0], 53, QUERY, b"answer") == [QUERY]
        before = bare.gateway.run(f"iptables-{variant}-save", "-t", "filter")
        bad = tmp_path / "bad.toml"
        bad.write_text(ZONES + rule("a", "alow", "dns") + rule("b", "allow", "no-such"))
        assert main(["policy", "load", str(bad), "-c", str(gateway.config)]) == 2
        err = capsys.readouterr().err.splitlines()
        assert [line.split(": ")[2:4] for line in err] == [["rule[1]", "action"], ["rule[2]", "applications"]]
        assert gateway.metric("appid_config_reload_success") == 0
        assert {f"rule[{i}]" in gateway.text() for i in (1, 2)} == {True}
        assert len(gateway.events("config")[-1]["config"]["faults"]) == 2
        gateway.hang_up("[colour]\n")
        assert until(lambda: "no such key" in gateway.text())
        for ends in ENDS:
            assert asked(bare, ends, 53, QUERY, b"answer") == [QUERY], "the old policy stays"
        strip = [line.split("[")[0] for line in before.splitlines() if line[:1] != "#"]
        after = bare.gateway.run(f"iptables-{variant}-save", "-t", "filter")
        assert [line.split("[")[0] for line in after.splitlines() if line[:1] != "#"] == strip
        good = tmp_path / "good.toml"
        good.write_text(ZONES + NO_LOOKUPS)
        assert main(["policy", "load", str(good), "-c", str(gateway.config)]) == 0
        assert capsys.readouterr().out == f"in force: {good}: 1 rules, 0 warnings\n"
        assert gateway.metric("appid_config_reload_success") == 1
        assert asked(bare, ENDS[0], 53, QUERY) == []


@pytest.mark.slow
def test_a_hang_up_during_another_load_is_done_after_it(bare: Net, tmp_path: Path) -> None:
    """Twice, as fast as they come: what the file says last is in force, and each load over the socket is answered."""
    big = "".join(rule(f"r{number}", "allow", "dns", source=f'["10.77.{number % 250}.0/24"]') for number in range(3000))
    with live(bare, tmp_path, LOOKUPS, "nft") as gateway:
        answers: list[dict[str, object]] = []
        loading = threading.Thread(target=lambda: answers.extend(gateway.load(big)))
        loading.start()
        time.sleep(0.2)
        for policy in (LOOKUPS, NO_LOOKUPS + ALL):
            gateway.hang_up(policy)
        loading.join(60)
        assert [(answer["type"], answer["rules"]) for answer in answers] == [("loaded", 3000)]
        assert until(lambda: "policy.toml, 2 rules" in gateway.text(), 20)
        assert asked(bare, ENDS[0], 53, QUERY) == []


def test_a_tcp_connection_is_reset_when_it_is_denied_now(bare: Net, variant: Variant, tmp_path: Path) -> None:
    with live(bare, tmp_path, ALL, variant) as gateway:
        for ends in ENDS:
            client, accepted = web(bare, ends)
            assert not reset(client), "allowed, and decided: the kernel's alone"
            assert gateway.load(rule("no web", "deny", "web-browsing", service='"any"') + ALL)[0]["type"] == "loaded"
            assert reset(client, sends=3)
            accepted.close()
            gateway.load(ALL)


def test_a_flow_refused_before_it_had_a_name_begins_anew(bare: Net, variant: Variant, tmp_path: Path) -> None:
    with live(bare, tmp_path, '[defaults]\naction = "drop"\n', variant) as gateway:
        for ends in ENDS:
            peer, client = bare.peer.udp(ends[1], 5300), bare.client.udp(ends[0])
            client.sendto(QUERY, (ends[1], 5300))
            assert received(peer) == []
            gateway.load(LOOKUPS)
            client.sendto(QUERY, (ends[1], 5300))  # the same 5-tuple
            assert received(peer, least=1) == [QUERY]
            assert gateway.flow(5300)["application"] == "dns"
            gateway.load('[defaults]\naction = "drop"\n')
            client.sendto(QUERY, (ends[1], 5300))
            assert received(peer) == []


def test_other_zones_change_the_chains_at_once(bare: Net, variant: Variant, tmp_path: Path) -> None:
    """What was outside by interface is guarded; the streams of others go on meanwhile."""
    with live(bare, tmp_path, ALL, variant) as gateway, streaming(bare, ENDS[0]) as stream:
        assert until(lambda: len(stream.arrived) > 50)
        assert "-i wan0" in bare.gateway.run(f"iptables-{variant}-save", "-t", "filter")
        place = tmp_path / "zones.toml"
        place.write_text(
            '[zones]\nlan = { interfaces = ["lan0"], networks = ["10.77.1.0/24"] }\nwan = { interfaces = ["lan9"] }\n'
            + ALL
        )
        assert gateway.ask("load", policy=str(place))[0]["type"] == "loaded"
        saved = bare.gateway.run(f"iptables-{variant}-save", "-t", "filter")
        assert "-i lan9" in saved
        assert "-i wan0" not in saved
        time.sleep(0.3)
        sequence = stream.stop()
        assert sequence == list(range(stream.sent))


def test_a_restart_judges_what_the_kernel_kept(bare: Net, variant: Variant, tmp_path: Path) -> None:
    peer, client = bare.peer.udp(PEER4, 5300), bare.client.udp(CLIENT4)
    with live(bare, tmp_path, LOOKUPS, variant):
        client.sendto(QUERY, (PEER4, 5300))
        assert received(peer, least=1) == [QUERY]
    with live(bare, tmp_path, NO_LOOKUPS + ALL, variant):
        client.sendto(QUERY, (PEER4, 5300))
        assert received(peer) == []
    with live(bare, tmp_path, NO_LOOKUPS + ALL, variant, "", "--monitor"):
        client.sendto(QUERY, (PEER4, 5300))
        assert received(peer, least=1) == [QUERY], "monitor mode opens what the enforcing one had refused"


def test_zones_of_interfaces_alone_hold_at_a_reload(bare: Net, variant: Variant, tmp_path: Path) -> None:
    """An established flow's interfaces are not in its entry: the routes tell them."""
    zones = '[zones]\ninside = { interfaces = ["lan0"] }\noutside = { interfaces = ["wan0"] }\n'
    out = rule("out", "allow", from_='["inside"]', to='["outside"]', service='"any"')
    place = tmp_path / "zones.toml"
    with (
        live(bare, tmp_path, ALL, variant) as gateway,
        streaming(bare, ENDS[0]) as four,
        streaming(bare, ENDS[1]) as six,
    ):
        assert until(lambda: len(four.arrived) > 50 and len(six.arrived) > 50)
        place.write_text(zones + out)
        assert gateway.ask("load", policy=str(place))[0]["type"] == "loaded"
        time.sleep(0.5)
        assert four.stop() == list(range(four.sent))
        assert len(six.arrived) > 100
        place.write_text(zones + out.replace('["inside"]', '["outside"]'))
        assert gateway.ask("load", policy=str(place))[0]["type"] == "loaded"
        begun = time.monotonic()
        time.sleep(0.5)
        assert six.last() < begun + 0.2


def test_what_an_override_named_is_named_by_what_it_shows_when_the_override_is_gone(
    bare: Net, variant: Variant, tmp_path: Path
) -> None:
    override = '[[override]]\napplication = "jabber"\nports = ["udp/9000"]\n'
    with live(bare, tmp_path, override + rule("chat", "allow", "jabber", service='"any"'), variant) as gateway:
        flows = [(bare.peer.udp(ends[1], 9000), bare.client.udp(ends[0]), ends) for ends in ENDS]
        for peer, client, ends in flows:
            client.sendto(QUERY, (ends[1], 9000))
            assert received(peer, least=1) == [QUERY]
        assert gateway.flow(9000)["application"] == "jabber"
        gateway.load(LOOKUPS)
        for peer, client, ends in flows:
            client.sendto(QUERY, (ends[1], 9000))
            assert received(peer, least=1) == [QUERY], "it is a lookup, and those are allowed"
            assert gateway.flow(9000)["application"] == "dns"
        gateway.load(override + LOOKUPS)
        for peer, client, ends in flows:
            client.sendto(QUERY, (ends[1], 9000))
            assert received(peer) == [], "the operator says again that it is none"


@NFT_OR_SLOW
def test_point_7_a_missing_dependency_is_in_the_log_the_events_and_a_metric(
    bare: Net, variant: Variant, tmp_path: Path
) -> None:
    calls = rule("calls", "allow", "facetime")
    with live(bare, tmp_path, LOOKUPS, variant) as gateway:
        assert gateway.metric("appid_policy_warnings") == 0
        assert gateway.load(calls + LOOKUPS)[0]["warnings"] == 1
        assert gateway.metric("appid_policy_warnings") == 1
        needed = ("'calls'", "facetime", "sip", "stun", "ssl", "jabber", "ichat-av", "turn", "apple-push")
        told = next(line for line in gateway.text().splitlines() if "WARNING" in line and "dependency" in line)
        assert all(word in told for word in needed)
        (event,) = (e["config"] for e in gateway.events("config") if e["config"].get("warning") == "dependency")
        assert all(word in event["text"] for word in needed)
