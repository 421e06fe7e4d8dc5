"""Calls behind source NAT: what the far side is told, what is bound before that, and what goes when it is over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from appid.alg.mappings import LOWEST
from appid.dataplane.command import BindNat, ClosePinhole, Command, OpenPinhole, RewritePayload, SetVerdict
from appid.engine import FlowEnded, TranslationReport
from appid.engine.standing import REFRESH
from appid.wire import UDP, Endpoint, FlowKey, packed
from tests.corpus.writer import End
from tests.engine.phones import GATE, PROVIDER, Phone, bindings, body, gateway, named, rewritten, unbound
from tests.engine.play import Play, bodies, of, udp

A, B = End("172.16.42.187", 5060), End("172.16.42.185", 5060)


def test_an_outgoing_call_is_told_and_bound_as_the_gateways() -> None:
    phone = Phone(gateway(), A)
    commands = phone.invite()
    out = rewritten(commands)
    assert named(out, "Via").startswith(f"SIP/2.0/UDP {GATE}:5060;")
    assert named(out, "Contact") == f"<sip:x@{GATE}:5060>"
    assert [named(out, "o="), named(out, "c="), named(out, "m=")] == [
        f"alice 1 1 IN IP4 {GATE}", f"IN IP4 {GATE}", "audio 16402 RTP/AVP 0",
    ]  # fmt: skip
    assert bindings(commands) == [
        ("172.16.42.187", 5060, 5060, "198.51.100.20"),
        ("172.16.42.187", 16402, 16402, "198.51.100.20"), ("172.16.42.187", 16403, 16403, "198.51.100.20"),
    ], "media too: what the far side sends at once comes to us, behind its answer"  # fmt: skip
    assert of(commands, OpenPinhole) == [], "not agreed yet"
    kinds = [type(command) for command in commands]
    assert kinds.index(BindNat) < kinds.index(RewritePayload) < kinds.index(SetVerdict)


def test_the_answer_opens_media_and_names_the_phone_again() -> None:
    phone = Phone(gateway(), A)
    phone.invite()
    commands = phone.respond("200 OK")
    back = rewritten(commands)
    assert named(back, "Via") == "SIP/2.0/UDP 172.16.42.187:5060;branch=z9hG4bK776;received=172.16.42.187;rport=5060"
    assert named(back, "c=") == "IN IP4 198.51.100.20"
    assert bindings(commands) == [], "bound since the offer"
    opened = [
        (p.expectation.port, p.expectation.outside_port, p.expectation.announced) for p in of(commands, OpenPinhole)
    ]
    assert opened == [(16402, 16402, 30000), (16403, 16403, 30001)]
    assert type(commands[-1]) is SetVerdict


def test_early_media_is_let_in_by_the_provisional_answer() -> None:
    phone = Phone(gateway(), A)
    phone.invite()
    assert len(of(phone.respond("183 Session Progress"), OpenPinhole)) == 2
    assert of(phone.respond("200 OK"), OpenPinhole) == [], "the same media"


def test_flows_that_stood_before_their_port_was_bound_begin_anew() -> None:
    """The host has mapped them in its own way; the binding names their peer's ports, so that nobody must look."""
    phone = Phone(gateway(), A)
    for port in (30000, 30004):
        phone.play.queue(udp(A._replace(port=16402), PROVIDER._replace(port=port), b"\x80" + bytes(20)))
    (media,) = [b for b in of(phone.invite(), BindNat) if b.port == 16402]
    assert media.peer_ports == (30000, 30004)
    ended = FlowKey(UDP, packed(A.host), 16402, packed(PROVIDER.host), 30000)
    other = Phone(gateway(), A)
    other.play.queue(udp(A._replace(port=16402), PROVIDER._replace(port=30000), b"\x80" + bytes(20)))
    other.play.engine.handle(FlowEnded(ended, 0, (1, 0), (49, 0)), 1.0)
    (media,) = [b for b in of(other.invite(), BindNat) if b.port == 16402]
    assert media.peer_ports == ()


