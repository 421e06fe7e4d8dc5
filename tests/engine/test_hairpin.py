"""Two phones behind one gateway that call each other by way of a proxy outside (RFC 3261 section 16).

The proxy does what section 16.6 says: its own Via on top, `received` and `rport` on the one below, Record-Route. It
never hears an inside address, and finds its own words unchanged in what comes back; the phones find each other.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import pytest

from appid.dataplane.command import ClosePinhole, Command, CutFlow, OpenPinhole, RewritePayload
from appid.engine import AnomalyReport, CallReport
from appid.policy.rule import PolicyRule
from appid.wire import UDP, Endpoint, FlowKey, packed, text
from tests.corpus.writer import End
from tests.engine.phones import GATE, PROVIDER, Phone, body, gateway, named, rewritten, unbound
from tests.engine.play import Play, bodies, of, udp, verdict

ALICE, BOB = End("172.16.42.187", 5060), End("172.16.42.185", 5060)
INSIDE = "172.16.42."


@dataclass
class Member(Phone):
    """A phone that can ask the kernel, where other workers' bindings are, too."""

    others: tuple[Play, ...] = ()
    tag: str = "x"

    def behind(self, proto: int, outside: Endpoint, peer: Endpoint) -> Endpoint | None:
        return self.bound(proto, outside, peer)

    def bound(self, proto: int, outside: Endpoint, peer: Endpoint) -> Endpoint | None:
        found = (play.engine.calls.nat.mappings.inside_of(proto, outside, peer.address) for play in self.others)
        return next(filter(None, found), None)


def passed(commands: list[Command], message: bytes) -> bytes:
    """What goes on in the message's place."""
    changed = of(commands, RewritePayload)
    return changed[0].payload if changed else message


def line(message: bytes, name: str) -> str:
    return named(message.decode(), name)


def lines(message: bytes, name: str) -> list[str]:
    return re.findall(rf"^{name}: (.*?)\r?$", message.decode(), re.M)


class Proxy:
    """Stateless; `record`: it stays in the path of what follows."""

    def __init__(self, record: bool = True) -> None:
        self.record = record
        self.own = f"SIP/2.0/UDP {PROVIDER.host};branch=z9hG4bKproxy"

    def ask(self, request: bytes, source: Endpoint, target: str) -> bytes:
        head, _, rest = request.decode().partition("\r\nVia: ")
        assert INSIDE not in request.decode(), request
        top, _, rest = rest.partition("\r\n")
        top += f";received={GATE};rport={source.port}"
        more = f"\r\nRecord-Route: <sip:{PROVIDER.host};lr>" if self.record else ""
        method = head.split(" ")[0]
        rest = re.sub(r"Route: .*?\r\n", "", rest) if "Record" not in rest else rest
        return f"{method} {target} SIP/2.0{more}\r\nVia: {self.own}\r\nVia: {top}\r\n{rest}".encode()

    def answer(self, response: bytes) -> tuple[bytes, Endpoint]:
        """Without our Via; and where it goes (RFC 3581 section 4)."""
        assert INSIDE not in response.decode(), response
        text = response.decode()
        assert f"\r\nVia: {self.own}\r\n" in text
        text = text.replace(f"Via: {self.own}\r\n", "")
        top = line(text.encode(), "Via")
        received, rport = re.search(r"received=([^;]+)", top), re.search(r"rport=(\d+)", top)
        assert received is not None
        assert rport is not None
        return text.encode(), Endpoint(packed(received[1]), int(rport[1]))


def respond(phone: Member, request: bytes, status: str, content: bytes = b"") -> bytes:
    """What a user agent copies (RFC 3261 section 8.2.6.2)."""
    kept = [f"{name}: {value}" for name in ("Record-Route", "Via", "From", "Call-ID", "CSeq")
            for value in lines(request, name)]  # fmt: skip
    to = line(request, "To")
    head = [f"SIP/2.0 {status}", *kept, f"To: {to}" + ("" if "tag=" in to else f";tag={phone.tag}"),
            f"Contact: <sip:bob@{phone.end.host}:{phone.end.port}>"]  # fmt: skip
    head += ["Content-Type: application/sdp"] if content else []
    return "\r\n".join([*head, f"Content-Length: {len(content)}", "", ""]).encode() + content


