"""From signalling to commands: what a call opens, for whom, when it closes, and what never opens anything."""

from __future__ import annotations

from dataclasses import replace

import pytest

from appid.alg.book import PER_HOST
from appid.alg.host import NOBODY, Host
from appid.dataplane.command import BindNat, ClosePinhole, Command, CutFlow, OpenPinhole, SetVerdict, UnbindNat
from appid.engine import AnomalyReport, CallReport, FlowReport, PinholeReport, Settings
from appid.engine.event import Activity
from appid.engine.limits import Limits
from appid.engine.openings import PINHOLE_TIMEOUT
from appid.engine.silence import LIFETIME
from appid.engine.standing import AT_ONCE, REFRESH
from appid.flow.key import FlowKey
from appid.policy.rule import PolicyRule
from appid.wire import UDP, packed, text
from tests.corpus import stun_bytes as stun
from tests.corpus.writer import End
from tests.engine.play import (
    ALL,
    CLIENT,
    PEER,
    PUBLIC,
    STRANGER,
    Play,
    applications,
    bodies,
    of,
    settings,
    udp,
    verdict,
)

ALLOW = PolicyRule("calls", "allow", ("inside",), ("outside",), applications=frozenset({"facetime"}))


def places(play: Play) -> list[tuple[str, int, str]]:
    """What the kernel holds: inside address, port, peer."""
    return [(text(e.inside), e.port, text(e.peer)) for e in play.engine.calls.book.open.values()]


def last_call(play: Play) -> CallReport:
    return bodies(play.commands, CallReport)[-1]


@pytest.mark.parametrize("begun_inside", [True, False], ids=["outgoing", "incoming"])
def test_the_answer_opens_the_callers_port_and_the_bye_closes_it(begun_inside: bool) -> None:
    play = Play()
    call = play.call() if begun_inside else play.call(PEER, CLIENT)
    assert of(call.invite(), OpenPinhole) == []
    answered = call.answer()
    (opened,) = of(answered, OpenPinhole)
    assert places(play) == [("172.16.42.187", 16402, "71.230.89.52")]
    assert opened.expectation.reason == "sdp-answer"
    assert opened.timeout == PINHOLE_TIMEOUT
    assert play.engine.settings.marks.decode(opened.mark).action == "allow"
    assert play.engine.settings.marks.decode(opened.mark).application == 1
    assert last_call(play).answered_at == 2
    call.bye()
    assert places(play) != [], "media goes on until the BYE is answered"
    ended = call.bye_answer()
    assert [closed.id for closed in of(ended, ClosePinhole)] == [opened.id]
    assert (last_call(play).end, last_call(play).call_id) == ("bye", "8d3c-call")
    assert play.engine.calls.calls.open == {}
    assert play.engine.calls.dialogs.living("8d3c-call", 1) == []


def test_who_called_whom() -> None:
    outgoing, incoming = Play(), Play()
    outgoing.call().connect()
    incoming.call(PEER, CLIENT).connect()
    assert (last_call(outgoing).caller, last_call(outgoing).callee) == (packed(CLIENT.host), packed(PEER.host))
    assert (last_call(incoming).caller, last_call(incoming).callee) == (packed(PEER.host), packed(CLIENT.host))


def test_pinhole_and_binding_stand_before_the_verdict() -> None:
    play = Play(settings(ALLOW, outside=PUBLIC))
    answered = play.call(shown=PUBLIC).connect()
    kinds = [type(command) for command in answered]
    assert kinds.index(BindNat) < kinds.index(SetVerdict)
    assert kinds.index(OpenPinhole) < kinds.index(SetVerdict)
    (binding,) = of(answered, BindNat)
    assert (text(binding.inside), binding.port, text(binding.outside), binding.outside_port, text(binding.peer)) == (
        "172.16.42.187", 16402, PUBLIC, 16402, "71.230.89.52",
    )  # fmt: skip


