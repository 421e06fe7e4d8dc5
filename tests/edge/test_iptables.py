"""Programs of the host, and one family's rules. Whole rule sets are applied and removed in tests/netns."""

from __future__ import annotations

import time

import pytest

from appid.dataplane.chain import Topology, chain_set
from appid.dataplane.render import ipset_text, restore_text
from appid.edge.iptables import Iptables, Variant, apply, destroy_sets, run
from appid.edge.netlink import KernelError
from tests.netns.net import Namespace

RULES = chain_set(Topology(outside=("wan0",)), 4)


def test_what_a_program_prints_and_why_it_failed() -> None:
    assert run(["cat"], "text") == "text"
    with pytest.raises(KernelError, match=r"cat /no/such: .*No such file"):
        run(["cat", "/no/such"])
    with pytest.raises(KernelError, match="exit status 1"):
        run(["false"])


@pytest.mark.kernel
@pytest.mark.parametrize("variant", ["nft", "legacy"])
def test_a_familys_own_rules_are_told_from_others(space: Namespace, variant: Variant) -> None:
    tables = Iptables(variant)
    assert space.call(lambda: tables.ours(RULES)) is None
    assert space.call(lambda: tables.present(RULES)) == []
    space.run(f"iptables-{variant}", "-A", "FORWARD", "-j", "ACCEPT")
    space.run("ipset", "restore", text=ipset_text(RULES.sets))
    space.call(lambda: tables.restore(4, restore_text(RULES), test=True))
    assert space.call(lambda: tables.ours(RULES)) is None, "--test changes nothing"
    space.call(lambda: tables.restore(4, restore_text(RULES)))
    assert space.call(lambda: tables.present(RULES)) == list(RULES.jumps)
    ours = space.call(lambda: tables.ours(RULES))
    assert ours is not None
    assert "FORWARD" not in ours
    assert ours.count("-A ") == sum(len(chain.rules) for chain in RULES.chains)
    space.call(lambda: tables.restore(4, ours))
    assert space.call(lambda: tables.ours(RULES)) == ours


@pytest.mark.kernel
def test_a_set_that_stays_in_use_is_named_and_others_sets_are_left(space: Namespace) -> None:
    space.run("ipset", "create", "appid-x", "hash:ip")
    space.run("ipset", "create", "other", "hash:ip")
    space.run("iptables-legacy", "-A", "FORWARD", "-m", "set", "--match-set", "appid-x", "src")
    with pytest.raises(KernelError, match="appid-x"):
        space.call(destroy_sets)
    space.run("iptables-legacy", "-F")
    space.call(destroy_sets)
    assert space.run("ipset", "list", "-n").split() == ["other"]


@pytest.mark.kernel
@pytest.mark.slow
def test_applying_takes_less_than_a_second(space: Namespace) -> None:
    begun = time.perf_counter()
    space.call(lambda: apply(Topology(outside=("wan0",))))
    assert time.perf_counter() - begun < 1
