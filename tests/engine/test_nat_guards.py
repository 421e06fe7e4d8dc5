"""Ports of the gateway that a hostile inside host names: of services, of the gateway itself, of other hosts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from appid.alg.host import Forward, Host
from appid.alg.mappings import LOWEST
from appid.alg.media import MAX_PORTS
from appid.dataplane.command import BindNat, OpenPinhole
from appid.engine import AnomalyReport, TranslationReport
from appid.engine.nat import BINDINGS
from appid.engine.standing import REFRESH
from appid.wire import TCP, UDP, Endpoint, FlowKey, packed
from tests.corpus.writer import End
from tests.engine.phones import GATE, PROVIDER, Phone, bindings, body, gateway, named, rewritten
from tests.engine.play import PUBLIC, Play, bodies, of, settings
from tests.engine.test_calls import ALLOW, RELAY, bound

A, B = End("172.16.42.187", 5060), End("172.16.42.185", 5060)


class Serving(Phone):
    """Its gateway listens on some ports itself."""

    own = frozenset({(UDP, 51820), (UDP, 5060), (UDP, 20001)})

    def owns(self, proto: int, outside: Endpoint) -> bool:
        return (proto, outside.port) in self.own


def told(phone: Phone) -> list[str]:
    return [one.result for one in bodies(phone.play.commands, TranslationReport)]


@pytest.mark.parametrize("port", [53, 500, 1023])
def test_media_at_a_services_port_are_bound_nowhere(port: int) -> None:
    """No call opens such a port, so none is bound: the far end of the message may be anybody."""
    phone = Phone(gateway(), A, rtp=port)
    assert [b[1] for b in bindings(phone.invite())] == [5060]
    assert named(rewritten(phone.play.commands), "m=") == f"audio {port} RTP/AVP 0"
    assert "no-port" in told(phone)


@pytest.mark.parametrize("named_as", [A.host, GATE])
@pytest.mark.parametrize("port", [51820, 20000])
def test_media_at_a_port_of_the_gateways_own_get_another(port: int, named_as: str) -> None:
    """WireGuard there, or whatever listens: also where the client has learned how it is seen outside."""
    phone = Serving(gateway(), A, rtp=port)
    content = body(named_as, port)
    commands = phone.out(phone.head("INVITE sip:bob@198.51.100.20 SIP/2.0", "1 INVITE", "", content))
    outside = int(named(rewritten(commands), "m=").split()[1])
    assert outside not in (port, 51820, 20001)
    assert (A.host, port, outside, PROVIDER.host) in bindings(commands)


def test_the_signallings_own_port_is_not_taken_from_the_gateway() -> None:
    phone = Serving(gateway(), A)
    assert named(rewritten(phone.invite()), "Contact") == f"<sip:x@{GATE}:{LOWEST}>"


@pytest.mark.parametrize("source", [500, 22])
def test_signalling_from_a_services_port_gets_another(source: int) -> None:
    phone = Phone(gateway(), A._replace(port=source))
    assert all(b[2] >= LOWEST for b in bindings(phone.invite()) if b[1] == source)


@pytest.mark.parametrize(("port", "kept"), [(22, False), (1023, False), (5062, True)])
def test_a_contact_names_no_services_port(port: int, kept: bool) -> None:
    phone = Phone(gateway(), End(A.host, 40001))
    register = phone.head("REGISTER sip:198.51.100.20 SIP/2.0", "1 REGISTER", "", b"", "", f"{A.host}:{port}")
    commands = phone.out(register)
    assert [b[1] for b in bindings(commands)] == [40001, 5062][: 1 + kept]
    assert ("no-port" in told(phone)) != kept


def test_a_contact_at_a_port_of_the_gateways_own_gets_another() -> None:
    phone = Serving(gateway(), End(A.host, 40001))
    register = phone.head("REGISTER sip:198.51.100.20 SIP/2.0", "1 REGISTER", "", b"", "", f"{A.host}:5060")
    commands = phone.out(register)
    assert (A.host, 5060, LOWEST, PROVIDER.host) in bindings(commands)
    assert named(rewritten(commands), "Contact") == f"<sip:x@{GATE}:{LOWEST}>"


def forwarding(*forwards: Forward) -> Play:
    return Play(replace(gateway().settings, forwarded=forwards))


@pytest.mark.parametrize(
    ("forward", "kept"),
    [
        (Forward(UDP, 16400, 16500, packed(B.host)), False),
        (Forward(None, 16403, 16403, None), False),
        (Forward(UDP, 16400, 16500, packed(A.host)), True),
        (Forward(TCP, 16400, 16500, packed(B.host)), True),
    ],
)
def test_a_port_that_the_host_forwards_to_another_stays_his(forward: Forward, kept: bool) -> None:
    """To the phone itself is as it should be: a PBX whose media ports are forwarded to it."""
    out = rewritten(Phone(forwarding(forward), A).invite())
    assert (named(out, "m=") == "audio 16402 RTP/AVP 0") == kept


def test_what_the_host_mapped_for_one_flow_is_not_bound_for_a_whole_peer() -> None:
    """A flow from port 51820: masquerading keeps the port, for that flow alone. The gateway's own socket hears the
    peer's other ports."""
    phone = Serving(gateway(), A._replace(port=51820), rtp=51820)
    phone.seen[FlowKey(UDP, *phone.inside, packed(PROVIDER.host), PROVIDER.port)] = Endpoint(packed(GATE), 51820)
    commands = phone.invite()
    assert [b for b in of(commands, BindNat) if b.outside_port == 51820] == []
    assert bindings(phone.play.tick(REFRESH + 1)) == []


