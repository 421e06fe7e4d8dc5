"""Namespaces, veths, addresses, NAT routers, child processes, and their end.

In: a Scenario. Out: a Lab, in which actors open sockets and start programs by the name of a place:

    client -- lan0 [gw] wan0 -- [net] -- apple, world, stranger
                                  |
                                  wan0 [peer-gw] lan0 -- peer

A socket belongs to the namespace in which it was made, so one process can hold all actors. Needs root. Touches the host
by the names of its own namespaces (`appid-<pid>-<place>`) and by nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
from ipaddress import ip_network
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.lab.scenario import Scenario

_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000
_SIOCETHTOOL = 0x8946
_ETHTOOL_STXCSUM = 0x17
_HUB = {False: "169.254.1.1", True: "fe80::1:1"}
"""The internet router's address on each of its wires, by whether it is IPv6."""
ROOT = Path(__file__).parents[2]
"""The project: where `python -m` finds it."""
_LOCK = threading.Lock()


def run(*argv: str, stdin: str | None = None, check: bool = True) -> str:
    """Run a short program, return its stdout. Ctrl-C at the terminal must not cut it short, so it has a session of its
    own, and between fork and setsid the signals are blocked (the child keeps them so: it lives for milliseconds)."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, start_new_session=True, check=False)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: exit {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def nobody_else() -> bool:
    """Whether this is a user namespace that knows root alone, as an ordinary user's does: programs that find
    themselves root cannot become another user there."""
    return Path("/proc/self/uid_map").read_text().split()[2] == "1"


class Lab:
    """A context manager: the network stands inside the `with`, and nothing of it is left after."""

    def __init__(self, scenario: Scenario, extra_calls: int = 0) -> None:
        self.scenario = scenario
        self.extra_calls = extra_calls
        self.prefix = f"appid-{os.getpid()}"
        self.directory = Path()
        self._spaces: list[str] = []
        self._children: list[subprocess.Popen[bytes]] = []
        self._wires = 0

    def __enter__(self) -> Lab:
        self.directory = Path(tempfile.mkdtemp(prefix=f"{self.prefix}-"))
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- places

    def space(self, place: str) -> str:
        """Name of a place's namespace."""
        return f"{self.prefix}-{place}"

    def exec(self, place: str, *argv: str, stdin: str | None = None, check: bool = True) -> str:
        return run("ip", "netns", "exec", self.space(place), *argv, stdin=stdin, check=check)

    def open_socket(self, place: str, kind: int, family: int = socket.AF_INET, proto: int = 0) -> socket.socket:
        """A non-blocking socket in `place`."""
        with _LOCK, open("/proc/self/ns/net", "rb") as home, open(f"/run/netns/{self.space(place)}", "rb") as there:
            _setns(there.fileno())
            try:
                made = socket.socket(family, kind, proto)
            finally:
                _setns(home.fileno())
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return made

    def udp(self, place: str, address: str, port: int = 0) -> socket.socket:
        made = self.open_socket(place, socket.SOCK_DGRAM, _family(address))
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        made.bind((address, port))
        return made

    def listener(self, place: str, address: str, port: int) -> socket.socket:
        made = self.open_socket(place, socket.SOCK_STREAM, _family(address))
        made.bind((address, port))
        made.listen(64)
        return made

    async def connect(
        self, place: str, own: str, server: tuple[str, int], **options: Any
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A TCP connection from `place`. The socket is closed here only while no transport has it: the loop must not
        remember a descriptor that is somebody else's by now."""
        sock = self.open_socket(place, socket.SOCK_STREAM, _family(own))
        try:
            sock.bind((own, 0))
            await asyncio.get_running_loop().sock_connect(sock, server)
        except BaseException:
            sock.close()
            raise
        return await asyncio.open_connection(sock=sock, **options)

    # -- programs

    async def ask(self, place: str, *argv: str, stdin: str | None = None) -> tuple[int, str]:
        """Run a short program without holding up the actors; its exit status, and stdout with stderr."""
        child = await asyncio.create_subprocess_exec(
            "ip", "netns", "exec", self.space(place), *argv,
            stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, start_new_session=True, cwd=ROOT,
        )  # fmt: skip
        try:
            output, _ = await child.communicate(None if stdin is None else stdin.encode())
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
        return child.returncode or 0, output.decode(errors="replace")

    def spawn(self, place: str, *argv: str, log: Path, cwd: Path | None = None) -> subprocess.Popen[bytes]:
        """Start a program in `place`; stdout and stderr go to `log`; it dies with the lab."""
        with log.open("ab") as sink:
            child = subprocess.Popen(
                ("ip", "netns", "exec", self.space(place), *argv), stdin=subprocess.DEVNULL, stdout=sink, stderr=sink,
                start_new_session=True, cwd=cwd,
            )  # fmt: skip
        self._children.append(child)
        return child

    def stop(self, child: subprocess.Popen[bytes], sig: int = signal.SIGTERM, patience: float = 5.0) -> int:
        """Ask a program to end, insist after `patience` seconds, and end what it left; returns its exit status."""
        if child.poll() is None:
            child.send_signal(sig)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(patience)
        with contextlib.suppress(ProcessLookupError):  # its session: workers that outlived it, or itself
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        if child in self._children:
            self._children.remove(child)
        return child.returncode

    def close(self) -> None:
        """End programs, delete namespaces (with them veths, rules, sets), remove the directory. Safe to call twice."""
        for child in reversed(self._children[:]):
            self.stop(child, patience=2.0)
        for space in reversed(self._spaces):
            run("ip", "netns", "del", space, check=False)
        self._spaces.clear()
        if self.directory != Path():
            shutil.rmtree(self.directory, ignore_errors=True)

    # -- building

    def _build(self) -> None:
        s = self.scenario
        for place in ("net", "gw", "client", "peer-gw", "peer", "apple", "world", "stranger"):
            self._add_space(place)
        self._router("gw", s.public, s.gateway, "client", s.client)
        self._router("peer-gw", s.peer_public, s.peer_gateway, "peer", s.peer)
        calls = [s.numbered(i) for i in range(self.extra_calls)]
        relays = sorted({call.relay for call in calls} - {s.relay})
        self._attach("apple", "eth0", s.relay, s.courier, s.snatmap, s.web, *relays)
        self._attach("world", "eth0", s.coturn, s.world)
        self._attach("stranger", "eth0", s.stranger)
        for private in ("fd00::/8",) if s.v6 else ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"):
            self.exec("net", "ip", "route", "add", "unreachable", private)
        if calls:
            self._add_space("peers")
            self._attach("peers", "eth0", *[call.peer for call in calls])
            for call in calls:
                self.exec("client", "ip", "addr", "replace", *self._inside(call.client), "dev", "eth0")

    def _add_space(self, place: str) -> None:
        space = self.space(place)
        self._spaces.append(space)
        run("ip", "netns", "add", space)
        self.exec(place, "ip", "link", "set", "lo", "up")
        if Path("/proc/sys/net/ipv6").exists() and not self.scenario.v6:  # no router solicitations in the captures
            self._sysctl(place, "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1")

    def _wire(self, near: str, near_device: str, far: str, far_device: str) -> None:
        self.exec(
            near, "ip", "link", "add", near_device, "type", "veth", "peer", "name", far_device, "netns", self.space(far)
        )
        for place, device in ((near, near_device), (far, far_device)):
            self._no_offload(place, device)
            self.exec(place, "ip", "link", "set", device, "up")

    def _no_offload(self, place: str, device: str) -> None:
        """Checksums as on a wire, so that captures hold what a wire would."""
        with self.open_socket(place, socket.SOCK_DGRAM) as control:
            value = ctypes.create_string_buffer(struct.pack("=II", _ETHTOOL_STXCSUM, 0))
            request = struct.pack("=16sQ16x", device.encode(), ctypes.addressof(value))
            fcntl.ioctl(control, _SIOCETHTOOL, request)

    def _attach(self, place: str, device: str, *addresses: str) -> None:
        """Put a place on the internet: addresses without a network, everything else by the hub."""
        self._wires += 1
        wire = f"w{self._wires}"
        self._wire(place, device, "net", wire)
        v6 = self.scenario.v6
        hub, flag, end, more = _HUB[v6], "-6" if v6 else "-4", "/128" if v6 else "/32", " nodad" if v6 else ""
        batch = [f"addr add {address}{end} dev {device}{more}" for address in addresses]
        batch.append(f"route add default via {hub} dev {device} onlink src {addresses[0]}")
        self.exec(place, "ip", flag, "-batch", "-", stdin="\n".join(batch))
        batch = [f"addr add {hub}{end} dev {wire}{more}", *(f"route add {each}{end} dev {wire}" for each in addresses)]
        self.exec("net", "ip", flag, "-batch", "-", stdin="\n".join(batch))
        self._forwards("net")

    def _inside(self, address: str) -> tuple[str, ...]:
        """An address of a home's network."""
        return (f"{address}/64", "nodad") if self.scenario.v6 else (f"{address}/24",)

    def _forwards(self, place: str) -> None:
        self._sysctl(place, "net.ipv6.conf.all.forwarding=1" if self.scenario.v6 else "net.ipv4.ip_forward=1")

    def _router(self, place: str, public: str, lan: str, host_place: str, host: str) -> None:
        """A home router: lan0, wan0 on the internet, source NAT by MASQUERADE, unless the client's shall have none."""
        self._attach(place, "wan0", public)
        self._wire(host_place, "eth0", place, "lan0")
        self.exec(place, "ip", "addr", "add", *self._inside(lan), "dev", "lan0")
        self._forwards(place)
        iptables = "ip6tables" if self.scenario.v6 else "iptables"
        if self.scenario.nat or place != "gw":
            self.exec(place, iptables, "-t", "nat", "-A", "POSTROUTING", "-o", "wan0", "-j", "MASQUERADE")
        else:
            network = str(ip_network(self._inside(lan)[0], strict=False))
            via = ("via", public, "dev", f"w{self._wires}", "onlink")
            self.exec("net", "ip", "route", "add", network, *via)
        self._sysctl(place, "net.netfilter.nf_conntrack_acct=1")
        if place == "peer-gw":  # else what comes before the peer's own packet makes an entry that takes the port away
            arguments = ("-A", "INPUT", "-i", "wan0", "-m", "conntrack", "--ctstate", "NEW", "-j", "DROP")
            self.exec(place, iptables, *arguments)
        self.exec(host_place, "ip", "addr", "add", *self._inside(host), "dev", "eth0")
        self.exec(host_place, "ip", "route", "add", "default", "via", lan)

    def _sysctl(self, place: str, *assignments: str) -> None:
        self.exec(place, "sysctl", "-qw", *assignments)


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _setns(descriptor: int) -> None:
    if _LIBC.setns(descriptor, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