def test_two_phones_on_the_same_ports_are_told_apart() -> None:
    play = gateway()
    first, second = Phone(play, A), Phone(play, B, call_id="other")
    first.invite()
    first.respond("200 OK")
    out = rewritten(second.invite())
    assert second.outside == Endpoint(packed(GATE), LOWEST)
    assert named(out, "Contact") == f"<sip:x@{GATE}:{LOWEST}>"
    assert f"{GATE}:{LOWEST};" in named(out, "Via")
    port = int(named(out, "m=").split()[1])
    assert port != 16402
    assert port % 2 == 0
    assert bindings(second.play.commands)[-2:] == [
        ("172.16.42.185", 16402, port, "198.51.100.20"), ("172.16.42.185", 16403, port + 1, "198.51.100.20"),
    ]  # fmt: skip


def test_rtcp_that_has_a_port_of_its_own_follows() -> None:
    play = gateway()
    Phone(play, A, call_id="first").invite("a=rtcp:16410")
    out = rewritten(Phone(play, B).invite("a=rtcp:16410"))
    told, rtcp = int(named(out, "m=").split()[1]), int(named(out, "a=rtcp").split()[0])
    assert (told, rtcp) != (16402, 16410)
    assert told % 2 == rtcp % 2 == 0
    found = {b[1]: b[2] for b in bindings(play.commands)[-2:]}
    assert found == {16402: told, 16410: rtcp}


def test_media_over_tcp_are_bound_for_no_datagrams() -> None:
    """RFC 4975: a message session's port is a TCP port."""
    phone = Phone(gateway(), A)
    commands = phone.invite("m=message 2855 TCP/MSRP *")
    assert [port for _, port, _, _ in bindings(commands)] == [5060, 16402, 16403]


def _moves(phone: Phone, number: int, port: int, status: str) -> str:
    message = phone.head("INVITE sip:b@h SIP/2.0", f"{number} INVITE", ";tag=314159", body(A.host, port))
    out = rewritten(phone.out(message))
    phone.respond(status, f"{number} INVITE", 30000 if status == "200 OK" else 0)
    return out


def test_media_may_move_any_number_of_times() -> None:
    """What was replaced is given back, so that the hundredth port is told and bound like the first."""
    phone = Phone(gateway(), A)
    phone.invite()
    phone.respond("200 OK")
    nat = phone.play.engine.calls.nat
    for number in range(2, 102):
        port = 20000 + 2 * number
        out = _moves(phone, number, port, "200 OK")
        assert (named(out, "c="), named(out, "m=")) == (f"IN IP4 {GATE}", f"audio {port} RTP/AVP 0")
        assert sorted(key[1].port for key in nat.bindings.standing) == [port, port + 1]
    assert len(nat.mappings) == 3, "the phone's own port, and two of media"


def test_the_port_of_a_refused_re_invite_is_given_back() -> None:
    phone = Phone(gateway(), A)
    phone.invite()
    phone.respond("200 OK")
    _moves(phone, 2, 20000, "488 Not Acceptable Here")
    assert [port for _, port, _, _ in unbound(phone.play.commands)] == [20000, 20001]
    assert sorted(key[1].port for key in phone.play.engine.calls.nat.bindings.standing) == [16402, 16403]


def test_facetimes_one_port_stays_one_port() -> None:
    play = gateway()
    Phone(play, A, call_id="first").invite("a=rtcp:16402", "m=video 16402 RTP/AVP 123", "a=rtcp:16402")
    out = rewritten(Phone(play, B).invite("a=rtcp:16402", "m=video 16402 RTP/AVP 123", "a=rtcp:16402"))
    lines = [line for line in out.split("\r\n") if line[:2] in ("m=", "a=")]
    port = lines[0].split()[1]
    assert port != "16402"
    assert lines == [f"m=audio {port} RTP/AVP 0", f"a=rtcp:{port}", f"m=video {port} RTP/AVP 123", f"a=rtcp:{port}"]


