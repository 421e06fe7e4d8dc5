"""Golden rule sets: the text, and that iptables-restore, ipset and nft of the host take it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from appid.dataplane.chain import FAMILIES, ChainSet, Family, Topology, chain_set
from appid.dataplane.marks import Marks
from appid.dataplane.render import clear_text, ipset_text, nat_text, restore_text
from appid.policy.rule import PacketMark, Qos
from tests.netns.net import Namespace

GOLDEN = Path(__file__).parent.parent / "golden"
INSIDE = ("172.16.42.0/24", "fd00:42::/64")
TOPOLOGIES = {
    "one-queue": Topology(("wan0",), INSIDE, (0,), "DROP"),
    "four-queues": Topology(("wan0", "ppp0"), INSIDE, (10, 11, 12, 13), "ACCEPT"),
    "other-mask": Topology(("wan0",), INSIDE, (0,), "DROP", (16393, 16402), allowed="host", marks=Marks(0xFFF0F000)),
    "monitor": Topology(("wan0",), INSIDE, (0,), "ACCEPT", monitor=True),
    "qos": Topology(("wan0",), INSIDE, marks=Marks(qos=0x0F000000), qos=(Qos(46), Qos(8, PacketMark(0x20, 0xF0)))),
    "no-bypass": Topology(("wan0",), INSIDE, (3, 4), "ACCEPT", bypass=False),
    "first": Topology(("wan0",), INSIDE, allowed="first"),
}


def golden(name: str, text: str) -> None:
    path = GOLDEN / name
    assert path.read_text() == text, f"{path} is no longer what is rendered"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", TOPOLOGIES)
def test_rule_sets_are_the_golden_ones(name: str, family: Family) -> None:
    rules = chain_set(TOPOLOGIES[name], family)
    golden(f"{name}.v{family}.rules", restore_text(rules))
    golden(f"{name}.v{family}.ipset", ipset_text(rules.sets))


def test_tables_are_the_golden_ones() -> None:
    golden("appid-clear.nft", clear_text(Marks()))
    golden("appid-nat.nft", nat_text())


def test_jumps_are_left_out_on_request() -> None:
    rules = chain_set(TOPOLOGIES["one-queue"], 4)
    with_them, without = restore_text(rules), restore_text(rules, jumps=False)
    gone = [line for line in with_them.splitlines() if line not in without.splitlines()]
    assert gone == [
        "-I FORWARD -m mark ! --mark 0x4/0xf -j APPID", "-I FORWARD -m mark ! --mark 0x4/0xf -j APPID",
        "-I INPUT -j APPID-INPUT", "-A FORWARD -j APPID-ALLOWED",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def somewhere() -> Iterator[Namespace]:
    made = Namespace("r")
    yield made
    made.remove()


def load(where: Namespace, rules: ChainSet) -> None:
    where.run("ipset", "-exist", "restore", text=ipset_text(rules.sets))


@pytest.mark.kernel
@pytest.mark.parametrize("variant", ["nft", "legacy"])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", TOPOLOGIES)
def test_iptables_restore_takes_the_golden_rule_sets(
    somewhere: Namespace, name: str, family: Family, variant: str
) -> None:
    load(somewhere, chain_set(TOPOLOGIES[name], family))
    program = "iptables" if family == 4 else "ip6tables"
    text = (GOLDEN / f"{name}.v{family}.rules").read_text()
    somewhere.run(f"{program}-{variant}-restore", "--noflush", "--test", text=text)


@pytest.mark.kernel
@pytest.mark.parametrize("name", ["appid-clear.nft", "appid-nat.nft"])
def test_nft_takes_the_golden_tables(somewhere: Namespace, name: str) -> None:
    text = (GOLDEN / name).read_text()
    somewhere.run("nft", "-c", "-f", "-", text=text)
    for _ in range(2):
        somewhere.run("nft", "-f", "-", text=text)
