"""A phone that only keeps its path open when the gateway comes up is a phone when it speaks (RFC 5626 section 3.5)."""

from __future__ import annotations

import pytest

from appid.dataplane.command import OpenPinhole
from appid.engine import FlowReport, keepalive
from appid.policy.rule import PolicyRule
from tests.corpus.writer import End
from tests.engine.phones import Phone, gateway
from tests.engine.play import Play, bodies, of, udp

PHONE = End("172.16.42.9", 5060)
CRLF, PONG = b"\r\n\r\n", b"\r\n"
ASK = bytes.fromhex("0001 0000 2112a442 b7e7a701bc34d686fa87dfae".replace(" ", ""))
TOLD = bytes.fromhex("0101 000c 2112a442 b7e7a701bc34d686fa87dfae 0020 0008 0001 a147e112a643".replace(" ", ""))
"""A Binding request without attributes and its response, RFC 8489 sections 5 and 14.2 (192.0.2.1:32853)."""
KINDS = [
    pytest.param(CRLF, PONG, id="line ends"),
    pytest.param(b"\0\0\0\0", b"", id="zeros"),
    pytest.param(ASK, TOLD, id="STUN"),
]


def allowing(*names: str) -> PolicyRule:
    return PolicyRule("sip", "allow", applications=frozenset({"sip", "rtp", "rtcp", *names}), service="any")


def keep_alive(phone: Phone, times: int, sent: bytes, answer: bytes) -> None:
    for _ in range(times):
        phone.out(sent)
        if answer:
            phone.back(answer)


def refused(play: Play) -> list[FlowReport]:
    return [r for r in bodies(play.commands, FlowReport) if r.decision is not None and r.decision.action != "allow"]


@pytest.mark.parametrize("names", [(), ("stun",)], ids=["stun refused", "stun allowed"])
@pytest.mark.parametrize(("sent", "answer"), KINDS)
def test_an_hour_of_keepalives_and_then_a_call(names: tuple[str, ...], sent: bytes, answer: bytes) -> None:
    phone = Phone(gateway(allowing(*names)), PHONE)
    keep_alive(phone, 240, sent, answer)
    phone.invite()
    opened = of(phone.respond("200 OK"), OpenPinhole)
    assert [one.expectation.port for one in opened][:1] == [phone.rtp], "its media"
    assert not refused(phone.play)


@pytest.mark.parametrize(("sent", "answer"), KINDS)
def test_they_do_not_go_on_for_ever(sent: bytes, answer: bytes) -> None:
    phone = Phone(gateway(allowing()), PHONE)
    keep_alive(phone, keepalive.PACKETS + 20, sent, answer)
    assert refused(phone.play)


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"\r\nx\r\n", id="more than line ends"),
        pytest.param(b"\r\n" * 5, id="many line ends"),
        pytest.param(ASK[:3] + b"\x80" + ASK[4:] + b"\x80\x22\0\x7c" + b"s" * 124, id="a long STUN message"),
        pytest.param(
            b"\0\x16\0\x18" + ASK[4:] + b"\0\x12\0\x08" + TOLD[-8:] + b"\0\x13\0\x08" + b"\x9edata..\xff",
            id="what STUN carries",
        ),
    ],
)
def test_what_says_something_spends_the_budget(said: bytes) -> None:
    phone = Phone(gateway(allowing()), PHONE)
    keep_alive(phone, 11, said, b"")
    assert refused(phone.play)


def test_elsewhere_stun_is_what_it_is() -> None:
    play = gateway(allowing())
    for _ in range(11):
        play.queue(udp(PHONE, End("198.51.100.20", 3478), ASK))
    assert [r.identification.application for r in refused(play)] == ["stun"]
