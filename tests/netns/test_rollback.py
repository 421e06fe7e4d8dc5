"""A fault at every step of apply: what was there before is there again, byte for byte (iptables-save of both variants
and families and `nft list ruleset` without counters, `ipset save`).

The programs are the host's own, behind a wrapper on PATH that makes the one call fail: before it does anything, half
way through its input (nft is all or nothing), or after it has done all of it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from appid.dataplane.chain import Topology
from appid.dataplane.marks import Marks
from appid.dataplane.ruleset import VARIANTS, Variant
from appid.edge import iptables
from appid.edge.netlink import KernelError
from tests.netns.live import ALL, ROOT, ZONES
from tests.netns.net import Net, until
from tests.netns.playbook import TOPOLOGY, install
from tests.netns.test_rule_sets import CLASSES, SEVERAL, differing, others, state

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]

WRAPPER = """#!/bin/sh
case "$*" in *save*|*list*) exec {real} "$@";; esac
n=$(($(cat {folder}/count) + 1)); echo $n >{folder}/count
if [ $n != "$(cat {folder}/fail)" ]; then exec {real} "$@"; fi
case "$(cat {folder}/mode) $0" in
  before*|half*nft) cat >/dev/null;;
  half*) awk '/^COMMIT/ {{ print; exit }} {{ print }} !/^[*:#-]/ && NR == 3 {{ exit }}' | {real} "$@";;
  after*) {real} "$@";;
esac
echo injected >&2
exit 1
"""
PROGRAMS = ("ipset", "nft", *(f"{ip}tables-{variant}-restore" for ip in ("ip", "ip6") for variant in ("nft", "legacy")))


Move = Callable[[Net, Variant], None]


class Fault:
    """`at(k, mode)`: the k-th change fails."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for program in PROGRAMS:
            wrapper = folder / program
            wrapper.write_text(WRAPPER.format(real=shutil.which(program), folder=folder))
            wrapper.chmod(0o755)

    def at(self, number: int, mode: str) -> None:
        for name, value in (("count", 0), ("fail", number), ("mode", mode)):
            (self.folder / name).write_text(str(value))

    @property
    def calls(self) -> int:
        return int((self.folder / "count").read_text())


@pytest.fixture
def fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fault]:
    made = Fault(tmp_path)
    made.at(0, "before")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    yield made
    made.at(0, "before")


def fresh(net: Net, variant: Variant) -> None:
    """No rule of ours. iptables-legacy's tables cannot be unmade, so they are there before."""
    if variant == "legacy":
        others(net, variant)


def another(net: Net, variant: Variant) -> None:
    """Another topology in force, with a pinhole and a binding, and a jump that slipped down."""
    others(net, variant)
    install(net, variant, SEVERAL)
    net.gateway.run("ipset", "add", "appid-pinholes4", "10.77.1.2,udp:16402,198.51.100.2", "timeout", "0")
    net.gateway.run("nft", "add element inet appid-nat dnat4 { udp . 198.51.100.1 . 16402 . 198.51.100.2 timeout 1h : "
                    "10.77.1.2 . 16402 }")  # fmt: skip
    net.gateway.run(f"ip6tables-{variant}", "-t", "mangle", "-I", "FORWARD", "-p", "tcp", "-j", "OTHER")


def classes(net: Net, variant: Variant) -> None:
    """Chains that the next topology has no use for."""
    install(net, variant, CLASSES)


def crossed(net: Net, variant: Variant) -> None:
    """The same, in the other variant of iptables."""
    install(net, "legacy" if variant == "nft" else "nft", SEVERAL)
    if variant == "legacy":
        others(net, variant)


MOVES: dict[str, tuple[Move, Topology]] = {
    "first": (fresh, SEVERAL),
    "another": (another, Topology(("wan0",), ("10.77.0.0/16",), (77, 78), marks=Marks(0xFFF0F000))),
    "fewer chains": (classes, TOPOLOGY),
    "other variant": (crossed, TOPOLOGY),
}
IN_SHORT = {("nft", "first"), ("nft", "another"), ("nft", "fewer chains"), ("legacy", "another")}
PAIRS = [
    pytest.param(variant, move, marks=[] if (variant, move) in IN_SHORT else [pytest.mark.slow])
    for variant in VARIANTS for move in MOVES
]  # fmt: skip


def every_step(net: Net, variant: Variant, fault: Fault, target: Topology, modes: tuple[str, ...]) -> int:
    """Fails each step in each of the modes in turn; how many steps there are."""
    before = state(net)
    number = 0
    while True:
        number += 1
        for mode in modes:
            fault.at(number, mode)
            refused = refusal(net, variant, target)
            if refused is None:
                # There was no such step; or it was the last one, which had done its work when it complained; or all is
                # in force, and a set that nothing refers to any more did not go: it goes the next time.
                left = differing(net, target, variant)
                assert all(line.startswith("- ipset: create ") for line in left)
                assert not left or mode != "after"
                fault.at(0, mode)
                assert refusal(net, variant, target) is None
                assert differing(net, target, variant) == []
                return number - 1
            assert "injected" in refused
            assert "undone" not in refused
            fault.at(0, mode)
            assert state(net) == before, (number, mode)