@dataclass
class Pair:
    alice: Member
    bob: Member
    proxy: Proxy

    def register(self) -> str:
        """Bob's Contact, as the proxy has it."""
        key = FlowKey(UDP, *self.bob.inside, packed(PROVIDER.host), PROVIDER.port)
        self.bob.seen[key] = Endpoint(packed(GATE), 1024)
        self.bob.call_id = "register"
        raw = self.bob.head("REGISTER sip:198.51.100.20 SIP/2.0", "1 REGISTER", "", b"")
        contact = line(passed(self.bob.out(raw), raw), "Contact").strip("<>")
        assert contact == f"sip:x@{GATE}:1024"
        return contact

    def deliver(self, request: bytes, target: str) -> bytes:
        """From Alice by the proxy to Bob, as Bob gets it."""
        there = self.proxy.ask(passed(self.alice.out(request), request), self.alice.outside, target)
        return passed(self.bob.back(there), there)

    def back(self, response: bytes) -> bytes:
        """From Bob by the proxy to Alice, as Alice gets it."""
        there, to = self.proxy.answer(passed(self.bob.out(response), response))
        assert to == self.alice.outside, "or it would be Bob's own"
        return passed(self.alice.back(there), there)

    def connect(self) -> tuple[str, bytes]:
        target = self.register()
        offer = body(ALICE.host, 16402)
        invite = self.alice.head("INVITE sip:bob@198.51.100.20 SIP/2.0", "1 INVITE", "", offer)
        came = self.deliver(invite, target)
        assert came.startswith(b"INVITE sip:x@172.16.42.185:5060 ")
        assert [line(came, "c="), line(came, "m=")] == ["IN IP4 172.16.42.187", "audio 16402 RTP/AVP 0"]
        answer = self.back(respond(self.bob, came, "200 OK", body(BOB.host, 17000)))
        assert [line(answer, "c="), line(answer, "m=")] == ["IN IP4 172.16.42.185", "audio 17000 RTP/AVP 0"]
        assert line(answer, "Via").startswith("SIP/2.0/UDP 172.16.42.187:5060;")
        assert line(answer, "Contact") == "<sip:bob@172.16.42.185:5060>", "whom Alice can reach"
        return target, answer

    def in_dialog(self, method: str, number: int, answer: bytes) -> bytes:
        """What Alice sends after the answer: to its Contact, on its Record-Route."""
        raw = self.alice.head(f"{method} {line(answer, 'Contact').strip('<>')} SIP/2.0", f"{number} {method}", "", b"")
        text = raw.decode().replace("To: <sip:bob@biloxi.example>", f"To: {line(answer, 'To')}")
        routes = "".join(f"Route: {value}\r\n" for value in lines(answer, "Record-Route"))
        return text.replace("From: ", routes + "From: ", 1).encode()

    def calls(self) -> list[CallReport]:
        plays = {id(phone.play): phone.play for phone in (self.alice, self.bob)}
        return [bodies(play.commands, CallReport)[-1] for play in plays.values()]

    def foreseen(self) -> bool:
        """In the one engine or in both, either way."""
        there = FlowKey(UDP, packed(ALICE.host), 16402, packed(BOB.host), 17000)
        return all(phone.play.engine.calls.book.foreseen(key) for phone in (self.alice, self.bob)
                   for key in (there, there.reversed()))  # fmt: skip


def pair(workers: int, record: bool = True) -> Pair:
    """A policy that lets signalling pass: media must be foreseen."""
    sip = PolicyRule("sip", "allow", applications=frozenset({"sip"}), service="any")
    first = gateway(sip)
    second = first if workers == 1 else gateway(sip)
    alice = Member(first, ALICE, others=(second,), tag="a")
    return Pair(alice, Member(second, BOB, others=(first,), tag="314159"), Proxy(record))


@pytest.fixture(params=[1, 2], ids=["one-worker", "two-workers"])
def both(request: pytest.FixtureRequest) -> Pair:
    return pair(request.param)


