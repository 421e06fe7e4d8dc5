"""Network namespaces for kernel tests: names of our own, always removed; threads and sockets inside them."""

from __future__ import annotations

import ctypes
import itertools
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

Result = TypeVar("Result")
_libc = ctypes.CDLL(None, use_errno=True)
_numbers = itertools.count(1)

CLIENT4, GATEWAY4, PUBLIC4, PEER4 = "10.77.1.2", "10.77.1.1", "198.51.100.1", "198.51.100.2"
CLIENT6, GATEWAY6, PUBLIC6, PEER6 = "fd00:77:1::2", "fd00:77:1::1", "fd00:77:2::1", "fd00:77:2::2"


def sh(*command: str, text: str | None = None, check: bool = True) -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=30)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(command)}: {done.stderr}")
    return done.stdout


class Namespace:
    """One named namespace. `call` runs a function inside it, in a thread of its own."""

    def __init__(self, role: str) -> None:
        self.name = f"appid-t{os.getpid()}-{next(_numbers)}{role}"
        sh("ip", "netns", "add", self.name)

    def remove(self) -> None:
        sh("ip", "netns", "del", self.name, check=False)

    def enter(self) -> None:
        """Move the calling thread into the namespace, for good."""
        descriptor = os.open(f"/run/netns/{self.name}", os.O_RDONLY)
        try:
            if _libc.setns(descriptor, 0x40000000):
                raise OSError(ctypes.get_errno(), "setns")
        finally:
            os.close(descriptor)

    def start(self, work: Callable[[], Any]) -> threading.Thread:
        def inside() -> None:
            self.enter()
            work()

        thread = threading.Thread(target=inside, daemon=True)
        thread.start()
        return thread

    def call(self, work: Callable[[], Result]) -> Result:
        results: list[Result] = []
        errors: list[BaseException] = []

        def keep() -> None:
            try:
                results.append(work())
            except BaseException as error:
                errors.append(error)

        self.start(keep).join(60)
        if errors:
            raise errors[0]
        return results[0]

    def run(self, *command: str, text: str | None = None, check: bool = True) -> str:
        return sh("ip", "netns", "exec", self.name, *command, text=text, check=check)

    def udp(self, address: str, port: int = 0) -> socket.socket:
        def make() -> socket.socket:
            made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind((address, port))
            made.settimeout(0.5)
            return made

        return self.call(make)

    def tcp(self, address: str) -> socket.socket:
        def make() -> socket.socket:
            made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind((address, 0))
            made.settimeout(3)
            return made

        return self.call(make)

    def listen(self, address: str, port: int) -> socket.socket:
        def make() -> socket.socket:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            made = socket.create_server((address, port), family=family)
            made.settimeout(3)
            return made

        return self.call(make)


class Net:
    """client -- gateway -- peer, both families; `masquerade` on the outside by request."""

    def __init__(self) -> None:
        self.all: list[Namespace] = []
        try:
            self.client, self.gateway, self.peer = (self._add(role) for role in "cgp")
            self._link(self.client, "lan", (CLIENT4, CLIENT6), "lan0", (GATEWAY4, GATEWAY6))
            self._link(self.peer, "net", (PEER4, PEER6), "wan0", (PUBLIC4, PUBLIC6))
            for host, via4, via6 in ((self.client, GATEWAY4, GATEWAY6), (self.peer, PUBLIC4, PUBLIC6)):
                host.run("ip", "route", "add", "default", "via", via4)
                host.run("ip", "-6", "route", "add", "default", "via", via6)
            self.gateway.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        except BaseException:
            self.remove()
            raise

    def _add(self, role: str) -> Namespace:
        made = Namespace(role)
        self.all.append(made)
        made.run("sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0", "net.ipv6.conf.all.accept_dad=0")
        made.run("ip", "link", "set", "lo", "up")
        return made

    def _link(self, host: Namespace, name: str, ours: tuple[str, str], far: str, theirs: tuple[str, str]) -> None:
        sh("ip", "-n", host.name, "link", "add", name, "type", "veth", "peer", far, "netns", self.gateway.name)
        for where, device, (v4, v6) in ((host, name, ours), (self.gateway, far, theirs)):
            where.run("ip", "link", "set", device, "up")
            where.run("ip", "addr", "add", f"{v4}/24", "dev", device)
            where.run("ip", "addr", "add", f"{v6}/64", "dev", device, "nodad")

    def masquerade(self, variant: str = "nft") -> None:
        for program in ("iptables", "ip6tables"):
            self.gateway.run(f"{program}-{variant}", "-t", "nat", "-A", "POSTROUTING", "-o", "wan0", "-j", "MASQUERADE")

    def entries(self) -> str:
        return self.gateway.run("conntrack", "-L", check=False) + self.gateway.run(
            "conntrack", "-L", "-f", "ipv6", check=False
        )

    def remove(self) -> None:
        for each in self.all:
            each.remove()


@contextmanager
def net() -> Iterator[Net]:
    made = Net()
    try:
        yield made
    finally:
        made.remove()


def until(condition: Callable[[], Any], seconds: float = 10.0) -> bool:
    """Wait for something that another thread or the kernel does."""
    end = time.monotonic() + seconds
    while not (done := condition()) and time.monotonic() < end:
        time.sleep(0.01)
    return bool(done)


def received(sock: socket.socket, wait: float = 0.3, least: int = 0) -> list[bytes]:
    """All datagrams that come until `wait` seconds of silence; for the first `least` ones a busy machine has longer."""
    got: list[bytes] = []
    try:
        while True:
            sock.settimeout(wait if len(got) >= least else 10)
            got.append(sock.recv(65535))
    except (TimeoutError, ConnectionError):
        return got
