"""Applying and removing on a real kernel: jumps once, nothing left, rules of others in place, all or nothing."""

from __future__ import annotations

import re
from functools import partial

import pytest

from appid.dataplane.chain import FAMILIES, Topology, chain_set
from appid.dataplane.diff import differences
from appid.dataplane.marks import Marks
from appid.edge import iptables
from appid.edge.iptables import Iptables, Variant
from appid.edge.netlink import KernelError
from appid.policy.rule import PacketMark, Qos
from tests.netns.net import Net
from tests.netns.playbook import TOPOLOGY, install

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(60)]
CLASSES = Topology(
    ("wan0",), TOPOLOGY.inside, (77,), marks=Marks(qos=0x0F000000), monitor=True,
    qos=(Qos(46), Qos(8, PacketMark(0x20, 0xF0)), Qos(0)),
)  # fmt: skip
SEVERAL = Topology(outside=("wan0", "wan1"), inside=("10.77.1.0/24", "fd00:77:1::/64"), queues=(77, 78, 79))


def state(net: Net, variant: str) -> str:
    """All rules and sets, without counters and comments."""
    parts = [net.gateway.run(f"{program}-{variant}-save") for program in ("iptables", "ip6tables")]
    parts += [net.gateway.run("nft", "list", "ruleset"), net.gateway.run("ipset", "list", "-n")]
    text = "\n".join(line for part in parts for line in part.splitlines() if not line.startswith("#"))
    return re.sub(r"\[\d+:\d+\]|counter packets \d+ bytes \d+", "", text)


def both_tables(variant: Variant, family: int) -> str:
    return "".join(Iptables(variant).save(family, table) for table in ("mangle", "filter"))


def others(net: Net, variant: str) -> None:
    """Chains as docker and fail2ban make them."""
    for line in (
        "-N DOCKER-USER", "-A FORWARD -j DOCKER-USER", "-A DOCKER-USER -j RETURN", "-N f2b-sshd",
        "-A INPUT -p tcp --dport 22 -j f2b-sshd", "-A f2b-sshd -j RETURN",
        "-t mangle -N OTHER", "-t mangle -A FORWARD -j OTHER",
    ):  # fmt: skip
        net.gateway.run(f"iptables-{variant}", *line.split())
        net.gateway.run(f"ip6tables-{variant}", *line.split())


@pytest.mark.parametrize("topology", [TOPOLOGY, SEVERAL, CLASSES], ids=["one queue", "three queues", "QoS, monitor"])
def test_the_kernel_shows_what_was_rendered(bare: Net, variant: Variant, topology: Topology) -> None:
    for _ in range(2):  # the second time changes nothing
        install(bare, variant, topology)
        for family in FAMILIES:
            saved = bare.gateway.call(partial(both_tables, variant, family))
            assert list(differences(chain_set(topology, family), saved)) == []


def test_remove_leaves_nothing(bare: Net, variant: Variant) -> None:
    others(bare, variant)
    before = state(bare, variant)
    install(bare, variant, SEVERAL)
    assert state(bare, variant) != before
    bare.gateway.call(lambda: iptables.remove(SEVERAL, variant))
    assert state(bare, variant) == before
    bare.gateway.call(lambda: iptables.remove(SEVERAL, variant))  # nothing there: no error
    assert state(bare, variant) == before


def test_rules_of_others_stay_in_place_and_order(bare: Net, variant: Variant) -> None:
    others(bare, variant)
    install(bare, variant)
    for program in ("iptables", "ip6tables"):
        saved = bare.gateway.run(f"{program}-{variant}-save", "-t", "filter")
        assert re.findall(r"-A FORWARD -j (\S+)", saved) == ["APPID", "DOCKER-USER"]
        assert re.findall(r"-A INPUT .*-j (\S+)", saved) == ["APPID-INPUT", "f2b-sshd"]


@pytest.mark.parametrize("broken", ["ip6tables-{0}-restore", "nft"])
def test_a_failure_leaves_what_was_there(
    bare: Net, variant: Variant, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    others(bare, variant)
    before = state(bare, variant)
    real = iptables.run

    def failing(command: list[str], text: str | None = None) -> str:
        if command[0] == broken.format(variant) and (text is None or "queue-num 77" in text or "type nat hook" in text):
            raise KernelError(command[0], "injected")
        return real(command, text)

    monkeypatch.setattr(iptables, "run", failing)
    with pytest.raises(KernelError, match="injected"):
        install(bare, variant)
    assert state(bare, variant) == before


def test_a_failed_change_goes_back_to_the_rule_set_of_before(
    bare: Net, variant: Variant, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(bare, variant)
    before = state(bare, variant)
    real = iptables.run

    def failing(command: list[str], text: str | None = None) -> str:
        if command[0] == f"ip6tables-{variant}-restore" and text and "blind -j ACCEPT" in text:
            raise KernelError(command[0], "injected")
        return real(command, text)

    monkeypatch.setattr(iptables, "run", failing)
    with pytest.raises(KernelError, match="injected"):
        install(bare, variant, Topology(("wan0",), TOPOLOGY.inside, (77,), blind="ACCEPT"))
    assert state(bare, variant) == before


def test_a_program_that_is_missing_is_named() -> None:
    with pytest.raises(KernelError, match="no-such-program"):
        iptables.run(["no-such-program"])