def test_a_call_through_a_proxy(both: Pair) -> None:
    target, answer = both.connect()
    assert both.foreseen()
    for phone in (both.alice, both.bob):
        opened = {text(p.expectation.peer) for p in of(phone.play.commands, OpenPinhole)}
        assert opened <= {ALICE.host, BOB.host}, "straight from one to the other: no hole to the outside"
        assert all(p.expectation.outside is None for p in of(phone.play.commands, OpenPinhole))
        assert bodies(phone.play.commands, AnomalyReport) == []
    ack = both.deliver(both.in_dialog("ACK", 1, answer), target)
    assert ack.startswith(b"ACK sip:x@172.16.42.185:5060 ")
    bye = both.deliver(both.in_dialog("BYE", 2, answer), target)
    both.back(respond(both.bob, bye, "200 OK"))
    assert not both.foreseen()
    for phone in (both.alice, both.bob):
        assert [call.end for call in both.calls()] == ["bye"] * len(both.calls())
        assert len(of(phone.play.commands, ClosePinhole)) >= 2
        left = {(bound.port, bound.outside_port) for bound in phone.play.engine.calls.nat.bindings.standing.values()}
        assert not left & {(16402, 16402), (17000, 17000)}
        assert unbound(phone.play.commands)


def test_the_callee_hangs_up(both: Pair) -> None:
    """His request goes to Alice's Contact, by her outside name."""
    _, answer = both.connect()
    came = both.bob.head("BYE sip:x@172.16.42.187:5060 SIP/2.0", "1 BYE", "", b"").decode()
    came = came.replace("Call-ID: register", f"Call-ID: {both.alice.call_id}")
    came = came.replace("From: <sip:alice@atlanta.example>;tag=1928301774", f"From: {line(answer, 'To')}")
    raw = came.replace("To: <sip:bob@biloxi.example>", f"To: {line(answer, 'From')}").encode()
    out = passed(both.bob.out(raw), raw)
    assert out.startswith(f"BYE sip:x@{GATE}:5060 ".encode())
    there = both.proxy.ask(out, both.bob.outside, f"sip:x@{GATE}:5060")
    got = passed(both.alice.back(there), there)
    assert got.startswith(b"BYE sip:x@172.16.42.187:5060 ")
    ok = respond(both.alice, got, "200 OK")
    back, to = both.proxy.answer(passed(both.alice.out(ok), ok))
    assert to == both.bob.outside
    both.bob.back(back)
    assert not both.foreseen()
    assert [call.end for call in both.calls()] == ["bye"] * len(both.calls())


def test_without_record_route_the_rest_goes_straight_and_counts() -> None:
    """ACK and BYE from one inside host to the other: both dialogs end with them."""
    both = pair(1, record=False)
    _, answer = both.connect()
    play = both.alice.play
    for method, number in (("ACK", 1), ("BYE", 2)):
        commands = play.queue(udp(ALICE, BOB, both.in_dialog(method, number, answer)), both.alice)
        assert of(commands, RewritePayload) == []
    bye = both.in_dialog("BYE", 2, answer)
    play.queue(udp(BOB, ALICE, respond(both.bob, bye, "200 OK")), both.bob)
    assert not both.foreseen()
    assert both.calls()[-1].end == "bye"
    assert play.engine.calls.calls.open == {}


def test_a_stranger_inside_cannot_end_it() -> None:
    both = pair(1, record=False)
    _, answer = both.connect()
    mallory = End("172.16.42.99", 5060)
    for message in (both.in_dialog("BYE", 2, answer), respond(both.bob, both.in_dialog("BYE", 2, answer), "200 OK")):
        both.alice.play.queue(udp(mallory, BOB, message), both.alice)
    assert both.foreseen()


def test_media_that_is_quicker_than_its_answer_is_let_in_again() -> None:
    """It came to Alice's worker, who has heard of no answer yet."""
    both = pair(2)
    target = both.register()
    came = both.deliver(
        both.alice.head("INVITE sip:bob@198.51.100.20 SIP/2.0", "1 INVITE", "", body(ALICE.host, 16402)), target
    )
    ends = BOB._replace(port=17000), ALICE._replace(port=16402)
    sent = [both.alice.play.queue(udp(*ends, bytes((0x80, 0, 0, n)) + bytes(160))) for n in range(12)]
    assert both.alice.play.settings.marks.decode(verdict(sent[-1]).mark).action == "deny"
    both.back(respond(both.bob, came, "200 OK", body(BOB.host, 17000)))
    assert [cut.key for cut in of(both.alice.play.commands, CutFlow)] == [
        FlowKey(UDP, packed(BOB.host), 17000, packed(ALICE.host), 16402)
    ]