def test_a_binding_goes_with_its_pinhole() -> None:
    play = Play(settings(ALLOW, outside=PUBLIC))
    call = play.call(shown=PUBLIC)
    call.connect()
    call.bye()
    (unbound,) = of(call.bye_answer(), UnbindNat)
    assert (text(unbound.outside), unbound.outside_port) == (PUBLIC, 16402)
    assert play.engine.calls.media.bound == {}


def test_an_unanswered_bye_closes_after_32_seconds() -> None:
    play = Play()
    call = play.call()
    call.connect()
    play.now = 10.0
    call.bye()
    assert play.engine.deadline is not None
    assert play.engine.deadline <= 42.0
    assert of(play.tick(41.9), ClosePinhole) == []
    assert len(of(play.tick(42.0), ClosePinhole)) == 1
    assert (last_call(play).end, last_call(play).ended_at) == ("bye", play.number), "it ended with its BYE"


def test_a_call_without_packets_is_lost_after_a_minute() -> None:
    play = Play()
    play.call().connect()
    key = FlowKey(UDP, packed(CLIENT.host), CLIENT.port, packed(PEER.host), PEER.port)
    assert of(play.tick(50.0, Activity(key, 49.0, 400)), ClosePinhole) == []
    assert of(play.tick(108.0), ClosePinhole) == [], "its media moved, unseen, at 49"
    assert len(of(play.tick(109.0), ClosePinhole)) == 1
    assert (last_call(play).end, last_call(play).ended_at) == ("lost", 400)


def test_pinholes_are_renewed_while_the_call_lives_and_have_a_hard_end() -> None:
    play = Play(settings(ALLOW, outside=PUBLIC))
    call = play.call(shown=PUBLIC)
    (opened,) = of(call.connect(), OpenPinhole)
    key = FlowKey(UDP, packed(CLIENT.host), CLIENT.port, packed(PEER.host), PEER.port)
    now = 0.0
    renewed = 0
    while now < LIFETIME - 100:
        now += 40.0
        commands = play.tick(now, Activity(key, now))
        assert of(commands, ClosePinhole) == []
        assert {again.id for again in of(commands, OpenPinhole)} <= {opened.id}
        assert len(of(commands, BindNat)) == len(of(commands, OpenPinhole))
        renewed += len(of(commands, OpenPinhole))
    assert renewed >= now / (REFRESH + 40) - 1
    assert REFRESH + 40 < PINHOLE_TIMEOUT, "the kernel forgets it later than it hears of it again"
    while now < LIFETIME + REFRESH:
        now += 40.0
        commands = play.tick(now, Activity(key, now))
    assert places(play) == []


def test_renewals_are_spread() -> None:
    """Calls that came up in one second, or by one restart: the gateway does not stand still for all of them at once."""
    play = Play(ALL)
    for number in range(200):
        play.call(End(f"172.16.42.{number + 1}", 16402), call_id=f"c{number}").connect()
    seen: list[set[int]] = []
    for second in range(1, int(2 * REFRESH)):
        keys = [
            Activity(FlowKey(UDP, packed(f"172.16.42.{n + 1}"), 16402, packed(PEER.host), PEER.port), second)
            for n in range(200)
        ]
        seen.append({again.id for again in of(play.tick(float(second), *keys), OpenPinhole)})
    assert max(map(len, seen)) <= AT_ONCE
    assert set().union(*seen[: int(REFRESH) + 5]) == set(play.engine.calls.book.open)
    assert len(play.engine.calls.book.open) == 200


def test_a_denied_application_opens_nothing() -> None:
    play = Play(settings(PolicyRule("no", "deny", applications=frozenset({"facetime"})), default="allow"))
    play.call().connect()
    assert of(play.commands, OpenPinhole) == []
    assert {play.engine.settings.marks.decode(v.mark).action for v in of(play.commands, SetVerdict)} == {"deny"}


def test_media_from_a_third_party_opens_nothing_and_is_told() -> None:
    """The SDP names an address that the call has not shown: that is how an inside host would be exposed to others."""
    play = Play()
    commands = play.call(answered_as=STRANGER.host).connect()
    assert of(commands, OpenPinhole) == []
    (anomaly,) = bodies(commands, AnomalyReport)
    assert STRANGER.host in anomaly.reason


