"""DNS: RFC 1035 shapes, multicast and NetBIOS kin, tshark on captures, and hostile bytes."""

from __future__ import annotations

import subprocess
from pathlib import Path
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appid.decode import dns
from appid.wire import Fact, FactValue, Layer

CAPTURES = Path(__file__).parents[3] / "shared" / "captures"


def name(text: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in text.split(".") if label) + b"\0"


def message(questions: list[bytes], records: list[bytes], flags: int = 0x0100) -> bytes:
    return pack(">6H", 0x1234, flags, len(questions), len(records), 0, 0) + b"".join(questions + records)


def question(text: str, kind: int = 1, klass: int = 1) -> bytes:
    return name(text) + pack(">HH", kind, klass)


def record(owner: bytes, kind: int, data: bytes, klass: int = 1) -> bytes:
    return owner + pack(">HHIH", kind, klass, 60, len(data)) + data


def read(payload: bytes) -> Layer:
    layer = dns.decode(memoryview(payload))
    assert layer is not None
    return layer


def values(layer: Layer, fact: str) -> list[FactValue]:
    return [found.value for found in layer.facts if found.name == fact]


QUERY = message([question("Init.ESS.apple.com", 28)], [])
ANSWER = message([question("init.ess.apple.com")], [record(b"\xc0\x0c", 1, bytes(4))], 0x8180)


def test_query() -> None:
    assert read(QUERY) == Layer(
        "dns",
        (
            Fact("dns.response", False),
            Fact("dns.opcode", 0),
            Fact("dns.query", "init.ess.apple.com"),
            Fact("dns.type", 28),
        ),
        len(QUERY),
    )


def test_answer_with_a_compressed_name() -> None:
    assert values(read(ANSWER), "dns.response") == [True]
    assert values(read(ANSWER), "dns.query") == ["init.ess.apple.com"]


def test_edns_and_the_root() -> None:
    opt = b"\0" + pack(">HHIH", 41, 4096, 0, 0)
    assert values(read(message([question("", 2)], [opt])), "dns.query") == [""]


def test_multicast_answer_without_question() -> None:
    owner = name("_airplay._tcp.local")
    layer = read(message([], [record(owner, 12, b"\x05Salon\xc0\x0c", 0x8001)], 0x8400))
    assert values(layer, "dns.response") == [True]


def test_netbios_is_told_apart() -> None:
    # "FRED" of RFC 1001 section 14.1, half-ASCII encoded
    layer = read(message([question("EGFCEFEECACACACACACACACACACACACA", 32)], [], 0x0110))
    assert values(layer, "dns.netbios") == [True]
    assert values(read(QUERY), "dns.netbios") == []


def test_answer_cut_after_its_question() -> None:
    assert values(read(ANSWER[:-6]), "dns.query") == ["init.ess.apple.com"]
    assert dns.decode(memoryview(ANSWER[:30])) is None


def test_bytes_of_no_host_are_escaped() -> None:
    payload = bytes.fromhex("1fc5 0100 0001 0000 0000 0000 03 61ff07 00 000a 0001")
    assert values(read(payload), "dns.query") == ["a\\xff\\x07"]


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        # fuzz-2006-06-26-2594.pcap frames 187 and 343: tshark names both DNS, SRV _sip._udp...
        (message([question("_sip._udp.sip.cybercity.dk", 33)], [], 0x0125), "header"),
        (message([question("_sip._udp.sip.cybercity.dk", 33, 17)], []), "type or class"),
    ],
)
def test_one_damaged_part_is_named(payload: bytes, reason: str) -> None:
    layer = read(payload)
    assert values(layer, "dns.query") == ["_sip._udp.sip.cybercity.dk"]
    assert values(layer, "dns.anomaly") == [reason]
    assert values(read(QUERY), "dns.anomaly") == []


@pytest.mark.parametrize(
    "payload",
    [
        QUERY[:-1],
        QUERY + b"x" * 40,
        message([question("example", 1, 0x0777)], []),
        message([question("example", 0)], []),
        message([question("example")], [], 0x1900),  # opcode 3 is unassigned
        message([question("example")], [], 0x0103),  # a query does not fail
        message([], []),
        message([b"\xc0\x0c\0\1\0\1"], []),  # a name that points at itself
        b"\x80\x68\0\1\0\0\0\1" + bytes(160),  # RTP
    ],
)
def test_not_dns(payload: bytes) -> None:
    assert dns.decode(memoryview(payload)) is None


