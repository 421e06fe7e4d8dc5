"""What else a rule can do, on the wire: DSCP and marks that a tc class sees, overrides, budgets per zone, schedules,
shifts, the capture of unknown flows. Both iptables variants, IPv4 and IPv6."""

from __future__ import annotations

import re
import socket
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from appid.dataplane.ruleset import Variant
from appid.edge.capture import frames
from tests.corpus.stun_bytes import (
    ALLOCATE,
    COOKIE,
    LIFETIME,
    REQUEST,
    RESERVATION_TOKEN,
    XOR_RELAYED_ADDRESS,
    Transaction,
    message,
    u32,
    xor_address,
)
from tests.netns.live import ALL, NFT_OR_SLOW, live, rule
from tests.netns.net import CLIENT4, CLIENT6, PEER4, PEER6, Net, received
from tests.netns.test_policy_live import QUERY, asked, reset, web

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120)]
ENDS = ((CLIENT4, PEER4), (CLIENT6, PEER6))
Pair = tuple[str, str]
LOOKUPS = rule("lookups", "allow", "dns", service='"any"')


def class_packets(net: Net, number: int) -> int:
    """Packets that a class of the outside's HTB saw."""
    told = net.gateway.run("tc", "-s", "class", "show", "dev", "wan0")
    found = re.search(rf"class htb 1:{number} .*?Sent \d+ bytes (\d+) pkt", told, re.DOTALL)
    assert found is not None, told
    return int(found[1])


def marked_packets(net: Net, variant: str, v6: bool) -> int:
    """Packets that a rule of somebody else's, behind ours, saw with the mark."""
    program = f"ip6tables-{variant}" if v6 else f"iptables-{variant}"
    told = net.gateway.run(program, "-t", "mangle", "-L", "POSTROUTING", "-nvx")
    return int(next(line for line in told.splitlines() if "/0xf0000000" in line).split()[0])


def shape(net: Net, variant: str) -> None:
    """On the way out: class 1:10 for DSCP EF (TOS 0xb8), 1:30 for the rest, and a rule that counts a mark."""
    lines = [
        "qdisc add dev wan0 root handle 1: htb default 30",
        *(f"class add dev wan0 parent 1: classid 1:{number} htb rate 100mbit" for number in (10, 30)),
        "filter add dev wan0 parent 1: prio 1 protocol ip u32 match ip tos 0xb8 0xfc flowid 1:10",
        "filter add dev wan0 parent 1: prio 2 protocol ipv6 u32 match u16 0x0b80 0x0fc0 at 0 flowid 1:10",
    ]
    for line in lines:
        net.gateway.run("tc", *line.split())
    counting = ("-t", "mangle", "-A", "POSTROUTING", "-m", "mark", "--mark", "0x10000000/0xf0000000")
    for program in (f"iptables-{variant}", f"ip6tables-{variant}"):
        net.gateway.run(program, *counting)


def tos_received(peer: socket.socket, v6: bool, count: int) -> list[int]:
    option = (socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS) if v6 else (socket.IPPROTO_IP, 13)  # IP_RECVTOS
    peer.setsockopt(*option, 1)
    peer.settimeout(10)
    found = []
    for _ in range(count):
        _, ancillary, _, _ = peer.recvmsg(2048, 64)
        found.append(ancillary[0][2][0])
    return found


