"""What the doctor says of hosts made so."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from pyroute2 import Ethtool

from appid.edge import iptables
from appid.edge.config import Config
from appid.edge.doctor import Finding, examine
from appid.edge.plan import Plan, load_plan
from tests.netns.live import ALL, ZONES
from tests.netns.net import Namespace, Net

pytestmark = pytest.mark.kernel


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    (tmp_path / "policy.toml").write_text(ZONES + ALL)
    return load_plan(Config(policy=tmp_path / "policy.toml", rules=tmp_path / "none", iptables="nft"))


def said(where: Namespace, plan: Plan, weight: str) -> list[str]:
    found: list[Finding] = where.call(lambda: examine(plan))
    return [f"{each.about}: {each.text}" for each in found if each.weight == weight]


def test_a_gateway_in_order(bare: Net, plan: Plan) -> None:
    assert said(bare.gateway, plan, "problem") == []
    assert said(bare.gateway, plan, "warning") == []
    notes = said(bare.gateway, plan, "note")
    assert notes[0].startswith("rules: not in the kernel")
    assert any(note.startswith("not inspected: the gateway's own traffic") for note in notes), "policy point 11"
    bare.gateway.call(lambda: iptables.apply(plan.topology(), "nft"))
    assert said(bare.gateway, plan, "note")[0] == "rules: in the kernel as configured (nft)"
    bare.gateway.run("iptables-nft", "-D", "FORWARD", "1")
    assert said(bare.gateway, plan, "warning") == ["rules: not as configured: `appid rules diff` lists 1 differences"]


def test_other_firewalls_of_the_host_that_stop_what_policy_allows(bare: Net, plan: Plan) -> None:
    """docker's policy in our own variant does not: there ours accept it."""
    bare.gateway.run("iptables-nft", "-P", "FORWARD", "DROP")
    assert said(bare.gateway, plan, "warning") == []
    bare.gateway.run("ip6tables-legacy", "-P", "FORWARD", "DROP")
    chain = "type filter hook forward priority 10\nct state established accept\nreject with icmpx admin-prohibited\n"
    bare.gateway.run("nft", "-f", "-", text=f"table inet fire {{\nchain forward {{\n{chain}}}\n}}\n")
    drops = "drops what it does not accept itself, also what policy allows"
    assert said(bare.gateway, plan, "warning") == [
        f"stopped: ip6tables-legacy (FORWARD's policy): {drops}", f"stopped: nft, inet fire chain forward: {drops}"
    ]  # fmt: skip


def test_so_does_iptables_nft_where_ours_are_iptables_legacys(bare: Net, plan: Plan) -> None:
    """Also a table that iptables-nft-save does not print, for a rule made with nft itself."""
    legacy = replace(plan, config=replace(plan.config, iptables="legacy"))
    bare.gateway.run("iptables-nft", "-P", "FORWARD", "DROP")
    bare.gateway.run("nft", "add rule ip filter FORWARD ct state established accept")
    assert [line.partition(": drops")[0] for line in said(bare.gateway, legacy, "warning")] == [
        "stopped: nft, ip filter chain FORWARD"
    ]
    bare.gateway.run("ip6tables-nft", "-t", "mangle", "-P", "FORWARD", "DROP")
    assert [line.partition(": drops")[0] for line in said(bare.gateway, plan, "warning")] == [
        "stopped: nft, ip6 mangle chain FORWARD"
    ], "in our own variant filter's is none"


def test_a_host_that_is_no_gateway(space: Namespace, plan: Plan) -> None:
    space.run("sysctl", "-qw", "net.ipv4.ip_forward=0", "net.ipv6.conf.all.forwarding=0")
    assert said(space, plan, "warning") == [
        "interface: lan0: a zone names it, but there is none", "interface: wan0: a zone names it, but there is none",
        "forwarding: IPv4 is not forwarded: sysctl net.ipv4.ip_forward=1",
        "forwarding: IPv6 is not forwarded: sysctl net.ipv6.conf.all.forwarding=1",
    ]  # fmt: skip


def test_bridged_frames_and_hidden_datagrams(bare: Net, plan: Plan) -> None:
    """Policy point 11."""
    gateway = bare.gateway
    gateway.run("ip", "link", "set", "lan0", "name", "port0")
    gateway.run("ip", "link", "add", "lan0", "type", "bridge")
    gateway.run("sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=0")

    def aggregate() -> None:
        with Ethtool() as ethtool:
            features = ethtool.get_features("wan0")
            features.features["rx-udp-gro-forwarding"].enable = True
            ethtool.set_features("wan0", features)

    gateway.call(aggregate)
    bridged, hidden = sorted(said(gateway, plan, "warning"), reverse=True)
    assert bridged.startswith("not inspected: frames bridged by lan0: they do not pass FORWARD")
    assert hidden.startswith("aggregation: wan0: rx-udp-gro-forwarding hides datagrams")
    gateway.run("sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=1")
    assert len(said(gateway, plan, "warning")) == 1


def test_flows_that_a_flowtable_took_over(
    bare: Net, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This kernel has no flowtables: nft's listing of one is put in (nft 1.0.6's own form)."""
    (tmp_path / "listing").write_text("table inet f {\n\tflowtable fast {\n\t\thook ingress priority filter\n\t}\n}\n")
    shown = f'[ "$*" = "list flowtables" ] && exec cat {tmp_path}/listing'
    (tmp_path / "nft").write_text(f'#!/bin/sh\n{shown}\nexec {shutil.which("nft")} "$@"\n')
    (tmp_path / "nft").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert said(bare.gateway, plan, "warning") == [
        "not inspected: flows that flowtable fast has taken over, ahead of FORWARD"
    ]


def test_a_port_of_a_bridge_is_no_interface_of_a_zone(bare: Net, plan: Plan) -> None:
    bare.gateway.run("ip", "link", "add", "br0", "type", "bridge")
    bare.gateway.run("ip", "link", "set", "lan0", "master", "br0")
    (warning,) = said(bare.gateway, plan, "warning")
    assert warning == "interface: lan0 is a port of br0: name that, packets arrive there"


def test_what_stands_in_the_way_comes_first(bare: Net, plan: Plan) -> None:
    bare.gateway.run("iptables-nft", "-t", "mangle", "-A", "PREROUTING", "-j", "MARK", "--set-mark", "1")
    (problem,) = said(bare.gateway, plan, "problem")
    assert problem.startswith("mark: mark bits")