def test_each_at_a_provider_of_his_own() -> None:
    """Their providers speak to each other: what one is told was bound towards the other."""
    play = gateway()
    other = End("203.0.113.50", 5060)
    alice, bob = Phone(play, ALICE), Phone(play, BOB, provider=other, call_id="leg2", rtp=17000)
    bob.seen[FlowKey(UDP, *bob.inside, packed(other.host), other.port)] = Endpoint(packed(GATE), 1024)
    bob.out(bob.head("REGISTER sip:203.0.113.50 SIP/2.0", "1 REGISTER", "", b""))
    alice.invite()
    invite = bob.head(f"INVITE sip:x@{GATE}:1024 SIP/2.0", "9 INVITE", "", body(GATE, 16402), other.host, other.host)
    told = rewritten(bob.back(invite))
    assert [named(told, "c="), named(told, "m=")] == ["IN IP4 172.16.42.187", "audio 16402 RTP/AVP 0"]
    bob.out(bob.head("SIP/2.0 200 OK", "9 INVITE", ";tag=b", body(BOB.host, 17000), other.host))
    back = rewritten(alice.respond("200 OK", port=17000, host=GATE))
    assert [named(back, "c="), named(back, "m=")] == ["IN IP4 172.16.42.185", "audio 17000 RTP/AVP 0"]
    media = play.engine.calls.book.foreseen(FlowKey(UDP, packed(ALICE.host), 16402, packed(BOB.host), 17000))
    assert media is not None


def test_without_nat_another_workers_call_is_told_by_the_kernel() -> None:
    """The far end names an inside host: only if that has a signalling flow with it may it be the call's other end."""
    sip = PolicyRule("sip", "allow", applications=frozenset({"sip"}), service="any")
    for share, told, opened in (((0, 2), True, 4), ((0, 2), False, 0), ((0, 1), True, 0)):
        settings = replace(gateway(sip).settings, masqueraded=(), share=share)

        class Asked(Phone):
            def signals(self, inside: bytes, far: Endpoint, told: bool = told) -> bool:
                return told and (inside, far) == (packed(BOB.host), Endpoint(packed(PROVIDER.host), 5060))

        alice = Asked(Play(settings), ALICE)
        alice.invite()
        content = body(BOB.host, 17000)
        answer = alice.head("SIP/2.0 200 OK", "1 INVITE", ";tag=314159", content, "", PROVIDER.host)
        assert len(of(alice.back(answer), OpenPinhole)) == opened


def test_whose_it_is_may_not_be_guessed() -> None:
    """Two phones have the same outside port, each towards its own provider: a third one's word names neither, or one of
    them would hear what is meant for the other."""
    play = gateway()
    for number, host in enumerate((ALICE, End("172.16.42.190", 5060))):
        Phone(play, host, End(f"203.0.113.{50 + number}", 5060), call_id=f"c{number}").invite()
    bob = Phone(play, BOB)
    bob.out(bob.head("REGISTER sip:198.51.100.20 SIP/2.0", "1 REGISTER", "", b""))
    invite = bob.head(f"INVITE sip:x@{GATE} SIP/2.0", "9 INVITE", "", body(GATE, 16402), PROVIDER.host, PROVIDER.host)
    assert named(rewritten(bob.back(invite)), "c=") == f"IN IP4 {GATE}"


def test_the_kernel_is_not_asked_without_end() -> None:
    """Who speaks from outside may name any port of ours, as often as he likes."""
    asked = []

    class Counting(Phone):
        def behind(self, proto: int, outside: Endpoint, peer: Endpoint) -> Endpoint | None:
            asked.append(outside)
            return None

        bound = behind

    phone = Counting(gateway(), ALICE)
    phone.invite()
    asked.clear()
    more = [f"a=candidate:{n} 1 UDP 1 {GATE} {20000 + n} typ host" for n in range(40)]
    content = body(PROVIDER.host, 30000, *more)
    phone.back(phone.head("SIP/2.0 200 OK", "1 INVITE", ";tag=314159", content, f"{GATE}:5060"))
    assert 0 < len(asked) <= 2 * 16
