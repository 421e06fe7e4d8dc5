"""HTTP/1 messages: RFC 9112's shapes, what is not HTTP, and hostile bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appid.decode import http
from appid.wire import Fact, FactValue, Layer

# facetime-2015.md: the connectivity probe, and its reply of 13 bytes
PROBE = b"GET /connectivity.txt HTTP/1.1\r\nHost: static.ess.apple.com:80\r\nConnection: close\r\n\r\n"
REPLY = b"HTTP/1.1 200 OK\r\nServer: Apache\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\nAV was here!\n"


def read(payload: bytes) -> Layer:
    layer = http.decode(memoryview(payload))
    assert layer is not None
    return layer


def values(layer: Layer, name: str) -> list[FactValue]:
    return [fact.value for fact in layer.facts if fact.name == name]


def test_request() -> None:
    assert read(PROBE) == Layer(
        "http",
        (
            Fact("http.method", "GET"),
            Fact("http.path", "/connectivity.txt"),
            Fact("http.version", "1.1"),
            Fact("http.host", "static.ess.apple.com:80"),
        ),
        len(PROBE),
    )


def test_response_spans_its_body_and_leaves_the_next_message() -> None:
    layer = read(REPLY + REPLY)
    assert layer.consumed == len(REPLY)
    assert layer.facts == (
        Fact("http.status", 200),
        Fact("http.version", "1.1"),
        Fact("http.server", "Apache"),
        Fact("http.content_type", "text/plain"),
    )


def test_body_that_is_still_to_come_is_told() -> None:
    head = b"POST /upload HTTP/1.1\r\nHost: A.example\r\nContent-Length: 5000\r\n\r\n"
    layer = read(head + b"x" * 1000)
    assert layer.consumed == len(head) + 1000
    assert values(layer, "http.body_left") == [4000]
    assert values(layer, "http.host") == ["a.example"]


def test_response_without_a_length_has_no_end() -> None:
    assert values(read(b"HTTP/1.0 200 OK\r\n\r\nINVITE sip:x SIP/2.0\r\n"), "http.body_left") == [http.UNTIL_CLOSE]


def test_chunked_body() -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    layer = read(head + b"4\r\nWiki\r\n6;a=b\r\npedia \r\n0\r\n\r\nHTTP/1.1 304 N\r\n\r\n")
    assert layer.consumed == len(head) + 9 + 15 + 5
    assert values(read(head + b"ffff\r\nWiki"), "http.body_left") != []


def test_head_in_two_segments() -> None:
    for cut in range(19, len(PROBE)):
        layer = read(PROBE[:cut])
        assert layer.consumed == 0
        assert values(layer, "http.method") == ["GET"]
    assert values(read(PROBE[:-2]), "http.host") == ["static.ess.apple.com:80"]


def test_folded_field_and_bare_line_feeds() -> None:
    layer = read(b"GET / HTTP/1.1\nUser-Agent: curl\n\t/7.1\nHOST : X.Example\n\n")
    assert values(layer, "http.user_agent") == ["curl /7.1"]
    assert values(layer, "http.host") == ["x.example"]


def test_connect_leaves_the_tunnel_to_others() -> None:
    head = b"CONNECT courier.push.apple.com:5223 HTTP/1.1\r\n\r\n"
    layer = read(head + b"\x16\x03\x01")
    assert layer.consumed == len(head)
    assert values(layer, "http.host") == ["courier.push.apple.com:5223"]


def test_upgrade_ends_http() -> None:
    head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n\r\n"
    layer = read(head + b"\x81\x05hello")
    assert layer.consumed == len(head)
    assert values(layer, "http.upgrade") == ["websocket"]


def test_answer_to_head_request_has_no_body() -> None:
    first = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"
    assert read(first + REPLY).consumed == len(first)


def test_http2_preface() -> None:
    layer = read(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x12\4\0\0\0\0\0")
    assert values(layer, "http.version") == ["2.0"]
    assert layer.consumed == 24


def test_http2_server_speaks_first() -> None:
    settings = bytes.fromhex("00000c 04 00 00000000 000300000064 000400100000")
    assert values(read(settings + b"more"), "http.version") == ["2.0"]
    assert http.decode(memoryview(bytes(40))) is None


@pytest.mark.parametrize("method", ["PROPFIND", "M-SEARCH", "patch", "RPC_IN_DATA"])
def test_methods_of_extensions(method: str) -> None:
    assert values(read(f"{method} /x HTTP/1.1\r\nHost: h\r\n\r\n".encode()), "http.method") == [method]


@pytest.mark.parametrize(
    "payload",
    [
        b"OPTIONS rtsp://example.com/media.mp4 RTSP/1.0\r\nCSeq: 1\r\n\r\n",
        b"OPTIONS sip:carol@chicago.com SIP/2.0\r\n\r\n",
        b"INVITE sip:bob@biloxi.com SIP/2.0\r\n\r\n",
        b"SIP/2.0 200 OK\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
        b"EHLO example.com\r\n",
        b"GET key1\r\n",  # memcached
        b"GNUTELLA CONNECT/0.6\r\n\r\n",
        b"HTTP/1.1 999\r\n",
        b"SSH-2.0-OpenSSH\r\n",
        b"GET ",
        b"BitTorrent",
    ],
)
def test_not_http(payload: bytes) -> None:
    assert http.decode(memoryview(payload)) is None


def test_spaces_in_and_around_the_target() -> None:
    assert values(read(b"GET    /a b?c=d   HTTP/1.1\r\n\r\n"), "http.path") == ["/a b?c=d"]


def test_many_headers_stay_cheap() -> None:
    layer = read(b"GET / HTTP/1.1\r\n" + b"a:b\r\n" * 100_000)
    assert layer.consumed == 16 + 500_000


@given(
    st.binary(max_size=300),
    st.sampled_from([b"", b"GET /", b"HTTP/1.1 200 OK\r\n", b"GET / HTTP/1.1\r\nContent-Length: "]),
)
def test_any_bytes(tail: bytes, head: bytes) -> None:
    payload = memoryview(head + tail)
    layer = http.decode(payload)
    assert layer is None or 0 <= layer.consumed <= len(payload)
