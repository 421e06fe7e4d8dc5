"""appid/packet/link.py: the IP packet in each link layer. Real frames of each kind are in test_ip.py."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appid.packet import strip

IP4 = bytes.fromhex("4500001e00010000401100007f0000017f000001400f400f000a0000") + b"hi"
IP6 = bytes.fromhex("60000000000a1140") + bytes(32) + bytes.fromhex("400f400f000a0000") + b"hi"
MACS = bytes(12)
SNAP4 = b"\xaa\xaa\x03\0\0\0\x08\x00"
QOS = b"\x88\x01" + bytes(22)

CASES = {
    "ethernet": (1, MACS + b"\x08\x00", IP4),
    "ethernet with ipv6": (1, MACS + b"\x86\xdd", IP6),
    "vlan": (1, MACS + b"\x81\x00\0\x05\x08\x00", IP4),
    "qinq": (1, MACS + b"\x88\xa8\0\x05\x81\x00\0\x06\x86\xdd", IP6),
    "802.3 with llc and snap": (1, MACS + b"\0\x26" + SNAP4, IP4),
    "pppoe": (1, MACS + b"\x88\x64\x11\0\0\1\0\x20\0\x21", IP4),
    "pppoe in a vlan": (1, MACS + b"\x81\x00\0\5\x88\x64\x11\0\0\1\0\x2a\0\x57", IP6),
    "mpls, two labels": (1, MACS + b"\x88\x47\0\0\x10\x40\0\0\x21\x40", IP4),
    "mpls pseudowire with control word": (1, MACS + b"\x88\x47\0\0\x11\x40" + bytes(4) + MACS + b"\x08\x00", IP4),
    # ndpi/ajp.pcap frame 10
    "fabricpath": (1, MACS + b"\x89\x03\x10\x01" + MACS + b"\x81\x00\0\5\x08\x00", IP4),
    "null, little-endian": (0, b"\2\0\0\0", IP4),
    "null, big-endian, ipv6": (0, b"\0\0\0\x1e", IP6),
    "loop": (108, b"\0\0\0\2", IP4),
    "ppp": (9, b"\xff\x03\0\x21", IP4),
    "ppp, compressed": (9, b"\x21", IP4),
    "ppp with direction": (204, b"\1\xff\x03\0\x57", IP6),
    "pppoe alone": (51, b"\x11\0\0\1\0\x20\0\x21", IP4),
    "cisco hdlc": (104, b"\x0f\0\x08\0", IP4),
    "sll": (113, bytes(14) + b"\x08\x00", IP4),
    "sll with a vlan": (113, bytes(14) + b"\x81\x00\0\5\x86\xdd", IP6),
    "sll2": (276, b"\x08\x00" + bytes(18), IP4),
    "raw 12": (12, b"", IP4),
    "raw 14": (14, b"", IP6),
    "raw 101": (101, b"", IP6),
    "raw ipv4": (228, b"", IP4),
    "raw ipv6": (229, b"", IP6),
    "802.11": (105, b"\x08\x01" + bytes(22) + SNAP4, IP4),
    "802.11 with qos": (105, QOS + b"\0\0" + SNAP4, IP4),
    "802.11 with qos and ht control": (105, b"\x88\x81" + bytes(22) + b"\0\0" + bytes(4) + SNAP4, IP4),
    "802.11 between access points": (105, b"\x08\x03" + bytes(28) + SNAP4, IP4),
    "radiotap": (127, b"\0\0\x08\0\0\0\0\0" + QOS + b"\0\0" + SNAP4, IP4),
    "radiotap, tsft, padded": (
        127,
        b"\0\0\x12\0\3\0\0\0" + bytes(8) + b"\x20\0" + QOS + b"\0\0" + b"\0\0" + SNAP4,
        IP4,
    ),
    "pktap": (258, struct.pack("<III", 108, 1, 12) + bytes(96), IP4),
    "pktap with ethernet": (258, struct.pack("<III", 108, 1, 1) + bytes(96) + MACS + b"\x86\xdd", IP6),
    "prism": (119, b"\x44\0\0\0\x90\0\0\0" + bytes(136) + b"\x08\x01" + bytes(22) + SNAP4, IP4),
    "avs": (163, b"\x80\x21\x10\x01\0\0\0\x40" + bytes(56) + b"\x08\x01" + bytes(22) + SNAP4, IP4),
    "fddi": (10, b"\x57" + MACS + SNAP4, IP4),
    "token ring": (6, b"\x10\x40" + MACS + SNAP4, IP4),
    "token ring with a route": (6, b"\x10\x40" + bytes(6) + b"\x80" + bytes(5) + b"\x06\x30" + bytes(4) + SNAP4, IP4),
    "atm": (100, SNAP4, IP4),
    "enc": (109, b"\2" + bytes(11), IP4),
    "pflog": (117, b"\x3d\x02" + bytes(62), IP4),
    "ieee 1394": (138, bytes(16) + b"\x86\xdd", IP6),
    "ppi": (192, b"\0\0\x0c\0\1\0\0\0" + bytes(4) + MACS + b"\x08\x00", IP4),
    "nflog": (239, b"\2\0\0\0" + b"\x06\0\x0a\0\1\2\0\0" + struct.pack("<HH", len(IP4) + 4, 9), IP4),
    "frame relay": (107, b"\x18\x41\x03\xcc", IP4),
    "frame relay, snap": (107, b"\x18\x41\x03\0\x80\0\0\0\x08\0", IP4),
    "frame relay, cisco": (107, b"\x18\x41\x08\0", IP4),
}


@pytest.mark.parametrize("case", CASES)
def test_the_ip_packet_of_each_link_layer(case: str) -> None:
    linktype, header, packet = CASES[case]
    data = strip(linktype, memoryview(header + packet))
    assert data is not None
    assert bytes(data) == packet


def test_a_frame_check_sequence_is_cut_where_radiotap_says_there_is_one() -> None:
    frame = b"\0\0\x09\0\2\0\0\0\x10" + QOS + b"\0\0" + SNAP4 + IP4 + b"\xde\xad\xbe\xef"
    data = strip(127, memoryview(frame))
    assert data is not None
    assert bytes(data) == IP4


def test_a_radiotap_header_with_three_presence_words() -> None:
    frame = b"\0\0\x11\0\2\0\0\x80\0\0\0\x80\0\0\0\0\x10" + QOS + b"\0\0" + SNAP4 + IP4 + b"\xde\xad\xbe\xef"
    data = strip(127, memoryview(frame))
    assert data is not None
    assert bytes(data) == IP4


@pytest.mark.parametrize(
    ("linktype", "frame"),
    [
        (1, MACS + b"\x08\x06" + bytes(28)),  # ARP
        (1, MACS + b"\x88\x63\x11\x09" + bytes(20)),  # PPPoE discovery
        (1, MACS + b"\x88\x64\x11\0\0\1\0\x08\xc0\x21" + bytes(6)),  # LCP
        (1, MACS + b"\0\x26\x42\x42\x03" + bytes(35)),  # spanning tree
        (1, MACS + b"\x81\x00\0\1" * 1000),  # tags without end
        (105, b"\x08\x41" + bytes(22) + SNAP4 + IP4),  # protected
        (105, b"\x80\x00" + bytes(40)),  # a beacon
        (105, b"\x48\x01" + bytes(40)),  # null data
        (105, QOS + b"\x80\0" + SNAP4 + IP4),  # A-MSDU
        (192, b"\0\0\x08\0\xc0\0\0\0" * 5),  # PPI in PPI
        (0, b"\x17\0\0\0" + IP4),  # no IP family
        (101, b"\x00" * 40),
        (147, IP4),  # an unknown link type
        (1, b""),
    ],
)
def test_what_is_no_ip_gives_nothing(linktype: int, frame: bytes) -> None:
    assert strip(linktype, memoryview(frame)) is None


@given(st.sampled_from(sorted({case[0] for case in CASES.values()})), st.binary(max_size=80))
def test_any_bytes_give_a_part_of_the_frame_or_nothing(linktype: int, frame: bytes) -> None:
    data = strip(linktype, memoryview(frame))
    assert data is None or bytes(data) in frame
