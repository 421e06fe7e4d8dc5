"""Policies enforced on the wire, by `appid run` and real traffic: both iptables variants, IPv4 and IPv6.

Points are those of docs/reference/policy.md.
"""

from __future__ import annotations

import socket
import struct
import time
from pathlib import Path

import pytest

from appid.dataplane.rewrite import checksum
from appid.dataplane.ruleset import Variant
from tests.netns.live import ALL, NFT_OR_SLOW, live, rule
from tests.netns.net import CLIENT4, CLIENT6, PEER4, PEER6, Net, received

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120)]
ENDS = ((CLIENT4, PEER4), (CLIENT6, PEER6))
Pair = tuple[str, str]
REQUEST = b"GET / HTTP/1.1\r\nHost: www.example.org\r\n\r\n"
QUERY = bytes.fromhex("1234010000010000000000000765 78616d706c65036f72670000010001".replace(" ", ""))


def recverr(sock: socket.socket, v6: bool) -> None:
    sock.setsockopt(*((socket.IPPROTO_IPV6, 25, 1) if v6 else (socket.SOL_IP, 11, 1)))  # IPV6_RECVERR, IP_RECVERR


def ping(net: Net, ends: Pair) -> bool:
    """Whether an echo request is answered (RFC 792, RFC 4443)."""
    v6 = ":" in ends[1]

    def make() -> socket.socket:
        protocol = socket.IPPROTO_ICMPV6 if v6 else socket.IPPROTO_ICMP
        return socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_RAW, protocol)

    request = bytes((128 if v6 else 8, 0)) + struct.pack("!HHH", 0, 77, 1)
    with net.client.call(make) as raw:
        if not v6:  # of ICMPv6 the kernel makes the checksum
            request = request[:2] + struct.pack("!H", checksum(request)) + request[4:]
        raw.settimeout(0.7)
        raw.sendto(request, (ends[1], 0))
        try:
            while True:
                got = raw.recv(1500)[0 if v6 else 20 :]
                if got[0] == (129 if v6 else 0):
                    return True
        except TimeoutError:
            return False


def asked(net: Net, ends: Pair, port: int, payload: bytes, answer: bytes = b"") -> list[bytes]:
    """One datagram and its answer: what the peer got."""
    peer, client = net.peer.udp(ends[1], port), net.client.udp(ends[0])
    client.sendto(payload, (ends[1], port))
    try:
        got, back = peer.recvfrom(65535)
    except TimeoutError:
        return []
    if answer:
        peer.sendto(answer, back)
        assert received(client, least=1) == [answer]
    return [got]


def test_point_9_other_protocols_are_applications_and_errors_about_a_flow_pass(
    bare: Net, variant: Variant, tmp_path: Path
) -> None:
    with live(bare, tmp_path, rule("lookup", "allow", "dns"), variant) as gateway:
        assert [ping(bare, ends) for ends in ENDS] == [False, False]
        for client_address, peer_address in ENDS:  # nobody listens at the peer: its error comes back to the client
            client = bare.client.udp(client_address)
            recverr(client, ":" in peer_address)
            client.connect((peer_address, 53))
            client.send(QUERY)
            with pytest.raises(ConnectionRefusedError):
                client.recv(100)
        assert gateway.load(rule("ping", "allow", "icmp"))[0]["type"] == "loaded"
        assert [ping(bare, ends) for ends in ENDS] == [True, True]


def test_point_10_monitor_mode_lets_everything_pass_and_tells_what_would_have_been(
    bare: Net, variant: Variant, tmp_path: Path
) -> None:
    policy = rule("no lookups", "deny", "dns", service='"any"') + '[defaults]\naction = "drop"\n'
    with live(bare, tmp_path, policy, variant, "", "--monitor") as gateway:
        for ends in ENDS:
            assert asked(bare, ends, 53, QUERY, b"answer") == [QUERY]
            assert asked(bare, ends, 6000, b"whatever", b"so be it") == [b"whatever"]
            peer, client = bare.peer.udp(ends[1], 16402), bare.client.udp(ends[0], 16402)
            peer.sendto(b"\x80\x68" + bytes(30), (ends[0], 16402))  # begun outside, foreseen by nobody
            assert len(received(client, least=1)) == 1
            peer.close()
        would = {"action": "deny", "rule": "no lookups", "enforced": False}
        assert gateway.flow(53)["decision"] == would
        assert gateway.flow(6000)["decision"] == {"action": "drop", "rule": "defaults", "enforced": False}
        told = [event for event in gateway.events("flow") if event["dest_port"] == 53]
        assert [event["flow"]["decision"] for event in told if event["flow"]["decision"]] == [would, would]
        assert gateway.metric('appid_policy_decisions_total{action="deny",rule="no lookups"}') == 2
        assert gateway.ask("stats")[0]["monitor"] is True
    assert "APPID" not in bare.gateway.run(f"iptables-{variant}-save")


def test_point_11_the_gateways_own_traffic_is_not_inspected(bare: Net, variant: Variant, tmp_path: Path) -> None:
    with live(bare, tmp_path, '[defaults]\naction = "drop"\n', variant) as gateway:
        for (client_address, peer_address), ours in zip(ENDS, ("10.77.1.1", "fd00:77:1::1"), strict=True):
            peer, own = bare.peer.udp(peer_address, 7000), bare.gateway.udp("::" if ":" in ours else "0.0.0.0", 7001)
            own.sendto(b"from the gateway", (peer_address, 7000))
            got, back = peer.recvfrom(100)
            assert got == b"from the gateway"
            peer.sendto(b"back", back)
            assert received(own, least=1) == [b"back"]
            client = bare.client.udp(client_address)
            client.sendto(b"to the gateway", (ours, 7001))
            assert received(own, least=1) == [b"to the gateway"]
            peer.close()
        assert gateway.ask("stats")[0]["packets"] == 0
        assert asked(bare, ENDS[0], 7002, b"forwarded") == []
        assert gateway.ask("stats")[0]["packets"] > 0


