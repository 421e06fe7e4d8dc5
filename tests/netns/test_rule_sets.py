"""Applying and removing on a real kernel: the kernel holds what was rendered, nothing is left, others stay in place."""

from __future__ import annotations

import re

import pytest

from appid.dataplane.chain import Topology
from appid.dataplane.converge import steps
from appid.dataplane.diff import differences
from appid.dataplane.marks import Marks
from appid.dataplane.ruleset import Variant, remembering, wanted
from appid.edge import iptables
from appid.policy.rule import PacketMark, Qos
from tests.netns.net import Net, received
from tests.netns.playbook import TOPOLOGY, install

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(60)]
UNSETTLED = "-m mark ! --mark 0x4/0xf -j APPID"
CLASSES = Topology(
    ("wan0",), TOPOLOGY.inside, (77,), marks=Marks(qos=0x0F000000), monitor=True,
    qos=(Qos(46), Qos(8, PacketMark(0x20, 0xF0)), Qos(0)),
)  # fmt: skip
SEVERAL = Topology(outside=("wan0", "wan1"), inside=("10.77.1.0/24", "fd00:77:1::/64", "0.0.0.0/0"),
                   queues=(77, 78, 79), bypass=False)  # fmt: skip


def state(net: Net) -> str:
    """All rules and sets, of both variants, without counters and comments."""
    parts = [net.gateway.run(f"{program}-{variant}-save") for program in ("iptables", "ip6tables")
             for variant in ("nft", "legacy")]  # fmt: skip
    parts += [net.gateway.run("nft", "list", "ruleset"), net.gateway.run("ipset", "save")]
    text = "\n".join(line for part in parts for line in part.splitlines() if not line.startswith("#"))
    return re.sub(r"\[\d+:\d+\]|counter packets \d+ bytes \d+|expires \S+", "", text)


def others(net: Net, variant: str) -> None:
    """Chains as docker and fail2ban make them."""
    for line in (
        "-N DOCKER-USER", "-A FORWARD -j DOCKER-USER", "-A DOCKER-USER -j RETURN", "-N f2b-sshd",
        "-A INPUT -p tcp --dport 22 -j f2b-sshd", "-A f2b-sshd -j RETURN",
        "-t mangle -N OTHER", "-t mangle -A FORWARD -j OTHER",
    ):  # fmt: skip
        net.gateway.run(f"iptables-{variant}", *line.split())
        net.gateway.run(f"ip6tables-{variant}", *line.split())


def differing(net: Net, topology: Topology, variant: Variant) -> list[str]:
    return [str(each) for each in differences(wanted(topology, variant), net.gateway.call(iptables.read))]


@pytest.mark.parametrize("topology", [TOPOLOGY, SEVERAL, CLASSES], ids=["one queue", "three queues", "QoS, monitor"])
def test_the_kernel_shows_what_was_rendered(bare: Net, variant: Variant, topology: Topology) -> None:
    install(bare, variant, topology)
    assert differing(bare, topology, variant) == []
    before = state(bare)
    install(bare, variant, topology)  # the second time changes nothing
    assert state(bare) == before


def test_remove_leaves_nothing(bare: Net, variant: Variant) -> None:
    if variant == "legacy":
        others(bare, variant)  # its tables cannot be unmade, so they are there before
    before = state(bare)
    install(bare, variant, SEVERAL)
    assert state(bare) != before
    bare.gateway.call(iptables.remove)
    assert state(bare) == before
    bare.gateway.call(iptables.remove)  # nothing there: no error
    assert state(bare) == before


def test_built_in_chains_that_others_moved_into_stay(bare: Net) -> None:
    install(bare, "nft")
    others(bare, "nft")
    bare.gateway.run("ip6tables-nft", "-P", "INPUT", "DROP")
    bare.gateway.call(iptables.remove)
    after = state(bare)
    assert "APPID" not in after
    assert "appid" not in after
    assert after.count("-A FORWARD -j DOCKER-USER") == 2
    assert ":INPUT DROP" in after
    bare.gateway.run("ip6tables-nft", "-P", "INPUT", "ACCEPT")


def test_another_topology_takes_the_place_of_the_first(bare: Net, variant: Variant) -> None:
    for topology in (SEVERAL, CLASSES, TOPOLOGY):
        install(bare, variant, topology)
        assert differing(bare, topology, variant) == []
    install(bare, "legacy" if variant == "nft" else "nft")
    assert differing(bare, TOPOLOGY, "legacy" if variant == "nft" else "nft") == []


