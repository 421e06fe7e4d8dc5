"""appid/packet/ip.py: against tshark on real captures; against packets written here by the RFCs."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appid.edge.capture import CaptureError, frames
from appid.flow.key import FlowKey
from appid.packet import flow_id, id_of, key_of, parse, reversed_id, strip
from appid.wire import ICMP, ICMPV6, TCP, UDP, DecodeError, packed, text

CAPTURES = Path(__file__).parents[2].parent / "shared" / "captures"
real = pytest.mark.skipif(not CAPTURES.is_dir(), reason="the shared captures are not here")

A4, B4 = packed("192.0.2.1"), packed("198.51.100.2")
A6, B6 = packed("2001:db8::1"), packed("2001:db8::2")


def ipv4(proto: int, body: bytes, *, fragment: int = 0, options: bytes = b"", length: int | None = None) -> bytes:
    header = 20 + len(options)
    size = header + len(body) if length is None else length
    return struct.pack("!BBHHHBBH", 0x40 | header // 4, 0, size, 7, fragment, 64, proto, 0) + A4 + B4 + options + body


def ipv6(proto: int, body: bytes, *, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return struct.pack("!IHBB", 0x60000000, size, proto, 64) + A6 + B6 + body


def udp(sport: int, dport: int, payload: bytes, length: int | None = None) -> bytes:
    return struct.pack("!HHHH", sport, dport, len(payload) + 8 if length is None else length, 0) + payload


def tcp(sport: int, dport: int, seq: int, flags: int, payload: bytes = b"", offset: int = 5) -> bytes:
    return struct.pack("!HHIIBBHHH", sport, dport, seq, 0, offset << 4, flags, 0, 0, 0) + payload


def view(data: bytes) -> memoryview:
    return memoryview(data)


@real
@pytest.mark.parametrize(
    "name",
    [
        "arkime/80211http.pcap",  # radiotap
        "arkime/icmp-frame-relay.pcap",
        "arkime/nflog.pcap",
        "arkime/http2-nghttp2.pcap",  # BSD loopback
        "arkime/gtp-u.pcap",
        "mercury/quic_ppp.pcap",
        "mercury/sll_tls.pcap",
        "mercury/sll2_tls.pcap",
        "mercury/http_rawip.pcap",
        "ndpi/someip_sd_sample.pcap",  # PPI
        "ndpi/teredo.pcap",
        "ndpi/dns_fragmented.pcap",
        "zeek/ldap__modify-request.pcapng",  # two link types
        "rtc-measurement/facetime_wifi_2023_caller.pcapng",
    ],
)
def test_the_outermost_flow_of_every_frame_is_what_tshark_says(name: str) -> None:
    fields = ["frame.protocols", "ip.src", "ip.dst", "ipv6.src", "ipv6.dst", "udp.srcport", "udp.dstport"]
    fields += ["udp.length", "tcp.srcport", "tcp.dstport", "tcp.seq_raw", "tcp.flags", "tcp.len"]
    command = ["tshark", "-n", "-r", str(CAPTURES / name), "-T", "fields", "-E", "occurrence=f"]
    command += ["-o", "ip.defragment:FALSE", "-o", "ipv6.defragment:FALSE"]
    command += [word for field in fields for word in ("-e", field)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")[:-1]
    ours = list(frames(CAPTURES / name))
    assert len(told) == len(ours)
    compared = 0
    for line, (number, _, linktype, frame) in zip(told, ours, strict=True):
        row = dict(zip(fields, line.split("\t"), strict=True))
        layers = row["frame.protocols"].split(":")
        outer = next((layer for layer in layers if layer in ("ip", "ipv6")), None)
        data = strip(linktype, frame)
        if outer is None:
            assert data is None, number
            continue
        assert data is not None, number
        packet = parse(data)
        assert packet is not None, number
        key = packet.key
        assert (text(key.src), text(key.dst)) == (row[f"{outer}.src"], row[f"{outer}.dst"]), number
        compared += 1
        if key.proto == UDP and key.dport:
            assert (str(key.sport), str(key.dport)) == (row["udp.srcport"], row["udp.dstport"]), number
            if not packet.fragment:
                assert len(packet.payload) + 8 == int(row["udp.length"]), number
        if key.proto == TCP:
            assert (str(key.sport), str(key.dport)) == (row["tcp.srcport"], row["tcp.dstport"]), number
            assert (packet.tcp_seq, packet.tcp_flags) == (int(row["tcp.seq_raw"]), int(row["tcp.flags"], 16)), number
            assert len(packet.payload) == int(row["tcp.len"]), number
    assert compared > 0


@real
def test_nothing_but_decode_errors_leaves_parse_on_any_real_frame_and_ids_agree_with_keys() -> None:
    wrong: dict[str, int] = {}
    for path in sorted(CAPTURES.glob("*/*")):
        if path.parent.name == "ndpi_labels":
            continue
        try:
            for number, _, linktype, frame in frames(path):
                data = strip(linktype, frame)
                if data is None:
                    continue
                flow = flow_id(data)
                try:
                    packet = parse(data)
                except DecodeError:
                    wrong[path.name] = wrong.get(path.name, 0) + 1
                    continue
                if flow is not None and packet is not None:
                    assert key_of(flow) == packet.key, (path, number)
                    assert id_of(packet.key) == flow
                    assert key_of(reversed_id(flow)) == packet.key.reversed()
        except CaptureError:
            pass
    # fuzzed captures only, and the crafted ones of two bug reports
    assert all("fuzz" in name or "crash" in name for name in wrong), wrong


def test_a_udp_packet_over_ipv4_without_the_links_padding() -> None:
    packet = parse(view(ipv4(UDP, udp(16402, 3478, b"hello")) + b"\0" * 13))
    assert packet is not None
    assert packet.key == FlowKey(UDP, A4, 16402, B4, 3478)
    assert bytes(packet.payload) == b"hello"
    assert packet.length == 33
    assert packet.encapsulation is None
    assert not packet.fragment


def test_a_tcp_packet_with_ip_and_tcp_options() -> None:
    body = tcp(5223, 50000, 0xFFFFFFFE, 0x18, b"\1" * 12 + b"data", offset=8)
    packet = parse(view(ipv4(TCP, body, options=b"\1" * 8)))
    assert packet is not None
    assert packet.key == FlowKey(TCP, A4, 5223, B4, 50000)
    assert (packet.tcp_seq, packet.tcp_flags, bytes(packet.payload)) == (0xFFFFFFFE, 0x18, b"data")


def test_ipv6_extension_headers_are_passed() -> None:
    hop, route, options = bytes([43, 0]) + bytes(6), bytes([60, 1]) + bytes(14), bytes([UDP, 0]) + bytes(6)
    packet = parse(view(ipv6(0, hop + route + options + udp(1, 2, b"x"))))
    assert packet is not None
    assert packet.key == FlowKey(UDP, A6, 1, B6, 2)
    assert bytes(packet.payload) == b"x"


def test_an_atomic_fragment_is_whole_and_a_first_fragment_has_ports() -> None:
    atomic = parse(view(ipv6(44, struct.pack("!BBHI", UDP, 0, 0, 9) + udp(1, 2, b"x"))))
    assert atomic is not None
    assert (atomic.fragment, atomic.key.dport) == (False, 2)
    first = parse(view(ipv6(44, struct.pack("!BBHI", UDP, 0, 1, 9) + udp(1, 2, b"12345678", length=99))))
    assert first is not None
    assert (first.fragment, first.key.dport) == (True, 2)
    later = parse(view(ipv6(44, struct.pack("!BBHI", UDP, 0, 16, 9) + b"\0\1\0\2")))
    assert later is not None
    assert (later.fragment, later.key) == (True, FlowKey(UDP, A6, 0, B6, 0))
    four = parse(view(ipv4(UDP, b"\0\1\0\2" * 4, fragment=185)))
    assert four is not None
    assert (four.fragment, four.key) == (True, FlowKey(UDP, A4, 0, B4, 0))


def test_icmp_has_no_ports_and_keeps_what_it_quotes() -> None:
    quoted = ipv4(UDP, udp(1, 2, b""))
    packet = parse(view(ipv4(ICMP, b"\3\1\0\0\0\0\0\0" + quoted)))
    assert packet is not None
    assert packet.key == FlowKey(ICMP, A4, 0, B4, 0)
    assert (packet.icmp_type, packet.icmp_code, bytes(packet.payload)) == (3, 1, quoted)
    six = parse(view(ipv6(ICMPV6, b"\x80\0\0\0\0\1\0\2ping")))
    assert six is not None
    assert (six.icmp_type, bytes(six.payload)) == (128, b"ping")


INNER4, INNER6 = ipv4(UDP, udp(5, 6, b"inner")), ipv6(UDP, udp(5, 6, b"inner"))
GTP = struct.pack("!BBHI", 0x30, 255, len(INNER4), 1) + INNER4


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (ipv4(47, b"\0\0\x08\0" + INNER4), "gre"),
        (ipv4(50, bytes(20)), "esp"),
        (ipv4(51, bytes(20)), "ah"),
        (ipv6(51, bytes(20)), "ah"),
        (ipv4(4, INNER4), "ipip"),
        (ipv4(41, INNER6), "6in4"),
        (ipv6(4, INNER4), "4in6"),
        (ipv6(41, INNER6), "6in6"),
        (ipv4(UDP, udp(50000, 4789, b"\x08\0\0\0\0\0\x64\0" + bytes(14) + INNER4)), "vxlan"),
        (ipv4(UDP, udp(2152, 2152, GTP)), "gtp-u"),
        (ipv4(UDP, udp(40000, 3544, INNER6)), "teredo"),
        (ipv4(UDP, udp(40000, 3544, b"\0\0" + bytes(6) + INNER6)), "teredo"),
        (ipv4(UDP, udp(40000, 3544, b"\0\1\0\0" + bytes(9) + INNER6)), "teredo"),
        # a port alone is no proof, nor is the structure on another port
        (ipv4(UDP, udp(50000, 4789, b"\x0c\0\0\0\0\0\x64\0" + bytes(40))), None),
        (ipv4(UDP, udp(2152, 2152, GTP + b"more")), None),
        (ipv4(UDP, udp(2152, 40000, b"\x20\xff\0\0\0\0\0\0")), None),
        (ipv4(UDP, udp(40000, 3544, INNER6 + b"x")), None),
        (ipv4(UDP, udp(40000, 3545, INNER6)), None),
        (ipv4(UDP, udp(40000, 2153, GTP)), None),
    ],
)
def test_encapsulations_are_named_and_not_entered(data: bytes, name: str | None) -> None:
    packet = parse(view(data))
    assert packet is not None
    assert packet.encapsulation == name
    assert (packet.key.src, packet.key.dst) == ((A4, B4) if data[0] >> 4 == 4 else (A6, B6))


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"\x43" + ipv4(UDP, udp(1, 2, b""))[1:], "ipv4: header of 12 bytes"),
        (ipv4(UDP, udp(1, 2, b""), length=16), "ipv4: header of 20 bytes in a packet of 16"),
        (ipv4(UDP, udp(1, 2, b"", length=7)), "udp: length 7"),
        (ipv4(UDP, udp(1, 2, b"", length=90)), "udp: length 90"),
        (ipv4(UDP, b"\0\1\0\2"), "udp: truncated"),
        (ipv4(TCP, tcp(1, 2, 3, 2, offset=4)), "tcp: header of 16"),
        (ipv4(TCP, tcp(1, 2, 3, 2, offset=6)), "tcp: header of 24"),
        (ipv4(TCP, tcp(1, 2, 3, 2)[:12]), "tcp: truncated"),
        (ipv4(ICMP, b"\0\0"), "icmp: truncated"),
        (ipv6(0, bytes([UDP, 200]) + bytes(6)), "ipv6: extension header beyond"),
        (ipv6(60, (bytes([60, 0]) + bytes(6)) * 40), "ipv6: too many extension headers"),
    ],
)
def test_lengths_that_contradict_each_other_are_the_senders_fault(data: bytes, error: str) -> None:
    with pytest.raises(DecodeError, match=error):
        parse(view(data))


def test_what_the_capture_cut_off_is_nobodys_fault() -> None:
    whole = ipv4(UDP, udp(1, 2, b"0123456789"))
    packet = parse(view(whole[:32]))
    assert packet is not None
    assert (bytes(packet.payload), packet.length) == (b"0123", 38)
    assert parse(view(whole[:24])) is None
    assert parse(view(ipv6(0, bytes([UDP, 9]) + bytes(90))[:60])) is None
    assert parse(view(b"")) is None
    assert parse(view(b"\x45")) is None
    assert parse(view(b"\x00" * 60)) is None


def test_lengths_of_zero_are_left_to_the_network_card() -> None:
    for data in (ipv4(UDP, udp(1, 2, b"big", length=0), length=0), ipv6(UDP, udp(1, 2, b"big", length=0), length=0)):
        packet = parse(view(data))
        assert packet is not None
        assert (bytes(packet.payload), packet.length) == (b"big", len(data))
        assert flow_id(view(data)) is not None


def test_flow_ids_are_for_plain_packets_only() -> None:
    assert flow_id(view(ipv4(UDP, udp(16402, 53, b"")))) == bytes([17]) + A4 + B4 + struct.pack("!HH", 16402, 53)
    assert flow_id(view(ipv6(TCP, tcp(1, 2, 3, 2)))) == bytes([6]) + A6 + B6 + struct.pack("!HH", 1, 2)
    for data in (
        ipv4(ICMP, bytes(8)),
        ipv4(UDP, udp(1, 2, b""), options=b"\1" * 4),
        ipv4(UDP, udp(1, 2, bytes(16)), fragment=0x2000),
        ipv4(UDP, udp(1, 2, bytes(16)), fragment=3),
        ipv4(UDP, b"") + bytes(30),  # the ports would be the link's padding
        ipv6(UDP, b"\0\1") + bytes(30),
        ipv6(44, bytes(30)),
        ipv4(UDP, b""),
        b"",
    ):
        assert flow_id(view(data)) is None


@given(st.binary(max_size=120), st.sampled_from([b"", b"\x45\0\0\x50", b"\x60\0\0\0\0\x28", b"\x46\0\0\x40"]))
def test_any_bytes_give_a_packet_nothing_or_a_decode_error(data: bytes, start: bytes) -> None:
    try:
        packet = parse(view(start + data))
    except DecodeError:
        return
    flow = flow_id(view(start + data))
    assert packet is None or flow is None or key_of(flow) == packet.key