def refusal(net: Net, variant: Variant, target: Topology) -> str | None:
    try:
        net.gateway.call(lambda: iptables.apply(target, variant))
    except KernelError as error:
        return error.reason
    return None


@pytest.mark.parametrize(("variant", "move"), PAIRS)
def test_a_fault_at_any_step_leaves_the_rules_of_before(bare: Net, variant: Variant, fault: Fault, move: str) -> None:
    start, target = MOVES[move]
    start(bare, variant)
    assert every_step(bare, variant, fault, target, ("half",)) >= 3


@pytest.mark.slow
@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("mode", ["before", "after"])
def test_a_fault_before_or_after_any_step(bare: Net, variant: Variant, fault: Fault, move: str, mode: str) -> None:
    start, target = MOVES[move]
    start(bare, variant)
    every_step(bare, variant, fault, target, (mode,))


def test_what_cannot_be_undone_is_said(bare: Net, fault: Fault, tmp_path: Path) -> None:
    """The program is gone after the first call."""
    (tmp_path / "ip6tables-nft-restore").write_text("#!/bin/sh\necho gone >&2\nexit 1\n")
    (tmp_path / "nft").write_text(
        f'#!/bin/sh\ncase "$*" in *list*) ;; *) [ -e {tmp_path}/once ] && {{ echo gone too >&2; exit 1; }};; esac\n'
        f'case "$*" in *list*) ;; *) touch {tmp_path}/once;; esac\nexec {shutil.which("nft", path="/usr/sbin")} "$@"\n'
    )
    with pytest.raises(KernelError, match=r"ip6tables.*gone; and it could not be undone: nft .*gone too"):
        bare.gateway.call(lambda: iptables.apply(TOPOLOGY, "nft"))


MEANWHILE = """#!/bin/sh
case "$*" in *list*) exec {real} "$@";; esac
input=$(cat)
case "$input" in *"insert rule ip filter FORWARD handle"*)
  [ -e {folder}/once ] || {{ touch {folder}/once; iptables-nft -F FORWARD; iptables-nft -A FORWARD -j OTHER; }};;
esac
printf "%s\\n" "$input" | exec {real} "$@"
"""


def test_a_neighbour_who_changes_his_rules_meanwhile_is_no_failure(
    bare: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between our look and our transaction the rule goes before which our jump is to stand, and comes again."""
    bare.gateway.run("iptables-nft", "-N", "OTHER")
    bare.gateway.run("iptables-nft", "-A", "FORWARD", "-j", "OTHER")
    wrapper = tmp_path / "nft"
    wrapper.write_text(MEANWHILE.format(real=shutil.which("nft"), folder=tmp_path))
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    bare.gateway.call(lambda: iptables.apply(TOPOLOGY, "nft"))
    assert (tmp_path / "once").exists()
    assert differing(bare, TOPOLOGY, "nft") == []
    assert "-A FORWARD -j OTHER" in bare.gateway.run("iptables-nft-save")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_command_that_is_told_to_end_half_way_undoes_first(bare: Net, tmp_path: Path, number: int) -> None:
    """IPv4's tables are changed by then, IPv6's program hangs. iptables-legacy has no transaction for both."""
    others(bare, "legacy")
    before = state(bare)
    hanging = tmp_path / "bin"
    hanging.mkdir()
    program = "ip6tables-legacy-restore"
    (hanging / program).write_text(
        f'#!/bin/sh\ncase "$*" in *--test*) exec {shutil.which(program)} "$@";; esac\n'
        f'[ -e {tmp_path}/once ] && exec {shutil.which(program)} "$@"\ntouch {tmp_path}/once\nexec sleep 60\n'
    )
    (hanging / program).chmod(0o755)
    (tmp_path / "policy.toml").write_text(ZONES + ALL)
    (tmp_path / "appid.toml").write_text(
        f'[gateway]\niptables = "legacy"\n[listen]\ncontrol = "{tmp_path}/control.sock"\n[paths]\n'
        f'policy = "{tmp_path}/policy.toml"\nrules = "{tmp_path}/rules"\n'
    )
    command = [sys.executable, "-m", "appid.cli.main", "rules", "apply", "-c", str(tmp_path / "appid.toml")]
    process = subprocess.Popen(
        ["ip", "netns", "exec", bare.gateway.name, *command], cwd=ROOT, stdout=subprocess.DEVNULL,
        env={**os.environ, "PATH": f"{hanging}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert until((tmp_path / "once").exists, 30)
    assert "APPID" in bare.gateway.run("iptables-legacy-save")
    process.send_signal(number)
    assert process.wait(30) == 128 + number
    assert state(bare) == before