def test_an_answer_from_somebody_else_opens_nothing() -> None:
    play = Play()
    call = play.call()
    call.invite()
    forged = udp(STRANGER, CLIENT, call.dialog.response(200, "OK", answer=True))
    assert of(play.queue(forged), OpenPinhole) == []
    assert places(play) == []
    assert len(of(call.answer(), OpenPinhole)) == 1


def test_a_stranger_who_speaks_facetime_is_no_peer_of_the_call() -> None:
    """A flow begun outside that no call foresaw: its address must not become one from which media is let in."""
    play = Play()
    call = play.call(answered_as=STRANGER.host)
    call.invite()
    play.queue(udp(STRANGER, CLIENT, play.call(STRANGER, CLIENT, call_id="noise").dialog.invite()))
    assert of(call.answer(), OpenPinhole) == []


def test_a_bye_from_somebody_else_closes_nothing() -> None:
    play = Play()
    call = play.call()
    call.connect()
    play.queue(udp(STRANGER, CLIENT, call.dialog.bye(by_offerer=False)))
    play.tick(40.0)
    assert places(play) != []
    assert last_call(play).end == "open"


def test_what_the_call_foresaw_has_its_name_and_decision_from_the_first_packet() -> None:
    play = Play(settings(ALLOW))
    play.call().connect()
    first = play.queue(udp(PEER._replace(port=40000), CLIENT, b"\x80\x60" + bytes(30)))
    (report,) = bodies(first, FlowReport)
    assert (report.identification.application, report.foreseen, report.call) == ("facetime", True, 1)
    assert report.decision is not None
    assert (report.decision.action, report.decision.rule) == ("allow", "calls")


def test_a_place_is_handed_over_to_the_next_call_while_the_first_still_ends() -> None:
    play = Play()
    play.call().connect()
    play.now = 5.0
    play.call().bye()
    play.now = 6.0
    again = play.call(call_id="second")
    commands = again.connect()
    assert len(of(play.commands, ClosePinhole)) == 0
    assert len(of(commands, OpenPinhole)) == 1
    reports = bodies(commands, PinholeReport)
    assert [(r.pinhole, r.closed_at is None) for r in reports] == [(1, False), (2, True)]
    play.tick(37.0)
    assert places(play) == [("172.16.42.187", 16402, "71.230.89.52")]
    assert [e.call for e in play.engine.calls.book.open.values()] == [2]


def test_media_between_two_inside_hosts_has_its_pinhole_too() -> None:
    """By its mark the kernel's counters tell that the call lives: signalling may be silent for an hour."""
    play = Play()
    other = End("172.16.42.185", 16402)
    (opened,) = of(play.call(CLIENT, other).connect(), OpenPinhole)
    assert (opened.expectation.inside, opened.expectation.peer) == (packed(CLIENT.host), packed(other.host))
    assert opened.expectation.outside is None
    assert len(play.engine.calls.calls.open) == 1


def test_a_hosts_calls_open_no_more_than_its_share() -> None:
    play = Play()
    for number in range(PER_HOST + 20):
        port = 20000 + number
        play.call(End(CLIENT.host, port), End(PEER.host, port), call_id=f"call-{number}").connect()
    assert len(play.engine.calls.book.open) <= PER_HOST


def test_calls_are_bounded_at_once() -> None:
    play = Play(replace(ALL, limits=Limits(calls=20)))
    for number in range(100):
        play.now = number / 100
        host = End(f"172.16.42.{number + 1}", 16402)
        play.call(host, PEER, call_id=f"call-{number}").connect()
    keeper = play.engine.calls
    assert len(keeper.calls.open) <= 20
    assert len(keeper.book.open) <= 20
    assert sum(not dialog.ended for dialog in keeper.dialogs.known.values()) <= 20
    assert max(keeper.calls.open) == 100, "the newest stays"


def test_every_verdict_is_given_once() -> None:
    play = Play()
    call = play.call()
    for message in (call.invite, call.answer, call.bye, call.bye_answer):
        assert verdict(message()).packet == play.number


