"""Living with others: their rules stay in place and order through everything we do, their rules still work, ours too,
and what stands after ours sees every packet that it would have seen without us."""

from __future__ import annotations

import re
import socket
from dataclasses import replace
from functools import partial

import pytest

from appid.dataplane.chain import Allowed, Topology
from appid.dataplane.diff import differences
from appid.dataplane.ruleset import VARIANTS, Variant, wanted
from appid.edge import iptables, preflight
from appid.edge.netlink import KernelError
from appid.packet import Packet
from tests.netns import neighbours
from tests.netns.net import CLIENT4, CLIENT6, GATEWAY4, GATEWAY6, PEER4, PEER6, Net, received
from tests.netns.playbook import ALLOW, DENY, PASS, TOPOLOGY, install, running

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120)]
ENDS = ((CLIENT4, PEER4, GATEWAY4, neighbours.BANNED4), (CLIENT6, PEER6, GATEWAY6, neighbours.BANNED6))
CHANGED = Topology(("wan0",), TOPOLOGY.inside, (77, 78), "ACCEPT", allowed="first")
PAIRS = [
    pytest.param(name, variant, marks=[pytest.mark.slow] if variant == "legacy" and name != "docker" else [])
    for name in neighbours.NAMES for variant in VARIANTS
]  # fmt: skip


def move_in(net: Net, name: str, variant: str) -> None:
    if name == "firewalld-nft":
        net.gateway.run("nft", "-f", "-", text=neighbours.FIREWALLD_NFT)
        return
    for family, program in ((4, "iptables"), (6, "ip6tables")):
        net.gateway.run(f"{program}-{variant}-restore", "--noflush", text=neighbours.text(name, family))


def theirs(net: Net) -> str:
    """All rules, of both variants and families, minus ours and the counters. Of iptables-nft's tables the same: that of
    iptables-save."""
    saved = [net.gateway.run(f"{program}-{variant}-save") for program in ("iptables", "ip6tables")
             for variant in ("nft", "legacy")]  # fmt: skip
    lines = [line for part in saved for line in part.splitlines() if not re.match(r"#|:APPID|-A APPID", line)]
    native = [
        line for line in net.gateway.run("nft", "list", "ruleset").split("table ") if line.startswith("inet fire")
    ]
    kept = [line for line in lines if not re.fullmatch(r"-A \w+ (-m mark ! --mark \S+ )?-j APPID[A-Z-]*", line)]
    return re.sub(r"\[\d+:\d+\]", "", "\n".join(kept + native))


def differing(net: Net, topology: Topology, variant: Variant) -> list[str]:
    return [str(each) for each in differences(wanted(topology, variant), net.gateway.call(iptables.read))]


@pytest.mark.parametrize(("name", "variant"), PAIRS)
def test_those_who_were_there_before_stay_as_they_are(bare: Net, variant: Variant, name: str) -> None:
    install(bare, variant)  # makes tables and built-in chains that stay
    bare.gateway.call(iptables.remove)
    move_in(bare, name, variant)
    before = theirs(bare)
    for topology in (TOPOLOGY, TOPOLOGY, CHANGED):
        install(bare, variant, topology)
        assert differing(bare, topology, variant) == []
        assert without_empty(theirs(bare)) == without_empty(before)
    bare.gateway.call(iptables.remove)
    assert without_empty(theirs(bare)) == without_empty(before)


@pytest.mark.parametrize(("name", "variant"), PAIRS)
def test_those_who_come_after_stay_as_they_are(bare: Net, variant: Variant, name: str) -> None:
    install(bare, variant)
    move_in(bare, name, variant)
    before = theirs(bare)
    install(bare, variant)  # ours come first and last again
    assert differing(bare, TOPOLOGY, variant) == []
    assert theirs(bare) == before
    install(bare, variant, CHANGED)
    assert theirs(bare) == before
    bare.gateway.call(iptables.remove)
    assert without_empty(theirs(bare)) == without_empty(before)


@pytest.mark.parametrize(("name", "variant"), [("docker", "nft"), ("docker", "legacy"), ("firewalld-nft", "nft")])
def test_undo_brings_back_each_of_theirs_once(bare: Net, variant: Variant, name: str) -> None:
    """As often as it is done; and while ours stand, there is nothing to put right."""
    move_in(bare, name, variant)
    assert [str(each) for each in bare.gateway.call(lambda: preflight.problems(TOPOLOGY, variant))] == []
    before = theirs(bare)
    for _ in range(2):
        found = bare.gateway.call(iptables.read)
        install(bare, variant)
        assert bare.gateway.call(lambda: iptables.mend(TOPOLOGY, variant)) == []
        assert bare.gateway.call(partial(iptables.undo, found)) == []
        assert without_empty(theirs(bare)) == without_empty(before)


