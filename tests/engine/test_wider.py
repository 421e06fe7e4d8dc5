"""What one flow teaches about another: learned peers, and signatures of host scope."""

from __future__ import annotations

import random
from dataclasses import replace

from appid.alg.lessons import LIFETIME
from appid.engine import FlowReport
from appid.evidence import recent
from appid.identify.application import Application, Condition, Signature
from tests.corpus import stun_bytes as stun
from tests.corpus.lookalikes_calls import dtls_hello, srtp
from tests.corpus.lookalikes_stun import UDP_TRANSPORT, ice_check, signed
from tests.corpus.stage import Stage
from tests.corpus.writer import End
from tests.engine.play import ALL, CLIENT, STRANGER, Play, bodies, udp

RELAY, FAR = End("203.0.113.20", 3478), End("198.51.100.9", 50300)
OWN = CLIENT._replace(port=50122)


def stage() -> Stage:
    return Stage(random.Random("wider"))


def refusal(s: Stage, realm: bytes) -> bytes:
    attributes = [stun.error(401, "Unauthorized"), (stun.NONCE, b"0123456789abcdef"), (stun.REALM, realm)]
    return stun.message(stun.ALLOCATE, stun.ERROR, s.transaction(), attributes)


def called(play: Play, realm: bytes = b"signal.org", granted: bool = True) -> None:
    """The client asks its relay for a way to the peer."""
    s = stage()
    play.queue(udp(OWN, RELAY, stun.message(stun.ALLOCATE, stun.REQUEST, s.transaction(), [UDP_TRANSPORT])))
    play.queue(udp(RELAY, OWN, refusal(s, realm)))
    t, key = s.transaction(), s.rng.randbytes(16)
    peer = stun.xor_address(stun.XOR_PEER_ADDRESS, FAR.host, FAR.port, t)
    play.queue(udp(OWN, RELAY, signed(stun.CREATE_PERMISSION, stun.REQUEST, t, [peer], key)))
    kind = stun.SUCCESS if granted else stun.ERROR
    play.queue(udp(RELAY, OWN, signed(stun.CREATE_PERMISSION, kind, t, [], key)))


def name_of(play: Play, data: bytes) -> FlowReport | None:
    """What is told of this packet's flow."""
    return next(iter(bodies(play.queue(data), FlowReport)), None)


def check() -> bytes:
    return ice_check(stage(), b"WJsu:mNwq")[0]


def test_a_granted_permission_names_the_peers_flow_and_says_why() -> None:
    play = Play()
    called(play)
    told = name_of(play, udp(OWN, FAR, check()))
    assert told is not None
    assert (told.identification.application, told.identification.confidence) == ("signal-call", "strong")
    assert told.identification.because[-1].signature == "peer learned by flow 1 at packet 4"


def test_from_outside_too_and_what_nobody_can_read() -> None:
    play = Play()
    called(play)
    told = name_of(play, udp(FAR, OWN, b"\x05 media of its own"))
    assert told is not None
    assert told.identification.application == "signal-call"


def test_another_port_another_peer_and_a_refusal_teach_nothing() -> None:
    for granted, far in ((True, FAR._replace(port=50301)), (True, STRANGER), (False, FAR)):
        play = Play()
        called(play, granted=granted)
        told = name_of(play, udp(OWN, far, check()))
        assert told is not None
        assert told.identification.application == "stun"


def test_a_check_answered_through_a_channel_teaches_the_peer_behind_it() -> None:
    """Session 1 packets 121 to 160: the relay's own address is nobody's peer."""
    s, play, relay = stage(), Play(), End("17.173.254.35", 3478)
    own = CLIENT._replace(port=16402)
    t, u = s.transaction(), s.transaction()
    token = (stun.RESERVATION_TOKEN, bytes(8))
    allocate = [stun.xor_address(stun.XOR_RELAYED_ADDRESS, relay.host, 3489, t), token]
    play.queue(udp(own, relay, stun.message(stun.ALLOCATE, stun.REQUEST, t, allocate)))
    bind = [stun.channel_number(0x4000), stun.xor_address(stun.XOR_PEER_ADDRESS, FAR.host, FAR.port, t)]
    play.queue(udp(own, relay, stun.message(stun.CHANNEL_BIND, stun.REQUEST, t, bind)))
    asked = [(stun.USERNAME, bytes(20)), *(stun.u32(number, 1) for number in (0x8001, 0x8002, 0x8003, 0x8009))]
    play.queue(udp(own, relay, stun.channel_data(0x4000, stun.message(stun.BINDING, stun.REQUEST, u, asked))))
    answered = stun.message(stun.BINDING, stun.SUCCESS, u, [])
    play.queue(udp(relay, own, stun.channel_data(0x4000, answered)))
    opaque, elsewhere = b"\x05 media of its own", OWN._replace(port=50999)
    told = name_of(play, udp(elsewhere, FAR, opaque))
    assert told is not None
    assert told.identification.application == "facetime"
    assert name_of(play, udp(elsewhere, relay, opaque)) is None