# ---- plain SIP, whose flow might still become another application ----------------------------------------------------


def sip(first: str, cseq: str, to_tag: str = "", host: str = "", port: int = 0) -> bytes:
    """A message of RFC 3665 section 3.1's kind."""
    where = f"IN IP4 {host}"
    body = f"v=0\r\no=- 1 1 {where}\r\ns=-\r\nc={where}\r\nt=0 0\r\nm=audio {port} RTP/AVP 0\r\n" if host else ""
    head = [first, "Via: SIP/2.0/UDP client.example.com:5060;branch=z9hG4bK74bf9", "From: <sip:a@x.example>;tag=9fxced",
            f"To: <sip:b@y.example>{to_tag}", "Call-ID: 3848276298220188511", f"CSeq: {cseq}",
            *(["Content-Type: application/sdp"] if body else []), f"Content-Length: {len(body)}", "", body]  # fmt: skip
    return "\r\n".join(head).encode()


@pytest.mark.parametrize("names", [None, {"sip", "ichat-av", "facetime"}, {"dns"}])
def test_a_plain_sip_call_opens_with_its_answer(names: set[str] | None) -> None:
    rule = PolicyRule("sip", "allow", applications=frozenset(names or ()), service="any")
    play = Play(settings(rule) if names is not None else settings(default="none"))
    phone, server = End(CLIENT.host, 5060), End(PEER.host, 5060)
    play.queue(udp(phone, server, sip("INVITE sip:b@y.example SIP/2.0", "1 INVITE", host=CLIENT.host, port=49172)))
    play.queue(udp(server, phone, sip("SIP/2.0 180 Ringing", "1 INVITE", ";tag=83212")))
    answer = sip("SIP/2.0 200 OK", "1 INVITE", ";tag=83212", PEER.host, 3456)
    opened = of(play.queue(udp(server, phone, answer)), OpenPinhole)
    wanted = [] if names == {"dns"} else [49172, 49173]
    assert [pinhole.expectation.port for pinhole in opened] == wanted
    media = play.queue(udp(End(PEER.host, 3456), End(CLIENT.host, 49172), b"\x80\x00" + bytes(170)))
    named = [report.identification.application for report in bodies(media, FlowReport)]
    assert named == ([] if names == {"dns"} else ["rtp"]), "SIP is the signalling; what it opens is media"


def test_what_came_before_its_call_was_known_is_let_in_when_it_is() -> None:
    """RTP overtakes the 200: refused at first, and the kernel's entry would go on refusing it."""
    play = Play(settings(ALLOW))
    call = play.call()
    call.invite()
    early = udp(PEER._replace(port=40000), CLIENT, b"\x80\x60" + bytes(30))
    marks = play.engine.settings.marks
    assert marks.decode(verdict(play.queue(early)).mark).action == "deny"
    answered = call.answer()
    (cut,) = of(answered, CutFlow)
    assert (text(cut.key.src), cut.key.sport, cut.key.dport) == (PEER.host, 40000, CLIENT.port)
    assert marks.decode(verdict(play.queue(early)).mark).action == "allow"


def test_media_that_goes_on_after_its_call_is_no_new_flow() -> None:
    """Nothing of it is let pass for being undecided yet, whichever side sends it."""
    rule = PolicyRule("calls", "allow", ("inside",), applications=frozenset({"sip"}), service="any")
    play, a, b = Play(settings(rule)), CLIENT._replace(port=5060), PEER._replace(port=5060)
    play.queue(udp(a, b, sip("INVITE sip:b@y.example SIP/2.0", "1 INVITE", host=CLIENT.host, port=16402)))
    play.queue(udp(b, a, sip("SIP/2.0 200 OK", "1 INVITE", ";tag=b", host=PEER.host, port=16402)))
    play.queue(udp(a, b, sip("BYE sip:b@y.example SIP/2.0", "2 BYE", ";tag=b")))
    play.queue(udp(b, a, sip("SIP/2.0 200 OK", "2 BYE", ";tag=b")))
    assert play.engine.calls.book.open == {}
    marks = play.engine.settings.marks
    assert marks.decode(verdict(play.queue(udp(CLIENT, PEER, b"\x80late"))).mark).action == "deny"
    play.now = 30.0
    assert marks.decode(verdict(play.queue(udp(CLIENT, PEER._replace(port=40009), b"x"))).mark).action is None