def test_dscp_and_mark_of_a_rule_are_on_every_packet_of_its_flows(bare: Net, variant: Variant, tmp_path: Path) -> None:
    policy = (
        rule("lookups", "allow", "dns", service='"any"', dscp='"ef"')
        + rule("marked", "allow", service='["udp/7000"]', mark='"0x10000000/0xf0000000"')
        + ALL
    )
    with live(bare, tmp_path, policy, variant) as gateway:
        shape(bare, variant)
        for ends in ENDS:
            v6 = ":" in ends[1]
            for port, payload, wanted in ((53, QUERY, 0xB8), (7000, b"\xff" * 20, 0), (7001, b"\xff" * 20, 0)):
                peer, client = bare.peer.udp(ends[1], port), bare.client.udp(ends[0])
                before = class_packets(bare, 10), class_packets(bare, 30), marked_packets(bare, variant, v6)
                tos_received(peer, v6, 0)
                for _ in range(20):
                    client.sendto(payload, (ends[1], port))
                given = tos_received(peer, v6, 20)
                assert set(given) == {wanted}
                after = class_packets(bare, 10), class_packets(bare, 30), marked_packets(bare, variant, v6)
                ef, rest, marked = (now - then for now, then in zip(after, before, strict=True))
                assert (ef >= 20, rest >= 20) == (port == 53, port != 53)
                # The name of an unknown flow stands after ten packets, and with it the rule.
                assert 8 <= marked <= 10 if port == 7000 else marked == 0
                peer.close()
        assert gateway.load(ALL)[0]["type"] == "loaded"
        peer, client = bare.peer.udp(PEER4, 53), bare.client.udp(CLIENT4)
        client.sendto(QUERY, (PEER4, 53))
        assert tos_received(peer, False, 1) == [0]
    saved = bare.gateway.run(f"iptables-{variant}-save", "-t", "mangle")
    assert "APPID" not in saved


def test_an_override_names_what_the_operator_knows_better(bare: Net, variant: Variant, tmp_path: Path) -> None:
    override = (
        '[[override]]\napplication = "jabber"\n'
        'destination = ["198.51.100.2", "fd00:77:2::2"]\nports = ["udp/9000-9001"]\n'
    )
    with live(bare, tmp_path, override + rule("chat", "allow", "jabber", service='"any"'), variant) as gateway:
        for ends in ENDS:
            assert asked(bare, ends, 9000, QUERY, b"yes") == [QUERY]
            assert gateway.flow(9000)["application"] == "jabber"
            assert asked(bare, ends, 9002, QUERY) == []


def test_the_budget_of_a_zone_is_its_own(bare: Net, variant: Variant, tmp_path: Path) -> None:
    """Nothing passes before it is named where a zone's budget is 0; ten packets do by default."""
    unsure, wanted = b"\xff" * 20, rule("calls", "allow", "facetime", service='"any"') + LOOKUPS
    with live(bare, tmp_path, wanted, variant) as gateway:
        for budget, passed in ((None, 10), (0, 0), (3, 3)):
            if budget is not None:
                place = tmp_path / "budget.toml"
                place.write_text(
                    "[zones]\noutside = {}\n"
                    'inside = { interfaces = ["lan0"], networks = ["10.77.1.0/24", "fd00:77:1::/64"], '
                    f"undecided_packets = {budget} }}\n" + wanted
                )
                assert gateway.ask("load", policy=str(place))[0]["type"] == "loaded"
            for ends in ENDS:
                peer, client = bare.peer.udp(ends[1], 6000), bare.client.udp(ends[0])
                for _ in range(15):
                    client.sendto(unsure, (ends[1], 6000))
                assert len(received(peer, least=passed)) == passed
                peer.close()
                assert asked(bare, ends, 53, QUERY, b"yes") == [QUERY], "named by its first packet"


def test_unknown_flows_are_captured(bare: Net, variant: Variant, tmp_path: Path) -> None:
    path = tmp_path / "unknown.pcap"
    with live(bare, tmp_path, ALL, variant, f'unknown = "{path}"\n'):
        for ends in ENDS:
            peer, client = bare.peer.udp(ends[1], 6000), bare.client.udp(ends[0])
            for number in range(20):
                client.sendto(b"\xff%d" % number, (ends[1], 6000))
            assert len(received(peer, least=20)) == 20
            peer.close()
            assert asked(bare, ends, 53, QUERY, b"yes") == [QUERY]
    payloads = [bytes(frame[28 if frame[0] >> 4 == 4 else 48 :]) for _, _, _, frame in frames(path)]
    assert payloads[:11] == [b"\xff%d" % number for number in range(11)]
    assert 22 <= len(payloads) <= 24, "a packet or two may be queued together with the one that settles it"
    assert QUERY not in payloads