def test_a_rule_of_others_that_leads_to_our_chain_goes_with_it_and_is_named(
    bare: Net, variant: Variant, caplog: pytest.LogCaptureFixture
) -> None:
    install(bare, variant)
    program = f"ip6tables-{variant}"
    for line in ("-N MINE", "-A MINE -m comment --comment hello -j APPID-ALLOWED", "-A MINE -j RETURN",
                 "-A FORWARD -p tcp -j APPID"):  # fmt: skip
        bare.gateway.run(program, *line.split())
    bare.gateway.call(iptables.remove)
    saved = bare.gateway.run(f"{program}-save")
    assert re.findall("-A .*", saved) == ["-A MINE -j RETURN"]
    named = sorted(record.getMessage().partition(": ")[2] for record in caplog.records)
    assert named == [f"{program} -t filter -A FORWARD -p tcp -j APPID",
                     f"{program} -t filter -A MINE -m comment --comment hello -j APPID-ALLOWED"]  # fmt: skip


def test_what_stands_in_the_way_of_removing_is_named_and_the_rest_goes(
    bare: Net, variant: Variant, caplog: pytest.LogCaptureFixture
) -> None:
    """A rule of others that uses a set of ours; and one that went, since it led to a chain of ours."""
    install(bare, variant)
    program = f"iptables-{variant}"
    for line in ("-N MINE", "-A MINE -p tcp -j APPID", "-A INPUT -m set --match-set appid-pinholes4 src -j DROP"):
        bare.gateway.run(program, *line.split())
    with pytest.raises(KernelError, match=f"in use.*: {program} -t filter -A INPUT -m set --match-set appid-pinholes4"):
        bare.gateway.call(iptables.remove)
    assert [record.getMessage().partition(": ")[2] for record in caplog.records] == [
        f"{program} -t filter -A MINE -p tcp -j APPID"
    ]
    assert bare.gateway.run("ipset", "-n", "list").split() == ["appid-pinholes4"]
    assert "APPID" not in bare.gateway.run(f"{program}-save")
    bare.gateway.run(program, "-D", "INPUT", "-m", "set", "--match-set", "appid-pinholes4", "src", "-j", "DROP")
    bare.gateway.call(iptables.remove)
    assert bare.gateway.run("ipset", "-n", "list") == ""


@pytest.mark.parametrize("variant", VARIANTS)
def test_those_of_the_other_variant_stay_as_they_are(bare: Net, variant: Variant) -> None:
    """docker in one variant, we in the other, firewalld in nft itself."""
    (other,) = (each for each in VARIANTS if each != variant)
    for name in ("docker", "firewalld-nft"):
        move_in(bare, name, other)
    install(bare, variant)  # makes legacy's tables, which stay
    before = theirs(bare)
    install(bare, variant, CHANGED)
    assert differing(bare, CHANGED, variant) == []
    assert theirs(bare) == before
    install(bare, other, TOPOLOGY)
    assert differing(bare, TOPOLOGY, other) == []
    assert without_empty(theirs(bare)) == without_empty(before)
    bare.gateway.call(iptables.remove)
    assert without_empty(theirs(bare)) == without_empty(before)


def without_empty(saved: str) -> str:
    """Built-in chains without rules and with policy ACCEPT are what iptables prints of a table that does not exist."""
    return re.sub(r"(?m)^\*\w+\nCOMMIT\n?", "", re.sub(r"(?m)^:\w+ ACCEPT \n", "", saved))


@pytest.mark.parametrize(("name", "variant"), PAIRS)
def test_their_word_still_holds_and_so_does_ours(bare: Net, variant: Variant, name: str) -> None:
    """docker and ufw: FORWARD's policy is DROP, yet an allowed flow passes. A banned address stays banned although we
    allow it, and what we deny does not pass although they have nothing against it."""
    move_in(bare, name, variant)
    bare.peer.run("ip", "addr", "add", f"{neighbours.BANNED4}/24", "dev", "net")
    bare.peer.run("ip", "addr", "add", f"{neighbours.BANNED6}/64", "dev", "net", "nodad")
    install(bare, variant)

    def answer(packet: Packet, number: int) -> int:
        return DENY if packet.key.dport == 6001 else PASS if bytes(packet.payload) == b"first" else ALLOW

    with running(bare, answer):
        for client, peer, gateway, banned in ENDS:
            sender, taker = bare.client.udp(client, 5000), bare.peer.udp(peer, 6000)
            denied, away = bare.peer.udp(peer, 6001), bare.peer.udp(banned, 6000)
            for text in (b"first", b"second", b"third"):
                sender.sendto(text, (peer, 6000))
                sender.sendto(text, (banned, 6000))
                sender.sendto(text, (peer, 6001))
            assert received(taker, least=3) == [b"first", b"second", b"third"]
            taker.sendto(b"back", (client, 5000))
            assert received(sender, 0.1, least=1)[-1:] == [b"back"]
            assert received(denied, 0.05) == []
            expected = [] if name != "docker" else [b"first", b"second", b"third"]
            assert received(away, 0.05, least=len(expected)) == expected, "docker bans nobody"
            if name == "fail2ban":
                server = bare.gateway.listen(gateway, 22)
                with bare.client.tcp(client) as banished, pytest.raises(ConnectionRefusedError):
                    banished.connect((gateway, 22))
                server.close()