def many(phone: Phone, number: int) -> None:
    """An INVITE that nobody answers, with as many media as a description may have."""
    phone.call_id, phone.provider = f"c{number}", End(f"198.51.100.{number % 200 + 30}", 5060)
    phone.rtp = 20000 + 64 * (number % 500)
    phone.invite(*(f"m=audio {phone.rtp + 2 * more} RTP/AVP 0" for more in range(1, 32)))


def test_one_host_takes_no_more_bindings_than_its_share() -> None:
    """Else a thousand offers took all there are, and the next phone had none."""
    play = gateway()
    hostile, honest = Phone(play, B), Phone(play, A, call_id="honest")
    for number in range(60):
        many(hostile, number)
        assert len([b for b in bindings(play.commands) if b[3] == hostile.provider.host and b[1] > 10000]) <= MAX_PORTS
    share = BINDINGS * play.engine.settings.limits.pinholes_per_host
    assert len(play.engine.calls.nat.mappings) <= share
    assert f"a host has {share} ports" in bodies(play.commands, AnomalyReport)[-1].reason
    assert [b[1:3] for b in bindings(honest.invite())] == [(5060, 5060), (16402, 16402), (16403, 16403)]
    for _ in range(3):
        play.tick(play.now + 200.0)
    assert len(play.engine.calls.nat.mappings) < share / 2, "free again, once nobody answers"


def test_no_far_end_leads_ones_voice_into_anothers_call() -> None:
    """It names the port at which somebody else's call takes its media: that call's own far end has named another."""
    play = gateway()
    honest, misled = Phone(play, B, call_id="honest"), Phone(play, A, End("203.0.113.9", 5060), 18000, "evil")
    honest.invite()
    misled.invite()
    honest.respond("200 OK")
    commands = misled.respond("200 OK", port=16402, host=GATE)
    assert named(rewritten(commands), "c=") == f"IN IP4 {GATE}"
    assert of(commands, OpenPinhole) == []
    assert "which is not the peer" in bodies(commands, AnomalyReport)[-1].reason


class Forwarded(Phone):
    """Conntrack knows its provider's own flow to port 1194 of ours, which the host's rules send to B."""

    def behind(self, proto: int, outside: Endpoint, peer: Endpoint) -> Endpoint | None:
        return Endpoint(packed(B.host), 1194) if (outside.port, peer.port) == (1194, 5060) else None


