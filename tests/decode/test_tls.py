"""TLS: FoxIO's and Salesforce's published fingerprints, RFC 8446 shapes, tshark on captures, and hostile bytes."""

from __future__ import annotations

import subprocess
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appid.decode import tls
from appid.wire import DecodeError, Fact, FactValue, Layer

CAPTURES = Path(__file__).parents[3] / "shared" / "captures"


def shorts(text: str) -> bytes:
    return b"".join(bytes.fromhex(number) for number in text.replace("\n", "").split(","))


def extension(number: int, body: bytes) -> bytes:
    return pack(">HH", number, len(body)) + body


def client_hello(ciphers: str, extensions: bytes, cookie: bytes = b"") -> bytes:
    """A handshake message: version 3.3, 32 zero bytes, no session (RFC 8446 section 4.1.2)."""
    suites = shorts(ciphers)
    body = b"\3\3" + bytes(32) + b"\0" + cookie + pack(">H", len(suites)) + suites + b"\1\0"
    body += pack(">H", len(extensions)) + extensions
    return b"\1" + len(body).to_bytes(3, "big") + body


def server_name(name: bytes) -> bytes:
    return extension(0, pack(">HBH", len(name) + 3, 0, len(name)) + name)


def record(body: bytes, kind: int = 22, version: int = 0x0301) -> bytes:
    return pack(">BHH", kind, version, len(body)) + body


ALPN = extension(16, b"\0\x0c\2h2\x08http/1.1")
# the example of FoxIO's technical_details/JA4.md, extensions in its order, with GREASE added to each list
SIGNATURES = shorts("0403,0804,0401,0503,0805,0501,0806,0601")
JA4_HELLO = client_hello(
    "4a4a,1301,1302,1303,c02b,c02f,c02c,c030,cca9,cca8,c013,c014,009c,009d,002f,0035",
    extension(0x1A1A, b"")
    + extension(0x1B, b"\2\0\2")
    + server_name(b"Clients4.Google.COM")
    + extension(0x33, b"\0\0")
    + ALPN
    + b"".join(extension(number, b"") for number in (0x4469, 0x17))
    + extension(0x2B, b"\6\x3a\x3a\3\4\3\3")
    + extension(0x0D, pack(">H", len(SIGNATURES)) + SIGNATURES)
    + b"".join(extension(number, b"") for number in (5, 0x23, 0x12, 0x2D, 0xFF01))
    + extension(11, b"\1\0")
    + extension(10, b"\0\x08" + shorts("2a2a,001d,0017,0018"))
    + extension(0x15, bytes(100)),
)


def read(payload: bytes) -> Layer:
    layer = tls.decode(memoryview(payload))
    assert layer is not None
    return layer


def values(layer: Layer, name: str) -> list[FactValue]:
    return [fact.value for fact in layer.facts if fact.name == name]


def test_ja4_of_the_specification() -> None:
    assert values(read(record(JA4_HELLO)), "tls.ja4") == ["t13d1516h2_8daaf6152771_e5627efa2ab1"]
    hello = tls.decode_quic(memoryview(JA4_HELLO))
    assert hello is not None
    assert values(hello, "tls.ja4") == ["q13d1516h2_8daaf6152771_e5627efa2ab1"]


def test_ja4_without_signature_algorithms() -> None:
    bare = b"".join(
        extension(number, b"")
        for number in (5, 10, 11, 13, 0x12, 0x15, 0x17, 0x1B, 0x23, 0x2B, 0x2D, 0x33, 0x4469, 0xFF01)
    )
    assert str(values(read(record(client_hello("1301", bare))), "tls.ja4")[0]).endswith("_6d807ffa2a79")


def test_ja4_with_nothing_to_hash() -> None:
    fingerprint = values(read(record(client_hello("0a0a", b""))), "tls.ja4")
    assert fingerprint == ["t12i000000_000000000000_000000000000"]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("ab", "ab"),
        ("abcd", "ad"),
        ("30ab", "3b"),
        ("3031abcd", "3d"),
        ("30abcd31", "01"),
        ("61", "aa"),
        ("6832", "h2"),
    ],
)
def test_ja4_of_odd_protocol_names(name: str, shown: str) -> None:  # the specification's own table
    raw = bytes.fromhex(name)
    alpn = extension(16, pack(">HB", len(raw) + 1, len(raw)) + raw)
    assert str(values(read(record(client_hello("1301", alpn))), "tls.ja4")[0])[8:10] == shown


