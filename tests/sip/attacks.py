"""What a hostile end tries with SIP, live: each through a running gateway, from addresses of its own.

In: a Town whose gateway runs. Out: what must be open now, by whom, at which port; a scan tells what is. Among them
NAT slipstreaming (S. Kamkar, 2020; v2 by Armis, 2021), addresses of third parties, ports of services, forged and
replayed messages, floods of lines, bodies and calls.
"""

from __future__ import annotations

import socket
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.netns.net import Namespace, until
from tests.sip.scan import Probe
from tests.sip.sipp import SIP, host_port
from tests.sip.town import Place, Town

FAR = 30000
"""The port at which a far end says it takes media."""
RANGE = (16384, 32767)
"""Media ports of the attacked gateway's own sip.toml."""
PER_CALL, PER_HOST, PER_GATEWAY = 16, 20, 70
OPTIONS = f"[limits]\nmax_pinholes = {PER_GATEWAY}\nmax_pinholes_per_host = {PER_HOST}\n"
SETTLE = 0.15


def body(host: str, port: int, *more: str) -> bytes:
    """A description (RFC 8866)."""
    where = f"IN IP{6 if ':' in host else 4} {host}"
    lines = ["v=0", f"o=- 1 1 {where}", "s=-", f"c={where}", "t=0 0", f"m=audio {port} RTP/AVP 0", *more, ""]
    return "\r\n".join(lines).encode()


@dataclass
class Victim:
    """One phone inside, one evil end outside; `port`: the phone's media port; `also`: other ports worth a try."""

    where: Town
    place: Place
    port: int
    call_id: str
    also: set[int] = field(default_factory=set)
    open: list[socket.socket] = field(default_factory=list)

    @property
    def phone(self) -> str:
        return self.place.phones[0]

    @property
    def target(self) -> str:
        """By which address the outside would reach the phone."""
        return self.place.public if self.where.nat else self.phone

    def udp(self, space: Namespace, address: str, port: int = SIP) -> socket.socket:
        made = space.udp(address, port)
        made.settimeout(2)
        self.open.append(made)
        return made

    def message(self, start: str, cseq: str, tags: tuple[str, str], content: bytes = b"", more: str = "",
                own: str = "") -> bytes:  # fmt: skip
        own = own or host_port(self.phone, SIP)
        lines = [start, f"Via: SIP/2.0/UDP {own};branch=z9hG4bK{self.call_id}{cseq[:2].strip()}",
                 f"From: <sip:a@example.org>{tags[0]}", f"To: <sip:b@example.org>{tags[1]}",
                 f"Call-ID: {self.call_id}", f"CSeq: {cseq}", f"Contact: <sip:u@{own}>"]  # fmt: skip
        lines += [more] if more else []
        lines += ["Content-Type: application/sdp"] if content else []
        return "\r\n".join([*lines, f"Content-Length: {len(content)}", "", ""]).encode() + content

    def invite(self, content: bytes | None = None, more: str = "", cseq: int = 1) -> bytes:
        content = body(self.phone, self.port) if content is None else content
        start = f"INVITE sip:b@{host_port(self.place.peer, SIP)} SIP/2.0"
        return self.message(start, f"{cseq} INVITE", (";tag=a", ""), content, more)

    def bye(self, tags: tuple[str, str] = (";tag=a", ";tag=b")) -> bytes:
        start = f"BYE sip:b@{host_port(self.place.peer, SIP)} SIP/2.0"
        return self.message(start, "2 BYE", tags)

    def answer(self, request: bytes, content: bytes, status: str = "200 OK", tag: str = ";tag=b") -> bytes:
        """As the far end writes it: Via, From, Call-ID and CSeq as they came (RFC 3261 section 8.2.6.2)."""
        kept = [line for line in request.split(b"\r\n\r\n")[0].split(b"\r\n")[1:]
                if line.startswith((b"Via:", b"From:", b"To:", b"Call-ID:", b"CSeq:"))]  # fmt: skip
        tagged = [line + tag.encode() if line[:3] == b"To:" and b";tag=" not in line else line for line in kept]
        more = [f"Contact: <sip:b@{host_port(self.place.peer, SIP)}>", "Content-Type: application/sdp",
                f"Content-Length: {len(content)}", "", ""]  # fmt: skip
        return b"\r\n".join([f"SIP/2.0 {status}".encode(), *tagged, *(line.encode() for line in more)]) + content

    def call(self, invite: bytes | None = None, far: str = "", cseq: int = 1) -> tuple[socket.socket, socket.socket]:
        """A whole INVITE and 200; `far`: the address that the answer names. Out: both ends' signalling."""
        mine, theirs = self.udp(self.where.client, self.phone), self.udp(self.where.peer, self.place.peer)
        asked, source = self.heard(mine, theirs, self.invite(cseq=cseq) if invite is None else invite)
        theirs.sendto(self.answer(asked, body(far or self.place.peer, FAR)), source)
        mine.recvfrom(65535)
        return mine, theirs

    def heard(self, mine: socket.socket, theirs: socket.socket, request: bytes) -> tuple[bytes, tuple[str, int]]:
        """A request of the phone's as it comes out, sent again if it does not (RFC 3261 section 17.1.1.2)."""
        theirs.settimeout(0.5)
        for _ in range(10):
            mine.sendto(request, (self.place.peer, SIP))
            try:
                return theirs.recvfrom(65535)
            except TimeoutError:
                continue
        raise TimeoutError(request)

    def hears(self, end: socket.socket) -> None:
        """What was sent before this has been worked off, or was refused."""
        end.settimeout(SETTLE)
        try:
            end.recvfrom(65535)
        except TimeoutError:
            pass
        finally:
            end.settimeout(2)

    def close(self) -> None:
        for each in self.open:
            each.close()