def browser(play: Play, through_the_relay: bool, pause: float = 0.0) -> None:
    """RFC 8827 section 6.5: check and answer (or a granted permission), and only then the DTLS that tells WebRTC."""
    s = stage()
    request, answer = ice_check(s, b"Zk3f:8QpL")
    if through_the_relay:
        called(play, b"turn.example.org")
        t = s.transaction()
        peer, bind = stun.xor_address(stun.XOR_PEER_ADDRESS, FAR.host, FAR.port, t), stun.channel_number(0x4001)
        play.queue(udp(OWN, RELAY, signed(stun.CHANNEL_BIND, stun.REQUEST, t, [bind, peer], bytes(16))))
        play.queue(udp(RELAY, OWN, signed(stun.CHANNEL_BIND, stun.SUCCESS, t, [], bytes(16))))
    else:
        play.queue(udp(OWN, FAR, request))
        play.queue(udp(FAR, OWN, answer))
    play.now += pause
    hello = dtls_hello(s)
    play.queue(udp(OWN, RELAY, stun.channel_data(0x4001, hello)) if through_the_relay else udp(OWN, FAR, hello))


def test_what_was_validated_before_the_name_was_told_is_taught_with_it() -> None:
    for through_the_relay in (True, False):
        play = Play()
        browser(play, through_the_relay)
        told = name_of(play, udp(OWN._replace(port=50999), FAR, srtp(stage(), 1)))
        assert told is not None, "one packet of media, from another port, is enough"
        assert (told.identification.application, told.identification.confidence) == ("webrtc", "strong")
        assert told.identification.because[-1].signature.startswith("peer learned by flow 1 ")


def test_it_counts_from_when_it_was_validated_not_from_the_name() -> None:
    play = Play()
    browser(play, False, LIFETIME - 1)
    opaque = b"\x05 media of its own"
    told = name_of(play, udp(OWN._replace(port=50998), FAR, opaque))
    assert told is not None
    assert told.identification.application == "webrtc"
    play.now += 1
    assert name_of(play, udp(OWN._replace(port=50999), FAR, opaque)) is None


def test_it_is_over_after_its_time() -> None:
    play = Play()
    called(play)
    play.now += LIFETIME
    told = name_of(play, udp(OWN, FAR, check()))
    assert told is not None
    assert told.identification.application == "stun"


def test_a_relay_that_is_anyones_teaches_no_name() -> None:
    play = Play()
    called(play, b"turn.example.org")
    told = name_of(play, udp(OWN, FAR, check()))
    assert told is not None
    assert told.identification.application == "stun"


def test_what_says_its_own_name_keeps_it() -> None:
    """A question to a name server at the very address of the peer."""
    play = Play()
    called(play)
    query = bytes.fromhex("beef01000001000000000000") + b"\x03www\x07example\x03com\0\0\x01\0\x01"
    told = name_of(play, udp(OWN, FAR, query))
    assert told is not None
    assert told.identification.application == "dns"


def test_a_signature_of_host_scope_holds_over_the_hosts_flows_of_a_minute() -> None:
    """A realm on one flow, a check on another: together they are this application, for a while."""
    both = (Condition("stun.realm", "is", "calls.example"), Condition("stun.username_colon", "is", True))
    host = Signature("realm-and-check", "strong", "host", both, "made up", "2030")
    more = {"example-call": Application("example-call", "", "", 1, 999, (host,))}
    known = dict(ALL.applications) | more
    known["stun"] = replace(known["stun"], may_become=(*known["stun"].may_become, "example-call"))
    for later, wanted in ((0.0, "example-call"), (recent.LIFETIME + 1, "stun")):
        play = Play(replace(ALL, applications=known))
        play.queue(udp(RELAY, OWN, refusal(stage(), b"calls.example")))
        play.now += later
        told = name_of(play, udp(OWN, FAR, check()))
        assert told is not None
        assert told.identification.application == wanted
    play = Play(replace(ALL, applications=known))
    play.queue(udp(RELAY, OWN._replace(host="172.16.42.188"), refusal(stage(), b"calls.example")))
    told = name_of(play, udp(OWN, FAR, check()))
    assert told is not None
    assert told.identification.application == "stun", "another host's realm"