def test_ja3_of_its_readme() -> None:
    # "769,47-53-5-10-49161-49162-49171-49172-50-56-19-4,0-10-11,23-24-25,0" -> ada70206e40642a3e4461f35503241d5
    body = client_hello(
        "002f,0035,0005,000a,c009,c00a,c013,c014,0032,0038,0013,0004",
        server_name(b"x") + extension(10, b"\0\6" + shorts("0017,0018,0019")) + extension(11, b"\1\0"),
    )
    body = body[:4] + b"\3\1" + body[6:]
    assert values(read(record(body)), "tls.ja3") == ["ada70206e40642a3e4461f35503241d5"]
    # "769,4-5-10-9-100-98-3-6-19-18-99,,," -> de350869b8c85de67a350c8d186f11e6
    suites = shorts("0004,0005,000a,0009,0064,0062,0003,0006,0013,0012,0063")
    body = b"\3\1" + bytes(33) + pack(">H", len(suites)) + suites + b"\1\0"
    assert values(read(record(b"\1\0\0" + bytes([len(body)]) + body)), "tls.ja3") == [
        "de350869b8c85de67a350c8d186f11e6"
    ]


def test_client_hello() -> None:
    layer = read(record(JA4_HELLO) + record(b"x" * 40, 23, 0x0303))
    assert layer.consumed == 5 + len(JA4_HELLO)
    assert layer.facts[:6] == (
        Fact("tls.content_type", "handshake"),
        Fact("tls.handshake", "client_hello"),
        Fact("tls.version", 0x0304),
        Fact("tls.sni", "clients4.google.com"),
        Fact("tls.alpn", "h2"),
        Fact("tls.alpn", "http/1.1"),
    )


@pytest.mark.parametrize("size", [1, 3, 40, 200])
def test_client_hello_over_many_records(size: int) -> None:
    stream = b"".join(record(JA4_HELLO[i : i + size]) for i in range(0, len(JA4_HELLO), size))
    assert read(stream).facts == read(record(JA4_HELLO)).facts
    assert read(stream).consumed == len(stream)


def test_client_hello_over_segments_tells_what_is_there() -> None:
    stream = record(JA4_HELLO)
    known = [read(stream[:cut]) for cut in range(6, len(stream))]
    assert {layer.consumed for layer in known} == {0}
    assert all(values(layer, "tls.handshake") == ["client_hello"] for layer in known)
    assert not any(values(layer, "tls.ja4") for layer in known)
    assert values(known[-1], "tls.sni") == ["clients4.google.com"]


def test_server_hello() -> None:
    extensions = extension(51, b"\0\x1d\0\0") + extension(43, b"\3\4")
    body = b"\3\3" + bytes(32) + b"\0" + b"\x13\x01\0" + pack(">H", len(extensions)) + extensions
    layer = read(record(b"\2\0\0" + bytes([len(body)]) + body, version=0x0303))
    assert values(layer, "tls.handshake") == ["server_hello"]
    assert values(layer, "tls.version") == [0x0304]
    # JA3S of 771,4865,51-43: the answer of servers that prefer TLS_AES_128_GCM_SHA256
    assert values(layer, "tls.ja3s") == ["eb1d94daa7e0344597e756a1fb6e7054"]


@pytest.mark.parametrize("name", [b"", b"a b", b"host\0.example", b"caf\xc3\xa9.example", b"<script>"])
def test_implausible_server_name_is_no_fact(name: bytes) -> None:
    layer = read(record(client_hello("1301", server_name(name))))
    assert values(layer, "tls.sni") == []
    assert str(values(layer, "tls.ja4")[0])[3] == "d"


def test_trailing_dot_does_not_hide_a_name() -> None:
    assert values(read(record(client_hello("1301", server_name(b"a.example.")))), "tls.sni") == ["a.example"]


def test_stream_met_in_the_middle() -> None:
    data = record(b"x" * 100, 23, 0x0303)
    layer = read(data + data + data[:50])
    assert layer.facts == (Fact("tls.content_type", "application_data"), Fact("tls.version", 0x0303))
    assert layer.consumed == 2 * len(data)
    assert read(data[:50]).consumed == 0