def test_an_incoming_call_is_addressed_to_the_phone_and_bound_by_its_answer() -> None:
    """The flow stands since the phone registered: conntrack tells its mapping."""
    phone = Phone(gateway(), A)
    phone.seen[FlowKey(UDP, *phone.inside, packed(PROVIDER.host), PROVIDER.port)] = Endpoint(packed(GATE), 1024)
    register = phone.head("REGISTER sip:198.51.100.20 SIP/2.0", "1 REGISTER", "", b"")
    out = phone.out(register)
    assert bindings(out) == [], "the host has mapped it already"
    assert named(rewritten(out), "Contact") == f"<sip:x@{GATE}:1024>"
    offer = body(PROVIDER.host, 30000)
    invite = phone.head(f"INVITE sip:x@{GATE}:1024 SIP/2.0", "9 INVITE", "", offer, PROVIDER.host, PROVIDER.host)
    assert rewritten(phone.back(invite)).startswith("INVITE sip:x@172.16.42.187:5060 SIP/2.0\r\n")
    answer = phone.head("SIP/2.0 200 OK", "9 INVITE", ";tag=314159", body(A.host, 16402), PROVIDER.host)
    commands = phone.out(answer)
    told = rewritten(commands)
    assert [named(told, "c="), named(told, "m=")] == [f"IN IP4 {GATE}", "audio 16402 RTP/AVP 0"]
    assert named(told, "Via").startswith("SIP/2.0/UDP 198.51.100.20;"), "the far side's own"
    assert [b[1:3] for b in bindings(commands)] == [(16402, 16402), (16403, 16403)]


def test_a_call_that_comes_in_by_the_hosts_own_forwarding() -> None:
    """Its first packet: no entry tells yet which outside port it is; what names our address is the phone's."""
    phone = Phone(gateway(), A)
    invite = phone.head(f"INVITE sip:bob@{GATE} SIP/2.0", "9 INVITE", "", b"", PROVIDER.host, PROVIDER.host)
    out = phone.back(invite)
    assert rewritten(out).startswith("INVITE sip:bob@172.16.42.187 SIP/2.0\r\n")
    assert bindings(out) == []


def test_both_ends_behind_the_same_gateway_speak_to_each_other() -> None:
    """Their provider hands each the other's outside endpoint: to those inside it is told as what it is inside."""
    play = gateway()
    alice, bob = Phone(play, A), Phone(play, B, call_id="leg2", rtp=17000)
    key = FlowKey(UDP, *bob.inside, packed(PROVIDER.host), PROVIDER.port)
    bob.seen[key] = Endpoint(packed(GATE), 1024)
    bob.out(bob.head("REGISTER sip:198.51.100.20 SIP/2.0", "1 REGISTER", "", b""))
    offered = int(named(rewritten(alice.invite()), "m=").split()[1])
    invite = bob.head(f"INVITE sip:x@{GATE}:1024 SIP/2.0", "9 INVITE", "", body(GATE, offered), PROVIDER.host)
    told = rewritten(bob.back(invite))
    assert [named(told, "o="), named(told, "c="), named(told, "m=")] == [
        "alice 1 1 IN IP4 172.16.42.187", "IN IP4 172.16.42.187", "audio 16402 RTP/AVP 0",
    ]  # fmt: skip
    answer = bob.head("SIP/2.0 200 OK", "9 INVITE", ";tag=b", body(B.host, 17000), PROVIDER.host)
    answered = rewritten(bob.out(answer))
    assert named(answered, "c=") == f"IN IP4 {GATE}"
    back = alice.respond("200 OK", port=int(named(answered, "m=").split()[1]), host=GATE)
    assert [named(rewritten(back), "c="), named(rewritten(back), "m=")] == [
        "IN IP4 172.16.42.185",
        "audio 17000 RTP/AVP 0",
    ]
    media = play.engine.calls.book.foreseen(FlowKey(UDP, *Endpoint(packed(A.host), 16402), packed(B.host), 17000))
    assert media is not None, "media goes from one to the other, foreseen"
    assert of(play.commands, ClosePinhole) == []


def test_a_public_address_is_left_alone() -> None:
    phone = Phone(gateway(), A)
    content = body("192.0.2.66", 16402)
    out = rewritten(phone.out(phone.head("INVITE sip:bob@198.51.100.20 SIP/2.0", "1 INVITE", "", content)))
    assert out.encode().endswith(content)


