"""Web requests that resemble the probe of static.ess.apple.com, and connections that resemble the push channel."""

from __future__ import annotations

from tests.corpus import tls_bytes
from tests.corpus.stage import SERVER, Stage
from tests.corpus.writer import End

PROBE, HOST = "/connectivity.txt", "static.ess.apple.com:80"


def web(s: Stage, path: str, host: str, more: str = "", method: str = "GET", body: str = "") -> None:
    request = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{more}"
    request += f"Content-Length: {len(body)}\r\n\r\n{body}" if body else "\r\n"
    reply = "HTTP/1.1 200 OK\r\nServer: Apache\r\nContent-Length: 13\r\n\r\nAV was here!\n"
    s.talk(s.tcp(End(SERVER, 80)), request.encode(), reply.encode())


def other_host(s: Stage) -> None:
    web(s, PROBE, "www.example.org:80")


def host_suffix(s: Stage) -> None:
    web(s, PROBE, "static.ess.apple.com.example.net:80")


def host_prefix(s: Stage) -> None:
    web(s, PROBE, "xstatic.ess.apple.com:80")


def forwarded_host(s: Stage) -> None:
    web(s, PROBE, "proxy.example.org", f"X-Forwarded-Host: {HOST}\r\n")


def path_in_query(s: Stage) -> None:
    web(s, f"/log?h={HOST}&p={PROBE}", "www.example.org")


def probe_in_body(s: Stage) -> None:
    web(s, "/upload", "www.example.org", "", "POST", f"GET {PROBE} HTTP/1.1\r\nHost: {HOST}\r\n\r\n")


def other_path(s: Stage) -> None:
    web(s, "/other.txt", HOST)


def longer_path(s: Stage) -> None:
    web(s, f"{PROBE}.bak", HOST)


def ask(s: Stage, *segments: str) -> None:
    """Requests, each string a segment of its own; one answer."""
    tcp = s.tcp(End(SERVER, 80))
    for text in segments:
        tcp.send(text.encode(), True)
    tcp.send(b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\nAV was here!\n", False)


def probe_behind_another(s: Stage) -> None:
    """Two requests at once (RFC 9112 section 9.3.2): the probe is the only one of its connection."""
    other, probe = "GET / HTTP/1.1\r\nHost: www.example.org\r\n\r\n", f"GET {PROBE} HTTP/1.1\r\nHost: {HOST}\r\n\r\n"
    ask(s, other + probe)
    ask(s, probe + other)
    ask(s, other, probe)


def probe_of_two_requests(s: Stage) -> None:
    """The path of one, the host of the other."""
    ask(s, f"GET {PROBE} HTTP/1.1\r\nHost: www.example.org\r\n\r\nGET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")


def two_hosts(s: Stage) -> None:
    """Host twice must be refused (RFC 9112 section 3.2)."""
    ask(s, f"GET {PROBE} HTTP/1.1\r\nHost: {HOST}\r\nHost: www.example.org\r\n\r\n")
    ask(s, f"GET {PROBE} HTTP/1.1\r\nHost: www.example.org\r\nHost: {HOST}\r\n\r\n")


def tls(s: Stage, server: End, name: str | None) -> None:
    rng = s.rng
    turns = [tls_bytes.client_hello(rng, name), tls_bytes.server_hello(rng), tls_bytes.client_finished(rng)]
    s.talk(s.tcp(server), *turns, *(tls_bytes.application_data(rng, 120 + 40 * n) for n in range(5)))


def tls_5223(s: Stage) -> None:
    tls(s, End(SERVER, 5223), "xmpp.example.org")


def tls_5223_mid(s: Stage) -> None:
    """Joined mid-stream, to a host that is not Apple's."""
    tcp = s.tcp(End(SERVER, 5223), handshake=False)
    s.talk(tcp, *(tls_bytes.application_data(s.rng, size) for size in (1238, 37, 810, 37, 1114, 90)))


def courier_suffix(s: Stage) -> None:
    tls(s, End(SERVER, 443), "1-courier.push.apple.com.example.net")


def courier_label(s: Stage) -> None:
    tls(s, End(SERVER, 443), "courier.push.apple.com.evil.example")
    tls(s, End(SERVER, 5223), "7-courier-push.apple.com.example.net")


def noise_5223(s: Stage) -> None:
    """Bytes of no protocol to an address of Apple's, on the courier's port."""
    rng = s.rng
    s.talk(s.tcp(End("17.1.2.3", 5223)), *(b"\xf7" + rng.randbytes(rng.randint(60, 500)) for _ in range(12)))
