"""The unit in packaging/, under a real systemd: ready, reload, watchdog, kills, refusals, stop. With traffic."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.booted import SYSTEMD, Booted, booted, unified
from tests.netns.live import ALL, ZONES, rule
from tests.netns.net import CLIENT4, PEER4, Net, net, received, until

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not SYSTEMD.exists() or unified() is None, reason="no systemd, or no cgroup v2"),
]
CONFIG = '[gateway]\nworkers = 2\n[log]\nevents = "/var/log/appid/events.jsonl"\n'
NONE = rule("none", "deny", service='"any"')
HASTE = "[Service]\nWatchdogSec=4\n"
"""For the test alone: a supervisor that hangs is noticed sooner."""


@pytest.fixture
def place() -> Iterator[Net]:
    with net() as made:
        yield made


@pytest.fixture
def host(place: Net, tmp_path: Path) -> Iterator[Booted]:
    files = {
        "etc/appid/appid.toml": CONFIG,
        "etc/appid/policy.toml": ZONES + ALL,
        "etc/systemd/system/appid.service.d/haste.conf": HASTE,
    }
    with booted(place.gateway.name, tmp_path, files) as up:
        yield up


def write(host: Booted, path: str, text: str) -> None:
    host.run("sh", "-c", 'printf %s "$1" > "$0"', path, text)


def passes(place: Net, port: int) -> bool:
    """Whether a new flow does."""
    peer = place.peer.udp(PEER4, port)
    place.client.udp(CLIENT4, port).sendto(b"new", (PEER4, port))
    return received(peer) == [b"new"]


def main_pid(host: Booted) -> str:
    return host.show("appid", "MainPID")[0]


def test_a_service_managers_day(host: Booted, place: Net) -> None:
    host.run("systemctl", "start", "appid")  # comes back when it is ready, or fails
    assert host.show("appid", "ActiveState", "SubState", "Result") == ("active", "running", "success")
    rules = place.gateway.run("iptables-nft-save")
    assert "APPID" in rules, "ready: the chains stand"
    assert passes(place, 6001)
    # one decided flow, for all that follows
    client, peer = place.client.udp(CLIENT4, 5000), place.peer.udp(PEER4, 6000)

    def goes_on() -> bool:
        client.sendto(b"\xff", (PEER4, 6000))
        return received(peer, 0.1) == [b"\xff"]

    assert all(goes_on() for _ in range(12))
    assert "allow" in host.run("appid", "flows").stdout, "as an admin asks, at the default places"

    before = main_pid(host)
    write(host, "/etc/appid/policy.toml", "[[rule]]\nname = 1\n")
    refused = host.run("systemctl", "reload", "appid", check=False)
    assert refused.returncode == 1, "a policy that is refused is told to who reloads"
    assert "policy.toml" in host.journal("appid")
    assert passes(place, 6002), "the old one stays"
    write(host, "/etc/appid/policy.toml", ZONES + NONE)
    host.run("systemctl", "reload", "appid")
    assert not passes(place, 6003), "in force when the command comes back"
    assert host.show("appid", "ActiveState", "MainPID") == ("active", before)
    write(host, "/etc/appid/policy.toml", ZONES + ALL)
    host.run("systemctl", "reload", "appid")
    assert until(goes_on), "allowed again"
    assert all(goes_on() for _ in range(12)), "decided again"

    host.run("kill", "-KILL", before)
    assert goes_on(), "decided: the kernel's"
    place.gateway.run("conntrack", "-D", "-p", "udp", "--dport", "6001")  # ends while nothing runs
    assert until(lambda: host.show("appid", "ActiveState", "NRestarts") == ("active", "1"), 20)
    assert passes(place, 6004)
    assert goes_on()
    assert json.loads(host.run("appid", "stats", "--json").stdout)["flows_ended"] == 1, "and is counted all the same"

    host.run("systemctl", "stop", "appid")
    assert host.show("appid", "ActiveState", "Result", "ExecMainStatus") == ("inactive", "success", "0")
    assert "APPID" in place.gateway.run("iptables-nft-save"), "an upgrade: the chains stay"
    assert goes_on()
    assert not host.run("ls", "/run/appid", check=False).stdout
    host.run("systemctl", "start", "appid")
    assert goes_on()


def test_the_watchdog_restarts_what_hangs(host: Booted) -> None:
    host.run("systemctl", "start", "appid")
    before = main_pid(host)
    worker = host.run("pgrep", "-P", before).stdout.split()[0]
    host.run("kill", f"-{signal.SIGSTOP.value}", worker)
    assert until(lambda: "does not answer: killed" in host.journal("appid"), 20)
    assert main_pid(host) == before, "replaced by its supervisor, before the watchdog barks"
    host.run("kill", f"-{signal.SIGSTOP.value}", before)
    assert until(lambda: "watchdog" in host.journal("appid").lower(), 20)
    assert until(lambda: host.show("appid", "ActiveState", "NRestarts") == ("active", "1"), 30)
    assert main_pid(host) != before


def test_what_a_restart_does_not_mend_is_not_restarted(host: Booted, place: Net) -> None:
    """Status 2: a faulty file; 3: the host stands in the way. Each is in the journal, by name."""
    write(host, "/etc/appid/policy.toml", "[[rule]]\nname = 1\n")
    assert host.run("systemctl", "start", "appid", check=False).returncode == 1
    assert host.show("appid", "ActiveState", "ExecMainStatus", "NRestarts") == ("failed", "2", "0")
    assert "policy.toml" in host.journal("appid")
    write(host, "/etc/appid/policy.toml", ZONES + ALL)
    place.gateway.run("iptables-nft", "-t", "mangle", "-A", "FORWARD", "-j", "NFQUEUE", "--queue-num", "1")
    assert host.run("systemctl", "start", "appid", check=False).returncode == 1
    assert host.show("appid", "ActiveState", "ExecMainStatus", "NRestarts") == ("failed", "3", "0")
    assert "queue 1" in host.journal("appid")


def test_it_runs_with_few_rights(host: Booted) -> None:
    host.run("systemctl", "start", "appid")
    before = main_pid(host)
    for pid in (before, *host.run("pgrep", "-P", before).stdout.split()):
        status = host.run("cat", f"/proc/{pid}/status").stdout
        held = {line.split()[0]: line.split()[1] for line in status.splitlines() if line.startswith(("Cap", "NoNew"))}
        assert held["NoNewPrivs:"] == "1"
        assert int(held["CapBnd:"], 16) & ~(1 << 12 | 1 << 13 | 1 << 0) == 0, "net_admin, net_raw, chown"
        assert int(held["CapEff:"], 16) & ~(1 << 12 | 1 << 13 | 1 << 0) == 0
