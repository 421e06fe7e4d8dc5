"""Plain words: the standards' own names, particulars worth saying, and all of it printable, whoever wrote it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appid.decode import peel
from appid.story.words import SHORT, quoted, reason, say, shown
from appid.wire import Endpoint, Fact, Layer
from tests.corpus import stun_bytes as stun

TRANSACTION = stun.Transaction(stun.COOKIE, b"abcdefghijkl")
BINARY = bytes(range(200, 220))


def said(payload: bytes, carrier: str = "udp") -> tuple[str, str]:
    words = say(peel(memoryview(payload), carrier).layers, memoryview(payload), carrier)
    return words.what, "; ".join(words.details)


@pytest.mark.parametrize(
    ("message", "what", "detail"),
    [
        (stun.message(stun.ALLOCATE, stun.REQUEST, TRANSACTION, [stun.u32(stun.LIFETIME, 60)]),
         "TURN Allocate request", "LIFETIME 60; no USERNAME"),
        (stun.message(stun.REFRESH, stun.REQUEST, TRANSACTION, [stun.u32(stun.LIFETIME, 0)]),
         "TURN Refresh request, LIFETIME 0", ""),
        (stun.message(stun.CHANNEL_BIND, stun.ERROR, TRANSACTION, [stun.error(437, "Allocation Mismatch")]),
         "TURN ChannelBind error 437", ""),
        (stun.message(stun.BINDING, stun.REQUEST, TRANSACTION, [(stun.USERNAME, b"ab:cd"), (stun.USE_CANDIDATE, b"")]),
         "STUN Binding request, USE-CANDIDATE", "USERNAME ab:cd"),
        (stun.message(stun.BINDING, stun.REQUEST, TRANSACTION, [(stun.USERNAME, BINARY), (0x8009, b"")]),
         "STUN Binding request", "USERNAME of 20 binary bytes, no colon; unknown attributes 0x8009"),
        (b"GET /connectivity.txt HTTP/1.1\r\nHost: static.ess.apple.com:80\r\n\r\n",
         "HTTP GET /connectivity.txt", "Host static.ess.apple.com:80"),
        (b"HTTP/1.1 200 OK\r\nServer: Apache\r\nContent-Length: 13\r\n\r\nAV was here!\n",
         "HTTP 200", "Server Apache; body of 13 bytes: AV was here!"),
        (b"\xff" * 25, "UDP that no decoder reads", ""),
        (b"nothing that anyone knows", "UDP, maybe QUIC's short header", ""),
    ],
)  # fmt: skip
def test_a_message_in_plain_words(message: bytes, what: str, detail: str) -> None:
    assert said(message, "tcp" if message[:1] in b"GH" else "udp") == (what, detail)


def test_what_breaks_the_grammar_of_descriptions_is_said() -> None:
    """Both violations of the report's answer; a description that keeps to RFC 8866 is not accused."""
    head = b"SIP/2.0 200 OK\r\ni: 1\r\nCSeq: 1 INVITE\r\nc: application/sdp\r\n\r\n"
    broken = (
        b"v=0\r\no=a 0 0 IN IP4 192.0.2.1\r\ns=-\r\nb=AS:2000:2000\r\nm=audio 16402 RTP/AVP 104\r\na=fmtp:AAC x\r\n"
    )
    assert "against SDP's grammar: b=AS:2000:2000, a=fmtp:AAC x" in said(head + broken)[1]
    good = broken.replace(b":2000:2000", b":2000").replace(b"AAC", b"104")
    assert "grammar" not in said(head + good)[1]


def test_facts_that_counted_stand_by_name() -> None:
    facts = (Fact("stun.attribute", 0x16), Fact("stun.method", "allocate"), Fact("stun.attribute", 0x22),
             Fact("stun.attribute", 0x22))  # fmt: skip
    assert reason(facts) == "stun.attribute 0x0016 0x0022, stun.method allocate"
    assert shown("flow.destination", b"\xc0\0\2\1") == "192.0.2.1"
    assert shown("peer.endpoint", Endpoint(b"\xc0\0\2\1", 16402)) == "192.0.2.1:16402"
    assert shown("http.has", True) == "yes"


def test_a_sender_s_text_is_short_and_printable() -> None:
    assert quoted("a\x1b[31mb\nc") == "a\ufffd[31mb\ufffdc"
    assert len(quoted("x" * 1000)) == SHORT


@given(st.binary(max_size=200), st.sampled_from(["udp", "tcp", "middle"]))
def test_any_bytes_give_printable_words(payload: bytes, carrier: str) -> None:
    for words in said(payload, carrier):
        assert words.isprintable() or words == ""


@given(st.sampled_from(["stun", "sip", "sdp", "tls", "http", "dns", "rtp", "rtcp", "quic", "dtls", "snatmap", "xmpp"]),
       st.lists(st.tuples(st.sampled_from(["stun.method", "sip.method", "tls.sni", "http.path", "dns.query"]),
                          st.text(max_size=20))))  # fmt: skip
def test_facts_alone_are_enough(name: str, facts: list[tuple[str, str]]) -> None:
    """What a gateway remembers of a message are facts, without the message."""
    words = say([Layer(name, tuple(Fact(*fact) for fact in facts), 0)])
    assert all(text.isprintable() for text in (words.what, *words.details))