# ---- a peer's check on the client's own channel ----------------------------------------------------------------------


RELAY = End("17.173.254.35", 3478)


def bound(
    play: Play, *, checked: bool = True, mapped: str = PUBLIC, port: int = 16402, host: End = CLIENT,
    to: str = PEER.host, kernel: Host = NOBODY,
) -> list[Command]:  # fmt: skip
    """Session 1, packets 60 to 162: allocated, bound to the peer, and the peer's own check comes on that channel."""
    asked, binds, checks = (
        stun.Transaction(stun.COOKIE, name) for name in (b"allocate-tra", b"bind-channel", b"check-of-him")
    )
    allocate = [stun.xor_address(stun.XOR_RELAYED_ADDRESS, "0.0.0.0", 0, asked), (stun.RESERVATION_TOKEN, bytes(8))]
    play.queue(udp(host, RELAY, stun.message(stun.ALLOCATE, stun.REQUEST, asked, allocate)))
    seen_as = [stun.xor_address(stun.XOR_MAPPED_ADDRESS, mapped, port, asked)]
    play.queue(udp(RELAY, host, stun.message(stun.ALLOCATE, stun.SUCCESS, asked, seen_as)))
    peer = [stun.channel_number(0x4000), stun.xor_address(stun.XOR_PEER_ADDRESS, to, 16402, binds)]
    play.queue(udp(host, RELAY, stun.message(stun.CHANNEL_BIND, stun.REQUEST, binds, peer)))
    if not checked:
        return play.commands
    private = [(number, b"\0\0\0\1") for number in (0x8001, 0x8002, 0x8003, 0x8009)]
    check = stun.message(stun.BINDING, stun.REQUEST, checks, [(stun.USERNAME, bytes(20)), *private])
    return play.queue(udp(RELAY, host, stun.channel_data(0x4000, check)), kernel)


def test_a_peers_check_on_the_clients_channel_lets_its_direct_check_in() -> None:
    play = Play(settings(ALLOW, outside=PUBLIC))
    commands = bound(play)
    (opened,) = of(commands, OpenPinhole)
    wanted = opened.expectation
    assert (text(wanted.inside), wanted.port, text(wanted.peer), wanted.reason) == (
        CLIENT.host, 16402, PEER.host, "channel-bind",
    )  # fmt: skip
    assert opened.timeout == 30
    (binding,) = of(commands, BindNat)
    assert (text(binding.outside), binding.outside_port) == (PUBLIC, 16402)
    direct = verdict(play.queue(udp(PEER, CLIENT, b"\0\1\0\0!\x12\xa4B" + bytes(12))))
    assert play.engine.settings.marks.decode(direct.mark).action == "allow"


def test_a_channel_on_which_nobody_has_answered_opens_nothing() -> None:
    assert of(bound(Play(settings(ALLOW, outside=PUBLIC)), checked=False), OpenPinhole) == []


def test_it_holds_for_thirty_seconds_unless_a_dialog_says_the_same() -> None:
    play = Play(settings(ALLOW))
    (opened,) = of(bound(play), OpenPinhole)
    assert of(play.tick(29.0), ClosePinhole) == []
    assert [closed.id for closed in of(play.tick(30.0), ClosePinhole)] == [opened.id]
    again = Play(settings(ALLOW))
    bound(again)
    again.now = 5.0
    again.call().connect()
    (kept,) = again.engine.calls.book.open.values()
    assert kept.reason == "sdp-answer"
    key = FlowKey(UDP, packed(CLIENT.host), CLIENT.port, packed(PEER.host), PEER.port)
    assert of(again.tick(40.0, Activity(key, 39.0)), ClosePinhole) == []


