"""The gateway's place: without appid (Apple's ports forwarded), and with it.

In: a Lab. Out: for the control run, chain rules in the gateway's own namespace.
"""

from __future__ import annotations

from tests.lab.net import Lab
from tests.lab.scenario import APPLE_PORTS


def forward_apple_ports(lab: Lab) -> None:
    """What Apple's page asks for: the whole range open to one client, from anywhere."""
    ports = f"{APPLE_PORTS.start}:{APPLE_PORTS.stop - 1}"
    lab.exec(
        "gw", "iptables", "-t", "nat", "-A", "PREROUTING", "-i", "wan0", "-p", "udp", "--dport", ports,
        "-j", "DNAT", "--to-destination", lab.scenario.client,
    )  # fmt: skip
