"""Phones that send from one port and listen at another: answers find them (RFC 3261 section 18.2.2)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from appid.dataplane.command import CutFlow, OpenPinhole, RewritePayload, SetMark, SetVerdict
from appid.engine import Restored, RulesLoaded, Settings
from appid.engine.awaited import SWEEP, TRANSACTION
from appid.flow.key import FlowKey
from appid.policy.rule import PolicyRule
from appid.wire import UDP, packed
from tests.corpus.writer import End
from tests.engine.phones import PROVIDER, Phone, body
from tests.engine.play import PUBLIC, Play, of, settings, udp

PHONE, LISTENS = End("172.16.42.187", 40000), End("172.16.42.187", 5060)
OUT = PolicyRule("sip", "allow", ("inside",), ("outside",), applications=frozenset({"sip"}))
ROUTED = settings(OUT)
NATTED = replace(settings(OUT, outside=PUBLIC), masqueraded=((packed("172.16.42.0"), 24),))
BESIDE = FlowKey(UDP, packed(PROVIDER.host), PROVIDER.port, packed(LISTENS.host), LISTENS.port)
OTHERS = [End(PROVIDER.host, 5061), End("198.51.100.66", 5060)]


class Asymmetric(Phone):
    """Sends from 40000; Via and Contact say 5060. What comes for it comes from `source` to `at`."""

    def __init__(self, known: Settings = ROUTED) -> None:
        super().__init__(Play(known), PHONE)

    def ask(self, method: str, cseq: int = 1, to_tag: str = "", content: bytes = b"", rport: bool = False) -> None:
        own = f"{LISTENS.host}:{LISTENS.port}"
        message = self.head(f"{method} sip:bob@198.51.100.20 SIP/2.0", f"{cseq} {method}", to_tag, content, own, own)
        self.out(message if rport else message.replace(b";rport", b"", 1))

    def reply(self, status: str, cseq: str = "1 INVITE", host: str = LISTENS.host, call_id: str = "") -> bytes:
        head = self.head(f"SIP/2.0 {status}", cseq, ";tag=314159", b"", f"{host}:5060", PROVIDER.host)
        head = head.replace(b";rport", b"").replace(f"x@{PROVIDER.host}".encode(), f"x@{host}:5060".encode())
        return head.replace(self.call_id.encode(), call_id.encode()) if call_id else head

    def passes(self, payload: bytes, source: End = PROVIDER, at: End = LISTENS) -> bool:
        (verdict,) = of(self.play.queue(udp(source, at, payload), self), SetVerdict)
        return self.play.settings.marks.decode(verdict.mark).action in (None, "allow")

    def comes(self, after: float, payload: bytes) -> bool:
        """Whether it reaches the phone, the flow of before being forgotten."""
        self.play.tick(after)
        self.play.engine.flows.pop(BESIDE, None)
        return self.passes(payload)


def test_the_answer_comes_to_the_port_in_via() -> None:
    phone = Asymmetric()
    assert not phone.passes(phone.reply("180 Ringing")), "nobody has asked"
    phone = Asymmetric()
    phone.ask("INVITE")
    for source in OTHERS:
        assert not phone.passes(phone.reply("180 Ringing"), source)
    assert not phone.passes(phone.reply("180 Ringing"), at=End(LISTENS.host, 5061))
    assert not phone.passes(phone.reply("180 Ringing"), at=End("172.16.42.185", 5060))
    assert not phone.passes(b"\0\0\0\0")
    assert not phone.passes(phone.reply("180 Ringing", call_id="another-call"))
    assert phone.passes(phone.reply("180 Ringing")), "what came before it has not shut the door"
    assert phone.passes(phone.reply("200 OK"))


def test_under_nat_it_reads_its_own_names() -> None:
    phone = Asymmetric(NATTED)
    phone.ask("INVITE")
    commands = phone.play.queue(udp(PROVIDER, LISTENS, phone.reply("180 Ringing", host=PUBLIC)), phone)
    (answer,) = of(commands, RewritePayload)
    assert b"Via: SIP/2.0/UDP 172.16.42.187:5060;" in answer.payload
    assert b"Contact: <sip:x@172.16.42.187:5060>" in answer.payload


def test_who_asks_for_its_source_port_listens_nowhere_else() -> None:
    phone = Asymmetric()
    phone.ask("OPTIONS", rport=True)
    contact = phone.reply("200 OK", "1 OPTIONS")
    assert phone.passes(contact), "Contact still says where requests go"
    phone = Asymmetric()
    phone.out(phone.head("OPTIONS sip:x SIP/2.0", "1 OPTIONS", "", b"", f"{LISTENS.host}:5060"))
    assert not phone.passes(contact)


def test_media_is_opened_as_for_any_call() -> None:
    phone = Asymmetric()
    phone.ask("INVITE", content=body(PHONE.host, 16402))
    head = phone.head("SIP/2.0 200 OK", "1 INVITE", ";tag=314159", body(PROVIDER.host, 30000), f"{LISTENS.host}:5060")
    commands = phone.play.queue(udp(PROVIDER, LISTENS, head), phone)
    assert {each.expectation.port for each in of(commands, OpenPinhole)} == {16402, 16403}


def test_a_transaction_is_over_after_32_s() -> None:
    phone = Asymmetric()
    phone.ask("OPTIONS")
    assert phone.comes(TRANSACTION - 1, phone.reply("200 OK", "1 OPTIONS"))
    assert not phone.comes(TRANSACTION + 1, phone.reply("200 OK", "1 OPTIONS"))


def test_a_dialog_keeps_it_for_as_long_as_it_lives() -> None:
    phone = Asymmetric()
    phone.ask("INVITE")
    assert phone.passes(phone.reply("200 OK"))
    bye = phone.head("BYE sip:x SIP/2.0", "1 BYE", ";tag=1928301774", b"", PROVIDER.host)
    bye = bye.replace(b"From: <sip:alice@atlanta.example>;tag=1928301774", b"From: <sip:bob@x>;tag=314159")
    assert phone.comes(300.0, bye)
    phone.ask("BYE", 2, ";tag=314159")
    assert phone.comes(301.0, phone.reply("200 OK", "2 BYE"))
    assert phone.comes(301.0 + TRANSACTION - 2, phone.reply("200 OK", "2 BYE")), "sent again"
    assert not phone.comes(302.0 + TRANSACTION + 1, phone.reply("200 OK", "2 BYE"))


def test_what_it_began_is_cut_when_the_reason_ends() -> None:
    phone = Asymmetric()
    phone.ask("OPTIONS")
    assert phone.passes(phone.reply("200 OK", "1 OPTIONS"))
    cut = [each for now in range(1, 80) for each in of(phone.play.tick(float(now)), CutFlow)]
    assert cut == [CutFlow(BESIDE)]
    assert phone.play.now > TRANSACTION + SWEEP
    assert BESIDE not in phone.play.engine.flows
    assert phone.play.engine.deadline is None
    assert not phone.passes(phone.reply("200 OK", "1 OPTIONS"))


def registered(known: Settings = ROUTED) -> Asymmetric:
    phone = Asymmetric(known)
    phone.ask("REGISTER")
    assert phone.passes(phone.reply("200 OK", "1 REGISTER").replace(b"Contact", b"Expires: 600\r\nContact"))
    return phone


def invite(phone: Asymmetric) -> bytes:
    return phone.head("INVITE sip:x SIP/2.0", "1 INVITE", "", b"").replace(b"Call-ID: ", b"Call-ID: new")


def test_the_registrar_calls_at_the_contact_while_it_lasts() -> None:
    phone = registered()
    assert phone.comes(400.0, invite(phone))
    assert not phone.passes(invite(phone), OTHERS[0])
    assert not phone.passes(invite(phone), OTHERS[1])
    assert not phone.comes(601.0, invite(phone).replace(b"new", b"later"))


def test_a_ping_does_not_shut_the_door() -> None:
    phone = registered()
    phone.play.tick(100.0)
    phone.play.engine.flows.pop(BESIDE)
    before = len(of(phone.play.commands, SetMark))
    assert not phone.passes(b"\0\0\0\0")
    assert len(of(phone.play.commands, SetMark)) == before, "the kernel does not remember"
    assert phone.passes(invite(phone))


def test_what_came_before_the_phone_spoke_is_taken_back() -> None:
    phone = Asymmetric()
    assert not phone.passes(b"\0\0\0\0")
    assert [each.key for each in of(phone.play.commands, SetMark)] == [BESIDE], "the kernel goes on refusing it"
    phone.ask("REGISTER")
    assert of(phone.play.commands, CutFlow) == [CutFlow(BESIDE)]
    assert phone.passes(phone.reply("200 OK", "1 REGISTER"))


@pytest.mark.parametrize("known", [replace(ROUTED, alg=frozenset({"translation"})), replace(ROUTED, alg=frozenset())])
def test_switched_off_nothing_is_let_in(known: Settings) -> None:
    phone = Asymmetric(known)
    phone.ask("INVITE")
    assert not phone.passes(phone.reply("180 Ringing"))


def test_policy_has_the_last_word() -> None:
    phone = registered()
    no = PolicyRule("no", "deny", applications=frozenset({"sip"}))
    phone.play.commands += phone.play.engine.handle(RulesLoaded(settings(no)), 1.0)
    phone.play.settings = phone.play.engine.settings
    assert not phone.comes(2.0, invite(phone))


def test_over_a_restart() -> None:
    phone = registered()
    (number,) = phone.play.engine.registered.living()
    value = phone.play.engine.registered.kept(phone.play.engine, number)
    assert value is not None
    assert [flow.key for flow in value.beside] == [BESIDE]
    again = Asymmetric()
    again.play.engine.handle(Restored((), (), (value,)), 5.0)
    assert BESIDE in again.play.engine.flows
    assert again.passes(invite(again))
    assert again.comes(300.0, invite(again).replace(b"new", b"later"))
