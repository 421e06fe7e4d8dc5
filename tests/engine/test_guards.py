"""What a hostile end may try with SIP, and that it opens nothing; and what the operator switches off."""

from __future__ import annotations

import zlib
from dataclasses import replace

import pytest

from appid.alg.book import PER_CALL, PER_HOST
from appid.dataplane.command import BindNat, OpenPinhole, RewritePayload
from appid.engine import AnomalyReport, FlowReport
from appid.identify.application import ALG, AlgFunction, PortRange
from appid.packet import ACK, SYN
from appid.policy.evaluate import Judge
from appid.policy.rule import Policy, PolicyRule
from appid.wire import UDP, packed
from tests.corpus.writer import UDP as UDP_NUMBER
from tests.corpus.writer import End, ip_packet, udp_segment
from tests.engine.phones import GATE, PROVIDER, SIP, Phone, body, gateway
from tests.engine.play import ZONES, Play, applications, bodies, of, settings, tcp, udp

A, B = End("172.16.42.187", 5060), End("172.16.42.185", 5060)


def routed(*rules: PolicyRule) -> Play:
    """Without NAT."""
    return Play(settings(*(rules or (SIP,))))


def called(play: Play, host: str, port: int = 16402, far: str = PROVIDER.host, call_id: str = "one") -> Phone:
    """A call whose inside description names `host` and `port`, and whose answer names `far`."""
    phone = Phone(play, A, call_id=call_id)
    phone.out(phone.head("INVITE sip:bob@198.51.100.20 SIP/2.0", "1 INVITE", "", body(host, port)))
    phone.back(phone.head("SIP/2.0 200 OK", "1 INVITE", ";tag=314159", body(far, 30000)))
    return phone


def opened(play: Play) -> list[int]:
    return [command.expectation.port for command in of(play.commands, OpenPinhole)]


def reasons(play: Play) -> str:
    return " ".join(anomaly.reason for anomaly in bodies(play.commands, AnomalyReport))


def did(play: Play) -> int:
    """What the ALG has done."""
    return sum(isinstance(command, OpenPinhole | BindNat | RewritePayload) for command in play.commands)


def test_the_plain_call_opens_its_ports() -> None:
    play = routed()
    called(play, A.host)
    assert opened(play) == [16402, 16403]


def test_the_port_of_the_signalling_is_no_media_port() -> None:
    """Else the provider's whole address could send to what the phone registers with."""
    play = routed()
    called(play, A.host, A.port)
    assert A.port not in opened(play)
    assert "5060" in reasons(play)


@pytest.mark.parametrize(
    ("signalling", "media", "open_"),
    [(5060, 5061, [5062]), (5061, 5060, []), (5062, 5063, [5064]), (40001, 40000, []), (40000, 5060, []),
     (5060, 5059, [5059]), (5060, 5062, [5062, 5063]), (40000, 40002, [40002, 40003]), (5064, 5062, [5062, 5063])],
)  # fmt: skip
def test_the_port_beside_the_signallings_is_none_either(signalling: int, media: int, open_: list[int]) -> None:
    """Of RTP's port follows RTCP's, the next one (RFC 3550 section 11): who offers 5060 asks for 5061, where SIP over
    TLS listens. A phone that signals from anywhere may listen at 5060 as well."""
    play = routed()
    phone = Phone(play, A._replace(port=signalling), rtp=media)
    phone.invite()
    phone.back(phone.head("SIP/2.0 200 OK", "1 INVITE", ";tag=314159", body(PROVIDER.host, 30000)))
    assert opened(play) == open_
    assert ("its signalling's own" in reasons(play)) == (len(open_) < 2)


@pytest.mark.parametrize(
    "far", ["198.51.100.66", "127.0.0.1", "255.255.255.255", "224.0.0.1", "172.16.42.185", "172.16.42.187", GATE]
)
def test_media_from_anybody_but_the_peer_opens_nothing(far: str) -> None:
    """A third party, loopback, broadcast, multicast, another inside host, the host itself, the gateway."""
    play = routed()
    called(play, A.host, far=far)
    assert opened(play) == []
    assert far in reasons(play)