# -- rules that stand after ours ----------------------------------------------------------------------------------

HOOKS = ("FORWARD", "POSTROUTING")
FIRST, THEN, BACK = 1, 9, 10
"""Packets: one queued, nine of the decided flow, ten answers."""


@pytest.fixture
def after(bare: Net, variant: Variant) -> Net:
    """Rules of others in mangle and filter: there before us, so behind our first jumps."""
    for program in ("iptables", "ip6tables"):
        account = "-p udp -m comment --comment"
        lines = ["*mangle", *(f'-A {hook} -p udp -m comment --comment "account mangle {hook}"' for hook in HOOKS),
                 "-A FORWARD -p udp -j DSCP --set-dscp 46",
                 "-A FORWARD -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss 700", "COMMIT",
                 "*filter", f'-A FORWARD {account} "account filter FORWARD"', "COMMIT", ""]  # fmt: skip
        bare.gateway.run(f"{program}-{variant}-restore", "--noflush", text="\n".join(lines))
    install(bare, variant)
    return bare


def counted(net: Net, variant: str) -> dict[str, list[int]]:
    """Packets at each accounting rule, IPv4 and IPv6."""
    found: dict[str, list[int]] = {}
    for program in ("iptables", "ip6tables"):
        saved = net.gateway.run(f"{program}-{variant}-save", "-c")
        for packets, place in re.findall(r'^\[(\d+):\d+\] -A .*--comment "account (\w+ \w+)"', saved, re.M):
            found.setdefault(place, []).append(int(packets))
    return found


@pytest.mark.parametrize("allowed", ["last", "host"])
def test_accounting_behind_ours_counts_each_packet_once(after: Net, variant: Variant, allowed: Allowed) -> None:
    """Queued, decided and foreseen ones."""
    install(after, variant, replace(TOPOLOGY, allowed=allowed))
    with running(after, lambda packet, number: ALLOW) as book:
        for client, peer, *_ in ENDS:
            sender, taker = after.client.udp(client, 5000), after.peer.udp(peer, 6000)
            sender.sendto(b"0", (peer, 6000))
            assert received(taker, 0.1, least=1) == [b"0"]
            for _ in range(THEN):
                sender.sendto(b"x", (peer, 6000))
            for _ in range(BACK):
                taker.sendto(b"y", (client, 5000))
            assert len(received(taker, 0.1, least=THEN)) == THEN
            assert len(received(sender, 0.1, least=BACK)) == BACK
            family = "6" if ":" in client else "4"
            after.gateway.run("ipset", "add", f"appid-pinholes{family}", f"{client},udp:16402,{peer}", "timeout", "60",
                              "skbmark", f"{ALLOW:#x}/0xffff0f")  # fmt: skip
            media, foreseen = after.peer.udp(peer, 16402), after.client.udp(client, 16402)
            media.sendto(b"media", (client, 16402))
            assert received(foreseen, 0.1, least=1) == [b"media"]
        assert len(book.packets) == 2, "one a family was asked about"
    each = [FIRST + THEN + BACK + 1] * 2
    assert counted(after, variant) == {"mangle FORWARD": each, "mangle POSTROUTING": each, "filter FORWARD": each}


def test_dscp_behind_ours_is_on_every_packet(after: Net, variant: Variant) -> None:
    with running(after, lambda packet, number: ALLOW if bytes(packet.payload) == b"1" else PASS):
        for client, peer, *_ in ENDS:
            sender, taker = after.client.udp(client, 5000), after.peer.udp(peer, 6000)
            level, option, kind = (
                (socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, socket.IPV6_TCLASS) if ":" in client
                else (socket.IPPROTO_IP, socket.IP_RECVTOS, socket.IP_TOS)
            )  # fmt: skip
            taker.setsockopt(level, option, 1)
            for text in (b"0", b"1", b"2", b"3"):  # undecided, deciding, decided
                sender.sendto(text, (peer, 6000))
                _, ancillary, _, _ = taker.recvmsg(100, 100)
                assert [data[0] for _, which, data in ancillary if which == kind] == [46 << 2]


def test_mss_clamping_behind_ours_meets_the_syn(after: Net, variant: Variant) -> None:
    with running(after, lambda packet, number: PASS if not packet.payload else ALLOW):
        for client, peer, *_ in ENDS:
            server = after.peer.listen(peer, 7000)
            with after.client.tcp(client) as out:
                out.connect((peer, 7000))
                accepted, _ = server.accept()
                with accepted:
                    for end in (out, accepted):  # SYN and SYN-ACK were both clamped
                        assert end.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) <= 700
                    out.sendall(b"x" * 5000)
                    got = b""
                    while len(got) < 5000:
                        got += accepted.recv(5000)
            server.close()