@pytest.mark.parametrize(
    ("contact", "host", "port"),
    [(5060, B.host, 16402), (5060, B.host, 22222), (5060, GATE, 5060), (5060, B.host, 5060), (5062, B.host, 5062),
     (5062, GATE, 5062), (40000, B.host, 40000), (40000, GATE, 40000), (1194, B.host, 53), (1194, B.host, 1194),
     (1194, GATE, 1194), (16402, B.host, 16402), (16402, B.host, 22222), (16402, GATE, 16402)],
)  # fmt: skip
@pytest.mark.parametrize("far", [End("203.0.113.66", 5060), PROVIDER], ids=["anybody", "the-same"])
def test_a_name_for_signalling_opens_no_media_to_whom_it_names(contact: int, host: str, port: int, far: End) -> None:
    """One 200 of a far end whose Contact names a port of ours that is another's: where B signals, where it wants to be
    called, what is forwarded to it, where it hears its own call. B has not been told of A, and by its own provider's
    word alone may A be told of B's media."""
    play = gateway()
    for number, end in enumerate((B, B._replace(port=40000))):
        phone = Phone(play, end, call_id=f"b{number}")
        offer = phone.head("INVITE sip:b@y SIP/2.0", "1 INVITE", "", body(B.host, 16402), "", f"{B.host}:5062")
        phone.out(offer)
        phone.respond("200 OK")
    misled = Forwarded(play, A._replace(port=5070), far, 18000, "evil")
    misled.invite()
    content = body(host, port)
    commands = misled.back(misled.head("SIP/2.0 200 OK", "1 INVITE", ";tag=t", content, "", f"{GATE}:{contact}"))
    allowed = far == PROVIDER and port == 16402
    assert bool(of(commands, OpenPinhole)) == allowed
    assert allowed or bodies(commands, AnomalyReport)


# ---- a peer's check on the client's own channel ----------------------------------------------------------------------


def let_in(to: str, **more: object) -> tuple[int, list[int]]:
    """Pinholes, and the outside ports that are bound, once a relay has passed on a check of such a peer."""
    commands = bound(Play(settings(ALLOW, outside=PUBLIC)), to=to, **more)  # type: ignore[arg-type]
    return len(of(commands, OpenPinhole)), [b.outside_port for b in of(commands, BindNat)]


@pytest.mark.parametrize(
    "to", ["127.0.0.1", "255.255.255.255", "224.0.0.1", "0.0.0.0", "0.1.2.3", "240.0.0.1", "169.254.1.1", PUBLIC,
           "172.16.42.185", "172.16.42.187", RELAY.host],
)  # fmt: skip
def test_a_channel_to_what_is_no_peer_opens_nothing(to: str) -> None:
    """The relay may be anybody's: what it says of a peer opens nothing to us, to others inside, to no host at all."""
    assert let_in(to) == (0, [])
    assert let_in("198.51.100.7") == (1, [16402])


class Says(Host):
    """Conntrack's word."""

    def __init__(self, port: int) -> None:
        self.port = port

    def mapped(self, key: FlowKey) -> Endpoint | None:
        return Endpoint(packed(PUBLIC), self.port)

    def owns(self, proto: int, outside: Endpoint) -> bool:
        return outside.port == 16400


@pytest.mark.parametrize(("said", "kernel", "ports"), [
    (16402, 16402, [16402]), (51820, 16402, []), (500, 16402, []), (500, 500, []), (16400, 16400, []),
])  # fmt: skip
def test_a_relay_names_no_port_that_the_client_has_not(said: int, kernel: int, ports: list[int]) -> None:
    assert let_in("198.51.100.7", port=said, kernel=Says(kernel))[1] == ports


def test_a_description_names_no_peer_that_is_no_host() -> None:
    """A channel makes its peer one of the call; the answer's words then open nothing for it."""
    play = Play(settings(ALLOW, outside=PUBLIC))
    bound(play, to="127.0.0.1")
    play.call(answered_as="127.0.0.1").connect()
    assert of(play.commands, OpenPinhole) == []


def test_no_answer_binds_a_port_of_the_gateways_own_either() -> None:
    """A host whose source is not translated names the gateway's own address and port, and its far end agrees."""
    phone = Serving(Play(replace(gateway().settings, masqueraded=())), A, rtp=51820)
    phone.seen[FlowKey(UDP, *phone.inside, packed(PROVIDER.host), PROVIDER.port)] = phone.inside
    content = body(GATE, 51820)
    phone.out(phone.head("INVITE sip:bob@198.51.100.20 SIP/2.0", "1 INVITE", "", content))
    phone.back(phone.head("SIP/2.0 200 OK", "1 INVITE", ";tag=314159", body(PROVIDER.host, 30000)))
    assert 51820 not in [b.outside_port for b in of(phone.play.commands, BindNat)]
