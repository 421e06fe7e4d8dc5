"""Names on both sides: what comes in by its outside name goes out by it again; Via and bare addresses are one's own."""

from __future__ import annotations

from appid.alg.headers import translate_head
from appid.alg.host import NOBODY
from appid.alg.mappings import Mappings
from appid.alg.names import Natted
from appid.alg.neighbours import Asking, Neighbours
from appid.alg.sides import Inward, Named, Outward
from appid.wire import UDP
from tests.alg.natted import at

BOB, ALICE, PROXY = at("10.0.0.3", 5060), at("10.0.0.2", 5062), at("198.51.100.2", 5060)
BOBS, ALICES = at("203.0.113.7", 1024), at("203.0.113.7", 5062)


def sides() -> tuple[Outward, Inward]:
    """Of Bob's flow; Alice is mapped towards the same proxy."""
    mappings = Mappings()
    mappings.note(UDP, BOB, BOBS, PROXY.address, 1)
    mappings.note(UDP, ALICE, ALICES, PROXY.address, 2)
    known, natted = Neighbours(mappings, {BOBS.address}), Natted(UDP, BOB, BOBS, PROXY)
    return Outward(known, natted), Inward(known, natted, Asking(NOBODY))


REQUEST = b"""BYE sip:b@203.0.113.7:1024 SIP/2.0\r
Via: SIP/2.0/UDP 198.51.100.2;branch=z9hG4bK2\r
Via: SIP/2.0/UDP 203.0.113.7:5062;branch=z9hG4bK1;received=203.0.113.7;rport=5062\r
Contact: <sip:a@203.0.113.7:5062>\r
To: <sip:b@203.0.113.7>;tag=b\r\n\r\n"""


def test_what_comes_in_names_the_other_by_where_he_is() -> None:
    came = translate_head(REQUEST, sides()[1])
    assert came == REQUEST.replace(b"b@203.0.113.7:1024", b"b@10.0.0.3:5060").replace(
        b"Contact: <sip:a@203.0.113.7:5062>", b"Contact: <sip:a@10.0.0.2:5062>"
    ).replace(b"To: <sip:b@203.0.113.7>", b"To: <sip:b@10.0.0.3>"), "but his Via, which is his own to read"


def test_and_goes_out_by_its_outside_name_again() -> None:
    outward, inward = sides()
    assert translate_head(translate_head(REQUEST, inward), outward) == REQUEST


def test_ones_own_via_is_put_back() -> None:
    response = (
        b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 203.0.113.7:1024;received=203.0.113.7;rport=1024;branch=z9hG4bK3\r\n\r\n"
    )
    told = translate_head(response, sides()[1])
    assert b"Via: SIP/2.0/UDP 10.0.0.3:5060;received=10.0.0.3;rport=5060;branch=z9hG4bK3\r\n" in told


def test_names_are_collected_without_a_change() -> None:
    named = Named()
    assert translate_head(REQUEST, named) == REQUEST
    assert set(named.found) == {BOBS, ALICES}
    assert set(named.vias) == {ALICES, PROXY}
