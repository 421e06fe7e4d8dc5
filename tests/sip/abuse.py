"""More of what a hostile end tries, live: addresses in each place of a description and of a header, messages that lie
about themselves, and packets that arrive in another shape than they seem to have.

In: a Victim of tests/sip/attacks.py. Out: which ports may be open to its far end then; to a stranger none ever are.
"""

from __future__ import annotations

import socket
import struct
import zlib
from collections.abc import Callable

from tests.netns.net import Namespace
from tests.sip.attacks import FAR, NOTHING, SETTLE, Attack, Victim, body
from tests.sip.sipp import SIP, host_port


def _v6(v: Victim) -> bool:
    return ":" in v.phone


def _honest(v: Victim) -> set[int]:
    return {v.port, v.port + 1}


def _at(host: str) -> str:
    return f"IN IP{6 if ':' in host else 4} {host}"


def _exchange(
    v: Victim, offer: bytes | None = None, answer: bytes | None = None
) -> tuple[socket.socket, socket.socket]:
    """A whole INVITE and 200 with these descriptions."""
    mine, theirs = v.udp(v.where.client, v.phone), v.udp(v.where.peer, v.place.peer)
    asked, source = v.heard(mine, theirs, v.invite(offer))
    theirs.sendto(v.answer(asked, body(v.place.peer, FAR) if answer is None else answer), source)
    v.hears(mine)
    return mine, theirs


def _answer(content: Callable[[Victim], bytes], opens: Callable[[Victim], set[int]] = lambda v: NOTHING) -> Attack:
    def attack(v: Victim) -> set[int]:
        _exchange(v, answer=content(v))
        return opens(v)

    return attack


def _offer(content: Callable[[Victim], bytes], opens: Callable[[Victim], set[int]] = lambda v: NOTHING) -> Attack:
    def attack(v: Victim) -> set[int]:
        _exchange(v, content(v))
        return opens(v)

    return attack


def _answer_by(address: Callable[[Victim], str], opens: Callable[[Victim], set[int]] = lambda v: NOTHING) -> Attack:
    """c= with this in the address's place. What is no address says nothing: media is the far end's own then."""

    def content(v: Victim) -> bytes:
        own, other = (b"\r\nc=" + _at(host).encode() for host in (v.place.peer, address(v)))
        return body(v.place.peer, FAR).replace(own, other)

    return _answer(content, opens)


def _candidates(v: Victim) -> tuple[str, ...]:
    hosts = (v.place.stranger, v.place.other, "::1" if _v6(v) else "127.0.0.1", "ff02::1" if _v6(v) else "224.0.0.5")
    return tuple(f"a=candidate:{n} 1 UDP 1 {host} {FAR} typ host" for n, host in enumerate(hosts))


def _lines(v: Victim, *lines: str) -> bytes:
    """A description with these m= lines alone."""
    return body(v.phone, v.port).split(b"m=")[0] + "\r\n".join([*lines, ""]).encode()


# -- headers


def headers_of_a_stranger(v: Victim) -> set[int]:
    """Contact, Record-Route, Via, `received`: where signalling goes, media must not come from."""
    mine, theirs = v.udp(v.where.client, v.phone), v.udp(v.where.peer, v.place.peer)
    asked, source = v.heard(mine, theirs, v.invite())
    there = host_port(v.place.stranger, SIP).encode()
    text = v.answer(asked, body(v.place.peer, FAR)).replace(host_port(v.place.peer, SIP).encode(), there)
    text = text.replace(b"\r\nFrom:", b";received=" + v.place.stranger.encode() + b";rport=22\r\nRecord-Route: <sip:"
                        + there + b";lr>\r\nVia: SIP/2.0/UDP " + there + b";branch=z9hG4bKx\r\nFrom:", 1)  # fmt: skip
    theirs.sendto(text, source)
    v.hears(mine)
    return _honest(v)