def test_what_others_or_other_versions_left_under_our_names_makes_room(bare: Net, variant: Variant) -> None:
    """Sets and maps of another type, a set half filled, an empty chain; and all of it comes back if a step fails."""
    for line in ("appid-pinholes4 hash:ip", "appid-inside4-next hash:net maxelem 7", "appid-strange hash:ip"):
        bare.gateway.run("ipset", "create", *line.split())
    bare.gateway.run("ipset", "add", "appid-pinholes4", "192.0.2.1")
    bare.gateway.run("nft", "add table inet appid-nat; add map inet appid-nat dnat4 { type ipv4_addr : ipv4_addr; }")
    bare.gateway.run(f"iptables-{variant}", "-N", "APPID")
    before = bare.gateway.call(iptables.read)
    assert any("map dnat4 { type ipv4_addr : ipv4_addr }" in line for line in differing(bare, SEVERAL, variant))
    install(bare, variant, SEVERAL)
    assert differing(bare, SEVERAL, variant) == []
    assert bare.gateway.call(lambda: iptables.undo(before)) == []
    assert "add appid-pinholes4 192.0.2.1" in bare.gateway.run("ipset", "save")
    assert "type ipv4_addr : ipv4_addr" in bare.gateway.run("nft", "list", "ruleset")
    install(bare, variant, SEVERAL)
    bare.gateway.call(iptables.remove)
    assert bare.gateway.run("ipset", "-n", "list") == ""


def test_counters_and_live_elements_outlast_what_does_not_concern_them(bare: Net, variant: Variant) -> None:
    install(bare, variant)
    bare.gateway.run("ipset", "add", "appid-pinholes4", "10.77.1.2,udp:16402,198.51.100.2", "timeout", "0")
    bare.gateway.run(f"iptables-{variant}", "-Z")
    bare.client.udp("10.77.1.2").sendto(b"blind", ("198.51.100.2", 9))
    blind = Topology(TOPOLOGY.outside, TOPOLOGY.inside, (77, 78))
    install(bare, variant, blind)
    assert re.search(
        r"\[1:\d+\] -A APPID -m comment --comment \"?blind", bare.gateway.run(f"iptables-{variant}-save", "-c")
    )
    assert "10.77.1.2,udp:16402,198.51.100.2" in bare.gateway.run("ipset", "save")


def test_rules_of_others_stay_in_place_and_order(bare: Net, variant: Variant) -> None:
    others(bare, variant)
    install(bare, variant)
    for program in ("iptables", "ip6tables"):
        saved = bare.gateway.run(f"{program}-{variant}-save", "-t", "filter")
        assert re.findall(r"-A FORWARD .*-j (\S+)", saved) == ["APPID", "DOCKER-USER", "APPID-ALLOWED"]
        assert re.findall(r"-A INPUT .*-j (\S+)", saved) == ["APPID-INPUT", "f2b-sshd"]


def test_a_jump_that_slipped_comes_first_again(bare: Net, variant: Variant) -> None:
    install(bare, variant)
    bare.gateway.run(f"iptables-{variant}", "-I", "FORWARD", "-p", "tcp", "-j", "ACCEPT")
    bare.gateway.run(f"iptables-{variant}", "-t", "mangle", "-A", "FORWARD", "-j", "APPID")
    program = f"iptables-{variant}"
    assert differing(bare, TOPOLOGY, variant) == [
        f"- {program} filter: -A FORWARD {UNSETTLED} as rule 2",
        f"+ {program} filter: -A FORWARD {UNSETTLED} as rule 1", f"- {program} mangle: -A FORWARD -j APPID",
    ]  # fmt: skip
    install(bare, variant)
    assert differing(bare, TOPOLOGY, variant) == []
    assert "-p tcp -j ACCEPT" in bare.gateway.run(f"iptables-{variant}-save")


def test_one_that_was_killed_half_way_has_changed_nothing_and_the_next_one_tidies(bare: Net) -> None:
    """kill -9 between staging and the one transaction: what is in force is whole."""
    install(bare, "nft", SEVERAL)

    def half() -> None:
        now = iptables.read()
        *staging, last = steps(now, remembering(wanted(CLASSES, "nft"), now))
        iptables.carry_out(staging)
        assert str(last) == "nft -f -"

    bare.gateway.call(half)
    left = differing(bare, SEVERAL, "nft")
    assert left
    assert all(re.match(r"- (ip6?tables-nft (mangle|filter): -[NA] APPID\S*-NEXT|ipset: )", line) for line in left), (
        left
    )
    install(bare, "nft", CLASSES)
    assert differing(bare, CLASSES, "nft") == []
    assert "-NEXT" not in state(bare)


def test_decisions_do_not_outlive_the_layout_of_their_marks(bare: Net, variant: Variant) -> None:
    """A denied flow of application 16: by the other mask its bits would say "allowed"."""
    marks = Marks()
    install(bare, variant)
    client = bare.client.udp("10.77.1.2", 5000)
    peer = bare.peer.udp("198.51.100.2", 6000)
    flow = "-p udp -s 10.77.1.2 -d 198.51.100.2 --sport 5000 --dport 6000 -t 60"
    bare.gateway.run("conntrack", "-I", *flow.split(), "--mark", f"{marks.encode('deny', 16) | 0x20:#x}")
    install(bare, variant, Topology(TOPOLOGY.outside, TOPOLOGY.inside, (77,), marks=Marks(0xFFF0F000)))
    assert " mark=32 " in bare.gateway.run("conntrack", "-L", "-p", "udp"), "undecided, and the bits of others stay"
    client.sendto(b"denied", ("198.51.100.2", 6000))
    assert received(peer) == []