@pytest.mark.parametrize(
    "payload",
    [
        record(b"x" * 9, 23, 0x0303) + b"\x99garbage",  # the chain of lengths breaks
        record(b"\2", 20),
        record(b"\5\0", 21),
        record(b"", 23),
        b"\x17\3\3\xff\xff" + bytes(50),
        b"\x16\2\1\0\5hello",
        b"\x16\3\1\0\x40\x63" + bytes(20),
        b"\x80\x2e\x01\0\2" + bytes(41),
        b"\x16\3\1",
    ],
)
def test_not_tls(payload: bytes) -> None:
    assert tls.decode(memoryview(payload)) is None


def test_sslv2_hello() -> None:
    body = b"\1\3\1" + pack(">HHH", 6, 0, 16) + bytes.fromhex("010080 000004") + bytes(16)
    layer = read(pack(">H", 0x8000 | len(body)) + body)
    assert values(layer, "tls.version") == [0x0301]
    assert layer.consumed == 2 + len(body)


@pytest.mark.parametrize(
    "message",
    [
        JA4_HELLO[:40] + b"\xff\xff" + JA4_HELLO[42:],
        client_hello("1301", b"\0\0\0\xff\0"),
        b"\1\0\0\4\3\3\0\0",
    ],
)
def test_malformed_hello(message: bytes) -> None:
    with pytest.raises(DecodeError):
        tls.decode(memoryview(record(message)))


def test_foreign_record_inside_a_hello() -> None:
    with pytest.raises(DecodeError, match="inside a hello"):
        tls.decode(memoryview(record(JA4_HELLO[:50]) + record(b"\1", 20)))


@given(
    st.binary(max_size=300),
    st.sampled_from([b"", b"\x16\3\1\0\x80", b"\x17\3\3", b"\x80\x2e\1\0\2", record(JA4_HELLO)[:60]]),
)
def test_any_bytes(tail: bytes, head: bytes) -> None:
    payload = memoryview(head + tail)
    for read_one in (tls.decode, tls.decode_quic, tls.decode_dtls):
        try:
            layer = read_one(payload)
        except DecodeError:
            continue
        assert layer is None or 0 <= layer.consumed <= len(payload)


@given(st.integers(0, len(JA4_HELLO) - 1), st.integers(0, 255))
def test_any_changed_byte(position: int, value: int) -> None:
    changed = bytearray(JA4_HELLO)
    changed[position] = value
    with suppress(DecodeError):
        tls.decode(memoryview(record(bytes(changed))))


FIELDS = ("tls.handshake.extensions_server_name", "tls.handshake.ja3", "tls.handshake.ja3s")


@pytest.mark.parametrize(
    "capture",
    [
        "rtc-measurement/facetime_wifi_2023_caller.pcapng",
        "ndpi/long_tls_certificate.pcap",
        "zeek/tls__tls13draft16-chrome55.0.2879.0-canary.pcap",
    ],
)
def test_tshark_reads_the_same(capture: str) -> None:
    names = ("tcp.stream", "tcp.srcport", "tcp.seq", "tcp.payload", *FIELDS)
    command = ["tshark", "-r", str(CAPTURES / capture), "-Y", "tcp.len > 0", "-T", "fields"]
    for name in names:
        command += ["-e", name]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")
    streams: dict[tuple[str, str], list[tuple[int, bytes]]] = defaultdict(list)
    wanted: dict[str, set[FactValue]] = defaultdict(set)
    for line in filter(None, lines):
        stream, port, seq, payload, *told = line.split("\t")
        if stream.isdigit() and payload:
            streams[stream, port].append((int(seq), bytes.fromhex(payload)))
            for name, value in zip(("tls.sni", "tls.ja3", "tls.ja3s"), told, strict=True):
                wanted[name] |= set(value.split(",")) - {""}
    found: dict[str, set[FactValue]] = defaultdict(set)
    for segments in streams.values():
        stream_bytes = memoryview(b"".join(data for _, data in sorted(dict(segments).items())))
        while stream_bytes and (layer := tls.decode(stream_bytes)) is not None and layer.consumed:
            for fact in layer.facts:
                found[fact.name].add(fact.value)
            stream_bytes = stream_bytes[layer.consumed :]
    assert any(wanted.values())
    assert {name: found[name] for name in wanted} == wanted