def contact_of_another_host(v: Victim) -> set[int]:
    """The phone names a service of its neighbour."""
    v.also = {22}
    mine, theirs = v.udp(v.where.client, v.phone), v.udp(v.where.peer, v.place.peer)
    own, other = (host_port(host, port).encode() for host, port in ((v.phone, SIP), (v.place.other, 22)))
    asked, source = v.heard(mine, theirs, v.invite().replace(b"Contact: <sip:u@" + own, b"Contact: <sip:u@" + other))
    theirs.sendto(v.answer(asked, body(v.place.peer, FAR)), source)
    v.hears(mine)
    return _honest(v)


# -- answers that are none


def _lying(change: Callable[[bytes], bytes]) -> Attack:
    """The answer, changed so that it answers something else."""

    def attack(v: Victim) -> set[int]:
        mine, theirs = v.udp(v.where.client, v.phone), v.udp(v.where.peer, v.place.peer)
        asked, source = v.heard(mine, theirs, v.invite())
        theirs.sendto(change(v.answer(asked, body(v.place.peer, FAR))), source)
        v.hears(mine)
        return NOTHING

    return attack


def _behind_a_refusal(text: bytes) -> bytes:
    """One datagram: a 404 without a body, and what follows it (RFC 3261 section 18.3: to be discarded)."""
    head, _, content = text.partition(b"\r\n\r\n")
    refusal = head.replace(b"200 OK", b"404 Not Found").replace(
        b"Content-Length: %d" % len(content), b"Content-Length: 0"
    )
    return refusal + b"\r\n\r\n" + text


def _within_a_refusal(text: bytes) -> bytes:
    """The 200 is the body of a 404."""
    head, _, content = text.partition(b"\r\n\r\n")
    refusal = head.replace(b"200 OK", b"404 Not Found").replace(b"application/sdp", b"message/sipfrag")
    return refusal.replace(b"Content-Length: %d" % len(content), b"Content-Length: %d" % len(text)) + b"\r\n\r\n" + text


def asked_by_the_far_end_itself(v: Victim) -> set[int]:
    """It calls the phone, which says nothing, and answers in the phone's name."""
    mine, theirs = v.udp(v.where.client, v.phone), v.udp(v.where.peer, v.place.peer)
    _, source = v.heard(mine, theirs, v.message("REGISTER sip:example.org SIP/2.0", "1 REGISTER", (";tag=r", "")))
    v.call_id += "-in"
    own = host_port(v.place.peer, SIP)
    invite = v.message("INVITE sip:u@example.org SIP/2.0", "1 INVITE", (";tag=a", ""), body(v.place.peer, FAR), own=own)
    theirs.sendto(invite, source)
    v.hears(mine)
    theirs.sendto(v.answer(invite, body(v.target, v.port)), source)
    v.hears(mine)
    return NOTHING


def answer_of_before(v: Victim) -> set[int]:
    """The 200 once more after the BYE."""
    mine, theirs = v.udp(v.where.client, v.phone), v.udp(v.where.peer, v.place.peer)
    asked, source = v.heard(mine, theirs, v.invite())
    answer = v.answer(asked, body(v.place.peer, FAR))
    theirs.sendto(answer, source)
    mine.recvfrom(65535)
    bye, _ = v.heard(mine, theirs, v.bye())
    theirs.sendto(v.answer(bye, b""), source)
    mine.recvfrom(65535)
    theirs.sendto(answer, source)
    v.hears(mine)
    return NOTHING


def acknowledged_only(v: Victim) -> set[int]:
    """Neither INVITE nor 200 describe anything; the ACK does."""
    mine, theirs = v.udp(v.where.client, v.phone), v.udp(v.where.peer, v.place.peer)
    asked, source = v.heard(mine, theirs, v.invite(b""))
    theirs.sendto(v.answer(asked, b""), source)
    mine.recvfrom(65535)
    start = f"ACK sip:b@{host_port(v.place.peer, SIP)} SIP/2.0"
    mine.sendto(v.message(start, "1 ACK", (";tag=a", ";tag=b"), body(v.phone, v.port)), (v.place.peer, SIP))
    theirs.recvfrom(65535)
    return NOTHING


