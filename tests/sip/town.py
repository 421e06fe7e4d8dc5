"""Where the calls are made: phones inside, a gateway of one of three kinds, parties outside.

    phones -- lan0 [gateway] wan0 -- peers, stranger
    other  -- lan1 [gateway]

In: a kind (ours, kernel, plain), with source NAT or without. Out: a Town whose gateway runs. `kernel` is
nf_conntrack_sip with nf_nat_sip behind rules that let SIP and what is RELATED pass; `plain` lets everything pass.
"""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.netns.live import Live, live, rule
from tests.netns.net import PUBLIC4, PUBLIC6, Namespace, Net
from tests.sip.witness import Witness

Kind = Literal["ours", "kernel", "plain"]
SIP_ONLY = rule("calls", "allow", "sip", from_='["inside"]', service='["udp/5060-5062", "tcp/5060-5062"]')
ALL_OUT = rule("out", "allow", from_='["inside"]', service='"any"')
PLACES = 100
"""Calls that can be made side by side, each with addresses of its own."""
UDP_TIMEOUT = 8
"""Seconds for which conntrack keeps a flow of datagrams: by default 30, or 120 once both sides have spoken."""
PROXY4, PROXY6 = "198.51.100.5", "fd00:77:2::5"
STRANGER4, STRANGER6 = "198.51.100.9", "fd00:77:2::9"
OTHER4, OTHER6 = "10.77.3.2", "fd00:77:3::2"
INSIDE4, INSIDE6 = ("10.77.",), ("fd00:77:1:", "fd00:77:3:")
"""What an address of the inside begins with."""
_SIOCETHTOOL, _ETHTOOL_STXCSUM = 0x8946, 0x17


@dataclass(frozen=True)
class Place:
    """The addresses of one call: two phones inside, a peer outside, another host inside, behind the second wire.
    `inside`: what addresses of the inside begin with; `held`: that of a call on hold (RFC 3264 section 8.4)."""

    number: int
    phones: tuple[str, str]
    peer: str
    other: str
    public: str
    stranger: str
    proxy: str
    inside: tuple[str, ...]
    held: str

    @staticmethod
    def numbered(number: int, v6: bool) -> Place:
        at = 10 + number
        if v6:
            phones = (f"fd00:77:1::1:{at:x}", f"fd00:77:1::2:{at:x}")
            peer, other = f"fd00:77:2::{at:x}", f"fd00:77:3::{at:x}"
            return Place(number, phones, peer, other, PUBLIC6, STRANGER6, PROXY6, INSIDE6, "::")
        phones = (f"10.77.1.{at}", f"10.77.1.{at + PLACES}")
        peer, other = f"198.51.100.{at}", f"10.77.3.{at}"
        return Place(number, phones, peer, other, PUBLIC4, STRANGER4, PROXY4, INSIDE4, "0.0.0.0")


def _finish_checksums(space: Namespace, device: str) -> None:
    """A veth leaves checksums to a hardware that it has not; a witness wants to see them."""

    def ask() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            value = ctypes.create_string_buffer(struct.pack("=II", _ETHTOOL_STXCSUM, 0))
            fcntl.ioctl(control, _SIOCETHTOOL, struct.pack("=16sQ16x", device.encode(), ctypes.addressof(value)))

    space.call(ask)


class Town(Net):
    """`nat`: MASQUERADE on wan0, both families. `witnesses`: of the phones' wire, the outside, the second wire."""

    zones = """
[zones]
inside = { interfaces = ["lan0", "lan1"], networks = ["10.77.0.0/16", "fd00:77:1::/64", "fd00:77:3::/64"] }
outside = { interfaces = ["wan0"] }
"""

    def __init__(self, nat: bool) -> None:
        super().__init__()
        self.nat = nat
        try:
            self.other = self._add("o")
            self._link(self.other, "lan", (OTHER4, OTHER6), "lan1", ("10.77.3.1", "fd00:77:3::1"))
            self.other.run("ip", "route", "add", "default", "via", "10.77.3.1")
            self.other.run("ip", "-6", "route", "add", "default", "via", "fd00:77:3::1")
            self._settle()
            for kind in ("", "_stream"):
                self.gateway.run("sysctl", "-qw", f"net.netfilter.nf_conntrack_udp_timeout{kind}={UDP_TIMEOUT}")
            if nat:
                self.masquerade()
                self.peer.run("ip", "route", "add", "unreachable", "10.77.0.0/16")
                for wire in ("fd00:77:1::/64", "fd00:77:3::/64"):
                    self.peer.run("ip", "-6", "route", "add", "unreachable", wire)
        except BaseException:
            self.remove()
            raise
        self.witnesses = {space: Witness(space, device) for space, device in self._wires()}

    def _wires(self) -> tuple[tuple[Namespace, str], ...]:
        return (self.client, "lan"), (self.peer, "net"), (self.other, "lan")

    def _settle(self) -> None:
        """Everybody's addresses; the peers' namespace is the stranger's too."""
        places = [Place.numbered(number, v6) for number in range(PLACES) for v6 in (False, True)]
        for space, device in (*self._wires(), (self.gateway, "lan0"), (self.gateway, "wan0"), (self.gateway, "lan1")):
            _finish_checksums(space, device)
        for (space, device), addresses in zip(
            self._wires(),
            (
                [phone for place in places for phone in place.phones],
                [STRANGER4, STRANGER6, PROXY4, PROXY6, *(place.peer for place in places)],
                [place.other for place in places],
            ),
            strict=True,
        ):
            lines = [
                f"addr add {a}/{'64' if ':' in a else '24'} dev {device}" + (" nodad" if ":" in a else "")
                for a in addresses
            ]
            space.run("ip", "-batch", "-", text="\n".join(dict.fromkeys(lines)))

    def helper(self) -> None:
        """The kernel's SIP helper in our place. Media must be RELATED, as it must be foreseen with us."""
        for program in ("iptables", "ip6tables"):
            for proto in ("udp", "tcp"):
                to = ("-p", proto, "-m", "multiport", "--dports", "5060,5062", "-j")
                self.gateway.run(program, "-t", "raw", "-A", "PREROUTING", *to, "CT", "--helper", "sip")
                self.gateway.run(program, "-A", "FORWARD", "-i", "lan+", *to, "ACCEPT")
            self.gateway.run(program, "-P", "FORWARD", "DROP")
            established = ("-m", "conntrack", "--ctstate", "ESTABLISHED,RELATED", "-j", "ACCEPT")
            self.gateway.run(program, "-A", "FORWARD", *established)


@contextmanager
def town(
    kind: Kind, nat: bool, folder: Path, options: str = "", policy: str = SIP_ONLY, workers: int = 1
) -> Iterator[tuple[Town, Live | None]]:
    """Everything stands inside the `with`; the witnesses see all of it."""
    folder.mkdir(parents=True, exist_ok=True)
    made = Town(nat)
    with ExitStack() as stack:
        stack.callback(made.remove)
        for witness in made.witnesses.values():
            stack.enter_context(witness)
        gateway, began = None, f'on_stop = "remove"\nworkers = {workers}'
        if kind == "kernel":
            made.helper()
        if kind == "ours":
            gateway = stack.enter_context(live(made, folder, policy, "nft", options, gateway=began))
        yield made, gateway