def test_a_learned_address_that_is_taken_gets_another_port() -> None:
    """Two clients that know their outside address by STUN, and both name 16402 there."""
    play = gateway()
    for number, end in enumerate((A, B)):
        phone = Phone(play, end, call_id=f"c{number}")
        content = body(GATE, 16402, "a=rtcp:16402")
        out = rewritten(phone.out(phone.head("INVITE sip:bob@198.51.100.20 SIP/2.0", "1 INVITE", "", content)))
        assert named(out, "c=") == f"IN IP4 {GATE}"
        ports = {named(out, "m=").split()[1], named(out, "a=rtcp")}
        assert len(ports) == 1
        assert (ports == {"16402"}) == (number == 0)


def test_without_nat_nothing_is_touched() -> None:
    """Inside addresses that go out as they are: the host has no rule for them, or conntrack says so."""
    plain = Phone(Play(replace(gateway().settings, masqueraded=())), A)
    assert of(plain.invite(), RewritePayload) == []
    ok = plain.head("SIP/2.0 200 OK", "1 INVITE", ";tag=314159", body(PROVIDER.host, 30000))
    assert len(of(plain.back(ok), OpenPinhole)) == 2
    assert bindings(plain.play.commands) == []
    said = Phone(gateway(), A)
    said.seen[FlowKey(UDP, *said.inside, packed(PROVIDER.host), PROVIDER.port)] = said.inside
    assert of(said.invite(), RewritePayload) == []
    assert bindings(said.play.commands) == []


def test_the_end_of_a_call_takes_its_bindings_and_the_end_of_the_flow_takes_the_rest() -> None:
    phone = Phone(gateway(), A)
    phone.invite()
    phone.respond("200 OK")
    phone.out(phone.head("BYE sip:bob@198.51.100.20 SIP/2.0", "2 BYE", ";tag=314159", b""))
    gone = phone.respond("200 OK", "2 BYE", port=0)
    assert unbound(gone) == [
        ("172.16.42.187", 16402, 16402, "198.51.100.20"), ("172.16.42.187", 16403, 16403, "198.51.100.20"),
    ]  # fmt: skip
    keeper = phone.play.engine.calls.nat
    assert len(keeper.mappings) == 1
    key = FlowKey(UDP, *phone.inside, packed(PROVIDER.host), PROVIDER.port)
    ended = phone.play.engine.handle(FlowEnded(key, 0, (5, 5), (500, 500)), 200.0)
    assert unbound(ended) == [], "the entry of the flow kept that mapping, no binding"
    assert (len(keeper.mappings), keeper.bindings.standing) == (0, {})


def test_a_binding_without_a_call_is_renewed_too() -> None:
    """A phone's Contact, where its provider calls it: for as long as its flow is followed."""
    phone = Phone(gateway(), End(A.host, 40001))
    phone.out(phone.head("REGISTER sip:198.51.100.20 SIP/2.0", "1 REGISTER", "", b"", "", f"{A.host}:5060"))
    assert bindings(phone.play.tick(REFRESH - 1)) == []
    assert bindings(phone.play.tick(REFRESH + 1)) == [(A.host, 5060, 5060, PROVIDER.host)]


def test_a_port_that_another_hosts_plain_flow_has_is_not_given() -> None:
    """The host has masqueraded it before; the far side's answer would go to the wrong one."""

    class Asked(Phone):
        def taken(self, proto: int, outside: bytes, peer: bytes) -> Mapping[int, Endpoint]:
            return {16403: Endpoint(packed(B.host), 16403)} if peer == packed(PROVIDER.host) else {}

        def behind(self, proto: int, outside: Endpoint, peer: Endpoint) -> Endpoint | None:
            return Endpoint(packed(B.host), 5060) if (outside.port, peer.port) == (5060, 5060) else None

    out = rewritten(Asked(gateway(), A).invite())
    assert named(out, "Contact") == f"<sip:x@{GATE}:{LOWEST}>"
    assert int(named(out, "m=").split()[1]) not in (16402, 16403)
    own = rewritten(Asked(gateway(), B).invite())
    assert [named(own, "Contact"), named(own, "m=")] == [f"<sip:x@{GATE}:5060>", "audio 16402 RTP/AVP 0"]