def forty_forks(v: Victim) -> set[int]:
    """Each says something else of where it is; only what is the far end's own counts."""
    mine, theirs = v.udp(v.where.client, v.phone), v.udp(v.where.peer, v.place.peer)
    asked, source = v.heard(mine, theirs, v.invite())
    for number in range(40):
        far = (v.place.peer, v.place.stranger, v.place.other)[number % 3]
        theirs.sendto(v.answer(asked, body(far, FAR + number), "183 Session Progress", f";tag=fork{number}"), source)
    v.hears(mine)
    return _honest(v)


# -- within a call


def _within(method: str, tags: tuple[str, str], from_elsewhere: bool) -> Attack:
    """The far end, or another one, moves the media to a stranger; the phone agrees."""

    def attack(v: Victim) -> set[int]:
        mine, theirs = v.call()
        far = v.udp(v.where.peer, v.place.stranger, 5061) if from_elsewhere else theirs
        own = host_port(v.place.stranger if from_elsewhere else v.place.peer, SIP)
        text = v.message(
            f"{method} sip:u@example.org SIP/2.0", f"7 {method}", tags, body(v.place.stranger, FAR), own=own
        )
        far.sendto(text, (v.target, SIP))
        v.hears(mine)
        there = (v.place.stranger, 5061) if from_elsewhere else (v.place.peer, SIP)
        mine.sendto(v.answer(text, body(v.phone, v.port), tag=""), there)
        v.hears(far)
        return _honest(v) if from_elsewhere or tags != RIGHT else NOTHING

    return attack


RIGHT = (";tag=b", ";tag=a")


def cancelled_from_elsewhere(v: Victim) -> set[int]:
    """Early media goes on."""
    mine, theirs = v.udp(v.where.client, v.phone), v.udp(v.where.peer, v.place.peer)
    asked, source = v.heard(mine, theirs, v.invite())
    theirs.sendto(v.answer(asked, body(v.place.peer, FAR), "183 Session Progress"), source)
    mine.recvfrom(65535)
    other = v.udp(v.where.peer, v.place.stranger, 5061)
    other.sendto(v.message("CANCEL sip:b@example.org SIP/2.0", "1 CANCEL", (";tag=a", "")), (v.target, SIP))
    other.sendto(v.answer(asked, b"", "487 Request Terminated"), (v.target, SIP))
    v.hears(mine)
    return _honest(v)


def moved_to_a_service(v: Victim) -> set[int]:
    """The phone's own re-INVITE, after an honest beginning."""
    v.also = {22}
    mine, theirs = v.call()
    start = f"INVITE sip:b@{host_port(v.place.peer, SIP)} SIP/2.0"
    asked, source = v.heard(mine, theirs, v.message(start, "2 INVITE", (";tag=a", ";tag=b"), body(v.phone, 22)))
    theirs.sendto(v.answer(asked, body(v.place.peer, FAR)), source)
    v.hears(mine)
    return NOTHING


# -- the shape of packets


def _tcp(v: Victim) -> tuple[socket.socket, socket.socket]:
    listening, phone = v.where.peer.listen(v.place.peer, SIP), v.where.client.tcp(v.phone)
    v.open += [listening, phone]
    phone.connect((v.place.peer, SIP))
    far, _ = listening.accept()
    v.open.append(far)
    for each in (phone, far):
        each.settimeout(2)
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return phone, far


def _length(lie: Callable[[int], str]) -> Attack:
    """Over TCP the INVITE says another length than its body has."""

    def attack(v: Victim) -> set[int]:
        phone, far = _tcp(v)
        text = v.invite().replace(b"SIP/2.0/UDP", b"SIP/2.0/TCP")
        size = len(body(v.phone, v.port))
        phone.sendall(text.replace(b"Content-Length: %d" % size, lie(size).encode()))
        v.hears(far)
        far.sendall(v.answer(text, body(v.place.peer, FAR)))
        v.hears(phone)
        return NOTHING

    return attack