@pytest.mark.parametrize(("origin", "far", "name"), [
    ("alice", "198.51.100.66", "rtp"), ("GKVoiceChatService", "198.51.100.66", None), ("alice", B.host, None),
])  # fmt: skip
def test_media_to_a_server_of_its_own_is_known_where_it_was_announced(origin: str, far: str, name: str | None) -> None:
    """RFC 8866 section 5.7: c= may name another host than signals. Its media has a name from the first packet on, but
    not a name that one line of text could lend to anybody's."""
    play = Play()
    phone = Phone(play, A)
    offer, answer = (b.replace(b"o=alice ", f"o={origin} ".encode()) for b in (body(A.host, 16402), body(far, 30000)))
    phone.out(phone.head("INVITE sip:bob@198.51.100.20 SIP/2.0", "1 INVITE", "", offer))
    phone.back(phone.head("SIP/2.0 200 OK", "1 INVITE", ";tag=314159", answer))
    assert opened(play) == []
    media, own = bytes.fromhex("80000001000000a000001234") + bytes(160), A._replace(port=16402)
    for port, wanted in ((30000, name), (30001, name), (30002, None)):
        told = bodies(play.queue(udp(own, End(far, port), media)), FlowReport)
        assert [one.identification.application for one in told] == ([wanted] if wanted else [])


def test_nobody_speaks_for_another_inside_host() -> None:
    play = routed()
    called(play, B.host)
    assert opened(play) == []
    assert B.host in reasons(play)


@pytest.mark.parametrize("port", [22, 80, 1023])
def test_ports_of_services_open_never(port: int) -> None:
    play = routed()
    called(play, A.host, port)
    assert not set(opened(play)) & set(range(1024))


def test_ports_outside_the_applications_range_open_nothing() -> None:
    known = dict(applications())
    known["sip"] = replace(known["sip"], media_ports=(PortRange(UDP, 16384, 32767),))
    play = Play(replace(settings(default="none"), applications=known))
    called(play, A.host, 40000)
    assert opened(play) == []
    assert "40000" in reasons(play)
    called(play, A.host, 20000, call_id="two")
    assert opened(play) == [20000, 20001]


def test_thousands_of_media_lines_open_nothing() -> None:
    play = routed()
    phone = Phone(play, A)
    many = body(A.host, 16402, *(f"m=audio {20000 + 2 * i} RTP/AVP 0" for i in range(2000)))
    phone.out(phone.head("INVITE sip:bob@198.51.100.20 SIP/2.0", "1 INVITE", "", many))
    phone.back(
        phone.head("SIP/2.0 200 OK", "1 INVITE", ";tag=314159", many.replace(A.host.encode(), PROVIDER.host.encode()))
    )
    assert opened(play) == []
    assert "media lines" in reasons(play)


def test_one_call_opens_no_more_than_its_share() -> None:
    play = routed()
    phone = Phone(play, A)
    many = body(A.host, 16402, *(f"m=audio {20000 + 2 * i} RTP/AVP 0" for i in range(40)))
    phone.out(phone.head("INVITE sip:bob@198.51.100.20 SIP/2.0", "1 INVITE", "", many))
    phone.back(
        phone.head("SIP/2.0 200 OK", "1 INVITE", ";tag=314159", many.replace(A.host.encode(), PROVIDER.host.encode()))
    )
    assert len(opened(play)) <= PER_CALL


def test_a_host_opens_no_more_than_its_share_and_that_is_told() -> None:
    play = routed()
    for number in range(PER_HOST):
        phone = Phone(play, A, rtp=20000 + 2 * number, call_id=f"c{number}")
        phone.invite()
        phone.back(phone.head("SIP/2.0 200 OK", "1 INVITE", ";tag=314159", body(PROVIDER.host, 30000)))
    assert len(play.engine.calls.book.open) == PER_HOST
    assert f"a host has {PER_HOST} ports" in reasons(play)


