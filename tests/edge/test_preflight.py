"""What is found before anything is changed, on real kernels with the rules of others. A feature that is missing cannot
be had here: there a wrapper of iptables-restore refuses what iptables refuses then (its words, of 1.8.9)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from appid.dataplane.chain import Topology
from appid.dataplane.marks import Marks
from appid.dataplane.ruleset import Variant
from appid.edge import iptables
from appid.edge.nfqueue import Queue
from appid.edge.preflight import UnfitError, check, problems
from tests.netns.live import ALL, ROOT, ZONES
from tests.netns.net import Namespace

pytestmark = pytest.mark.kernel
TOPOLOGY = Topology(outside=("wan0",), inside=("10.0.0.0/8",), queues=(31, 32))


def found(
    space: Namespace, variant: Variant = "nft", topology: Topology = TOPOLOGY, starting: bool = True
) -> list[str]:
    return [str(each) for each in space.call(lambda: problems(topology, variant, starting))]


@pytest.mark.parametrize("variant", ["nft", "legacy"])
def test_nothing_is_wrong_here_and_looking_leaves_nothing(space: Namespace, variant: Variant) -> None:
    assert found(space, variant) == []
    assert space.run("nft", "list", "ruleset") == ""
    assert space.run("ipset", "-n", "list") == ""
    space.call(lambda: iptables.apply(TOPOLOGY, variant))
    assert found(space, variant) == [], "our own rules are not in our way"


@pytest.mark.parametrize(
    ("program", "rule", "kind", "says"),
    [
        ("iptables-nft", "-t mangle -A PREROUTING -j MARK --set-mark 0x4000/0x4000", "mark", "0x00004000"),
        ("ip6tables-nft", "-t mangle -A POSTROUTING -j MARK --set-mark 1", "mark", "ip6tables-nft -t mangle -A"),
        ("iptables-legacy", "-t mangle -A FORWARD -j CONNMARK --restore-mark", "mark", "iptables-legacy -t mangle"),
        ("iptables-nft", "-A FORWARD -m connmark --mark 0x1 -j DROP", "mark", "iptables-nft -t filter -A FORWARD"),
        ("iptables-legacy", "-A INPUT -j NFQUEUE --queue-balance 30:31", "queue", "queue 31"),
        ("iptables-nft", "-t raw -A PREROUTING -p udp --dport 5060 -j CT --helper sip", "helper", "--dport 5060"),
        ("ip rule", "add fwmark 0x2/0xff lookup 100", "mark", "fwmark 0x2/0xff"),
        ("nft", "add table ip t; add chain ip t c; add rule ip t c ct mark set 0x5", "mark", "nft: table ip t chain c"),
        ("nft", 'add table inet h; add ct helper inet h s { type "sip" protocol udp; }; add chain inet h c; '
                'add rule inet h c udp dport 5060 ct helper set "s"', "helper", "nft: table inet h chain c"),
        ("nft", 'add table ip h; add ct helper ip h s { type "sip" protocol udp; }; add chain ip h c; '
                'add rule ip h c ct helper set udp dport map { 5060 : "s" }', "helper", "nft: table ip h chain c"),
    ],
)  # fmt: skip
def test_what_others_use_is_named(space: Namespace, program: str, rule: str, kind: str, says: str) -> None:
    space.run(*program.split(), *([rule] if program == "nft" else rule.split()))
    (problem,) = space.call(lambda: problems(TOPOLOGY, "nft"))
    assert problem.kind == kind
    assert says in problem.text


@pytest.mark.parametrize(
    ("program", "rule"),
    [
        ("iptables-nft", "-t mangle -A PREROUTING -j MARK --set-mark 0x10/0xf0"),
        ("iptables-nft", "-A FORWARD -m connmark --mark 0x100/0xffff00 -j ACCEPT"),  # asks for an application
        ("iptables-nft", "-A FORWARD -j NFQUEUE --queue-num 30"),
        ("iptables-nft", "-t raw -A OUTPUT -p udp --dport 5060 -j CT --helper sip"),  # the gateway's own calls
        ("ip rule", "add fwmark 0x20/0xf0 lookup 100"),
    ],
)
def test_what_does_not_concern_us_is_let_be(space: Namespace, program: str, rule: str) -> None:
    space.run(*program.split(), *rule.split())
    assert found(space) == []


def test_a_mask_that_is_free_is_offered_and_works(space: Namespace) -> None:
    space.run("iptables-nft", "-t", "mangle", "-A", "PREROUTING", "-j", "MARK", "--set-mark", "0x4000/0x4000")
    (said,) = found(space)
    mask = int(said.split("mark_mask = ")[1].split()[0], 16)
    assert found(space, topology=Topology(queues=(31,), marks=Marks(mask))) == []


def test_all_is_said_at_once_and_refused(space: Namespace) -> None:
    space.run("iptables-nft", "-t", "mangle", "-A", "PREROUTING", "-j", "MARK", "--set-mark", "1")
    space.run("iptables-nft", "-A", "FORWARD", "-j", "NFQUEUE", "--queue-num", "32")
    with pytest.raises(UnfitError) as refused:
        space.call(lambda: check(TOPOLOGY, "nft"))
    assert [problem.kind for problem in refused.value.problems] == ["mark", "queue"]


def test_another_listener_is_named(space: Namespace) -> None:
    queue = space.call(lambda: Queue(32, lambda held: None, lambda held: None))
    (said,) = found(space)
    assert f"process {os.getpid()}" in said
    assert said.startswith("queue 32 has a listener already: ")
    queue.close()
    assert found(space) == []


@pytest.mark.parametrize(
    ("program", "words", "refusal", "says"),
    [
        ("iptables-nft-restore", "-m bpf", "Extension bpf revision 0 not supported, missing kernel module?", "xt_bpf"),
        ("ip6tables-nft-restore", "NFQUEUE", "Extension NFQUEUE revision 0 not supported, missing kernel module?",
         "xt_NFQUEUE"),
        ("iptables-nft-restore", "REJECT", "Extension REJECT revision 0 not supported, missing kernel module?",
         "ipt_REJECT"),
        ("nft", "map inet", "Error: Could not process rule: Operation not supported", "nf_tables maps"),
        ("ipset", "create", "ipset v7.17: Kernel error received: Invalid argument", "ip_set_hash_ipportip"),
    ],
)  # fmt: skip
def test_a_missing_feature_is_named(
    space: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, words: str, refusal: str, says: str
) -> None:
    wrapper = tmp_path / program
    wrapper.write_text(
        f'#!/bin/sh\ninput=$(cat)\ncase "$input" in *"{words}"*) echo "{refusal}" >&2; exit 2;; esac\n'
        f'printf "%s\\n" "$input" | exec {shutil.which(program)} "$@"\n'
    )
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    said = found(space)
    assert said
    assert any(says in each and refusal in each for each in said), said
    assert all("the kernel lacks" in each for each in said)


def test_an_iptables_that_is_too_old_is_named(
    space: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "iptables-nft").write_text("#!/bin/sh\necho 'iptables v1.8.7 (nf_tables)'\n")
    (tmp_path / "iptables-nft").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (said,) = found(space)
    assert "1.8.7" in said
    assert found(space, "legacy") == []


@pytest.mark.parametrize("variant", ["nft", "legacy"])
def test_a_missing_capability_is_named_as_such(space: Namespace, tmp_path: Path, variant: str) -> None:
    (tmp_path / "policy.toml").write_text(ZONES + ALL)
    (tmp_path / "appid.toml").write_text(f'[gateway]\niptables = "{variant}"\n[listen]\ncontrol = "{tmp_path}/c.sock"\n'
                                         f'[paths]\npolicy = "{tmp_path}/policy.toml"\n')  # fmt: skip
    done = subprocess.run(
        ["ip", "netns", "exec", space.name, "setpriv", "--bounding-set=-all,+net_admin", "--inh-caps=-all,+net_admin",
         sys.executable, "-m", "appid.cli.main", "rules", "apply", "-c", str(tmp_path / "appid.toml")],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    said = "appid: this process lacks CAP_NET_RAW: start it as root, or with both\n"
    assert (done.returncode, done.stderr) == (3, said)


def test_a_missing_program_is_named(space: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for program in ("ip", "nft", "iptables-nft", "iptables-nft-restore", "ip6tables-nft-restore"):
        (tmp_path / program).symlink_to(str(shutil.which(program)))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "no program ipset: install it" in found(space)