def a_whole_message_in_a_body(v: Victim) -> set[int]:
    """Over TCP: a MESSAGE whose body is an INVITE, as a page or a chat could make a phone send it."""
    phone, far = _tcp(v)
    inside = v.invite().replace(b"SIP/2.0/UDP", b"SIP/2.0/TCP")
    start = f"MESSAGE sip:b@{host_port(v.place.peer, SIP)} SIP/2.0"
    phone.sendall(v.message(start, "1 MESSAGE", (";tag=m", ""), inside).replace(b"application/sdp", b"text/plain"))
    v.hears(far)
    far.sendall(v.answer(inside, body(v.place.peer, FAR)))
    v.hears(phone)
    return NOTHING


def _raw(space: Namespace, family: int, source: str, to: str, packets: list[bytes], header: int = 0) -> None:
    def send() -> None:
        with socket.socket(family, socket.SOCK_RAW, header or socket.IPPROTO_RAW) as sock:
            if family == socket.AF_INET6 and not header:
                sock.setsockopt(socket.IPPROTO_IPV6, 36, 1)  # IPV6_HDRINCL
            sock.bind((source, 0))
            for packet in packets:
                sock.sendto(packet, (to, 0))

    space.call(send)


def _checksum(data: bytes) -> int:
    total = sum(struct.unpack(f">{len(data) // 2}H", data + b"\0" * (len(data) % 2))) if len(data) % 2 == 0 else 0
    if len(data) % 2:
        return _checksum(data + b"\0")
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _datagram(source: str, to: str, payload: bytes) -> bytes:
    """A UDP datagram from SIP's port to SIP's port, its checksum right."""
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    ends = socket.inet_pton(family, source) + socket.inet_pton(family, to)
    size = 8 + len(payload)
    pseudo = ends + (struct.pack(">HH", 17, size) if family == socket.AF_INET else struct.pack(">II", size, 17))
    head = struct.pack(">HHHH", SIP, SIP, size, 0)
    return head[:6] + struct.pack(">H", _checksum(pseudo + head + payload) or 0xFFFF) + payload


def _fragments(source: str, to: str, pieces: list[tuple[int, bool, bytes]]) -> list[bytes]:
    """IP packets: offset in bytes, whether more follow, the piece."""
    made, v6 = [], ":" in source
    family = socket.AF_INET6 if v6 else socket.AF_INET
    ends = socket.inet_pton(family, source) + socket.inet_pton(family, to)
    for offset, more, piece in pieces:
        if v6:
            head = struct.pack(">IHBB", 6 << 28, 8 + len(piece), 44, 64) + ends
            made.append(head + struct.pack(">BBHI", 17, 0, offset | more, 77) + piece)
        else:
            made.append(struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(piece), 77, offset // 8 | more << 13, 64, 17, 0)
                        + ends + piece)  # fmt: skip
    return made


def overlapping_fragments(v: Victim) -> set[int]:
    """Two that do not agree: the kernel takes neither (RFC 5722 section 4; IPv4 since 4.18)."""
    mine, theirs = v.udp(v.where.client, v.phone), v.udp(v.where.peer, v.place.peer)
    _, source = v.heard(mine, theirs, v.message("OPTIONS sip:example.org SIP/2.0", "1 OPTIONS", (";tag=o", "")))
    whole = _datagram(v.phone, v.place.peer, v.invite())
    harmless = whole[:8] + b"GET / HTTP/1.1\r\n".ljust(len(whole) - 8, b"x")
    cut = 160
    pieces = [(0, True, harmless[: cut + 80]), (8, True, whole[8:cut]), (cut, False, whole[cut:])]
    family = socket.AF_INET6 if _v6(v) else socket.AF_INET
    _raw(v.where.client, family, v.phone, v.place.peer, _fragments(v.phone, v.place.peer, pieces))
    v.hears(theirs)
    theirs.sendto(v.answer(v.invite(), body(v.place.peer, FAR)), source)
    v.hears(mine)
    return NOTHING