def test_an_offer_that_becomes_no_call_keeps_no_ports() -> None:
    """A message of no dialog, with a description: an OPTIONS, or what a hostile host sends to take all ports."""
    phone = Phone(gateway(), A)
    for number in range(50):
        content = body(A.host, 20000 + 2 * number)
        phone.call_id = f"noise-{number}"
        phone.out(phone.head("OPTIONS sip:bob@198.51.100.20 SIP/2.0", f"{number} OPTIONS", "", content))
    assert len(phone.play.engine.calls.nat.mappings) == 1, "the signalling's"


def test_one_flow_names_few_ports_for_later() -> None:
    phone = Phone(gateway(), A)
    for number in range(30):
        phone.out(
            phone.head(
                "OPTIONS sip:bob@198.51.100.20 SIP/2.0", f"{number} OPTIONS", "", b"", "", f"{A.host}:{6000 + number}"
            )
        )
    assert len(phone.play.engine.calls.nat.mappings) <= 64


def test_a_contact_at_another_port_is_bound_as_well() -> None:
    phone = Phone(gateway(), End(A.host, 40001))
    commands = phone.out(phone.head("OPTIONS sip:b@198.51.100.20 SIP/2.0", "1 OPTIONS", "", b"", "", f"{A.host}:5060"))
    assert bindings(commands) == [(A.host, 40001, 40001, PROVIDER.host), (A.host, 5060, 5060, PROVIDER.host)]
    assert named(rewritten(commands), "Contact") == f"<sip:x@{GATE}:5060>"


@pytest.mark.parametrize("broken", [b"INVITE sip:b@x SIP/2.0\r\nVia: SIP/2.0/UDP 172.16.42.187\r\n",
                                    b"OPTIONS sip:b@x SIP/2.0\r\nl: 1\r\nl: 2\r\n\r\nx",
                                    b"OPTIONS sip:b@x SIP/2.0\r\n" + b"X: y\r\n" * 300 + b"\r\n"])  # fmt: skip
def test_what_cannot_be_parsed_passes_unchanged_and_is_counted(broken: bytes) -> None:
    phone = Phone(gateway(), A)
    phone.invite()
    commands = phone.out(broken)
    assert of(commands, RewritePayload) == []
    assert [told.result for told in bodies(commands, TranslationReport)] == ["unparseable"]
    assert of(commands, SetVerdict)[0].verdict == "repeat"


def test_every_translation_is_counted() -> None:
    phone = Phone(gateway(), A)
    assert [told.result for told in bodies(phone.invite(), TranslationReport)] == ["translated"]


def test_a_watching_gateway_rewrites_nothing() -> None:
    play = Play(replace(gateway().settings, monitor=True))
    assert of(Phone(play, A).invite(), RewritePayload) == []


def test_a_phone_that_knows_its_outside_address_reads_what_it_wrote() -> None:
    """By STUN or by `received` (RFC 3581): it calls itself what the world calls it, and answers must say the same."""
    phone = Phone(gateway(), A)
    own = f"{GATE}:5060"
    content = body(GATE, 16402)
    ask = phone.head("INVITE sip:bob@198.51.100.20 SIP/2.0", "1 INVITE", "", content, own, own)
    assert of(phone.out(ask), RewritePayload) == []
    assert of(phone.respond("200 OK"), RewritePayload) == []
    assert len(of(phone.play.commands, OpenPinhole)) == 2
    bye = phone.head(f"BYE sip:x@{own} SIP/2.0", "2 BYE", ";tag=314159", b"", PROVIDER.host, PROVIDER.host)
    assert of(phone.back(bye), RewritePayload) == []


