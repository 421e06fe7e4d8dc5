"""appid/packet/fragment.py: the datagrams that tshark reassembles, and bounds against those who mean ill."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appid.edge.capture import CaptureError, Writer, frames
from appid.packet import Fragments, parse, strip
from appid.wire import packed

CAPTURES = Path(__file__).parents[2].parent / "shared" / "captures"
real = pytest.mark.skipif(not CAPTURES.is_dir(), reason="the shared captures are not here")

A4, B4 = packed("192.0.2.1"), packed("198.51.100.2")
A6, B6 = packed("2001:db8::1"), packed("2001:db8::2")
BODY = struct.pack("!HHHH", 5060, 5060, 1208, 0) + bytes(range(240)) * 5


def piece4(start: int, stop: int, more: bool, body: bytes = BODY, name: int = 7) -> memoryview:
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + stop - start, name, (0x2000 if more else 0) | start // 8, 64, 17, 0)
    return memoryview(head + A4 + B4 + body[start:stop])


def piece6(start: int, stop: int, more: bool, body: bytes = BODY, name: int = 7) -> memoryview:
    hop = bytes([44, 0, 5, 2, 0, 0, 1, 0])  # router alert: the unfragmentable part stays
    extension = struct.pack("!BBHI", 17, 0, start | more, name)
    head = struct.pack("!IHBB", 0x60000000, 16 + stop - start, 0, 64)
    return memoryview(head + A6 + B6 + hop + extension + body[start:stop])


def tshark(path: Path) -> list[tuple[int, int]]:
    """(frame number, length) of the datagrams that it put together."""
    command = ["tshark", "-n", "-r", str(path), "-Y", "ip.reassembled.length or ipv6.reassembled.length"]
    command += ["-T", "fields", "-E", "occurrence=f"]
    command += ["-e", "frame.number", "-e", "ip.reassembled.length", "-e", "ipv6.reassembled.length"]
    lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split("\n")[:-1]
    return [(int(number), int(four or six)) for number, four, six in (line.split("\t") for line in lines)]


def ours(path: Path) -> list[tuple[int, int]]:
    fragments, found = Fragments(), []
    try:
        for number, time, linktype, frame in frames(path):
            data = strip(linktype, frame)
            whole = None if data is None else fragments.add(data, time / 1e9, number)
            if whole is not None and whole is not data:
                header = (whole[0] & 15) * 4 if whole[0] >> 4 == 4 else 40 if whole[6] else 48
                found.append((number, len(whole) - header))
    except CaptureError:
        pass
    return found


@real
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("arkime/socks5-http-302-frag.pcap", 4),
        ("ndpi/dns_fragmented.pcap", 7),
        ("ndpi/badpackets.pcap", 0),
        ("ndpi/fuzz-2006-06-26-2594.pcap", 0),
        ("ndpi/fuzz-2020-02-16-11740.pcap", 0),
    ],
)
def test_real_fragments_are_put_together_where_tshark_does(name: str, count: int) -> None:
    assert len(ours(CAPTURES / name)) == count
    assert ours(CAPTURES / name) == tshark(CAPTURES / name)


@pytest.mark.parametrize("piece", [piece4, piece6])
def test_tshark_agrees_on_fragments_in_any_order(tmp_path: Path, piece: Callable[..., memoryview]) -> None:
    path = tmp_path / "own.pcap"
    with Writer(path) as writer:
        for number, (start, stop) in enumerate([(800, 1208), (0, 400), (400, 800)]):
            writer.write(number, piece(start, stop, stop < 1208))
    assert ours(path) == tshark(path) == [(3, 1208)]


@pytest.mark.parametrize("piece", [piece4, piece6])
def test_the_whole_is_a_packet_like_any_other(piece: Callable[..., memoryview]) -> None:
    fragments = Fragments()
    assert fragments.add(piece(400, 1208, False), 1.0, 10) is None
    assert fragments.add(piece(400, 1208, False), 1.1, 11) is None  # an exact repetition is no overlap
    whole = fragments.add(piece(0, 400, True), 1.2, 12)
    assert whole is not None
    packet = parse(whole)
    assert packet is not None
    assert (packet.key.sport, packet.fragment, bytes(packet.payload)) == (5060, False, BODY[8:])
    assert fragments.packets == (10, 12)
    assert len(fragments) == 0


def test_the_header_checksum_is_right() -> None:
    fragments = Fragments()
    fragments.add(piece4(0, 400, True), 0, 1)
    whole = fragments.add(piece4(400, 1208, False), 0, 2)
    assert whole is not None
    total = sum(struct.unpack("!10H", whole[:20]))
    assert (total & 0xFFFF) + (total >> 16) == 0xFFFF  # RFC 1071


@pytest.mark.parametrize("piece", [piece4, piece6])
@pytest.mark.parametrize("at", [(392, 800), (0, 408), (400, 800), (8, 16)])
def test_overlap_discards_the_datagram_and_all_its_later_pieces(
    piece: Callable[..., memoryview], at: tuple[int, int]
) -> None:
    fragments = Fragments()
    fragments.add(piece(0, 400, True), 0, 1)
    fragments.add(piece(400, 800, True), 0, 2)
    assert fragments.add(piece(*at, True, bytes(1300)), 0, 3) is None
    assert fragments.add(piece(800, 1208, False), 0, 4) is None
    assert fragments.add(piece(0, 1208, False, name=8), 0, 5) is not None
    assert fragments.add(piece(0, 400, True), 1, 6) is None
    assert fragments.add(piece(400, 1208, False), 1, 7) is None
    assert fragments.dropped == 1
    fragments.add(piece(0, 400, True), 32, 8)  # its name is free again after 30 s
    assert fragments.add(piece(400, 1208, False), 32, 9) is not None


@pytest.mark.parametrize(
    "pieces",
    [
        [(0, 404, True)],  # no multiple of 8
        [(0, 0, True)],
        [(800, 1208, False), (400, 600, False)],  # two ends
        [(400, 800, False), (800, 1208, True)],  # beyond the end
    ],
)
def test_malformed_pieces_discard_the_datagram(pieces: list[tuple[int, int, bool]]) -> None:
    fragments = Fragments()
    for piece in pieces:
        assert fragments.add(piece4(*piece), 0, 1) is None
    assert fragments.dropped == 1


def test_a_datagram_longer_than_ip_allows_is_never_made() -> None:
    fragments, body = Fragments(), bytes(66_000)
    for start in range(0, 65_520, 1040):
        assert fragments.add(piece4(start, start + 1040, True, body), 0, 1) is None
    assert fragments.add(piece4(65_520, 65_535 + 8, False, body), 0, 1) is None  # the ping of death
    assert fragments.dropped == 1


def test_pieces_are_forgotten_after_their_time() -> None:
    fragments = Fragments()
    fragments.add(piece4(0, 400, True), 100.0, 1)
    assert fragments.add(piece4(400, 1208, False), 130.1, 2) is None
    assert fragments.dropped == 1


def test_memory_is_bounded_and_the_oldest_goes_first() -> None:
    fragments = Fragments(max_datagrams=10, max_bytes=100_000)
    for name in range(50):
        fragments.add(piece4(0, 400, True, name=name), 0, name)
    assert len(fragments) == 10
    assert fragments.add(piece4(400, 1208, False, name=49), 0, 99) is not None
    assert fragments.add(piece4(400, 1208, False, name=0), 0, 99) is None
    small = Fragments(max_bytes=5_000)
    for name in range(50):
        small.add(piece4(0, 800, True, name=name), 0, name)
    assert len(small) <= 5
    tiny = Fragments()
    for start in range(0, 60_000, 8):
        tiny.add(piece4(start, start + 8, True, bytes(65_536)), 0, 1)
    assert tiny.dropped == 1


def test_what_is_no_fragment_comes_back_as_it_is() -> None:
    whole = piece4(0, 1208, False)
    assert Fragments().add(whole, 0, 1) is whole
    atomic = piece6(0, 1208, False)
    assert Fragments().add(atomic, 0, 1) is atomic
    short = memoryview(b"\x45")
    assert Fragments().add(short, 0, 1) is short


@given(st.permutations([(start, min(start + 160, 1208)) for start in range(0, 1208, 160)]))
def test_any_order_gives_the_datagram(pieces: list[tuple[int, int]]) -> None:
    fragments = Fragments()
    results = [fragments.add(piece6(start, stop, stop < 1208), 0, 1) for start, stop in pieces]
    assert [whole is None for whole in results] == [True] * 7 + [False]
    assert results[-1] is not None
    assert bytes(results[-1][48:]) == BODY


@given(
    st.lists(st.binary(max_size=100), max_size=10), st.sampled_from([b"\x45\0\0\x30\0\1\x20", b"\x60\0\0\0\0\x20\x2c"])
)
def test_any_bytes_are_borne(packets: list[bytes], start: bytes) -> None:
    fragments = Fragments()
    for number, data in enumerate(packets):
        fragments.add(memoryview(start + data), float(number), number)
    assert len(fragments) <= len(packets)
