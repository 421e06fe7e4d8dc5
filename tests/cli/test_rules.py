"""`appid rules`, as an operator uses it, in a namespace of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from appid.cli.main import main
from appid.edge import turn
from tests.netns.live import ALL, ROOT, ZONES
from tests.netns.net import Namespace, Net, until
from tests.netns.test_rule_sets import state

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120)]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "policy.toml").write_text(ZONES + ALL)
    file = tmp_path / "appid.toml"
    file.write_text(
        f'[gateway]\niptables = "nft"\n[listen]\ncontrol = "{tmp_path}/control.sock"\n[paths]\n'
        f'policy = "{tmp_path}/policy.toml"\nrules = "{tmp_path}/rules"\n'
    )
    return file


Outcome = tuple[int, str, str]
Rules = Callable[..., Outcome]


def start(space: Namespace, config: Path, *words: str, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
    """As a process of its own."""
    return subprocess.Popen(
        ["ip", "netns", "exec", space.name, sys.executable, "-m", "appid.cli.main", "rules", *words, "-c", str(config)],
        cwd=ROOT, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


@pytest.fixture
def rules(space: Namespace, config: Path, capsys: pytest.CaptureFixture[str]) -> Rules:
    """Status, standard output and standard error of `appid rules WORDS`."""

    def run(*words: str) -> Outcome:
        capsys.readouterr()
        status = space.call(lambda: main(["rules", *words, "-c", str(config)]))
        return (status, *capsys.readouterr())

    return run


def test_render_diff_apply_remove(space: Namespace, config: Path, rules: Rules) -> None:
    status, out, _ = rules("diff")
    assert status == 1
    assert {line[0] for line in out.splitlines()} == {"+"}
    assert rules("apply") == (0, "in force: iptables-nft, IPv4 and IPv6\n", "")
    assert rules("diff") == (0, "the kernel holds what is configured\n", "")
    space.run("iptables-nft", "-D", "APPID", "-m", "connmark", "--mark", "0x3/0x3", "-j", "DROP")
    status, out, _ = rules("diff", "--json")
    assert (status, json.loads(out)) == (1, {
        "type": "difference", "sign": "+", "where": "iptables-nft filter",
        "text": "-A APPID -m connmark --mark 0x3/0x3 -j DROP",
    })  # fmt: skip
    assert rules("remove")[0] == 0
    assert space.run("nft", "list", "ruleset") + space.run("ipset", "list") == ""


def test_what_is_rendered_is_what_apply_makes(space: Namespace, config: Path, rules: Rules) -> None:
    """Each part into its program by hand; then there is no difference."""
    status, out, _ = rules("render", "--json")
    assert status == 0
    for part in map(json.loads, out.splitlines()):
        space.run(*part["command"], text=part["text"])
    assert rules("diff")[0] == 0
    _, whole, _ = rules("render")
    assert [line for line in whole.splitlines() if line.startswith("# ip") or line == "# nft -f -"] == [
        "# ipset -exist restore", "# nft -f -", "# iptables-restore --noflush", "# ip6tables-restore --noflush"
    ]  # fmt: skip


def test_the_documented_ports_say_what_they_open(space: Namespace, config: Path, rules: Rules) -> None:
    status, out, _ = rules("render", "--static", "facetime", "--part", "iptables")
    assert status == 0
    assert "# outward 4 tcp ports and 34 udp ports: from 256 IPv4" in out
    space.run("iptables-restore", "--noflush", "--test", text=out)
    assert rules("render", "--static", "nothing") == (
        2, "", "appid: --static: nothing: no such application\n"
    )  # fmt: skip


def test_faults_have_their_status(space: Namespace, config: Path, rules: Rules) -> None:
    space.run("iptables-nft", "-t", "mangle", "-A", "PREROUTING", "-j", "MARK", "--set-mark", "1")
    space.run("iptables-nft", "-A", "FORWARD", "-j", "NFQUEUE", "--queue-num", "0")
    status, _, err = rules("apply")
    assert status == 3
    assert [line.split()[1] for line in err.splitlines()] == ["mark", "queue"], "one line each"
    assert "APPID" not in space.run("iptables-nft-save")
    (config.parent / "policy.toml").write_text("colour = 1\n")
    status, _, err = rules("diff")
    assert (status, err) == (2, f"appid: {config.parent}/policy.toml: colour: no such key\n")


def test_enter_or_confirm_keeps_it(space: Namespace, config: Path, rules: Rules) -> None:
    terminal, theirs = os.openpty()
    process = start(space, config, "apply", "--confirm", "60", stdin=theirs)
    os.write(terminal, b"\n")
    out, _ = process.communicate(timeout=60)
    for descriptor in (terminal, theirs):
        os.close(descriptor)
    assert process.returncode == 0
    assert out.splitlines()[-1] == "confirmed: it stays"
    process = start(space, config, "apply", "--confirm", "60", "--json")
    assert until(lambda: (config.parent / "rules.sock").exists(), 20)
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["state"] == "applied"
    assert rules("apply")[0] == 1, "one change at a time"
    assert rules("remove")[0] == 1
    assert rules("confirm") == (0, "confirmed: it stays\n", "")
    assert process.wait(20) == 0
    assert rules("confirm")[0] == 1


def test_the_next_line_of_a_script_is_no_enter(space: Namespace, config: Path) -> None:
    """`ssh gateway sh < script`: what follows the command is its standard input."""
    process = start(space, config, "apply", "--confirm", "1", stdin=subprocess.PIPE)
    out, _ = process.communicate("\n\n", timeout=60)
    assert process.returncode == 1
    assert out.splitlines() == ["in force for 1 s; `appid rules confirm` keeps it",
                                "not confirmed: the rules of before are back"]  # fmt: skip


def test_without_standard_input_and_output_it_still_undoes_itself(space: Namespace, config: Path) -> None:
    command = f'"{sys.executable}" -m appid.cli.main rules apply --confirm 1 -c "{config}" <&- >&-'
    done = subprocess.run(["ip", "netns", "exec", space.name, "sh", "-c", command], cwd=ROOT, check=False,
                          capture_output=True, text=True, timeout=30)  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "")
    assert "APPID" not in space.run("iptables-nft-save")


@pytest.mark.parametrize("given", ["x", "0", "nan", "86401"])
def test_what_is_no_number_of_seconds_is_said_in_plain_words(rules: Rules, given: str) -> None:
    status, out, err = rules("apply", "--confirm", given)
    assert (status, out) == (2, "")
    assert f"argument --confirm: '{given}' is no number of seconds between 1 and 86400" in err


def test_changes_at_the_same_time_come_one_after_another(space: Namespace, config: Path, rules: Rules) -> None:
    """Two policies, twice each, and remove: each has its turn, and what is there in the end is one of them whole."""
    other = config.with_name("other.toml")
    other.write_text(
        config.read_text().replace('iptables = "nft"', 'iptables = "nft"\nfirst_queue = 7\nallowed = "first"')
    )
    running = [start(space, file, "apply") for file in (config, other, config, other)] + [
        start(space, config, "remove")
    ]
    ended = [process.communicate(timeout=60) for process in running]
    assert [process.returncode for process in running] == [0] * 5, ended
    there = [space.call(partial(main, ["rules", "diff", "-c", str(file)])) for file in (config, other)]
    assert there.count(0) == 1 or space.run("nft", "list", "ruleset") + space.run("ipset", "list") == ""


def test_who_has_the_turn_is_named(config: Path, rules: Rules, monkeypatch: pytest.MonkeyPatch) -> None:
    with turn.taken(turn.beside(config.with_name("control.sock")), "something else"):
        monkeypatch.setattr(turn, "PATIENCE", 0.2)
        status, _, err = rules("remove")
        assert (status, err) == (3, f"appid: {config.parent}/rules.lock: the rules are being changed by process "
                                    f"{os.getpid()}, something else\n")  # fmt: skip


def test_beside_a_running_gateway_only_its_own_rules_are_in_force(space: Namespace, config: Path, rules: Rules) -> None:
    with turn.taken(config.with_name("control.lock"), "a gateway"):
        status, _, err = rules("apply")
        assert (status, err) == (1, "appid: a gateway runs, and keeps its own rules in force: reload it, or stop it\n")
        assert "APPID" not in space.run("iptables-nft-save")
    assert rules("apply")[0] == 0
    with turn.taken(config.with_name("control.lock"), "a gateway"):
        assert rules("apply")[0] == 0, "nothing differs"


def session(net: Net) -> tuple[socket.socket, socket.socket]:
    """The admin's connection through the gateway, both ends."""
    with net.peer.listen("198.51.100.2", 2222) as server:
        admin = net.client.tcp("10.77.1.2")
        admin.connect(("198.51.100.2", 2222))
        return admin, server.accept()[0]