def test_a_bomb_opens_nothing() -> None:
    play = routed()
    phone = Phone(play, A)
    bomb = zlib.compress(body(A.host, 16402) + b"a=x\r\n" * 1_000_000)
    head = phone.head("INVITE sip:bob@198.51.100.20 SIP/2.0", "1 INVITE", "", bomb)
    phone.out(head.replace(b"Content-Length", b"Content-Encoding: deflate\r\nContent-Length"))
    phone.back(phone.head("SIP/2.0 200 OK", "1 INVITE", ";tag=314159", body(PROVIDER.host, 30000)))
    assert opened(play) == []
    assert "inflates" in reasons(play)


# ---- NAT slipstreaming (S. Kamkar, 2020) -----------------------------------------------------------------------------


def test_slipstreaming_by_a_tcp_segment() -> None:
    """A browser's POST to port 5060, its body cut so that one segment begins with a request."""
    play = gateway()
    browser, evil = A._replace(port=50000), PROVIDER
    phone = Phone(play, A)
    play.queue(tcp(browser, evil, 1000, SYN))
    play.queue(tcp(evil, browser, 7000, SYN | ACK))
    post = b"POST / HTTP/1.1\r\nHost: evil\r\nContent-Length: 9000\r\n\r\n" + b"a" * 400
    inside = phone.head("INVITE sip:bob@198.51.100.20 SIP/2.0", "1 INVITE", "", body(A.host, 16402))
    play.queue(tcp(browser, evil, 1001, ACK, post))
    play.queue(tcp(browser, evil, 1001 + len(post), ACK, inside))
    play.queue(
        tcp(evil, browser, 7001, ACK, phone.head("SIP/2.0 200 OK", "1 INVITE", ";tag=3", body(PROVIDER.host, 30000)))
    )
    assert did(play) == 0


def test_slipstreaming_by_a_udp_fragment() -> None:
    """A TURN USERNAME so long that the second fragment begins with a request: a fragment is no datagram."""
    play = gateway()
    phone = Phone(play, A)
    inside = phone.head("INVITE sip:bob@198.51.100.20 SIP/2.0", "1 INVITE", "", body(A.host, 16402))
    segment = udp_segment(A, PROVIDER, bytes(1472) + inside)
    whole = bytearray(ip_packet(A.host, PROVIDER.host, UDP_NUMBER, segment[1480:], 9, 64))
    whole[6:8] = (185).to_bytes(2, "big")  # offset 1480, the last one
    play.queue(bytes(whole))
    phone.back(phone.head("SIP/2.0 200 OK", "1 INVITE", ";tag=3", body(PROVIDER.host, 30000)))
    assert did(play) == 0


def test_sip_in_a_stun_attribute() -> None:
    play = gateway()
    phone = Phone(play, A)
    inside = phone.head("INVITE sip:bob@198.51.100.20 SIP/2.0", "1 INVITE", "", body(A.host, 16402))
    name = b"\0\x06" + len(inside).to_bytes(2, "big") + inside + bytes(-len(inside) % 4)
    phone.out(b"\0\x03" + len(name).to_bytes(2, "big") + b"\x21\x12\xa4\x42" + bytes(12) + name)
    phone.back(phone.head("SIP/2.0 200 OK", "1 INVITE", ";tag=3", body(PROVIDER.host, 30000)))
    assert did(play) == 0


def test_registering_opens_nothing() -> None:
    play = gateway()
    phone = Phone(play, A)
    phone.out(phone.head("REGISTER sip:198.51.100.20 SIP/2.0", "1 REGISTER", "", b""))
    phone.respond("200 OK", "1 REGISTER", port=0)
    assert of(play.commands, OpenPinhole) == []


# ---- the dialog's own words ------------------------------------------------------------------------------------------


def test_an_answer_from_elsewhere_opens_nothing() -> None:
    play = routed()
    phone = Phone(play, A)
    phone.invite()
    other = PROVIDER._replace(host="198.51.100.66")
    play.queue(udp(other, A, phone.head("SIP/2.0 200 OK", "1 INVITE", ";tag=3", body(other.host, 30000))))
    assert opened(play) == []


