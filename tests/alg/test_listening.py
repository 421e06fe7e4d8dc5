"""Where a phone listens, by its own words: Via's sent-by (RFC 3261 section 18.2.2) and Contact (section 8.1.1.8)."""

from __future__ import annotations

import pytest

from appid.alg import listening as room
from appid.alg.listening import PER_HOST, Listening, listens
from appid.decode import sip
from appid.wire import Endpoint, packed

HOST, REMOTE = packed("172.16.42.187"), Endpoint(packed("198.51.100.20"), 5060)
BRANCH = ";branch=z9hG4bK7"


def told(via: str, contact: str = "", first: str = "INVITE sip:b@x SIP/2.0") -> tuple[int, ...]:
    lines = [first, f"Via: {via}", "From: <sip:a@x>;tag=a", "To: <sip:b@x>", "Call-ID: c", "CSeq: 1 INVITE"]
    lines += [f"Contact: {contact}"] if contact else []
    layer = sip.decode(memoryview("\r\n".join([*lines, "Content-Length: 0", "", ""]).encode()))
    assert layer is not None
    assert isinstance(layer.message, sip.Message)
    return listens(layer.message, HOST, 40000)


@pytest.mark.parametrize(
    ("via", "contact", "ports"),
    [
        (f"SIP/2.0/UDP 172.16.42.187:5062{BRANCH}", "", (5062,)),
        (f"SIP/2.0/UDP 172.16.42.187{BRANCH}", "", (5060,)),
        (f"SIP / 2.0 / UDP pc33.atlanta.example : 5070 {BRANCH}, SIP/2.0/UDP 172.16.42.187:9999", "", (5070,)),
        (f"SIP/2.0/UDP 172.16.42.187:5060{BRANCH};rport", "", ()),
        (f"SIP/2.0/UDP 172.16.42.187:40000{BRANCH}", "<sip:a@172.16.42.187:40000>", ()),
        (f"SIP/2.0/TCP 172.16.42.187:5060{BRANCH}", "", ()),
        (f"SIP/2.0/UDP 172.16.42.185:5060{BRANCH}", "<sip:a@172.16.42.185:5061>", ()),
        (f"SIP/2.0/UDP 172.16.42.187:1023{BRANCH}", "<sip:a@172.16.42.187:123>", ()),
        (f"SIP/2.0/UDP 172.16.42.187:65536{BRANCH}", "", ()),
        (f"SIP/2.0/UDP x{BRANCH};rport", "<sip:a@172.16.42.187;ob>", (5060,)),
        (f"SIP/2.0/UDP x{BRANCH};rport", "<sip:a@172.16.42.187:5072;transport=udp>;expires=60", (5072,)),
        (f"SIP/2.0/UDP x{BRANCH};rport", "<sip:a@172.16.42.187:5072;transport=tcp>", ()),
        (f"SIP/2.0/UDP x{BRANCH};rport", "<sips:a@172.16.42.187:5072>", ()),
        (f"SIP/2.0/UDP x{BRANCH}", ", ".join(f"<sip:a@172.16.42.187:{port}>" for port in range(6000, 6009)),
         (5060, 6000, 6001, 6002)),
    ],
)  # fmt: skip
def test_what_a_request_names(via: str, contact: str, ports: tuple[int, ...]) -> None:
    assert told(via, contact) == ports


def test_an_answer_bears_the_via_of_who_asked() -> None:
    assert told(f"SIP/2.0/UDP 172.16.42.187:7000{BRANCH}", "<sip:a@172.16.42.187:5061>", "SIP/2.0 200 OK") == (5061,)


def test_the_endpoint_that_was_told_and_no_other() -> None:
    known = Listening()
    known.name(HOST, 5060, REMOTE, "one", 10.0)
    known.name(HOST, 5060, REMOTE, "two", 20.0)
    assert known.named(HOST, 5060, REMOTE) == {"one": 10.0, "two": 20.0}
    for host, port, remote in (
        (packed("172.16.42.185"), 5060, REMOTE),
        (HOST, 5061, REMOTE),
        (HOST, 5060, REMOTE._replace(port=5061)),
        (HOST, 5060, REMOTE._replace(address=packed("198.51.100.66"))),
    ):
        assert known.named(host, port, remote) == {}
    known.forget({(HOST, "one")})
    assert known.named(HOST, 5060, REMOTE) == {"two": 20.0}
    known.forget({(HOST, "two")})
    assert len(known) == 0


def test_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Listening()
    for number in range(PER_HOST + 1):
        known.name(HOST, 5060, REMOTE, f"{number}", 10.0)
    assert sorted(known.named(HOST, 5060, REMOTE), key=int) == [f"{n}" for n in range(1, PER_HOST + 1)], (
        "its oldest went"
    )
    monkeypatch.setattr(room, "MAX_NAMED", PER_HOST + 1)
    known.name(packed("172.16.42.1"), 5060, REMOTE, "room", 10.0)
    known.name(packed("172.16.42.2"), 5060, REMOTE, "none", 10.0)
    assert known.named(packed("172.16.42.1"), 5060, REMOTE)
    assert not known.named(packed("172.16.42.2"), 5060, REMOTE), "nobody else gave way"
    known.name(HOST, 5060, REMOTE, "again", 10.0)
    assert known.named(HOST, 5060, REMOTE)["again"] == 10.0
    assert len(known) == PER_HOST + 1