def test_stream() -> None:
    stream = pack(">H", len(ANSWER)) + ANSWER
    layer = dns.decode_stream(memoryview(stream + stream))
    assert layer is not None
    assert layer.consumed == len(stream)
    part = dns.decode_stream(memoryview(stream[:-3]))
    assert part is not None
    assert part.consumed == 0
    assert values(part, "dns.query") == ["init.ess.apple.com"]
    assert dns.decode_stream(memoryview(b"\0\x10" + QUERY)) is None


def test_pointer_chains_end() -> None:
    chain = name("a") + b"".join(pack(">H", 0xC000 | 12 + max(0, 3 + 2 * (i - 1))) for i in range(200))
    head = pack(">6H", 1, 0x8400, 0, 1, 0, 0)
    assert dns.decode(memoryview(head + chain + b"\0\1\0\1\0\0\0\0\0\0")) is None


@given(
    st.binary(max_size=200), st.sampled_from([b"", QUERY[:12], ANSWER[:12], ANSWER[:32], pack(">H", 40) + QUERY[:14]])
)
def test_any_bytes(tail: bytes, head: bytes) -> None:
    payload = memoryview(head + tail)
    for read_one in (dns.decode, dns.decode_stream):
        layer = read_one(payload)
        assert layer is None or 0 <= layer.consumed <= len(payload)


@pytest.mark.parametrize(
    "capture",
    [
        "ndpi/dns.pcap",
        "ndpi/dns-google-nsid.pcapng",
        "ndpi/netbios.pcap",
        "rtc-measurement/facetime_wifi_2023_caller.pcapng",
    ],
)
def test_tshark_reads_the_same_names(capture: str) -> None:
    command = [
        "tshark",
        "-r",
        str(CAPTURES / capture),
        "-Y",
        "(dns or mdns or llmnr) and udp and not icmp",
        "-T",
        "fields",
    ]
    command += ["-e", "udp.payload", "-e", "dns.qry.name"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")
    for payload, names in (line.split("\t") for line in lines if line):
        told = values(read(bytes.fromhex(payload)), "dns.query")
        assert ",".join(str(text) or "<Root>" for text in told) == names.lower().replace("<root>", "<Root>")


QUESTION = b"\x04_sip\x04_udp\x03sip\x07example\x03com\0\0\x21\0\1"


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"\x12\x34\1\0\0\1\0\0\0\0\0\0\x04_sip\x04_udp\x03si%s\0ex\xaa\xaa\xaa\xaa", id="question broken"),
        pytest.param(b"\x12\x34\x01\0%s\0\0\0\0\0\0" + QUESTION, id="counts broken"),
    ],
)
def test_half_a_message_says_that_it_is_damaged(payload: bytes) -> None:
    """It is no claim: nothing but dns.damaged, which a signature joins with DNS's port."""
    layer = dns.decode_damaged(memoryview(payload))
    assert layer is not None
    assert [fact.name for fact in layer.facts] == ["dns.damaged"]


@pytest.mark.parametrize("payload", [bytes(40), b"\xff" * 40, b"GET / HTTP/1.1\r\nHost: a.example\r\n", QUESTION])
def test_other_bytes_are_not_even_damaged(payload: bytes) -> None:
    assert dns.decode_damaged(memoryview(payload)) is None


@pytest.mark.parametrize(
    ("label", "netbios"),
    [
        (b"EFEDEJFPEEEPENEBEJEOCACACACACABM", True),  # ACI_DOMAIN, RFC 1001 section 14.1
        (b"EFEDEJFPEEEPENkBEJEOCACACACACABM", True),  # one letter damaged
        (b"a-name-of-thirty-two-letters-abc", False),
        (b"www", False),
    ],
)
def test_names_of_netbios_are_told_from_dns(label: bytes, netbios: bool) -> None:
    message = b"\x84\xe7\1\x10\0\1\0\0\0\0\0\0" + bytes([len(label)]) + label + b"\0\0\x20\0\1"
    layer = dns.decode(memoryview(message))
    assert layer is not None
    assert (values(layer, "dns.netbios") == [True]) is netbios
