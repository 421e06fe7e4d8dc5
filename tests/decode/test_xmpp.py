"""XMPP: the examples of RFC 6120, STARTTLS, streams met in the middle, other XML, hostile bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appid.decode import xmpp
from appid.wire import Fact, FactValue, Layer

# RFC 6120 section 9.1.1
HEADER = (
    b"<?xml version='1.0'?>\n<stream:stream\n  from='juliet@im.example.com'\n  to='im.example.com'\n  version='1.0'\n"
    b"  xml:lang='en'\n  xmlns='jabber:client'\n  xmlns:stream='http://etherx.jabber.org/streams'>\n"
)
FEATURES = (
    b"<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls></stream:features>"
)


def read(payload: bytes) -> Layer:
    layer = xmpp.decode(memoryview(payload))
    assert layer is not None
    return layer


def values(layer: Layer, name: str) -> list[FactValue]:
    return [fact.value for fact in layer.facts if fact.name == name]


def test_stream_header() -> None:
    layer = read(HEADER + b"<iq/>")
    assert layer.consumed == len(HEADER)
    assert layer.facts == (
        Fact("xmpp.stream_to", "im.example.com"),
        Fact("xmpp.stream_from", "juliet@im.example.com"),
        Fact("xmpp.namespace", "jabber:client"),
    )


def test_other_prefix_and_server_namespace() -> None:
    layer = read(b'<s:stream xmlns="jabber:server" to="Example.NET" xmlns:s="http://etherx.jabber.org/streams">')
    assert values(layer, "xmpp.stream_to") == ["example.net"]
    assert values(layer, "xmpp.namespace") == ["jabber:server"]


def test_header_cut_between_segments() -> None:
    assert read(HEADER[:60]).consumed == 0


def test_starttls_and_where_tls_begins() -> None:
    assert values(read(FEATURES), "xmpp.starttls") == [True]
    for element in (b"starttls", b"proceed"):
        command = b"<" + element + b" xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"
        layer = read(command + b"\x16\x03\x01")
        assert values(layer, "xmpp.starttls") == [True]
        assert layer.consumed == len(command)


def test_features_without_tls() -> None:
    layer = read(b"<stream:features><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></stream:features>")
    assert values(layer, "xmpp.starttls") == []


@pytest.mark.parametrize(
    "stanza",
    [
        b"<iq type='get' id='x1' to='im.example.com'><query xmlns='jabber:iq:roster'/></iq>",
        b"<iq id='bind_1' type='result'/>",
        b"<message from='juliet@im.example.com/balcony' to='romeo@example.net' type='chat'><body>Art</body></message>",
        b"<presence from='juliet@im.example.com/balcony' type='unavailable'/>",
        b"<presence><show>away</show></presence>",
        b"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AGp1bGlldA==</auth>",
        b"</stream:stream>",
    ],
)
def test_stream_met_in_the_middle(stanza: bytes) -> None:
    assert read(stanza).consumed == len(stanza)


@pytest.mark.parametrize(
    "payload",
    [
        b"<?xml version='1.0'?><soap:Envelope xmlns:soap='http://schemas.xmlsoap.org/soap/envelope/'>",
        b"<message id='1'><body>an XML protocol of somebody</body></message>",
        b"<iq>140</iq>",
        b"<html><head></head></html>",
        b"<stream xmlns='urn:video'>",
        b"<response>ok</response>",
        b"<policy-file-request/>\0",
        b"<34>Oct 11 22:14:15 mymachine su: 'su root' failed",
        b"<",
    ],
)
def test_not_xmpp(payload: bytes) -> None:
    assert xmpp.decode(memoryview(payload)) is None


@given(st.binary(max_size=300), st.sampled_from([b"", HEADER, b"<iq type='get' ", b"<?xml ?>", b"<a" + b" a=" * 800]))
def test_any_bytes(tail: bytes, head: bytes) -> None:
    payload = memoryview(head + tail)
    layer = xmpp.decode(payload)
    assert layer is None or 0 <= layer.consumed <= len(payload)


def test_the_end_of_a_stream_is_xmpp() -> None:
    """RFC 6120 section 4.4: all that ndpi/jabber.pcap has of one connection."""
    layer = xmpp.decode(memoryview(b"</stream:stream>"))
    assert layer is not None
    assert [tuple(fact) for fact in layer.facts] == [("xmpp.stanza", "/stream:stream")]
