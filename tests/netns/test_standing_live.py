"""How `appid run` stands on the host: with which capabilities, and before which hosts it refuses to start."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from appid.dataplane.chain import PINHOLES
from appid.dataplane.ruleset import VARIANTS, Variant
from appid.edge.privileges import NET_ADMIN, NET_RAW, held
from tests.netns.live import ALL, ROOT, ZONES, Live, live, rule
from tests.netns.net import CLIENT4, PEER4, PUBLIC4, Net, received, until
from tests.netns.test_nat_calls import Agent, talk

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120)]


def test_workers_hold_net_admin_alone_and_rules_still_change(bare: Net, tmp_path: Path, variant: Variant) -> None:
    with live(bare, tmp_path, ALL, variant) as gateway:
        (stats,) = gateway.ask("stats")
        for worker in stats["workers"]:
            for kind in ("CapEff", "CapPrm", "CapInh", "CapAmb"):
                assert held(worker["pid"], kind) == {NET_ADMIN}, kind
        supervisor = int(
            bare.gateway.run("sh", "-c", f"grep PPid /proc/{stats['workers'][0]['pid']}/status").split()[1]
        )
        assert held(supervisor) == {NET_ADMIN}
        assert held(supervisor, "CapPrm") == {NET_ADMIN, NET_RAW}, "for the programs that change rules"
        peer = bare.peer.udp(PEER4, 6000)
        bare.client.udp(CLIENT4, 5000).sendto(b"through", (PEER4, 6000))
        assert received(peer, least=1) == [b"through"]
        (answer,) = gateway.load(rule("all", "allow", service='"any"', dscp="46"))  # a chain more in mangle
        assert answer["type"] == "loaded", answer
        assert "--set-dscp 0x2e" in bare.gateway.run(f"iptables-{variant}-save", "-t", "mangle")


THEIRS = ("iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy")
SHORT = {("nft", "iptables-nft"), ("legacy", "ip6tables-legacy")}


@pytest.mark.parametrize(("variant", "program"), [
    pytest.param(variant, program, marks=[] if (variant, program) in SHORT else [pytest.mark.slow])
    for variant in VARIANTS for program in THEIRS
])  # fmt: skip
def test_what_stands_in_the_way_is_named_and_the_status_is_3(
    bare: Net, tmp_path: Path, variant: Variant, program: str
) -> None:
    """In whatever variant and family it stands."""
    bare.gateway.run(program, "-t", "mangle", "-A", "PREROUTING", "-j", "MARK", "--set-mark", "0x4000/0x4000")
    bare.gateway.run(
        program, "-t", "raw", "-A", "PREROUTING", "-p", "udp", "--dport", "5060", "-j", "CT", "--helper", "sip"
    )
    bare.gateway.run(program, "-A", "FORWARD", "-j", "NFQUEUE", "--queue-num", "0", "--queue-bypass")

    def rules() -> list[str]:
        saved = bare.gateway.run(f"{program}-save").splitlines()
        return [line.partition(" [")[0] for line in saved if line[0] != "#"]

    before = rules()
    (tmp_path / "policy.toml").write_text(ZONES + ALL)
    config = tmp_path / "appid.toml"
    config.write_text(f'[gateway]\niptables = "{variant}"\n[listen]\ncontrol = "{tmp_path}/control.sock"\n'
                      f'[paths]\npolicy = "{tmp_path}/policy.toml"\nrules = "{tmp_path}/rules"\n'
                      '[log]\nevents = "off"\n')  # fmt: skip
    done = subprocess.run(
        ["ip", "netns", "exec", bare.gateway.name, sys.executable, "-m", "appid.cli.main", "run", "-c", str(config)],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("appid:")]
    assert len(lines) == 3
    assert "mark bits 0x00004000" in lines[0]
    assert "mark_mask = " in lines[0], "a way out is shown"
    assert "queue 0" in lines[1]
    assert "SIP helper" in lines[2]
    assert rules() == before


def test_a_second_gateway_on_the_same_queue_is_refused(bare: Net, tmp_path: Path) -> None:
    with live(bare, tmp_path, ALL, "nft"):
        other = tmp_path / "other"
        other.mkdir()
        config = (tmp_path / "appid.toml").read_text().replace("control.sock", "other/control.sock")
        (other / "appid.toml").write_text(config.replace('"127.0.0.1:9466"', '"off"'))
        done = subprocess.run(
            ["ip", "netns", "exec", bare.gateway.name, sys.executable, "-m", "appid.cli.main", "run", "-c",
             str(other / "appid.toml")],
            cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 3
        assert "queue 0 has a listener already" in done.stderr


def test_what_cannot_begin_leaves_nothing_in_the_kernel(bare: Net, tmp_path: Path) -> None:
    """A worker that may not write its pcap: the sets that stood for it already go again."""
    (tmp_path / "policy.toml").write_text(ZONES + ALL)
    (tmp_path / "appid.toml").write_text(
        f'[listen]\ncontrol = "{tmp_path}/control.sock"\nmetrics = "off"\n'
        f'[paths]\npolicy = "{tmp_path}/policy.toml"\nrules = "{tmp_path}/rules"\nstate = "{tmp_path}/state"\n'
        f'[log]\nevents = "off"\nqueued = "{tmp_path}/missing/queued.pcap"\n'
    )
    done = subprocess.run(
        ["ip", "netns", "exec", bare.gateway.name, sys.executable, "-m", "appid.cli.main", "run", "-c",
         str(tmp_path / "appid.toml")],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode in (2, 3), done.stderr
    assert "queued.pcap" in done.stderr
    assert "Traceback" not in done.stderr
    assert bare.gateway.run("nft", "list", "ruleset") + bare.gateway.run("ipset", "-n", "list") == ""


def test_who_is_told_to_end_while_it_begins_takes_along_what_it_brought(bare: Net, tmp_path: Path) -> None:
    """At moments between the first set and `ready`; logrotate and a closed terminal do not end it."""
    gateway = Live(bare, tmp_path, ALL, "nft")
    assert gateway.stop() == 0

    def there(what: str) -> bool:
        listing = ("ipset", "-n", "list") if what in PINHOLES.values() else ("iptables-nft-save",)
        return what in bare.gateway.run(*listing)

    for moment in (PINHOLES[4], "APPID-ALLOWED", None):
        gateway.log.unlink()
        with gateway.log.open("ab") as log:
            gateway.process = subprocess.Popen(gateway.command, cwd=ROOT, stdout=log, stderr=log)
        if moment is not None:
            assert until(partial(there, moment))
        else:
            time.sleep(0.3)  # its interpreter alone
        for number in (signal.SIGUSR1, signal.SIGHUP) if moment is not None else ():
            gateway.process.send_signal(number)
        gateway.process.send_signal(signal.SIGTERM)
        if moment is not None:
            gateway.process.send_signal(signal.SIGHUP)
        assert gateway.process.wait(20) in (0, -signal.SIGTERM), gateway.text()
        assert gateway.process.returncode == 0 or moment is None, "before it began"
        assert "Traceback" not in gateway.text()
        assert "ERROR" not in gateway.text()
        left = bare.gateway.run("ipset", "-n", "list") + bare.gateway.run("nft", "list", "tables")
        assert "appid" not in left


@pytest.mark.slow
@pytest.mark.parametrize("by", ["itself", "reload"])
def test_what_others_flushed_holds_its_calls_again(bare: Net, tmp_path: Path, by: str) -> None:
    """`systemctl reload nftables`, and a set emptied beside: bindings and pinholes come back with what held them. A
    script that reloads us next has them back at once."""
    bare.masquerade()
    policy = rule("sip", "allow", "sip", service='"any"')
    with live(bare, tmp_path, policy, "nft") as gateway:
        phone, far = Agent(bare.client, CLIENT4, 16402), Agent(bare.peer, PEER4, 30000)
        talk(phone, far, "one")
        bare.gateway.run("ipset", "flush", "appid-pinholes4")
        bare.gateway.run("nft", "flush", "ruleset")
        bare.masquerade()
        if by == "reload":
            bare.gateway.run("ipset", "destroy", check=False)
            assert gateway.load(policy)[0]["type"] == "loaded"
        else:
            assert until(lambda: "put back" in gateway.text(), 15)

        def stands() -> bool:
            return f"{CLIENT4},udp:16402,{PEER4}" in bare.gateway.run("ipset", "save") and (
                f"{CLIENT4} . 16402 . {PEER4}" in bare.gateway.run("nft", "list", "map", "inet", "appid-nat", "snat4")
            )

        assert until(stands, 2)
        far.media[0].sendto(b"\x80back", (PUBLIC4, 16402))
        assert received(phone.media[0], least=1) == [b"\x80back"]


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["nft", "legacy"])
def test_rules_that_are_all_gone_come_back_unless_an_admin_removed_them(
    bare: Net, tmp_path: Path, variant: Variant
) -> None:
    def appid(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["ip", "netns", "exec", bare.gateway.name, sys.executable, "-m", "appid.cli.main", *words, "-c",
             str(tmp_path / "appid.toml")],
            cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def there() -> bool:
        return "-j APPID" in bare.gateway.run(f"iptables-{variant}-save")

    with live(bare, tmp_path, ALL, variant) as gateway:
        for command in ("iptables-legacy -t mangle -F", "iptables-legacy -F", "iptables-legacy -X",
                        "iptables-legacy -t mangle -X", "nft flush ruleset", "ipset destroy"):  # fmt: skip
            bare.gateway.run(*command.split(), check=False)
        if variant == "nft":
            assert not there()
        assert until(there, 15)
        assert until(lambda: gateway.metric("appid_rules_in_force") == 1)
        done = appid("rules", "remove")
        assert (done.returncode, "until it is reloaded" in done.stderr) == (0, True)
        assert until(lambda: "no rules are in force" in gateway.text(), 15)
        assert not there()
        assert gateway.metric("appid_rules_in_force") == 0
        assert gateway.ask("stats")[0]["rules_in_force"] is False
        doctor = appid("doctor")
        assert "though a gateway runs" in doctor.stdout, doctor
        gateway.hang_up(ALL)
        assert until(there)
        assert gateway.ask("stats")[0]["rules_in_force"] is True


def test_the_service_manager_hears_of_it(bare: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """sd_notify(3), as packaging/systemd/appid.service has it: ready once it serves, alive while the verdict loops
    answer, stopping at the end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        with live(bare, tmp_path, ALL, "nft") as gateway:
            assert manager.recv(64).startswith(b"FDSTORE=1\n")
            assert manager.recv(64) == b"READY=1"
            assert manager.recv(64) == b"WATCHDOG=1"
            gateway.hang_up(ALL)
            before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            heard = [told for told in (manager.recv(64) for _ in range(5)) if told != b"WATCHDOG=1"]
            word, _, when = heard[0].decode().partition("\nMONOTONIC_USEC=")
            assert word == "RELOADING=1"
            assert abs(int(when) - before) < 5_000_000
            assert heard[1] == b"READY=1"
        told = []
        manager.settimeout(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                told.append(manager.recv(64))
        assert told[-1] == b"STOPPING=1"


@pytest.mark.slow
def test_the_watchdog_hears_nothing_while_a_verdict_loop_hangs(
    bare: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the time that a worker may take to answer and its replacement, which comes at once, and for as long as
    the supervisor itself hangs."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        with live(bare, tmp_path, ALL, "nft", gateway='on_stop = "remove"\nworkers = 2') as gateway:
            (_, victim) = (worker["pid"] for worker in gateway.ask("stats")[0]["workers"])
            os.kill(victim, signal.SIGSTOP)
            hung = time.monotonic()
            assert until(lambda: "does not answer: killed" in gateway.text(), 15)
            assert 8 < time.monotonic() - hung < 14
            assert until(lambda: all(worker["alive"] for worker in gateway.ask("stats")[0]["workers"]))
            gateway.process.send_signal(signal.SIGSTOP)
            time.sleep(0.2)
            drain(manager)
            time.sleep(3)
            assert drain(manager) == []
            gateway.process.send_signal(signal.SIGCONT)
            assert manager.recv(64) == b"WATCHDOG=1"


def drain(manager: socket.socket) -> list[bytes]:
    told = []
    manager.settimeout(0)
    with contextlib.suppress(BlockingIOError):
        while True:
            told.append(manager.recv(64))
    manager.settimeout(20)
    return told


@pytest.mark.parametrize("variant", ["nft", pytest.param("legacy", marks=pytest.mark.slow)])
def test_rules_that_others_moved_or_took_away_stand_again(bare: Net, tmp_path: Path, variant: Variant) -> None:
    """At a reload at once, else within ten seconds; and nobody is let in meanwhile for longer than that."""
    program = f"iptables-{variant}"

    def jumps() -> list[str]:
        saved = bare.gateway.run(f"{program}-save", "-t", "filter")
        return [line.split()[-1] for line in saved.splitlines() if line.startswith("-A FORWARD")]

    with live(bare, tmp_path, ALL, variant) as gateway:
        standing = jumps()
        bare.gateway.run(program, "-I", "FORWARD", "-j", "ACCEPT")
        gateway.hang_up(ALL)
        assert until(lambda: jumps() == [standing[0], "ACCEPT", *standing[1:]], 10)
        bare.gateway.run(program, "-F", "FORWARD")
        bare.gateway.run("sysctl", "-qw", "net.netfilter.nf_conntrack_acct=0")
        assert until(lambda: jumps() == standing, 15)
        assert until(lambda: "another program had changed our rules" in gateway.text())
        assert until(lambda: "nf_conntrack_acct was off" in gateway.text())
        assert bare.gateway.run("sysctl", "-n", "net.netfilter.nf_conntrack_acct").strip() == "1"
        assert gateway.metric("appid_rules_mended_total")
