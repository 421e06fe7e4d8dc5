"""Programs of the host, and what is read of the kernel. Rule sets are applied and removed in tests/netns."""

from __future__ import annotations

import time
from functools import partial

import pytest

from appid.dataplane.chain import Topology
from appid.dataplane.converge import Step
from appid.dataplane.ruleset import NOTHING, At, Place, Variant, wanted
from appid.edge.iptables import apply, carry_out, ground, mend, read, remove, run, saved
from appid.edge.netlink import KernelError
from tests.netns.net import Namespace

TOPOLOGY = Topology(outside=("wan0",))


def test_what_a_program_prints_and_why_it_failed() -> None:
    assert run(["cat"], "text") == "text"
    with pytest.raises(KernelError, match=r"cat /no/such: .*No such file"):
        run(["cat", "/no/such"])
    with pytest.raises(KernelError, match="exit status 1"):
        run(["false"])
    with pytest.raises(KernelError, match="no-such-program"):
        run(["no-such-program"])


def test_steps_end_at_the_first_failure_or_go_on() -> None:
    todo = [Step(("true",)), Step(("cat", "/no/such")), Step(("false",))]
    with pytest.raises(KernelError, match="cat /no/such"):
        carry_out(todo)
    assert [error.command for error in carry_out(todo, on=True)] == ["cat /no/such", "false"]


@pytest.mark.kernel
def test_looking_makes_no_tables(space: Namespace) -> None:
    assert space.call(read) == NOTHING
    assert space.run("iptables-legacy-save") == "", "iptables-legacy -L would have made them"
    assert space.run("nft", "list", "ruleset") == ""


@pytest.mark.kernel
@pytest.mark.parametrize("variant", ["nft", "legacy"])
def test_what_was_applied_is_read_and_others_are_not_ours(space: Namespace, variant: Variant) -> None:
    space.run(f"iptables-{variant}", "-A", "FORWARD", "-p", "tcp", "-j", "ACCEPT")
    space.run("ipset", "create", "other", "hash:ip")
    before = space.call(lambda: saved(variant, 4, "filter"))
    space.call(lambda: apply(TOPOLOGY, variant))
    there, target = space.call(read), wanted(TOPOLOGY, variant)
    assert set(there.tables) == set(target.tables)
    assert set(there.sets) == set(target.sets)
    assert set(there.nft) == set(target.nft)
    filtering = there.held(Place(variant, 4, "filter"))
    assert set(filtering.jumps) == {
        At("FORWARD", 1, "-m mark ! --mark 0x4/0xf -j APPID"), At("FORWARD", 3, "-j APPID-ALLOWED"),
        At("INPUT", 1, "-j APPID-INPUT"),
    }  # fmt: skip
    assert filtering.others == {"FORWARD": 1}
    space.call(remove)
    assert [line for line in before.splitlines() if line[:1] != "#"] == [
        line for line in space.call(lambda: saved(variant, 4, "filter")).splitlines() if line[:1] != "#"
    ]
    assert space.run("ipset", "-n", "list").split() == ["other"]


@pytest.mark.kernel
@pytest.mark.parametrize("variant", ["nft", "legacy"])
def test_the_ground_is_sets_and_maps_without_a_way_to_them(space: Namespace, variant: Variant) -> None:
    space.call(lambda: ground(TOPOLOGY, variant))
    there, target = space.call(read), wanted(TOPOLOGY, variant)
    assert set(there.sets) == set(target.sets)
    assert set(there.nft) == {"appid-nat"}
    assert not there.tables
    assert space.run("iptables-legacy-save") + space.run("iptables-nft-save") == ""
    space.run("ipset", "add", "appid-pinholes4", "10.0.0.1,udp:16402,192.0.2.1", "timeout", "60")
    for work in (ground, apply, ground):
        space.call(partial(work, TOPOLOGY, variant))
    assert set(space.call(read).tables) == set(target.tables)
    assert "10.0.0.1,udp:16402" in space.run("ipset", "save", "appid-pinholes4")


@pytest.mark.kernel
def test_a_set_that_stays_in_use_is_named_and_all_else_is_gone(space: Namespace) -> None:
    space.call(lambda: apply(TOPOLOGY))
    space.run("iptables-legacy", "-A", "FORWARD", "-m", "set", "--match-set", "appid-pinholes4", "src,dst,dst")
    with pytest.raises(KernelError, match="appid-pinholes4"):
        space.call(remove)
    assert space.run("ipset", "-n", "list").split() == ["appid-pinholes4"]
    assert space.run("nft", "list", "ruleset") == ""
    space.run("iptables-legacy", "-F")
    space.call(remove)
    assert space.call(read).sets == {}


@pytest.mark.kernel
@pytest.mark.slow
def test_applying_takes_less_than_a_second(space: Namespace) -> None:
    begun = time.perf_counter()
    space.call(lambda: apply(Topology(outside=("wan0",))))
    assert time.perf_counter() - begun < 1


@pytest.mark.kernel
@pytest.mark.parametrize("variant", ["nft", "legacy"])
def test_what_others_did_to_our_rules_is_mended_and_not_what_an_admin_did(space: Namespace, variant: Variant) -> None:
    space.call(lambda: apply(TOPOLOGY, variant))
    standing = space.call(read)
    assert space.call(lambda: mend(TOPOLOGY, variant)) == []
    harm: tuple[tuple[str, ...], ...] = (
        (f"iptables-{variant}", "-I", "FORWARD", "-j", "ACCEPT"),
        (f"iptables-{variant}", "-F", "FORWARD"),
        (f"ip6tables-{variant}", "-t", "mangle", "-F"),
        ("nft", "delete", "table", "inet", "appid-clear"),
    )
    for command in harm:
        space.run(*command)
        assert space.call(lambda: mend(TOPOLOGY, variant)), command
        assert space.call(lambda: mend(TOPOLOGY, variant)) == [], command
    space.run(f"iptables-{variant}", "-D", "FORWARD", "-j", "ACCEPT", check=False)
    assert space.call(read).tables == standing.tables
    space.call(remove)
    assert space.call(lambda: mend(TOPOLOGY, variant, removed=True)) is None
    left = space.call(read)
    assert (left.tables, left.sets, left.nft) == ({}, {}, {})
    assert space.call(lambda: mend(TOPOLOGY, variant)), "it was no admin: another's flush took all"
    assert space.call(read).tables == standing.tables
