"""The network's other life: ARP, DNS, mDNS, an HTTPS connection, the push connection. Each step writes one frame."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from ipaddress import ip_address

from tests.corpus import tls_bytes
from tests.corpus.variation import Variation
from tests.corpus.writer import Capture, End, Tcp

Step = object
"""Advancing one of the iterators below writes one frame; what it yields does not matter."""


def dns_message(ident: int, name: str, kind: int, answer: bytes | None = None) -> bytes:
    """RFC 1035 4.1: a query, or its reply with one record."""
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0"
    flags = 0x0100 if answer is None else 0x8180
    head = struct.pack("!HHHHHH", ident, flags, 1, 0 if answer is None else 1, 0, 0)
    body = head + labels + struct.pack("!HH", kind, 1)
    if answer is not None:
        body += struct.pack("!HHHIH", 0xC00C, kind, 1, 20, len(answer)) + answer
    return body


class Background:
    """An endless supply of frames that are not FaceTime's. `push` is the connection on 5223."""

    def __init__(self, capture: Capture, variation: Variation, rng: random.Random) -> None:
        self.capture, self.variation, self.rng = capture, variation, rng
        hosts = variation.hosts
        client = hosts.client
        self.push = self._tcp(End(client, rng.randint(49152, 65000)), End(hosts.courier, 5223))
        self.push_known = variation.push_hello
        self.site = "www.example.org"
        self.resolver = End(hosts.router, 53)
        self._turn = self._forever()

    def step(self) -> None:
        """One frame."""
        next(self._turn)

    @staticmethod
    def address(host: str) -> bytes:
        return ip_address(host).packed

    def push_records(self, sizes: tuple[int, ...], from_client: bool) -> int:
        """One segment with TLS records of these sizes on the push connection."""
        data = b"".join(tls_bytes.application_data(self.rng, size) for size in sizes)
        return self.push.send(data, from_client)

    def _tcp(self, client: End, server: End) -> Tcp:
        return Tcp(self.capture, client, server, self.rng.randrange(1 << 31), self.rng.randrange(1 << 31))

    def _forever(self) -> Iterator[Step]:
        """ARP and DNS first, then what the connections do; every third frame is of another kind."""
        yield from self._arp()
        yield from self._push_start()
        yield from self._lookup(self.site, self.variation.hosts.web_site)
        web = self._web()
        while True:
            for _ in range(8):
                yield next(web)
            yield from self._push_keepalive()
            for _ in range(10):
                yield next(web)
            yield from self._multicast()
            for _ in range(12):
                yield next(web)
            if self.rng.random() < 0.3:
                yield from self._arp()

    def _arp(self) -> Iterator[Step]:
        """IPv4 in any case: the network is dual-stack."""
        asker, router = self.variation.v4_client, self.variation.v4_client.rpartition(".")[0] + ".1"
        self.capture.inside(asker)
        yield self.capture.arp(asker, router)
        yield self.capture.arp(asker, router, reply=True)

    def _lookup(self, name: str, address: str) -> Iterator[Step]:
        packed = self.address(address)
        kind, ident = (1 if len(packed) == 4 else 28), self.rng.randrange(65536)
        own = End(self.variation.hosts.client, self.rng.randint(49152, 65000))
        yield self.capture.udp(own, self.resolver, dns_message(ident, name, kind))
        yield self.capture.udp(self.resolver, own, dns_message(ident, name, kind, packed))

    def _multicast(self) -> Iterator[Step]:
        group = "ff02::fb" if self.variation.v6 else "224.0.0.251"
        own = End(self.variation.hosts.client2, 5353)
        query = dns_message(0, "_sleep-proxy._udp.local", 12)
        yield self.capture.udp(own, End(group, 5353), query)

    def _push_start(self) -> Iterator[Step]:
        if not self.variation.push_hello:
            yield from self._push_keepalive()
            return
        yield from self.push.open()
        name = f"{self.rng.randint(1, 50)}-courier.push.apple.com"
        hello = tls_bytes.client_hello(self.rng, name)
        yield self.push.send(hello, True)
        yield self.push.send(tls_bytes.server_hello(self.rng), False)
        yield self.push.send(tls_bytes.client_finished(self.rng), True)
        yield from self._push_keepalive()

    def _push_keepalive(self) -> Iterator[Step]:
        yield self.push_records((37,), True)
        yield self.push_records((37,), False)
        yield self.push.ack(True)

    def _web(self) -> Iterator[Step]:
        """One HTTPS connection after another: handshake, then a download."""
        while True:
            own = End(self.variation.hosts.client, self.rng.randint(49152, 65000))
            tcp = self._tcp(own, End(self.variation.hosts.web_site, 443))
            yield from tcp.open()
            rng = self.rng
            yield tcp.send(tls_bytes.client_hello(rng, self.site, ("http/1.1",)), True)
            yield tcp.send(tls_bytes.server_hello(rng), False)
            yield tcp.send(tls_bytes.client_finished(rng), True)
            for _ in range(40):
                yield tcp.send(tls_bytes.application_data(rng, rng.randint(200, 500)), True)
                for _ in range(3):
                    yield tcp.send(tls_bytes.application_data(rng, 1360), False)
                yield tcp.ack(True)
            yield tcp.fin(True)
            yield tcp.fin(False)
            yield tcp.ack(True)
