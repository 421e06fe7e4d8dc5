"""What several sessions play alike: the probes before, the answer to an INVITE, the end of a call."""

from __future__ import annotations

from tests.corpus.background import dns_message
from tests.corpus.legs import Leg
from tests.corpus.media import Media
from tests.corpus.scene import TCP, Dialog, Direct, Scene, Way
from tests.corpus.writer import End


def probes(s: Scene, frame: int) -> None:
    """Up to (not including) `frame`, at least 60: the 16-byte probes on 16403, the look-up of the web probe's host."""
    for at in (20, 41):
        s.quiet(at, 4.0)
        s.snatmap()
    s.quiet(frame - 2, 3.0)
    look_up_probe(s)


def look_up_probe(s: Scene) -> None:
    """DNS for the web probe's host: two frames."""
    own, name = End(s.h.client, 56321), "static.ess.apple.com"
    s.cap.udp(own, s.back.resolver, dns_message(0x4242, name, 28 if s.v.v6 else 1))
    s.tick(0.018)
    s.cap.udp(s.back.resolver, own, dns_message(0x4242, name, 28 if s.v.v6 else 1, s.back.address(s.h.web_probe)))
    s.tick(0.002)


def http_probe(s: Scene, port: int) -> None:
    """Frames 61 to 70 of session 1: handshake, GET at 64, 200 with 13 bytes, both FINs."""
    tcp = s.web_probe(port)
    for _ in tcp.open():
        s.tick(0.012)
    get = "GET /connectivity.txt HTTP/1.1\r\nHost: static.ess.apple.com:80\r\nConnection: close\r\n\r\n"
    number = tcp.send(get.encode(), True)
    s.mark(TCP, tcp.client, tcp.server, number)
    s.tick(0.011)
    tcp.ack(False)
    body = "AV was here!\n"
    head = f"HTTP/1.1 200 OK\r\nServer: Apache\r\nContent-Length: {len(body)}\r\nContent-Type: text/plain\r\n\r\n"
    tcp.send((head + body).encode(), False)
    s.tick(0.001)
    tcp.ack(True)
    tcp.fin(True)
    s.tick(0.012)
    tcp.fin(False)
    tcp.ack(True)


def answer_invite(s: Scene, dialog: Dialog, offerer: Way, answerer: Way) -> int:
    """100, 180, 200, ACK: four frames; returns that of the 200. Nothing rings long:
    the callee accepted before any SIP.
    """
    for payload in (dialog.response(100, "Trying", to_tag=False), dialog.response(180, "Ringing")):
        s.tick(0.03)
        answerer(payload, "sip")
    s.tick(0.01)
    answerer(dialog.response(200, "OK", answer=True), "sip")
    s.tick(0.003)
    offerer(dialog.ack(), "sip")
    return s.cap.next - 2


def bye_way(s: Scene, leg: Leg, direct: Direct) -> tuple[Way, Way]:
    """BYE may take the relay or the direct path: from the client, and back."""
    if s.v.bye_direct:
        return direct, Direct(s, direct.dst, direct.src)
    return leg, leg.back()


def hang_up(
    s: Scene, media: Media, way: tuple[Way, Way], sip: tuple[bytes, bytes], rest: Way, by_peer: bool = False
) -> None:
    """BYE, three frames by `rest` that were under way, its answer (5786 to 5790 of session 1)."""
    start = s.cap.next
    s.tick(0.002)
    way[0](sip[0], "sip")
    media.mute(not by_peer)
    s.play(media, start + 4 * way[0].frames, rest, rest, also=0)
    s.tick(0.01)
    way[1](sip[1], "sip")


def release(s: Scene, leg: Leg) -> None:
    """Refresh with LIFETIME 0 (5791 of session 1), and its answer."""
    s.tick(0.001)
    transaction = s.transaction()
    leg.refresh(transaction, 0)
    s.tick(0.04)
    leg.refreshed(transaction, 0)
