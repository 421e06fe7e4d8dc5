"""Start line and headers: what each field becomes on the other side of the NAT, and what stays byte for byte."""

from __future__ import annotations

import pytest

from appid.alg.headers import translate_head
from tests.alg.natted import BACK, GATE, OUT, OUT6, PHONE, SDP, fields, lf, sip, told

UNITS = [
    b"sip:", b"<sip:", b"<sip:a,", b"sip:,", b" sip:", b'"', b'"\\', b"sip:a@", b";rport=1", b"SIP/2.0/UDP 1.1.1.1,",
    b" ", b"\r\n ",
]  # fmt: skip


def test_an_invite_going_out_names_the_gateway() -> None:
    out = fields(told(sip(lf(SDP))))
    assert out["Via"] == f"SIP/2.0/UDP {GATE}:6060;branch=z9hG4bKnashds8;rport"
    assert out["Contact"] == f'"sip:x@{PHONE}" <sip:alice@{GATE}:6060>', "a display name is only words"
    assert out["From"] == f"Alice <sip:alice@{GATE}>;tag=1928301774", "a port is not for calling a person"
    assert out["To"] == "Bob <sip:bob@biloxi.example.com>"


HEADS = [
    ("Contact: <sip:a@10.1.3.33:5070;lr>;expires=60", "Contact: <sip:a@203.0.113.77:5070;lr>;expires=60"),
    ("m: sip:10.1.3.33", "m: sip:203.0.113.77:6060"),
    ("m: sip:10.1.3.33:5060, <sips:b@10.1.3.33:5070>", "m: sip:203.0.113.77:6060, <sips:b@203.0.113.77:5070>"),
    ("Contact: *", "Contact: *"),
    ("Contact: <sip:a@10.1.3.33:7777>", "Contact: <sip:a@10.1.3.33:7777>"),
    ("Contact: <sip:a@10.1.3.333>", "Contact: <sip:a@10.1.3.333>"),
    ("Contact: <sip:a@10.1.3.33.example.com>", "Contact: <sip:a@10.1.3.33.example.com>"),
    ("Contact: <sip:a@10.1.3.34>", "Contact: <sip:a@10.1.3.34>"),
    ("Contact: <tel:+1-201-555-0123>", "Contact: <tel:+1-201-555-0123>"),
    ("Contact: <SIP:a@10.1.3.33:5060>", "Contact: <SIP:a@203.0.113.77:6060>"),
    ("Contact: <sip:a@p.example;maddr=10.1.3.33>", "Contact: <sip:a@p.example;maddr=203.0.113.77>"),
    ("Record-Route: <sip:10.1.3.33;lr>, <sip:p.example;lr>",
     "Record-Route: <sip:203.0.113.77:6060;lr>, <sip:p.example;lr>"),
    ("Route: <sip:10.1.3.33:5060;lr>", "Route: <sip:203.0.113.77:6060;lr>"),
    ("Path: <sip:10.1.3.33;lr>", "Path: <sip:203.0.113.77:6060;lr>"),
    ("m: <sip:+1(555),12;p=$?@10.1.3.33:5060>", "m: <sip:+1(555),12;p=$?@203.0.113.77:6060>"),
    ("Contact: <sip:a,b:secret,c@10.1.3.33>, sip:10.1.3.33,<sip:d,e@10.1.3.33>",
     "Contact: <sip:a,b:secret,c@203.0.113.77:6060>, sip:203.0.113.77:6060,<sip:d,e@203.0.113.77:6060>"),
    (f"Contact: <sip:{'u' * 3000}@10.1.3.33>", f"Contact: <sip:{'u' * 3000}@203.0.113.77:6060>"),
    (f"Route: <sip:{'a,' * 200}@10.1.3.33;lr>", f"Route: <sip:{'a,' * 200}@203.0.113.77:6060;lr>"),
    ("Contact: sip:p.example,sip:u@10.1.3.33", "Contact: sip:p.example,sip:u@203.0.113.77:6060"),
    ("v:SIP/2.0/TCP 10.1.3.33", "v:SIP/2.0/TCP 203.0.113.77:6060"),
    ("Via: SIP / 2.0 / UDP 10.1.3.33 : 5060 ;branch=z9", "Via: SIP / 2.0 / UDP 203.0.113.77:6060 ;branch=z9"),
    ("Via: SIP/2.0/UDP 10.1.3.33;branch=a,SIP/2.0/UDP p.example;received=10.1.3.33",
     "Via: SIP/2.0/UDP 203.0.113.77:6060;branch=a,SIP/2.0/UDP p.example;received=203.0.113.77"),
    ("Via: SIP/2.0/UDP 10.1.3.9:5060;branch=b", "Via: SIP/2.0/UDP 10.1.3.9:5060;branch=b"),
    ("Subject: call 10.1.3.33 at sip:a@10.1.3.33", "Subject: call 10.1.3.33 at sip:a@10.1.3.33"),
    ("P-Asserted-Identity: <sip:a@10.1.3.33>", "P-Asserted-Identity: <sip:a@203.0.113.77>"),
    ("f: <sip:a@10.1.3.33:5060>;tag=1", "f: <sip:a@203.0.113.77:6060>;tag=1"),
    ("To: sip:b@p.example", "To: sip:b@p.example"),
    ("Contact:\r\n <sip:a@10.1.3.33>", "Contact:\r\n <sip:a@203.0.113.77:6060>"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "wanted"), HEADS, ids=[line[:40] for line, _ in HEADS])