@pytest.mark.parametrize("variant", ["nft", pytest.param("legacy", marks=pytest.mark.slow)])
@pytest.mark.parametrize("end", ["hang-up, then kill", "kill of the command alone"])
def test_a_locked_out_admin_gets_back_in(bare: Net, config: Path, end: str, variant: str) -> None:
    """Policy: nothing passes without the engine, and none runs. The session stalls, and the command dies with it; then
    what was before is back in time, the connection goes on where it was, and nothing that was sent is lost."""
    config.write_text(config.read_text().replace('"nft"', f'"{variant}"'))
    admin, far = session(bare)
    saved = f"iptables-{variant}-save"
    bare.gateway.run(f"iptables-{variant}", "-A", "INPUT", "-p", "tcp", "--dport", "22", "-j", "ACCEPT")
    before = state(bare)
    process = start(bare.gateway, config, "apply", "--confirm", "3")
    assert process.stdout is not None
    assert process.stdout.readline().startswith("in force for 3 s")
    admin.sendall(b"are you there?")
    far.settimeout(0.5)
    with pytest.raises(TimeoutError):
        far.recv(100)
    if end.startswith("hang-up"):
        os.killpg(process.pid, signal.SIGHUP)
        time.sleep(0.1)
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait(10)
    with bare.client.tcp("10.77.1.2") as another:
        another.settimeout(0.3)
        with pytest.raises(OSError, match=r"timed out|unreachable"):
            another.connect(("198.51.100.2", 2222))
    assert "APPID" in bare.gateway.run(saved)
    far.settimeout(20)
    assert far.recv(100) == b"are you there?", "the same connection"
    far.sendall(b"yes")
    assert admin.recv(100) == b"yes"
    assert until(lambda: not (config.parent / "rules.sock").exists())
    if variant == "nft":  # iptables-legacy's tables stay, empty
        assert state(bare) == before
    else:
        assert "APPID" not in bare.gateway.run(saved)
    for each in (admin, far):
        each.close()