def tiny_fragments(v: Victim) -> set[int]:
    """An honest INVITE in pieces of 24 bytes: put together before anybody looks, or refused, never half read."""
    mine, theirs = v.udp(v.where.client, v.phone), v.udp(v.where.peer, v.place.peer)
    _, source = v.heard(mine, theirs, v.message("OPTIONS sip:example.org SIP/2.0", "1 OPTIONS", (";tag=o", "")))
    whole = _datagram(v.phone, v.place.peer, v.invite())
    pieces = [(at, at + 24 < len(whole), whole[at : at + 24]) for at in range(0, len(whole), 24)]
    family = socket.AF_INET6 if _v6(v) else socket.AF_INET
    _raw(v.where.client, family, v.phone, v.place.peer, _fragments(v.phone, v.place.peer, pieces))
    theirs.settimeout(1)
    asked, _ = theirs.recvfrom(65535)
    assert asked.startswith(b"INVITE ")
    theirs.sendto(v.answer(asked, body(v.place.peer, FAR)), source)
    v.hears(mine)
    return _honest(v)


def extension_headers(v: Victim) -> set[int]:
    """IPv6 destination options whose bytes look like an INVITE's; the datagram behind them is none. IPv4: options."""
    mine, theirs = v.udp(v.where.client, v.phone), v.udp(v.where.peer, v.place.peer)
    _, source = v.heard(mine, theirs, v.message("OPTIONS sip:example.org SIP/2.0", "1 OPTIONS", (";tag=o", "")))
    datagram = _datagram(v.phone, v.place.peer, b"GET / HTTP/1.1\r\n\r\n")
    family = socket.AF_INET6 if _v6(v) else socket.AF_INET
    ends = socket.inet_pton(family, v.phone) + socket.inet_pton(family, v.place.peer)
    if _v6(v):
        inner = _datagram(v.phone, v.place.peer, v.invite())[:230]
        options = struct.pack(">BB", 0x1E, len(inner)) + inner
        options += bytes([1, -(len(options) + 4) % 8]) + bytes(-(len(options) + 4) % 8)
        extension = bytes([17, (2 + len(options)) // 8 - 1]) + options
        packet = struct.pack(">IHBB", 6 << 28, len(extension) + len(datagram), 60, 64) + ends + extension + datagram
    else:
        options = b"\x01" * 40
        size = 60 + len(datagram)
        packet = struct.pack(">BBHHHBBH", 0x4F, 0, size, 78, 0, 64, 17, 0) + ends + options + datagram
    _raw(v.where.client, family, v.phone, v.place.peer, [packet])
    theirs.settimeout(1)
    assert theirs.recvfrom(65535)[0].startswith(b"GET /")
    theirs.sendto(v.answer(v.invite(), body(v.place.peer, FAR)), source)
    v.hears(mine)
    return NOTHING


# -- behind a relay


def _stun(kind: int, *attributes: tuple[int, bytes]) -> bytes:
    told = b"".join(struct.pack(">HH", name, len(value)) + value + bytes(-len(value) % 4) for name, value in attributes)
    return struct.pack(">HHI", kind, len(told), 0x2112A442) + b"appid-abuse!" + told


def _xor(address: str, port: int) -> bytes:
    v6 = ":" in address
    packed = socket.inet_pton(socket.AF_INET6 if v6 else socket.AF_INET, address)
    key = struct.pack(">I", 0x2112A442) + b"appid-abuse!"
    return struct.pack(">BBH", 0, 2 if v6 else 1, port ^ 0x2112) + bytes(
        a ^ b for a, b in zip(packed, key, strict=False)
    )


def _behind_a_relay(content: Callable[[Victim], bytes]) -> Attack:
    """The far end is a TURN server of its own, the stranger its peer; INVITE and 200 go through a channel."""

    def attack(v: Victim) -> set[int]:
        mine, relay = v.udp(v.where.client, v.phone, v.port), v.udp(v.where.peer, v.place.peer, 3478)
        peer = _xor(v.place.stranger, FAR)
        for asked, answered in (
            (_stun(0x0003, (0x0019, b"\x11\0\0\0")), _stun(0x0103, (0x0016, _xor(v.place.peer, 40000)))),
            (_stun(0x0009, (0x000C, b"\x40\0\0\0"), (0x0012, peer)), _stun(0x0109)),
        ):
            mine.sendto(asked, (v.place.peer, 3478))
            _, source = relay.recvfrom(65535)
            relay.sendto(answered, source)
            mine.recvfrom(65535)
        told = content(v)
        head = v.invite(told, "Content-Encoding: deflate" if told[:1] == b"\x78" else "")
        mine.sendto(struct.pack(">HH", 0x4000, len(head)) + head, (v.place.peer, 3478))
        v.hears(relay)
        answer = v.answer(head, body(v.place.stranger, FAR))
        relay.sendto(struct.pack(">HH", 0x4000, len(answer)) + answer, source)
        v.hears(mine)
        return NOTHING

    return attack


def _channel_to(peer: Callable[[Victim], str], opens: tuple[int, ...] = ()) -> Attack:
    """The stranger is a relay as FaceTime had in 2015; the phone binds a channel to `peer`, and the relay hands on
    a check in that one's name."""

    def attack(v: Victim) -> set[int]:
        v.port = 16402
        mine, relay = v.udp(v.where.client, v.phone, v.port), v.udp(v.where.peer, v.place.stranger, 3478)
        token = (0x0022, bytes(8))
        relayed = (0x0016, _xor(v.place.stranger, 3489))
        binding = (0x000C, b"\x40\0\0\0"), (0x0012, _xor(peer(v), FAR))
        for asked, kind in ((_stun(0x0003, relayed, token), 0x0103), (_stun(0x0009, *binding), 0x0109)):
            mine.sendto(asked, (v.place.stranger, 3478))
            _, source = relay.recvfrom(65535)
            relay.sendto(_stun(kind, relayed, (0x0020, _xor(*source[:2]))), source)
            mine.recvfrom(65535)
        check = _stun(0x0001, (0x0006, bytes(20)))
        relay.sendto(struct.pack(">HH", 0x4000, len(check)) + check, source)
        v.hears(mine)
        return set(opens)

    return attack


def _bomb(v: Victim) -> bytes:
    return zlib.compress(body(v.phone, v.port + 1) + b"a=x\r\n" * 1_000_000)


# -- sizes


def endless_headers(v: Victim) -> set[int]:
    """What is too long to be read goes on as it is, and opens nothing."""
    mine, theirs = v.udp(v.where.client, v.phone), v.udp(v.where.peer, v.place.peer)
    text = v.invite().replace(b"\r\nCSeq:", b"\r\nSubject: x" * 4000 + b"\r\nCSeq:", 1)
    asked, source = v.heard(mine, theirs, text)
    assert len(asked) >= len(text)
    theirs.settimeout(SETTLE)
    theirs.sendto(v.answer(v.invite(), body(v.place.peer, FAR)), source)
    v.hears(mine)
    return NOTHING


def _mapped(v: Victim) -> str:
    return "::ffff:198.51.100.9"


ABUSES: dict[str, Attack] = {
    "RTCP of the answer at a third party": _answer(
        lambda v: body(v.place.peer, FAR, f"a=rtcp:{FAR + 1} {_at(v.place.stranger)}"), _honest
    ),
    "RTCP of the offer at another inside host": _offer(
        lambda v: body(v.phone, v.port, f"a=rtcp:{v.port + 9} {_at(v.place.other)}"), lambda v: {v.port}
    ),
    "candidates of third parties in the answer": _answer(lambda v: body(v.place.peer, FAR, *_candidates(v)), _honest),
    "candidates of third parties in the offer": _offer(lambda v: body(v.phone, v.port, *_candidates(v)), _honest),
    "c= at the media names a third party": _answer(lambda v: body(v.place.peer, FAR, f"c={_at(v.place.stranger)}")),
    "o= alone names a third party": _answer(
        lambda v: body(v.place.peer, FAR).replace(
            b"o=- 1 1 " + _at(v.place.peer).encode(), b"o=- 1 1 " + _at(v.place.stranger).encode()
        ),
        _honest,
    ),
    "c= is an IPv4 address within IPv6": _answer_by(_mapped),
    "c= is link-local": _answer_by(lambda v: "fe80::1" if _v6(v) else "169.254.1.1"),
    "c= is written with zeros": _answer_by(lambda v: "fd00:0077:00002::9" if _v6(v) else "198.051.100.009", _honest),
    "c= is a number": _answer_by(lambda v: "0xc6336409", _honest),
    "c= is a name": _answer_by(lambda v: "stranger.example.org", _honest),
    "c= is a group with its TTL": _answer_by(lambda v: "ff0e::5/3" if _v6(v) else "224.2.1.1/127/3"),
    "two hundred ports at one line": _offer(lambda v: _lines(v, f"m=audio {v.port}/200 RTP/AVP 0"), _honest),
    "ports that are none": _offer(
        lambda v: _lines(v, *(f"m=audio {port} RTP/AVP 0" for port in ("65535", "0", "1", "1023")))
    ),
    "a port beyond all numbers": _offer(lambda v: _lines(v, f"m=audio {v.port + 65536} RTP/AVP 0")),
    "a port below zero": _offer(lambda v: _lines(v, f"m=audio -{v.port} RTP/AVP 0")),
    "media over TCP at a datagram's port": _offer(lambda v: _lines(v, f"m=audio {v.port} TCP/RTP/AVP 0")),
    "Contact, Via and Record-Route of a stranger": headers_of_a_stranger,
    "a Contact of another inside host": contact_of_another_host,
    "a 200 to another request": _lying(lambda text: text.replace(b"CSeq: 1 INVITE", b"CSeq: 2 INVITE")),
    "a 200 to OPTIONS": _lying(lambda text: text.replace(b"CSeq: 1 INVITE", b"CSeq: 1 OPTIONS")),
    "a 200 to another caller": _lying(lambda text: text.replace(b";tag=a", b";tag=z", 1)),
    "a 200 of another call": _lying(lambda text: text.replace(b"Call-ID: ", b"Call-ID: x")),
    "a 200 behind a refusal": _lying(_behind_a_refusal),
    "a 200 within a refusal": _lying(_within_a_refusal),
    "the caller outside answers itself": asked_by_the_far_end_itself,
    "a 200 once more after its BYE": answer_of_before,
    "an ACK alone describes": acknowledged_only,
    "forty forks": forty_forks,
    "a re-INVITE from elsewhere": _within("INVITE", RIGHT, True),
    "an UPDATE from elsewhere": _within("UPDATE", RIGHT, True),
    "a re-INVITE with wrong tags": _within("INVITE", (";tag=b", ";tag=wrong"), False),
    "a re-INVITE to a third party": _within("INVITE", RIGHT, False),
    "a CANCEL from elsewhere": cancelled_from_elsewhere,
    "a re-INVITE to a service": moved_to_a_service,
    "TCP: a length too short": _length(lambda size: "Content-Length: 0"),
    "TCP: a length below zero": _length(lambda size: f"Content-Length: -{size}"),
    "TCP: a length beyond all": _length(lambda size: f"Content-Length: {size + 10**12}"),
    "TCP: a call within a message": a_whole_message_in_a_body,
    "fragments that overlap": overlapping_fragments,
    "fragments of 24 bytes": tiny_fragments,
    "extension headers and options": extension_headers,
    "a channel to the far end itself, which may": _channel_to(lambda v: v.place.peer, (16402,)),
    "a channel to loopback": _channel_to(lambda v: "::1" if _v6(v) else "127.0.0.1"),
    "a channel to a group": _channel_to(lambda v: "ff02::1" if _v6(v) else "224.0.0.5"),
    "a channel to broadcast": _channel_to(lambda v: "ff0e::1" if _v6(v) else "255.255.255.255"),
    "a channel to another inside host": _channel_to(lambda v: v.place.other),
    "a channel to the gateway": _channel_to(lambda v: v.place.public),
    "a zlib bomb in a channel": _behind_a_relay(_bomb),
    "headers without end": endless_headers,
}
