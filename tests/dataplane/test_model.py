"""The model of the kernel chains, by rules of conntrack and of design; tests/netns compares it with a kernel."""

from __future__ import annotations

import struct
import timeit

import pytest

from appid.alg.expectation import Expectation
from appid.dataplane.command import ClosePinhole, OpenPinhole, SetMark, SetVerdict
from appid.dataplane.marks import Marks
from appid.dataplane.model import INVALID, QUEUE, Entry, Kernel
from appid.flow.key import FlowKey
from appid.wire import TCP, UDP, packed

MARKS = Marks()
ALLOW, DENY, DROP = (MARKS.encode(action, 9) for action in ("allow", "deny", "drop"))
WATCH, PASS = MARKS.encode("allow", 9, watch=True), MARKS.passing
CLIENT, PEER = packed("172.16.42.187"), packed("71.230.89.52")
FIN, SYN, RST, ACK = 1, 2, 4, 16
END = tuple[bytes, int]
A, B = (CLIENT, 16402), (PEER, 3478)


def ip(proto: int, src: bytes, dst: bytes, body: bytes) -> memoryview:
    return memoryview(struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, 64, proto, 0) + src + dst + body)


def udp(src: END, dst: END, payload: bytes = b"x") -> memoryview:
    return ip(UDP, src[0], dst[0], struct.pack("!HHHH", src[1], dst[1], 8 + len(payload), 0) + payload)


def tcp(src: END, dst: END, flags: int, payload: bytes = b"", seq: int = 1) -> memoryview:
    header = struct.pack("!HHIIBBHHH", src[1], dst[1], seq, 0, 0x50, flags, 1000, 0, 0)
    return ip(TCP, src[0], dst[0], header + payload)


def told(kernel: Kernel, data: memoryview, mark: int, now: float = 0.0) -> str:
    """Queue a packet, answer it by NF_REPEAT with `mark`."""
    assert kernel.forward(data, now) == QUEUE
    kernel.apply(SetVerdict(0, "repeat", mark), now)
    return kernel.outcome


def forwarded(kernel: Kernel, data: memoryview, now: float = 0.0, number: int = 0) -> Entry:
    entry = kernel.forward(data, now, number)
    assert isinstance(entry, Entry), entry
    return entry


@pytest.mark.parametrize(("mark", "fate"), [(ALLOW, "pass"), (DENY, "reject"), (DROP, "drop")])
def test_a_decided_flow_is_the_kernels(mark: int, fate: str) -> None:
    kernel = Kernel()
    assert told(kernel, udp(A, B), PASS) == "pass"
    assert told(kernel, udp(B, A), mark, 1.0) == fate
    entry = forwarded(kernel, udp(A, B, bytes(100)), 2.0, 3)
    assert kernel.outcome == fate
    assert (entry.packets, entry.bytes, entry.queued) == ((2, 1), (29 + 128, 29), 2)
    assert (entry.first, entry.last, entry.last_packet) == (0.0, 2.0, 3)
    assert entry.key == FlowKey(UDP, *A, *B)


def test_a_flow_denied_on_its_first_packet_has_no_entry_unless_one_is_made() -> None:
    kernel = Kernel()
    for _ in range(3):
        assert told(kernel, udp(A, B), DROP) == "drop"
    kernel.apply(SetMark(FlowKey(UDP, *A, *B), DROP, create=True), 0.0)
    assert forwarded(kernel, udp(A, B)).queued == 3
    assert kernel.outcome == "drop"


def test_a_mark_for_a_flow_without_entry_changes_nothing() -> None:
    kernel = Kernel()
    kernel.apply(SetMark(FlowKey(UDP, *A, *B), ALLOW, create=False), 0.0)
    assert kernel.forward(udp(A, B), 0.0) == QUEUE


def test_a_mark_reaches_a_confirmed_flow_in_either_direction() -> None:
    kernel = Kernel()
    told(kernel, udp(A, B), PASS)
    kernel.apply(SetMark(FlowKey(UDP, *B, *A), DENY, create=False), 0.0)
    forwarded(kernel, udp(A, B))
    assert kernel.outcome == "reject"