@NFT_OR_SLOW
def test_the_capture_of_unknown_flows_is_bounded(bare: Net, variant: Variant, tmp_path: Path) -> None:
    path, most = tmp_path / "unknown.pcap", 65536
    with live(bare, tmp_path, ALL, variant, f'unknown = "{path}"\nunknown_bytes = {most}\n') as gateway:
        for ends in ENDS:
            client = bare.client.udp(ends[0])
            for port in range(20000, 20020):
                for _ in range(11):
                    client.sendto(b"\xff" * 900, (ends[1], port))
                received(client, 0.01)
        assert gateway.ask("stats")[0]["packets"] >= 400
    sizes = [each.stat().st_size for each in tmp_path.glob("unknown.pcap*")]
    assert len(sizes) == 2
    assert most // 4 < sum(sizes) <= most
    assert 5 * most < 400 * 900, "far more was seen than was kept"


TRANSACTION = Transaction(COOKIE, bytes(range(12)))


def allocate(relay: str) -> bytes:
    """FaceTime's Allocate request of 2015: the relayed address and the reservation are in the request."""
    attributes = [
        xor_address(XOR_RELAYED_ADDRESS, relay, 16385, TRANSACTION), (RESERVATION_TOKEN, bytes(8)), u32(LIFETIME, 60),
    ]  # fmt: skip
    return message(ALLOCATE, REQUEST, TRANSACTION, attributes)


def binding() -> bytes:
    return message(1, REQUEST, TRANSACTION, [])


@pytest.mark.parametrize("shifted", ["denied", "allowed"])
def test_a_shift_is_judged_again_both_ways(bare: Net, variant: Variant, tmp_path: Path, shifted: str) -> None:
    """stun allowed, facetime denied: cut when it turns out to be FaceTime; stun denied, facetime allowed: it works."""
    stun = rule("stun", "allow" if shifted == "denied" else "deny", "stun", "turn", service='"any"')
    calls = rule("calls", "deny" if shifted == "denied" else "allow", "facetime", service='"any"')
    with live(bare, tmp_path, calls + stun, variant) as gateway:
        for ends in ENDS:
            peer, client = bare.peer.udp(ends[1], 3478), bare.client.udp(ends[0], 16402)
            client.sendto(binding(), (ends[1], 3478))
            assert received(peer, least=1) == [binding()], "it may still become either"
            client.sendto(allocate(ends[1]), (ends[1], 3478))
            assert len(received(peer, least=shifted != "denied")) == (0 if shifted == "denied" else 1)
            flow = gateway.flow(3478)
            assert flow["application"] == "facetime"
            assert flow["decision"] == {"action": "deny" if shifted == "denied" else "allow", "rule": "calls"}
            peer.close()
            client.close()


def test_a_schedule_holds_for_flows_that_begin_within_it(bare: Net, variant: Variant, tmp_path: Path) -> None:
    """The edges are those of flows' first packets: a window that is open now, one that opens in two minutes."""
    now = datetime.now(ZoneInfo("UTC"))

    def window(begin: int, end: int) -> str:
        first, last = (now + timedelta(minutes=m) for m in (begin, end))
        return f'{{ from = "{first:%H:%M}", to = "{last:%H:%M}", timezone = "UTC" }}'

    opens, shut = (rule("now", "allow", "dns", service='"any"', schedule=window(*edges)) for edges in ((-5, 5), (2, 9)))
    with live(bare, tmp_path, opens, variant) as gateway:
        for ends in ENDS:
            assert asked(bare, ends, 53, QUERY, b"yes") == [QUERY]
        assert gateway.load(shut)[0]["type"] == "loaded"
        for ends in ENDS:
            assert asked(bare, ends, 53, QUERY) == []


def test_a_tcp_flow_on_ports_that_nothing_allows_is_reset_at_its_syn(
    bare: Net, variant: Variant, tmp_path: Path
) -> None:
    with live(bare, tmp_path, rule("web", "allow", "web-browsing"), variant):
        for ends in ENDS:
            server, client = bare.peer.listen(ends[1], 2222), bare.client.tcp(ends[0])
            with pytest.raises(ConnectionRefusedError):
                client.connect((ends[1], 2222))
            server.close()
            connected, accepted = web(bare, ends)
            assert not reset(connected, sends=3)
            accepted.close()