HELD = """mount -t tmpfs none /run
flock --no-fork /run/xtables.lock sleep {seconds} >/dev/null 2>&1 &
until ! flock --nonblock /run/xtables.lock true; do sleep 0.01; done
"{python}" -m appid.cli.main rules apply -c "{config}"
status=$?
kill $! 2>/dev/null
exit $status
"""
"""In a mount namespace, so that nobody else finds the lock taken."""


@pytest.mark.parametrize("seconds", [1, pytest.param(60, marks=pytest.mark.slow)])
def test_the_lock_of_iptables_legacy_is_waited_for_but_not_for_long(
    space: Namespace, config: Path, seconds: int
) -> None:
    config.write_text(config.read_text().replace('"nft"', '"legacy"'))
    before = state_of(space)
    script = HELD.format(seconds=seconds, python=sys.executable, config=config)
    begun = time.monotonic()
    done = subprocess.run(
        ["ip", "netns", "exec", space.name, "unshare", "-m", "sh", "-c", script],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=50,
    )  # fmt: skip
    if seconds == 1:
        assert (done.returncode, done.stderr) == (0, "")
        return
    assert done.returncode == 3
    assert re.fullmatch(r"appid: iptables-legacy-restore .*holding the xtables lock. Stopped waiting after 5s.\n",
                        done.stderr)  # fmt: skip
    assert time.monotonic() - begun < 15
    assert state_of(space) == before


def state_of(space: Namespace) -> str:
    return space.run("nft", "list", "ruleset") + space.run("ipset", "list") + space.run("iptables-legacy-save")