Attack = Callable[[Victim], set[int]]
"""Makes it, and says which ports may be open to the far end then."""
NOTHING: set[int] = set()


def honest(v: Victim) -> set[int]:
    """No attack: the scan can see what is open."""
    v.call()
    return {v.port, v.port + 1}


# -- the address that media is to come from, or to go to


def _answer_names(far: Callable[[Victim], str]) -> Attack:
    def attack(v: Victim) -> set[int]:
        v.call(far=far(v))
        return NOTHING

    return attack


def _offer_names(host: Callable[[Victim], str]) -> Attack:
    def attack(v: Victim) -> set[int]:
        v.call(v.invite(body(host(v), v.port)))
        return NOTHING

    return attack


def _offer_port(port: int) -> Attack:
    def attack(v: Victim) -> set[int]:
        v.port = port
        v.call()
        return NOTHING

    return attack


def rtcp_of_a_service(v: Victim) -> set[int]:
    """RFC 3605 with a port that no medium has."""
    v.also = {22, 53}
    v.call(v.invite(body(v.phone, v.port, "a=rtcp:22", "m=video 53 RTP/AVP 34")))
    return {v.port}


def contact_of_a_service(v: Victim) -> set[int]:
    """Later requests are to come to another port: it is known outside, but what comes there must be allowed."""
    v.also, mine, theirs = {22, 53}, v.udp(v.where.client, v.phone), v.udp(v.where.peer, v.place.peer)
    for number, port in enumerate((22, 53), 1):
        own = host_port(v.phone, port)
        start = f"INVITE sip:b@{host_port(v.place.peer, SIP)} SIP/2.0"
        asked, source = v.heard(mine, theirs, v.message(start, f"{number} INVITE", (";tag=a", ""), own=own))
        theirs.sendto(v.answer(asked, b""), source)
        mine.recvfrom(65535)
    return NOTHING


# -- slipstreaming


def tcp_segment(v: Victim) -> set[int]:
    """A page makes the browser POST to port 5060, so that a segment begins with an INVITE."""
    listening = v.where.peer.listen(v.place.peer, SIP)
    browser = v.where.client.tcp(v.phone)
    v.open += [listening, browser]
    browser.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    browser.connect((v.place.peer, SIP))
    evil, _ = listening.accept()
    evil.settimeout(2)
    v.open.append(evil)
    browser.sendall(b"POST /x HTTP/1.1\r\nHost: evil\r\nContent-Length: 9000\r\n\r\n" + b"a" * 700)
    until(lambda: b"aaa" in evil.recv(65535), 2)
    inside = v.invite().replace(b"SIP/2.0/UDP", b"SIP/2.0/TCP")
    browser.sendall(inside)
    evil.recv(65535)
    evil.sendall(v.answer(inside, body(v.place.peer, FAR)))
    v.hears(browser)
    return NOTHING


def udp_fragment(v: Victim) -> set[int]:
    """A TURN USERNAME so long that the second fragment begins with an INVITE."""
    mine, theirs = v.udp(v.where.client, v.phone), v.udp(v.where.peer, v.place.peer)
    inside = v.invite()
    whole = 1472 + len(inside)
    head = b"\0\3" + (whole - 20).to_bytes(2, "big") + b"\x21\x12\xa4\x42" + b"slipstreamed"
    text = head + b"\0\6" + (whole - 24).to_bytes(2, "big")
    data, source = v.heard(mine, theirs, text.ljust(1472, b"a") + inside)
    assert data.endswith(inside), "it goes on as it was"
    theirs.sendto(v.answer(inside, body(v.place.peer, FAR)), source)
    v.hears(mine)
    return NOTHING