def web(net: Net, ends: Pair, port: int = 80) -> tuple[socket.socket, socket.socket]:
    """A TCP connection that has sent an HTTP request: the client's end, the server's."""
    server, client = net.peer.listen(ends[1], port), net.client.tcp(ends[0])
    client.connect((ends[1], port))
    accepted, _ = server.accept()
    accepted.settimeout(1)
    server.close()
    client.send(REQUEST)
    return client, accepted


def reset(client: socket.socket, sends: int = 12) -> bool:
    """Whether the connection is reset while this end goes on sending."""
    try:
        for _ in range(sends):
            time.sleep(0.02)
            client.send(b"more of it")
    except (ConnectionResetError, BrokenPipeError):
        return True
    return False


def test_allow_deny_with_reset_and_icmp_and_drop(bare: Net, variant: Variant, tmp_path: Path) -> None:
    policy = (
        rule("no web", "deny", "web-browsing", service='"any"') + rule("silence", "drop", "dns", service='"any"') + ALL
    )
    with live(bare, tmp_path, policy, variant):
        for ends in ENDS:
            client, accepted = web(bare, ends)
            assert reset(client)  # when its name stands: until then it might have become another
            assert not reset(accepted, sends=0)
            silent = bare.client.udp(ends[0])
            recverr(silent, ":" in ends[1])
            silent.connect((ends[1], 53))
            silent.send(QUERY)
            with pytest.raises(TimeoutError):
                silent.recv(100)
            assert asked(bare, ends, 6000, b"else", b"yes") == [b"else"]


def test_a_denied_datagram_is_answered_by_icmp(bare: Net, variant: Variant, tmp_path: Path) -> None:
    with live(bare, tmp_path, rule("no lookups", "deny", "dns", service='"any"') + ALL, variant):
        for ends in ENDS:
            client = bare.client.udp(ends[0])
            recverr(client, ":" in ends[1])
            client.connect((ends[1], 53))
            client.send(QUERY)
            with pytest.raises(OSError, match=r"(?i)host|permission|refused"):
                client.recv(100)


WIRED = '[zones]\ninside = { interfaces = ["lan0"] }\noutside = { interfaces = ["wan0"]%s }\n'
RTP = b"\x80\x68" + bytes(30)


@pytest.mark.parametrize("told_by", ["route", "key"])
def test_point_3_zones_of_interfaces_alone_know_what_began_outside(
    bare: Net, variant: Variant, tmp_path: Path, told_by: str
) -> None:
    """By the default route, or because the zone says so; by address, IPv6's would both be inside."""
    if told_by == "route":
        bare.gateway.run("ip", "route", "add", "default", "via", PEER4)
        bare.gateway.run("ip", "-6", "route", "add", "default", "via", PEER6)
    media = rule("media", "allow", "facetime", "rtp", "rtcp", service='"any"')
    with live(bare, tmp_path, "", variant) as gateway:
        place = tmp_path / "wired.toml"
        place.write_text(WIRED % (", outside = true" if told_by == "key" else "") + media)
        assert gateway.ask("load", policy=str(place))[0]["type"] == "loaded"
        assert "which of the zones" not in gateway.text()
        saved = bare.gateway.run(f"iptables-{variant}-save", "-t", "filter")
        assert ("-i wan0" in saved, "-i lan0" in saved) == (True, False)
        for client_address, peer_address in ENDS:
            peer, client = bare.peer.udp(peer_address, 16402), bare.client.udp(client_address, 16402)
            peer.sendto(RTP, (client_address, 16402))
            assert received(client) == [], "begun outside, foreseen by nobody"
            other = bare.client.udp(client_address, 16400)
            other.sendto(RTP, (peer_address, 16402))
            assert received(peer, least=1) == [RTP], "begun inside: it may be a call's"
            peer.sendto(RTP, (client_address, 16400))
            assert received(other, least=1) == [RTP]
            for each in (peer, client, other):
                each.close()
        inbound = [flow for flow in gateway.ask("flows") if flow["sport"] == 16402 and flow["decision"]]
        assert {flow["decision"]["action"] for flow in inbound} == {"deny"}


@NFT_OR_SLOW
def test_a_zone_of_an_interface_alone_is_told_from_another(bare: Net, variant: Variant, tmp_path: Path) -> None:
    """What is allowed out is not allowed in, with networks nowhere."""
    bare.gateway.run("ip", "route", "add", "default", "via", PEER4)
    with live(bare, tmp_path, "", variant) as gateway:
        place = tmp_path / "wired.toml"
        place.write_text(WIRED % "" + rule("out", "allow", "dns", from_='"inside"', to='"outside"', service='"any"'))
        assert gateway.ask("load", policy=str(place))[0]["type"] == "loaded"
        for ends in ENDS:
            assert asked(bare, ends, 53, QUERY, b"yes") == [QUERY]
            client, peer = bare.client.udp(ends[0], 53), bare.peer.udp(ends[1])
            peer.sendto(QUERY, (ends[0], 53))
            assert received(client) == []
