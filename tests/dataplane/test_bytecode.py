"""The bytecode and its Python twin: a small interpreter of classic BPF stands in for the kernel's."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from appid.dataplane.bytecode import (
    DESTINATION4,
    DESTINATION6,
    SAID,
    SOURCE4,
    SOURCE6,
    WATCH,
    between_bytecode,
    chooser,
    queue_bytecode,
    queue_of,
    watched,
)
from appid.wire import packed


def execute(text: str, packet: bytes, payload_offset: int) -> int:
    """Classic BPF as linux/filter.h has it; the instructions used here."""
    code = [tuple(int(word) for word in line.split()) for line in text.split(",")[1:]]
    assert len(code) == int(text.split(",")[0])
    a = x = at = 0
    while True:
        op, jt, jf, k = code[at]
        at += 1
        if op == 0x06:
            return k
        if op in (0x20, 0x50):  # ldw [k], ldb [x + k]
            if op == 0x20 and k == 0xFFFFF000 + 52:
                a = payload_offset
                continue
            start, size = (k, 4) if op == 0x20 else (x + k, 1)
            if start + size > len(packet):
                return 0
            a = int.from_bytes(packet[start : start + size], "big")
        elif op == 0x07:
            x = a
        elif op == 0x87:
            a = x
        elif op == 0x2D:
            at += jt if a > x else jf
        elif op == 0x15:
            at += jt if a == k else jf
        elif op == 0x80:  # ld len
            a = len(packet)
        elif op == 0x35:
            at += jt if a >= k else jf
        elif op == 0x25:
            at += jt if a > k else jf
        elif op == 0x54:
            a &= k
        elif op == 0x24:
            a = a * k & 0xFFFFFFFF
        elif op == 0x74:
            a >>= k
        elif op == 0x94:
            a %= k
        else:
            raise AssertionError(f"instruction {op:#x}")


@given(st.binary(max_size=12))
def test_the_model_watches_what_the_kernel_watches(payload: bytes) -> None:
    assert watched(payload) == bool(execute(WATCH, bytes(28) + payload, 28))


def test_a_keepalive_says_nothing_that_somebody_must_have_heard() -> None:
    """RFC 5626 section 4.4: line ends, a Binding request; the shortest BYE of RFC 3261 has six header fields."""
    bye = b"BYE sip:b@192.0.2.4 SIP/2.0\r\nv:SIP/2.0/UDP 192.0.2.4\r\nf:<sip:a@b>;tag=1\r\nt:<sip:b@b>;tag=2\r\n"
    bye += b"i:3\r\nCSeq:2 BYE\r\n\r\n"
    for header in (28, 48):
        for payload, heard in (
            (b"\r\n\r\n", False),
            (b"\0\1\0\0" + bytes(16), False),
            (bye, True),
            (b"\x80" + bye, False),
        ):
            assert bool(execute(SAID, bytes(header) + payload, header)) is heard, payload


def test_what_is_watched() -> None:
    assert watched(b"\x00\x01\x00\x00")  # STUN
    assert watched(b"INVITE sip:")  # its fifth byte, T, is no RTP version
    assert watched(b"\x40\x00\x00\x10\x00\x01")  # ChannelData with STUN inside
    assert watched(b"\x40\x00\x00\x10BYE")
    assert not watched(b"\x40\x00\x00\x10\x80\x68")  # ChannelData with RTP inside
    assert not watched(b"\x80\x68")
    assert not watched(b"")
    assert not watched(b"\x40\x00\x00\x00")


@given(st.binary(min_size=4, max_size=4), st.integers(2, 16))
def test_a_host_is_served_by_exactly_the_queue_that_is_foretold(address: bytes, queues: int) -> None:
    packet = bytes(SOURCE4) + address + bytes(4)
    chosen = [index for index in range(queues) if execute(queue_bytecode(SOURCE4, queues, index), packet, 0)]
    assert chosen == [queue_of(address, queues)]


def test_ipv6_hosts_are_told_by_their_low_bits() -> None:
    address = packed("fd00:42::1234:5678")
    packet = bytes(8) + address + bytes(16)
    assert execute(queue_bytecode(SOURCE6, 4, queue_of(address, 4)), packet, 0)


@given(st.binary(min_size=4, max_size=4), st.binary(min_size=4, max_size=4), st.integers(2, 16))
def test_between_two_hosts_both_directions_choose_the_lower_ones_queue(one: bytes, other: bytes, queues: int) -> None:
    for source, destination in ((one, other), (other, one)):
        packet = bytes(SOURCE4) + source + destination
        codes = [between_bytecode(SOURCE4, DESTINATION4, queues, index) for index in range(queues)]
        assert [i for i, code in enumerate(codes) if execute(code, packet, 0)] == [queue_of(min(one, other), queues)]
        assert chooser((source, destination)) == min(one, other)


def test_between_ipv6_hosts_the_low_bits_are_compared() -> None:
    low, high = packed("fd00:9::1"), packed("fd00:1::2")
    for source, destination in ((low, high), (high, low)):
        code = between_bytecode(SOURCE6, DESTINATION6, 4, queue_of(low, 4))
        assert execute(code, bytes(8) + source + destination, 0)
        assert chooser((source, destination)) == low