def in_the_middle(v: Victim) -> set[int]:
    """Behind other bytes in a datagram."""
    mine, theirs = v.udp(v.where.client, v.phone), v.udp(v.where.peer, v.place.peer)
    _, source = v.heard(mine, theirs, b"GET / HTTP/1.1\r\n\r\n" + v.invite())
    theirs.sendto(v.answer(v.invite(), body(v.place.peer, FAR)), source)
    v.hears(mine)
    return NOTHING


# -- forged and replayed


def answer_from_elsewhere(v: Victim) -> set[int]:
    """The far end never answers; another address of the outside does."""
    mine, theirs = v.udp(v.where.client, v.phone), v.udp(v.where.peer, v.place.peer)
    other = v.udp(v.where.peer, v.place.stranger, 5061)
    asked, source = v.heard(mine, theirs, v.invite())
    for far in (v.place.stranger, v.place.peer):
        other.sendto(v.answer(asked, body(far, FAR)), source)
    v.hears(mine)
    return NOTHING


def answer_to_nothing(v: Victim) -> set[int]:
    """A registration lets its flow in; no INVITE was sent on it."""
    mine, theirs = v.udp(v.where.client, v.phone), v.udp(v.where.peer, v.place.peer)
    _, source = v.heard(mine, theirs, v.message("REGISTER sip:example.org SIP/2.0", "1 REGISTER", (";tag=a", "")))
    theirs.sendto(v.answer(v.invite(), body(v.place.peer, FAR)), source)
    v.hears(mine)
    return NOTHING


def bye_with_wrong_tags(v: Victim) -> set[int]:
    """The call goes on."""
    mine, theirs = v.call()
    source = (v.target, SIP)
    for tags in ((";tag=wrong", ";tag=a"), (";tag=b", ";tag=wrong"), ("", ""), (";tag=x", ";tag=y")):
        theirs.sendto(v.bye(tags), source)
        v.hears(mine)
        mine.sendto(v.answer(v.bye(tags), b""), (v.place.peer, SIP))
    return {v.port, v.port + 1}


def bye_from_elsewhere(v: Victim) -> set[int]:
    """The right words on another path."""
    mine, _ = v.call()
    other = v.udp(v.where.peer, v.place.stranger, 5061)
    other.sendto(v.bye((";tag=b", ";tag=a")), (v.target, SIP))
    v.hears(mine)
    return {v.port, v.port + 1}


def replayed_invite(v: Victim) -> set[int]:
    """Once more after its BYE, and its answer, too."""
    first = v.invite()
    mine, theirs = v.call(first)
    asked, source = v.heard(mine, theirs, v.bye())
    theirs.sendto(v.answer(asked, b""), source)
    mine.recvfrom(65535)
    asked, source = v.heard(mine, theirs, first)
    theirs.sendto(v.answer(asked, body(v.place.peer, FAR)), source)
    v.hears(mine)
    return NOTHING


def registered_only(v: Victim) -> set[int]:
    mine, theirs = v.udp(v.where.client, v.phone), v.udp(v.where.peer, v.place.peer)
    mine.sendto(
        v.message("REGISTER sip:example.org SIP/2.0", "1 REGISTER", (";tag=a", ""), body(v.phone, v.port)),
        (v.place.peer, SIP),
    )
    asked, source = theirs.recvfrom(65535)
    theirs.sendto(v.answer(asked, body(v.place.peer, FAR)), source)
    v.hears(mine)
    return NOTHING


# -- floods


def thousands_of_lines(v: Victim) -> set[int]:
    many = [f"m=audio {RANGE[0] + 2 * n} RTP/AVP 0" for n in range(2000)]
    mine, theirs = v.udp(v.where.client, v.phone), v.udp(v.where.peer, v.place.peer)
    asked, source = v.heard(mine, theirs, v.invite(body(v.phone, v.port, *many)))
    theirs.sendto(v.answer(asked, body(v.place.peer, FAR, *many)), source)
    v.hears(mine)
    return NOTHING