@pytest.mark.parametrize(
    ("tag", "src"), [(";tag=wrong", PROVIDER), (";tag=314159", PROVIDER._replace(host="198.51.100.66"))]
)
def test_a_bye_with_wrong_tags_or_from_another_path_ends_nothing(tag: str, src: End) -> None:
    play = routed()
    phone = called(play, A.host)
    bye = phone.head("BYE sip:x@172.16.42.187 SIP/2.0", "2 BYE", tag, b"").replace(b"tag=1928301774", b"tag=999")
    play.queue(udp(src, A, bye))
    play.tick(40.0)
    assert len(play.engine.calls.book.open) == 2


def test_an_invite_sent_again_after_its_bye_opens_nothing() -> None:
    play = routed()
    phone = called(play, A.host)
    phone.out(phone.head("BYE sip:bob@198.51.100.20 SIP/2.0", "2 BYE", ";tag=314159", b""))
    phone.back(phone.head("SIP/2.0 200 OK", "2 BYE", ";tag=314159", b""))
    assert len(play.engine.calls.book.open) == 0
    play.now = 5.0
    called(play, A.host)
    assert len(play.engine.calls.book.open) == 0


# ---- switches --------------------------------------------------------------------------------------------------------


def natted(alg: frozenset[AlgFunction], where: str) -> Play:
    base = gateway().settings
    if where == "gateway":
        return Play(replace(base, alg=alg))
    if where == "application":
        known = dict(applications())
        known["sip"] = replace(known["sip"], alg=alg)
        return Play(replace(base, applications=known, judge=Judge(Policy((SIP,), ZONES, "deny"), known)))
    return Play(replace(base, judge=Judge(Policy((replace(SIP, alg=alg),), ZONES, "deny"), applications())))


@pytest.mark.parametrize("where", ["gateway", "application", "rule"])
def test_each_function_is_switched_off_alone(where: str) -> None:
    for function, kind in (("expectations", OpenPinhole), ("translation", RewritePayload)):
        play = natted(ALG - {function}, where)
        phone = Phone(play, A)
        phone.invite()
        via = GATE if function != "translation" else A.host
        ok = phone.head("SIP/2.0 200 OK", "1 INVITE", ";tag=314159", body(PROVIDER.host, 30000), f"{via}:5060")
        phone.back(ok)
        assert of(play.commands, kind) == []
        other = RewritePayload if kind is OpenPinhole else OpenPinhole
        assert of(play.commands, other) != []
    nothing = natted(frozenset(), where)
    phone = Phone(nothing, A)
    phone.invite()
    phone.back(phone.head("SIP/2.0 200 OK", "1 INVITE", ";tag=314159", body(PROVIDER.host, 30000)))
    assert did(nothing) == 0


def test_setting_a_call_up_looks_at_no_other_call() -> None:
    """The heap of idle calls, the book's places, the mappings: what is looked at for a call does not grow with the
    number of calls. Counted in commands, and by the deadline that stays one step away."""
    play = routed()
    for number in range(300):
        host = End(f"172.16.42.{number % 250 + 1}", 5060 + number // 250)
        phone = Phone(play, host, call_id=f"c{number}", rtp=20000 + 2 * (number // 250))
        before = len(play.commands)
        phone.invite()
        phone.back(phone.head("SIP/2.0 200 OK", "1 INVITE", ";tag=314159", body(PROVIDER.host, 30000)))
        cost = len(play.commands) - before
        assert cost <= 16
    assert len(play.engine.calls.calls.open) == 300
    assert play.engine.deadline is not None
    assert packed(A.host) in play.engine.calls.book._hosts


def test_the_old_port_stays_open_while_a_re_invite_may_fail() -> None:
    """RFC 6141: a 183 answers the offer for now, 488 takes it back."""
    play = routed()
    phone = called(play, A.host)

    def standing() -> list[int]:
        return sorted(expectation.port for expectation in play.engine.calls.book.open.values())

    phone.out(phone.head("INVITE sip:b@h SIP/2.0", "2 INVITE", ";tag=314159", body(A.host, 20000)))
    phone.back(phone.head("SIP/2.0 183 Session Progress", "2 INVITE", ";tag=314159", body(PROVIDER.host, 30000)))
    assert standing() == [16402, 16403, 20000, 20001]
    phone.back(phone.head("SIP/2.0 488 Not Acceptable Here", "2 INVITE", ";tag=314159", b""))
    assert standing() == [16402, 16403]
