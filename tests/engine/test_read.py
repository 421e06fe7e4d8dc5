"""What several packets tell together: streams, bodies, hellos over datagrams, probes that name their sender."""

from __future__ import annotations

import random
import time

from appid.engine.read import read
from appid.engine.record import FlowRecord
from appid.flow.key import FlowKey
from appid.packet import Packet, parse
from tests.corpus.tls_bytes import client_hello
from tests.corpus.writer import ACK, PSH, SYN, TCP, UDP, Capture, End, packed

CLIENT, SERVER = End("10.0.0.2", 40000), End("192.0.2.1", 80)


def record(proto: int = TCP) -> FlowRecord:
    key = FlowKey(proto, packed(CLIENT.host), CLIENT.port, packed(SERVER.host), SERVER.port)
    return FlowRecord(1, key, True, 1, None)


def segment(payload: bytes, sequence: int, flags: int = PSH | ACK) -> Packet:
    key = FlowKey(TCP, packed(CLIENT.host), CLIENT.port, packed(SERVER.host), SERVER.port)
    return Packet(key, memoryview(payload), 40 + len(payload), flags, sequence)


def datagram(payload: bytes, source: End = CLIENT) -> Packet:
    capture = Capture(0.0)
    capture.udp(source, SERVER, payload)
    found = parse(memoryview(capture.frames[0][1])[14:])
    assert found is not None
    return found


def names(record: FlowRecord, payload: bytes, sequence: int) -> list[str]:
    return [layer.name for layer in read(record, segment(payload, sequence), True).layers]


def test_a_sip_request_in_a_body_that_goes_on_is_no_message() -> None:
    """NAT slipstreaming: an HTTP POST whose body is cut so that a segment begins with SIP."""
    flow = record()
    assert flow.streams is not None
    flow.streams[0].syn(99)
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n" + b"x" * 100
    assert names(flow, head, 100) == ["http"]
    attack = b"REGISTER sip:a SIP/2.0\r\nContent-Length: 0\r\n\r\n"
    assert names(flow, attack, 100 + len(head)) == []
    assert not flow.opened_with("sip", True)


def test_after_the_body_the_next_message_is_read() -> None:
    flow = record()
    assert flow.streams is not None
    flow.streams[0].syn(99)
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345"
    assert names(flow, head, 100) == ["http"]
    rest = b"67890GET /next HTTP/1.1\r\nHost: a\r\n\r\n"
    told = read(flow, segment(rest, 100 + len(head)), True)
    assert [f.value for f in told.facts if f.name == "http.path"] == ["/next"]


def test_a_request_counts_once_its_head_is_whole() -> None:
    """A second Host may be in the rest (RFC 9112 section 3.2: such a request has none)."""
    flow = record()
    assert flow.streams is not None
    flow.streams[0].syn(99)
    parts = [
        b"GET /connectivity.txt HTTP/1.1\r\nHost: static.ess.apple.com:80\r\n",
        b"Host: a.example\r\n\r\nGET / ",
        b"HTTP/1.1\r\n\r\n",
    ]
    told, sequence = [], 100
    for part in parts:
        told.append([f.value for f in read(flow, segment(part, sequence), True).facts if f.name == "http.request"])
        sequence += len(part)
    assert told == [[], [1], [2]]


def test_a_stream_joined_in_the_middle_did_not_open_with_anything() -> None:
    flow = record()
    message = b"INVITE sip:a SIP/2.0\r\nVia: SIP/2.0/TCP h\r\nCall-ID: 1\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n"
    assert names(flow, message, 7) == ["sip"]
    assert not flow.opened_with("sip", True)
    begun = record()
    assert begun.streams is not None
    read(begun, segment(b"", 6, SYN), True)
    begun.streams[0].syn(6)
    assert names(begun, message, 7) == ["sip"]
    assert begun.opened_with("sip", True)


def test_a_probe_that_names_its_own_sender_says_so() -> None:
    """field.md A5: bytes 8 to 13 of a request are the sender's inside address and port."""
    own = bytes.fromhex("000000012f317375") + packed(CLIENT.host) + CLIENT.port.to_bytes(2, "big") + b"\xff\xff"
    other = own[:8] + packed("10.0.0.3") + own[12:]
    for payload, expected in ((own, [True]), (other, [])):
        facts = read(record(UDP), datagram(payload), True).facts
        assert [f.value for f in facts if f.name == "snatmap.of_sender"] == expected


HELLO = client_hello(random.Random(1), "mail.example.com")


def test_tls_after_starttls_is_read_from_its_segment_on() -> None:
    """RFC 3207: the stream's start is SMTP, which nobody reads; the hello comes in two segments."""
    flow, sequence = record(), 100
    assert flow.streams is not None
    for line in (b"EHLO a.example\r\n", b"STARTTLS\r\n"):
        assert names(flow, line, sequence) == []
        sequence += len(line)
    assert names(flow, HELLO[:40], sequence) == ["tls"]
    told = read(flow, segment(HELLO[40:], sequence + 40), True)
    assert [f.value for f in told.facts if f.name == "tls.sni"] == ["mail.example.com"]


def test_a_response_in_a_stream_joined_in_its_middle_is_read() -> None:
    """The rest of a body, then an answer; in a stream seen from its start the same bytes are data."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    joined, whole = record(), record()
    assert whole.streams is not None
    whole.streams[0].syn(99)
    for flow, found in ((joined, ["http"]), (whole, [])):
        assert names(flow, b"rest of a body", 100) == []
        assert names(flow, answer, 114) == found


def test_only_tls_is_looked_for_in_the_middle_of_a_stream() -> None:
    """A SIP or HTTP request that begins a segment of somebody's data is still data."""
    for inner in (
        b"GET /connectivity.txt HTTP/1.1\r\nHost: static.ess.apple.com\r\n\r\n",
        b"INVITE sip:a SIP/2.0\r\n\r\n",
    ):
        flow = record()
        assert names(flow, b"EHLO a.example\r\n", 100) == []
        assert names(flow, inner, 116) == []


def test_a_segment_sent_again_is_not_read_again() -> None:
    """RFC 9293 section 3.8.1: the same bytes, not a second message; what follows is joined to the first."""
    flow = record()
    assert flow.streams is not None
    flow.streams[0].syn(99)
    hello = client_hello(random.Random(1), "example.org")
    half = len(hello) // 2
    assert names(flow, hello[:half], 100) == ["tls"]
    assert names(flow, hello[:half], 100) == []
    told = read(flow, segment(hello[half:], 100 + half), True)
    assert [f.value for f in told.facts if f.name == "tls.sni"] == ["example.org"]


def test_a_body_in_small_segments_costs_no_look_at_its_head_each_time() -> None:
    """250 headers, then 2,000 bytes one by one: were the head read again with each, a hundred times as much."""

    def seconds(headers: int) -> float:
        flow = record()
        assert flow.streams is not None
        flow.streams[0].syn(99)
        head = b"MESSAGE sip:a SIP/2.0\r\n" + b"X-Header: of a message\r\n" * headers + b"Content-Length: 2000\r\n\r\n"
        assert names(flow, head, 100) == ["sip"]
        began = time.process_time()
        for number in range(1999):
            assert names(flow, b"x", 100 + len(head) + number) == ["sip"]
        spent = time.process_time() - began
        told = read(flow, segment(b"x", 100 + len(head) + 1999), True)
        assert [fact.value for fact in told.facts if fact.name == "sip.method"] == ["MESSAGE"]
        return spent

    assert seconds(250) < 10 * seconds(1)
