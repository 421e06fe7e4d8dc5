"""Rules made with nft itself in the tables of iptables-nft, which then prints nothing of these tables: ours come,
stand, are counted and go there all the same."""

from __future__ import annotations

import re

import pytest

from appid.dataplane.chain import Topology
from appid.edge import iptables, preflight, queues
from tests.netns import neighbours
from tests.netns.net import CLIENT4, CLIENT6, PEER4, PEER6, Net, received
from tests.netns.playbook import ALLOW, DENY, TOPOLOGY, install, running
from tests.netns.test_neighbours import CHANGED, differing

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120)]
NATIVE = """table {ip} mangle {{
  chain FORWARD {{
    type filter hook forward priority mangle; policy accept;
    ct state invalid counter drop
  }}
}}
table {ip} filter {{
  set banned {{ type {type}; elements = {{ {banned} }} }}
  chain ours {{ type filter hook forward priority 5; {ip} saddr {quiet} drop; }}
  chain mine {{ ct state new counter log prefix "jump APPID"; }}
  chain FORWARD {{
    type filter hook forward priority filter; policy drop;
    {ip} daddr @banned counter drop
    jump mine
    ct state vmap {{ invalid : drop, untracked : drop }}
  }}
}}
"""
READABLE = """*filter
:readable - [0:0]
-A FORWARD -j NFQUEUE --queue-num 9
-A readable -j NFQUEUE --queue-num 9
-A readable -j MARK --set-mark 0x4000/0x4000
COMMIT
"""


@pytest.fixture
def native(bare: Net) -> Net:
    for ip, kind, banned, quiet in (
        ("ip", "ipv4_addr", neighbours.BANNED4, "10.9.9.9"), ("ip6", "ipv6_addr", neighbours.BANNED6, "fd00:9::9"),
    ):  # fmt: skip
        bare.gateway.run("nft", "-f", "-", text=NATIVE.format(ip=ip, type=kind, banned=banned, quiet=quiet))
    for program in ("iptables", "ip6tables"):
        assert "is incompatible" in bare.gateway.run(f"{program}-nft-save")
    return bare


def listed(net: Net) -> str:
    """All of nft's, without counters."""
    return re.sub(r"counter packets \d+ bytes \d+", "counter", net.gateway.run("nft", "list", "ruleset"))


def handle(net: Net, table: str, rule: str) -> str:
    (found,) = re.findall(rf"{rule} # handle (\d+)", net.gateway.run("nft", "-a", "list", "table", *table.split()))
    return str(found)


def stands(net: Net, topology: Topology) -> None:
    assert differing(net, topology, "nft") == []
    assert net.gateway.call(lambda: iptables.mend(topology, "nft")) == []


def test_ours_come_stand_are_counted_and_go(native: Net) -> None:
    before = listed(native)
    assert native.gateway.call(lambda: preflight.problems(TOPOLOGY, "nft")) == []
    for topology in (TOPOLOGY, CHANGED, TOPOLOGY):
        install(native, "nft", topology)
        stands(native, topology)
        there = listed(native)
        assert all(rule in there for rule in re.findall(r".*(?:banned|invalid|mine|log).*", before))
    for ip in ("ip", "ip6"):
        rules = native.gateway.run("nft", "list", "chain", ip, "filter", "FORWARD").splitlines()[3:-2]
        assert (rules[0].split()[-1], rules[-1].split()[-1]) == ("APPID", "APPID-ALLOWED")
    with running(native, lambda packet, number: DENY if packet.key.dport == 6001 else ALLOW) as book:
        for client, peer in ((CLIENT4, PEER4), (CLIENT6, PEER6)):
            sender, taker = native.client.udp(client, 5000), native.peer.udp(peer, 6000)
            denied = native.peer.udp(peer, 6001)
            for text in (b"first", b"second"):
                sender.sendto(text, (peer, 6000))
                sender.sendto(text, (peer, 6001))
            assert received(taker, least=2) == [b"first", b"second"]
            assert received(denied, 0.05) == []
    assert native.gateway.call(lambda: queues.queued("nft")) == {77: len(book.packets)}
    assert native.gateway.call(lambda: queues.stopped("nft"))[0]["deny"] >= 2
    native.gateway.call(iptables.remove)
    assert listed(native) == before


def test_jumps_that_others_moved_come_right(native: Net, caplog: pytest.LogCaptureFixture) -> None:
    """Doubled, slipped, missing; a rule in our chain that iptables has no words for; one of theirs that leads to us."""
    before = listed(native)
    install(native, "nft")
    native.gateway.run("nft", "; ".join((
        "insert rule ip filter FORWARD ct state established counter accept",
        "add rule ip filter FORWARD jump APPID",
        "add rule ip filter mine ip saddr 10.9.9.9 goto APPID",
        "insert rule ip filter APPID ct state new limit rate 1/hour accept",
        f"delete rule ip6 filter INPUT handle {handle(native, 'ip6 filter', 'jump APPID-INPUT')}",
    )))  # fmt: skip
    assert len(differing(native, TOPOLOGY, "nft")) > 4
    install(native, "nft")
    stands(native, TOPOLOGY)
    assert [each.getMessage().split(": ")[-1] for each in caplog.records] == [
        "iptables-nft -t filter -A mine ip saddr 10.9.9.9 goto APPID"
    ]
    theirs = handle(native, "ip filter", r"ct state established counter packets \d+ bytes \d+ accept")
    native.gateway.run("nft", f"delete rule ip filter FORWARD handle {theirs}")
    native.gateway.call(iptables.remove)
    assert listed(native) == before


def test_what_they_use_of_ours_is_named(native: Net) -> None:
    """Of a chain that iptables does not print, nft tells the names of matches and targets alone."""
    native.gateway.run("nft", "add rule ip filter FORWARD meta mark set 0x5")
    native.gateway.run("iptables-nft-restore", "--noflush", text=READABLE)
    problems = native.gateway.call(lambda: preflight.problems(TOPOLOGY, "nft"))
    unread = "nft: table ip filter chain FORWARD (which iptables-nft cannot read);"
    said = [re.sub(r" handle \d+| of ours \S+|mark_mask.*|choose.*", "", str(each)).strip() for each in problems]
    assert said == [
        f"mark bits 0x00ffff0f are used by others: {unread} write it with a mask (VALUE/MASK) that leaves bits free",
        "mark bits 0x00004000 are used by others: iptables-nft -t filter -A readable -j MARK "
        "--set-xmark 0x4000/0x4000; write it with a mask (VALUE/MASK) that leaves bits free",
        f"queue 77 is used by others: {unread}",
    ]
