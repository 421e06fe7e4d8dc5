"""REGISTER and its answer -> until when the registrar may call (RFC 3261 sections 10.2, 10.3, 24.1)."""

from __future__ import annotations

import pytest

from appid.alg import registration as room
from appid.alg.registration import DEFAULT, LONGEST, PER_FLOW, PER_HOST, Registration, Registrations, contacts
from appid.decode import sip
from appid.flow.key import FlowKey
from appid.wire import UDP, Endpoint, packed

HOST, BOB, REGISTRAR = "192.0.2.4", Endpoint(packed("192.0.2.4"), 5060), Endpoint(packed("198.51.100.20"), 5060)
OUTSIDE = Endpoint(packed("203.0.113.9"), 16386)
FLOW = FlowKey(UDP, *BOB, *REGISTRAR)


def message(
    first: str, *more: str, cseq: str = "1826 REGISTER", tag: str = "456248", call: str = "843817637"
) -> sip.Message:
    lines = [first, "Via: SIP/2.0/UDP bobspc.biloxi.com:5060;branch=z9hG4bKnashds7", "To: Bob <sip:bob@biloxi.com>",
             f"From: Bob <sip:bob@biloxi.com>;tag={tag}", f"Call-ID: {call}", f"CSeq: {cseq}", *more]  # fmt: skip
    layer = sip.decode(memoryview("\r\n".join([*lines, "Content-Length: 0", "", ""]).encode()))
    assert layer is not None
    assert isinstance(layer.message, sip.Message)
    return layer.message


class Phone:
    """One phone, and what has come of its registrations."""

    def __init__(self, known: Registrations | None = None, flow: FlowKey = FLOW) -> None:
        self.known, self.flow = known or Registrations(), flow

    def asks(self, *more: str, **changes: str) -> None:
        outside = {BOB: OUTSIDE}.get
        asked = message("REGISTER sip:registrar.biloxi.com SIP/2.0", *more, **changes)
        self.known.asked(asked, self.flow, self.flow.src, REGISTRAR, outside)

    def hears(self, *more: str, first: str = "200 OK", now: float = 1000.0, **changes: str) -> float | None:
        """How long the registration lasts from now on; None where nothing has changed."""
        answer = message(f"SIP/2.0 {first}", *more, **changes)
        changed = self.known.answered(answer, self.flow.src, REGISTRAR, now)
        return None if changed is None else max(0.0, changed.lasts() - now)


OURS = f"Contact: <sip:bob@{HOST}>"


@pytest.mark.parametrize(
    ("asked", "told", "lasts"),
    [
        ([OURS, "Expires: 7200"], [f"{OURS};expires=600"], 600),
        ([OURS, "Expires: 7200"], [OURS, "Expires: 900"], 900),
        ([OURS, "Expires: 7200"], [], 7200),
        ([f"{OURS};expires=120", "Expires: 7200"], [OURS], 120),
        ([OURS], [OURS], DEFAULT),
        ([OURS], [f"{OURS};expires=soon"], DEFAULT),
        ([OURS, "Expires: 99999999999999"], [OURS], DEFAULT),
        ([OURS], [f"{OURS};expires=4294967295"], LONGEST),
        ([OURS], [f"Contact: <sip:bob@198.51.100.77>;expires=60, <sip:bob@{HOST}:5060>;expires=300"], 300),
        ([OURS], ["Contact: <sip:bob@203.0.113.9:16386;ob>;expires=240", "Contact: <sip:c@192.0.2.8>;expires=9"], 240),
        ([OURS], ["Contact: <sip:bob@198.51.100.1:33000>;expires=77"], 77),
        (["m: sip:bob@pc.biloxi.com;expires=50"], ["m: <sip:x@pc.biloxi.com>;expires=9, <sip:bob@PC.biloxi.com>"], 50),
        ([f'Contact: "Bob, at, \\"home <" <sip:bob,7@{HOST}>;expires=400'], [], 400),
    ],
)  # fmt: skip
def test_how_long_it_lasts(asked: list[str], told: list[str], lasts: int) -> None:
    phone = Phone()
    phone.asks(*asked)
    assert phone.hears(*told) == lasts


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (["Contact: *", "Expires: 0"], []),
        ([f"{OURS};expires=0"], []),
        ([OURS, "Expires: 0"], ["Contact: <sip:bob@198.51.100.77>;expires=3000"]),
        ([OURS], [f"{OURS};expires=0"]),
    ],
)
def test_it_is_taken_back(asked: list[str], told: list[str]) -> None:
    phone = Phone()
    phone.asks(OURS)
    assert phone.hears(OURS, "Expires: 3600") == 3600
    phone.asks(*asked, cseq="1827 REGISTER", call="another-life-of-the-phone")
    assert phone.hears(*told, cseq="1827 REGISTER", call="another-life-of-the-phone", now=1010.0) == 0