def test_a_dropped_verdict_and_a_blind_one() -> None:
    kernel = Kernel()
    assert kernel.forward(udp(A, B), 0.0) == QUEUE
    kernel.apply(SetVerdict(0, "drop", 0), 0.0)
    assert kernel.outcome == "drop"
    assert told(kernel, udp(A, B), 0) == "pass", "without state or PASS it would be queued for ever: the edge adds PASS"


def test_a_watched_udp_flow_queues_its_signalling_only() -> None:
    kernel = Kernel()
    told(kernel, udp(A, B), WATCH)
    seen = [kernel.forward(udp(A, B, p), 0.0) == QUEUE for p in (b"\x00", b"\x80", b"\x40\0\0\x02\x80\x68", b"INVITE")]
    assert seen == [True, False, False, True]


def test_a_watched_tcp_flow_queues_all() -> None:
    kernel = Kernel()
    told(kernel, tcp(A, B, SYN), WATCH)
    assert kernel.forward(tcp(B, A, SYN | ACK), 0.0) == QUEUE


EXPECTED = Expectation(UDP, CLIENT, 16402, PEER, None, None, 16402, "x", 1, "sdp-answer", 1, 60.0)


@pytest.mark.parametrize(
    ("now", "src", "dst", "foreseen"),
    [
        (59.0, (PEER, 40000), A, True),
        (60.0, (PEER, 40000), A, False),  # its timeout is over
        (1.0, (packed("71.230.89.53"), 40000), A, False),
        (1.0, (PEER, 40000), (CLIENT, 16403), False),
        (1.0, A, (PEER, 40000), False),  # the set knows inbound only: dst,dst,src
    ],
)
def test_a_pinhole_marks_its_media_and_nothing_else(now: float, src: END, dst: END, foreseen: bool) -> None:
    kernel = Kernel()
    kernel.apply(OpenPinhole(1, EXPECTED, ALLOW, 60), 0.0)
    result = kernel.forward(udp(src, dst), now)
    assert (result != QUEUE) == foreseen
    if isinstance(result, Entry):
        assert (result.mark, result.queued, kernel.outcome) == (ALLOW, 0, "pass")


def test_a_pinhole_is_for_new_flows() -> None:
    kernel = Kernel()
    told(kernel, udp(A, (PEER, 40000)), PASS)
    kernel.apply(OpenPinhole(1, EXPECTED, ALLOW, 60), 0.0)
    assert kernel.forward(udp((PEER, 40000), A), 1.0) == QUEUE, "a reply is not NEW"


def test_closing_ends_the_flows_of_the_pinhole() -> None:
    kernel = Kernel()
    kernel.apply(OpenPinhole(1, EXPECTED, ALLOW, 60), 0.0)
    media = forwarded(kernel, udp((PEER, 40000), A))
    other = (packed("9.9.9.9"), 40000)
    told(kernel, udp(other, A), ALLOW)
    kernel.apply(ClosePinhole(1, EXPECTED), 1.0)
    assert kernel.ended == [media]
    assert kernel.forward(udp((PEER, 40000), A), 1.0) == QUEUE
    assert kernel.forward(udp(other, A), 1.0) != QUEUE


def test_udp_silence_begins_a_new_life() -> None:
    kernel = Kernel()
    told(kernel, udp(A, B), ALLOW)
    first = forwarded(kernel, udp(A, B), 300.0)
    assert kernel.forward(udp(A, B), 600.5) == QUEUE
    assert kernel.ended == [first]
    assert kernel.current is not first


