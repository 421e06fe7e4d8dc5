"""The gateway's place: with Apple's ports forwarded and no appid (the control run), or with `appid run` inline.

In: a Lab, a policy. Out: a running gateway in its own namespace; its answers over the control socket, its log, its
events, its record of queued packets.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from ipaddress import ip_network
from pathlib import Path
from subprocess import Popen
from typing import Any

from tests.lab.net import ROOT, Lab
from tests.lab.scenario import APPLE_PORTS, Scenario

READY_WITHIN = 20.0
Table = dict[str, Any]

_ZONES = """\
[zones]
inside  = {{ interfaces = ["lan0"], networks = ["{network}"] }}
outside = {{ interfaces = ["wan0"] }}

[defaults]
action = "{default}"
undecided_packets = 10
"""
_ALLOW_FACETIME = """
[[rule]]
name = "facetime for everyone inside"
from = ["inside"]
to = ["outside"]
applications = ["facetime"]
service = "application-default"
action = "allow"
implicit = {implicit}
alg = true
"""
_DENY_FACETIME = """
[[rule]]
name = "no facetime"
from = ["inside"]
to = ["outside"]
applications = ["facetime"]
action = "deny"
"""


def _zones(scenario: Scenario, default: str) -> str:
    return _ZONES.format(
        network=ip_network(f"{scenario.gateway}/{64 if scenario.v6 else 24}", strict=False), default=default
    )


def only_facetime(scenario: Scenario, implicit: bool) -> str:
    """Runs one and three: deny all but one rule."""
    return _zones(scenario, "deny") + _ALLOW_FACETIME.format(implicit=str(implicit).lower())


def all_but_facetime(scenario: Scenario) -> str:
    """Run two."""
    return _zones(scenario, "allow") + _DENY_FACETIME


def forward_apple_ports(lab: Lab) -> None:
    """What Apple's page asks for: the whole range open to one client, from anywhere."""
    ports = f"{APPLE_PORTS.start}:{APPLE_PORTS.stop - 1}"
    lab.exec(
        "gw", "iptables", "-t", "nat", "-A", "PREROUTING", "-i", "wan0", "-p", "udp", "--dport", ports,
        "-j", "DNAT", "--to-destination", lab.scenario.client,
    )  # fmt: skip


class Gateway:
    """`appid run` inside the `with`; its files are in `directory`, its socket in the lab's."""

    def __init__(
        self, lab: Lab, directory: Path, policy: str, variant: str = "nft", metrics: str = "off", workers: int = 1
    ) -> None:
        self.lab = lab
        self.directory = directory
        self.log = directory / "appid.log"
        self.events = directory / "events.jsonl"
        self.queued = directory / "queued.pcap"
        self.control = lab.directory / "control.sock"
        self.config = directory / "appid.toml"
        self.policy = directory / "policy.toml"
        self.policy.write_text(policy)
        state = lab.directory / "state"
        state.mkdir()
        self.config.write_text(
            f'[gateway]\niptables = "{variant}"\non_stop = "remove"\nworkers = {workers}\n'
            f'[paths]\npolicy = "{self.policy}"\nstate = "{state}"\nrules = "{state / "rules"}"\n'
            f'[listen]\nmetrics = "{metrics}"\ncontrol = "{self.control}"\n'
            f'[log]\nevents = "{self.events}"\nqueued = "{self.queued}"\n'
        )
        self.child: Popen[bytes] | None = None

    async def __aenter__(self) -> Gateway:
        self.child = self.lab.spawn("gw", *self.command("run"), log=self.log, cwd=ROOT)
        for _ in range(int(READY_WITHIN / 0.05)):
            if self.child.poll() is not None:
                raise RuntimeError(f"appid run ended with {self.child.returncode}:\n{self.text()}")
            if self.control.exists() and "ready" in self.text():
                return self
            await asyncio.sleep(0.05)
        raise RuntimeError(f"appid run was not ready within {READY_WITHIN:.0f} s:\n{self.text()}")

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> int | None:
        """SIGTERM, as a service manager would; its exit status."""
        if self.child is None:
            return None
        child, self.child = self.child, None
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
            for _ in range(100):
                if child.poll() is not None:
                    break
                await asyncio.sleep(0.05)
        return self.lab.stop(child)

    def command(self, name: str, *arguments: str) -> tuple[str, ...]:
        return (sys.executable, "-m", "appid.cli.main", name, "-c", str(self.config), *arguments)

    def text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def stopped_early(self) -> bool:
        return self.child is not None and self.child.poll() is not None

    async def query(self, name: str) -> list[Table]:
        """`appid flows | calls | pinholes | stats --json`: its objects; none where it does not answer."""
        status, output = await self.lab.ask("gw", *self.command(name, "--json"))
        return parse_json(output) if status == 0 else []


def parse_json(text: str) -> list[Table]:
    """JSON lines, or one JSON document with an object or a list of them."""
    try:
        document = json.loads(text)
    except json.JSONDecodeError:
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return document if isinstance(document, list) else [document]