def test_each_further_check_prolongs_it_now_and_then() -> None:
    """While the callee lets it ring; and a flood of checks is no flood of commands."""
    play = Play(settings(ALLOW))
    bound(play)
    play.now = 10.0
    assert of(bound(play), OpenPinhole) == []
    play.now = 20.0
    (renewed,) = of(bound(play), OpenPinhole)
    assert renewed.timeout == 30
    assert of(play.tick(49.0), ClosePinhole) == []
    assert len(of(play.tick(50.0), ClosePinhole)) == 1


def test_an_application_whose_file_does_not_say_so_opens_nothing_by_a_channel() -> None:
    known = dict(applications())
    known["facetime"] = replace(known["facetime"], expect_from_channel_bind=False)
    assert of(bound(Play(Settings(known, None, ((packed("172.16.42.0"), 24),)))), OpenPinhole) == []


def test_a_port_outside_the_media_range_opens_nothing_by_a_channel() -> None:
    assert of(bound(Play(settings(ALLOW)), host=CLIENT._replace(port=50000)), OpenPinhole) == []


def relayed(play: Play, client: End, relay: End, channel: int) -> stun.Transaction:
    """The client allocates and binds a channel to the peer (session 1 frames 60 to 121)."""
    transaction = stun.Transaction(stun.COOKIE, packed(client.host) * 3)
    told = stun.xor_address(stun.XOR_RELAYED_ADDRESS, relay.host, 3489, transaction)
    attributes = [told, (stun.RESERVATION_TOKEN, bytes(8)), stun.u32(stun.LIFETIME, 60)]
    play.queue(udp(client, relay, stun.message(stun.ALLOCATE, stun.REQUEST, transaction, attributes)))
    bind = [stun.channel_number(channel), stun.xor_address(stun.XOR_PEER_ADDRESS, PUBLIC, 16402, transaction)]
    play.queue(udp(client, relay, stun.message(stun.CHANNEL_BIND, stun.REQUEST, transaction, bind)))
    return transaction


def test_two_inside_clients_that_begin_on_relays_of_their_own_have_one_call() -> None:
    """The INVITE comes back in on the other's channel: same Call-ID, same call; what the other's had is its own."""
    play = Play()
    other = End("172.16.42.185", 16402)
    relays = End("203.0.113.9", 3478), End("203.0.113.10", 3478)
    relayed(play, CLIENT, relays[0], 0x4001)
    theirs = relayed(play, other, relays[1], 0x4002)
    check = stun.message(stun.BINDING, stun.REQUEST, theirs, [(stun.USERNAME, bytes(20))])
    play.queue(udp(relays[1], other, stun.channel_data(0x4002, check)))
    assert len(play.engine.calls.calls.open) == 2
    ours, joined = sorted(play.engine.calls.calls.open)
    assert [e.call for _, e in play.engine.calls.book.of_call(joined)] == [joined]
    dialog = play.call(shown=PUBLIC, answered_as=PUBLIC).dialog

    def through(message: bytes, outward: bool = True) -> None:
        near, far = ((CLIENT, relays[0], 0x4001), (other, relays[1], 0x4002))[:: 1 if outward else -1]
        play.queue(udp(near[0], near[1], stun.channel_data(near[2], message)))
        play.queue(udp(far[1], far[0], stun.channel_data(far[2], message)))

    through(dialog.invite())
    (call,) = play.engine.calls.calls.open.values()
    assert (call.id, len(call.flows)) == (ours, 2)
    assert [(r.call, r.into) for r in bodies(play.commands, CallReport) if r.end == "joined"] == [(joined, ours)]
    assert {e.call for e in play.engine.calls.book.open.values()} == {ours}
    through(dialog.response(200, "OK", answer=True), outward=False)
    through(dialog.ack())
    through(dialog.bye())
    through(dialog.bye_answer(), outward=False)
    told = last_call(play)
    assert (told.call, told.end, told.caller, told.callee) == (ours, "bye", packed(CLIENT.host), packed(other.host))
    assert play.engine.calls.calls.open == {}
    assert places(play) == []