def more_ports_than_a_call_may(v: Victim) -> set[int]:
    """Two for each m= line; the first of them are honoured."""
    mine, theirs = v.udp(v.where.client, v.phone), v.udp(v.where.peer, v.place.peer)
    many = [[f"m=audio {first + 2 * n} RTP/AVP 0" for n in range(1, PER_CALL)] for first in (v.port, FAR)]
    asked, source = v.heard(mine, theirs, v.invite(body(v.phone, v.port, *many[0])))
    theirs.sendto(v.answer(asked, body(v.place.peer, FAR, *many[1])), source)
    mine.recvfrom(65535)
    return set(range(v.port, v.port + PER_CALL))


def zlib_bomb(v: Victim) -> set[int]:
    bomb = zlib.compress(body(v.phone, v.port) + b"a=x\r\n" * 1_000_000)
    v.call(v.invite(bomb, "Content-Encoding: deflate"))
    return NOTHING


def more_calls_than_a_host_may(v: Victim) -> set[int]:
    """Two ports a call; the first of them are honoured, the last is one too many."""
    mine, theirs = v.udp(v.where.client, v.phone), v.udp(v.where.peer, v.place.peer)
    first = v.port
    for number in range(PER_HOST // 2 + 1):
        v.call_id, v.port = f"{v.call_id}-{number}", first + 2 * number
        asked, source = v.heard(mine, theirs, v.invite())
        theirs.sendto(v.answer(asked, body(v.place.peer, FAR)), source)
        mine.recvfrom(65535)
    v.port = first
    return set(range(first, first + PER_HOST))


_LOOPBACK = {False: "127.0.0.1", True: "::1"}
_WIDE = {False: ("255.255.255.255", "224.0.0.5"), True: ("ff02::1", "ff0e::5")}


def _v6(v: Victim) -> bool:
    return ":" in v.phone


ATTACKS: dict[str, Attack] = {
    "an honest call": honest,
    "slipstreaming by a TCP segment": tcp_segment,
    "slipstreaming by a UDP fragment": udp_fragment,
    "SIP behind other bytes": in_the_middle,
    "the answer names a third party": _answer_names(lambda v: v.place.stranger),
    "the answer names loopback": _answer_names(lambda v: _LOOPBACK[_v6(v)]),
    "the answer names broadcast": _answer_names(lambda v: _WIDE[_v6(v)][0]),
    "the answer names a group": _answer_names(lambda v: _WIDE[_v6(v)][1]),
    "the answer names another inside host": _answer_names(lambda v: v.place.other),
    "the answer names the phone itself": _answer_names(lambda v: v.phone),
    "the answer names the gateway": _answer_names(lambda v: v.place.public),
    "the offer names another inside host": _offer_names(lambda v: v.place.other),
    "the offer names another phone": _offer_names(lambda v: v.place.phones[1]),
    "the offer names port 22": _offer_port(22),
    "the offer names port 1023": _offer_port(1023),
    "the offer names a port below the range": _offer_port(RANGE[0] - 1000),
    "the offer names a port above the range": _offer_port(RANGE[1] + 1001),
    "RTCP and video at ports of services": rtcp_of_a_service,
    "a Contact at the port of a service": contact_of_a_service,
    "a 200 from another address": answer_from_elsewhere,
    "a 200 that answers nothing": answer_to_nothing,
    "a REGISTER with a description": registered_only,
    "a BYE with wrong tags": bye_with_wrong_tags,
    "a BYE from another path": bye_from_elsewhere,
    "an INVITE again after its BYE": replayed_invite,
    "thousands of m= lines": thousands_of_lines,
    "more ports than a call may have": more_ports_than_a_call_may,
    "a zlib bomb": zlib_bomb,
    "more calls than a host may have": more_calls_than_a_host_may,
}


def made(where: Town, number: int, attack: Attack, v6: bool) -> tuple[Victim, set[int]]:
    """One attack at a place of its own. Out: its victim, and what may be open."""
    victim = Victim(where, Place.numbered(number, v6), 20000 + 50 * number, f"attack-{number}")
    try:
        return victim, attack(victim)
    finally:
        victim.close()


def probes(victim: Victim, may: set[int], reach: int = 2 * PER_CALL) -> list[Probe]:
    """Each to the ports around the attack's: by the far end and by a stranger, to its phone and, where they can be
    reached, to other inside hosts."""
    place = victim.place
    ports = {*range(victim.port, victim.port + reach), *may, *victim.also}
    hosts = [victim.target] if victim.where.nat else [victim.target, place.other, place.phones[1]]
    return [Probe(who, host, port) for who in (place.peer, place.stranger) for host in hosts for port in ports]