def test_one_line_of_several_is_taken_back_alone() -> None:
    phone = Phone()
    phone.asks(OURS)
    phone.hears(f"{OURS};expires=600")
    other = message("REGISTER sip:x SIP/2.0", OURS, "Expires: 0", cseq="2 REGISTER")
    headers = tuple((n, "<sip:second@biloxi.com>" if n == "to" else v) for n, v in other.headers)
    phone.known.asked(
        sip.Message("REGISTER", "sip:x", None, "", headers, other.head, b"", b"", ""),
        FLOW,
        FLOW.src,
        REGISTRAR,
        lambda _: None,
    )
    assert phone.hears(cseq="2 REGISTER") == 600


def test_what_only_asks_changes_nothing() -> None:
    phone = Phone()
    phone.asks(OURS)
    phone.hears(f"{OURS};expires=600")
    phone.asks(cseq="1827 REGISTER")
    assert phone.hears("Contact: <sip:b@198.51.100.77>;expires=9", cseq="1827 REGISTER", now=1100.0) is None
    assert phone.known.flows[FLOW].lasts() == 1600


@pytest.mark.parametrize(
    "forged",
    [
        {"first": "401 Unauthorized"},
        {"first": "100 Trying"},
        {"cseq": "1827 REGISTER"},
        {"cseq": "1826 INVITE"},
        {"tag": "other"},
        {"call": "other"},
    ],
)
def test_another_answer_is_none(forged: dict[str, str]) -> None:
    phone = Phone()
    phone.asks(OURS)
    assert phone.hears(OURS, **forged) is None  # type: ignore[arg-type]
    assert not phone.known.flows


def test_another_endpoint_does_not_answer() -> None:
    phone = Phone()
    phone.asks(OURS)
    answer = message("SIP/2.0 200 OK", OURS)
    assert phone.known.answered(answer, FLOW.src, REGISTRAR._replace(port=5061), 0.0) is None
    assert phone.known.answered(answer, packed("192.0.2.5"), REGISTRAR, 0.0) is None


def test_shares() -> None:
    known = Registrations()
    for port in range(2000, 2000 + PER_HOST + 3):
        assert known.put(Registration(FLOW._replace(sport=port), FLOW.src, {"a": 9.0}))
    assert sorted(flow.sport for flow in known.flows) == list(range(2003, 2000 + PER_HOST + 3)), "the oldest gave way"
    phone = Phone(known)
    for number in range(PER_FLOW + 9):
        made = message("REGISTER sip:x SIP/2.0", OURS, f"Expires: {60 + number}", cseq=f"{number} REGISTER")
        headers = tuple((n, f"<sip:{number}@biloxi.com>" if n == "to" else v) for n, v in made.headers)
        asked = sip.Message("REGISTER", "sip:x", None, "", headers, made.head, b"", b"", "")
        known.asked(asked, FLOW, FLOW.src, REGISTRAR, lambda _: None)
        phone.hears(cseq=f"{number} REGISTER")
    assert sorted(known.flows[FLOW].until) == sorted(f"sip:{n}@biloxi.com" for n in range(9, PER_FLOW + 9))


def test_a_full_gateway_throws_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MAX_FLOWS", 2)
    known = Registrations()
    hosts = [FLOW._replace(src=packed(f"192.0.2.{n}")) for n in (1, 2, 3)]
    taken = [known.put(Registration(flow, flow.src, {"a": 9.0})) is not None for flow in hosts]
    assert taken == [True, True, False]
    known.drop(hosts[0])
    assert known.put(Registration(hosts[2], hosts[2].src)) is not None
    assert known.put(Registration(hosts[1], hosts[1].src, {"b": 1.0})) is not None, "the same again"


def test_requests_that_nobody_answers_are_bounded() -> None:
    phone = Phone()
    for number in range(100):
        phone.asks(OURS, cseq=f"{number} REGISTER")
    assert phone.hears(OURS, cseq="10 REGISTER") is None
    assert phone.hears(OURS, cseq="99 REGISTER") == DEFAULT


@pytest.mark.parametrize(
    "hostile", ["<" * 60_000, '"' * 59_999, ",".join(["<sip:a@192.0.2.1>"] * 3000), "sip:" + "@" * 60_000]
)
def test_a_hostile_contact_costs_little(hostile: str) -> None:
    found = list(contacts(message("REGISTER sip:x SIP/2.0", f"Contact: {hostile}")))
    assert len(found) <= room.LISTED
    many = list(contacts(message("REGISTER sip:x SIP/2.0", *["Contact: <sip:" + "a" * 4000] * 15)))
    assert sum(map(len, many)) <= room.LENGTH
    assert sum(map(len, found)) <= room.LENGTH
    phone = Phone()
    phone.asks(f"Contact: {hostile}")