def test_a_header(line: str, wanted: str) -> None:
    head = f"OPTIONS sip:b@p.example SIP/2.0\r\n{line}\r\n\r\n".encode()
    assert translate_head(head, OUT) == f"OPTIONS sip:b@p.example SIP/2.0\r\n{wanted}\r\n\r\n".encode()


def test_a_reply_coming_in_names_the_phone_again() -> None:
    """RFC 3581 section 4: the far side has added where the request came from; the phone must not see a strange Via."""
    raw = sip(b"", "SIP/2.0 200 OK").replace(
        f"{PHONE}:5060;branch=z9hG4bKnashds8;rport".encode(),
        f"{GATE}:6060;branch=z9hG4bKnashds8;received={GATE};rport=6060".encode(),
    )
    raw = raw.replace(f"<sip:alice@{PHONE}>\r".encode(), b"<sip:bob@198.51.100.20:5062>\r")
    back = fields(told(raw, BACK))
    assert back["Via"] == f"SIP/2.0/UDP {PHONE}:5060;branch=z9hG4bKnashds8;received={PHONE};rport=5060"
    assert back["Contact"].endswith("<sip:bob@198.51.100.20:5062>"), "a public address that is not ours stays"


def test_a_request_coming_in_is_addressed_to_the_phone() -> None:
    raw = sip(b"", f"BYE sip:alice@{GATE}:6060 SIP/2.0")
    assert told(raw, BACK).startswith(f"BYE sip:alice@{PHONE}:5060 SIP/2.0\r\n".encode())


@pytest.mark.parametrize("user", ["+1(555),12", "a,b;c=d", "u" * 3000])
def test_a_request_is_addressed_to_whatever_user_the_phone_has(user: str) -> None:
    raw = sip(b"", f"BYE sip:{user}@{GATE}:6060 SIP/2.0")
    assert told(raw, BACK).startswith(f"BYE sip:{user}@{PHONE}:5060 SIP/2.0\r\n".encode())


def test_what_goes_out_and_comes_back_is_what_it_was() -> None:
    """Where ports are written out; a port that stood for itself is written from then on."""
    raw = sip(lf(SDP)).replace(f"alice@{PHONE}>\r".encode(), f"alice@{PHONE}:5060>\r".encode())
    assert told(told(raw), BACK) == raw


def test_ipv6_endpoints_stand_in_brackets() -> None:
    head = (
        b"OPTIONS sip:b@[2001:db8::9] SIP/2.0\r\nVia: SIP/2.0/UDP [fd00::5];received=fd00::5\r\n"
        b"m: <sip:[FD00::5]:5060>\r\n\r\n"
    )
    assert translate_head(head, OUT6) == (
        b"OPTIONS sip:b@[2001:db8::9] SIP/2.0\r\nVia: SIP/2.0/UDP [2001:db8::7]:5061;received=2001:db8::7\r\n"
        b"m: <sip:[2001:db8::7]:5061>\r\n\r\n"
    )


@pytest.mark.parametrize("unit", UNITS)
def test_a_long_header_costs_no_more_than_its_length(unit: bytes) -> None:
    """Time is not measured: a quadratic expression does not end within the suite's timeout."""
    for name in (b"Contact: ", b"Via: "):
        head = b"OPTIONS sip:a@b SIP/2.0\r\n" + name + unit * (60_000 // len(unit)) + b"\r\n\r\n"
        assert translate_head(head, OUT)
    assert translate_head(b"OPTIONS " + unit * (60_000 // len(unit)) + b" SIP/2.0\r\n\r\n", OUT)