@pytest.mark.parametrize("end", [[(A, B, RST)], [(A, B, FIN | ACK), (B, A, FIN | ACK)]])
def test_a_tcp_life_ends_and_a_new_syn_begins_another(end: list[tuple[END, END, int]]) -> None:
    kernel = Kernel()
    told(kernel, tcp(A, B, SYN), ALLOW)
    forwarded(kernel, tcp(B, A, SYN | ACK), 0.1)
    for src, dst, flags in end:
        entry = forwarded(kernel, tcp(src, dst, flags), 1.0)
    assert entry.closed == 1.0
    assert forwarded(kernel, tcp(B, A, ACK), 1.1) is entry, "stragglers belong to the old life"
    assert kernel.forward(tcp(A, B, SYN, seq=77), 2.0) == QUEUE
    assert kernel.ended == [entry]


def test_half_a_close_is_no_end_and_a_repeated_syn_no_new_life() -> None:
    kernel = Kernel()
    told(kernel, tcp(A, B, SYN, seq=5), ALLOW)
    entry = forwarded(kernel, tcp(A, B, SYN, seq=5), 1.0)
    forwarded(kernel, tcp(B, A, SYN | ACK), 1.1)
    assert forwarded(kernel, tcp(A, B, SYN, seq=5), 1.2) is entry
    assert forwarded(kernel, tcp(A, B, FIN | ACK), 2.0).closed is None
    assert kernel.forward(tcp(A, B, SYN, seq=6), 3.0) == QUEUE


@pytest.mark.parametrize("flags", [RST, FIN | ACK, SYN | ACK])
def test_what_begins_no_tcp_flow_is_invalid(flags: int) -> None:
    """nf_conntrack_tcp: a flow may be picked up in its middle, by data or a bare ACK, not by these."""
    kernel = Kernel()
    assert kernel.forward(tcp(A, B, flags), 0.0) == INVALID
    assert (kernel.outcome, kernel.current) == ("drop", None)
    assert kernel.forward(tcp(A, B, ACK, b"data"), 0.0) == QUEUE


@pytest.mark.parametrize(("mark", "fate"), [(PASS, "pass"), (ALLOW, "pass"), (DENY, "reject"), (DROP, "drop")])
def test_an_icmp_error_shares_its_flows_fate_and_is_never_queued(mark: int, fate: str) -> None:
    kernel = Kernel()
    told(kernel, udp(A, B), PASS)
    kernel.apply(SetMark(FlowKey(UDP, *A, *B), mark & MARKS.saved, create=False), 0.0)
    error = ip(1, PEER, CLIENT, struct.pack("!BBHI", 3, 3, 0, 0) + udp(A, B)[:28])
    assert kernel.forward(error, 0.0) != QUEUE
    assert kernel.outcome == fate
    assert kernel.current is not None
    assert kernel.current.key.dport == 3478


def test_an_icmp_error_about_nothing_is_invalid() -> None:
    error = ip(1, PEER, CLIENT, struct.pack("!BBHI", 3, 3, 0, 0) + udp(A, B)[:28])
    assert Kernel().forward(error, 0.0) == INVALID


@pytest.mark.parametrize("data", [b"", b"\x45" * 19, b"\x45\0\0\x14" + bytes(16), bytes(100), b"\x60" + bytes(39)])
def test_garbage_is_survived(data: bytes) -> None:
    assert Kernel().forward(memoryview(data), 0.0) in (INVALID, QUEUE)


def test_the_old_are_ended_by_the_clock() -> None:
    kernel = Kernel()
    told(kernel, udp(A, B), ALLOW)
    told(kernel, tcp(A, B, SYN), ALLOW)
    kernel.expire(300.0)
    assert len(kernel.entries()) == 2
    kernel.expire(301.0)
    assert [entry.key.proto for entry in kernel.entries()] == [TCP]
    assert [entry.key.proto for entry in kernel.ended] == [UDP]


@pytest.mark.slow
def test_a_decided_flow_costs_about_a_microsecond_a_packet() -> None:
    kernel, data = Kernel(), udp(A, B, bytes(160))
    told(kernel, data, ALLOW)
    seconds = min(timeit.repeat(lambda: kernel.forward(data, 1.0, 1), number=50_000, repeat=5)) / 50_000
    assert seconds < 2e-6