def test_a_phone_that_knows_it_in_its_contact_alone() -> None:
    phone = Phone(gateway(), A)
    ask = phone.head("INVITE sip:bob@198.51.100.20 SIP/2.0", "1 INVITE", "", body(A.host, 16402), "", f"{GATE}:5060")
    assert named(rewritten(phone.out(ask)), "Contact") == f"<sip:x@{GATE}:5060>"
    back = rewritten(phone.respond("200 OK"))
    assert named(back, "Via").startswith(f"SIP/2.0/UDP {A.host}:5060;"), "it wrote that"
    bye = phone.head(f"BYE sip:x@{GATE}:5060 SIP/2.0", "2 BYE", ";tag=314159", b"", PROVIDER.host, PROVIDER.host)
    assert of(phone.back(bye), RewritePayload) == []


# ---- media at a server of its own ------------------------------------------------------------------------------------

MEDIA = End("203.0.113.40", 30000)


def answered_elsewhere(phone: Phone, *servers: str, cseq: int = 1) -> list[Command]:
    """Each answer names another host for its media than the one that signals (RFC 8866 section 5.7)."""
    commands = []
    for number, server in enumerate(servers, cseq):
        phone.invite(cseq=number, to_tag=";tag=314159" if number > 1 else "")
        commands += phone.respond("200 OK", f"{number} INVITE", host=server)
    return commands


def test_the_told_port_holds_towards_the_servers_media_too() -> None:
    play = gateway()
    first, second = Phone(play, A), Phone(play, B, call_id="other")
    assert sorted(bindings(answered_elsewhere(first, MEDIA.host))) == [
        (A.host, 16402, 16402, MEDIA.host), (A.host, 16403, 16403, MEDIA.host),
    ]  # fmt: skip
    commands = answered_elsewhere(second, MEDIA.host)
    told = int(named(rewritten(second.invite(cseq=2, to_tag=";tag=314159")), "m=").split()[1])
    assert sorted(bindings(commands)) == [
        (B.host, 16402, told, MEDIA.host), (B.host, 16403, told + 1, MEDIA.host),
    ]  # fmt: skip
    assert of(play.commands, OpenPinhole) == [], "nobody is let in: its packets come back by conntrack"
    assert {b.peer_ports for b in of(commands, BindNat)} == {(30000,), (30001,)}, "what came too early is forgotten"


def test_it_ends_with_the_call_and_moves_with_the_port() -> None:
    phone = Phone(gateway(), A)
    answered_elsewhere(phone, MEDIA.host)
    _moves_to(phone, 2, 20000)
    assert {(b[1], b[3]) for b in unbound(phone.play.commands)} == {
        (port, peer) for port in (16402, 16403) for peer in (PROVIDER.host, MEDIA.host)
    }
    phone.out(phone.head("BYE sip:bob@198.51.100.20 SIP/2.0", "3 BYE", ";tag=314159", b""))
    phone.respond("200 OK", "3 BYE", port=0)
    assert {key[2] for key in phone.play.engine.calls.nat.bindings.standing} <= {packed(PROVIDER.host)}
    assert len(phone.play.engine.calls.nat.mappings) == 1


def _moves_to(phone: Phone, number: int, port: int) -> None:
    phone.out(phone.head("INVITE sip:b@h SIP/2.0", f"{number} INVITE", ";tag=314159", body(A.host, port)))
    phone.respond("200 OK", f"{number} INVITE", host=MEDIA.host)


@pytest.mark.parametrize("server", ["127.0.0.1", "255.255.255.255", "224.0.0.1", GATE])
def test_what_is_no_server_gets_no_binding(server: str) -> None:
    phone = Phone(gateway(), A)
    answered_elsewhere(phone, server)
    assert {b[3] for b in bindings(phone.play.commands)} == {PROVIDER.host}


def test_a_port_that_another_host_has_towards_the_server_is_not_taken() -> None:
    class Asked(Phone):
        def taken(self, proto: int, outside: bytes, peer: bytes) -> Mapping[int, Endpoint]:
            return {16402: Endpoint(packed(B.host), 16402)} if peer == packed(MEDIA.host) else {}

    phone = Asked(gateway(), A)
    commands = answered_elsewhere(phone, MEDIA.host)
    assert bindings(commands) == [(A.host, 16403, 16403, MEDIA.host)]
    assert "no-port" in [told.result for told in bodies(commands, TranslationReport)]
