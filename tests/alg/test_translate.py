"""NAT in payloads: what carries SIP keeps its own shape, and tshark judges every packet that was rewritten."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appid.alg.session import translate_session
from appid.alg.translate import translate_datagram
from appid.dataplane.rewrite import replace_payload
from appid.decode.sip import INFLATED
from appid.edge.capture import Writer
from tests.alg.natted import BACK, GATE, OUT, PEER, PHONE, SDP, Table, fields, lf, sip, told
from tests.corpus.tshark import read
from tests.corpus.writer import End
from tests.engine.play import udp

PACK: dict[str, Callable[[bytes], bytes]] = {
    "": lambda text: text,
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "raw": lambda text: zlib.compress(text)[2:-4],
}
UNPACK: dict[str, Callable[[bytes], bytes]] = {
    "": lambda text: text,
    "gzip": gzip.decompress,
    "deflate": zlib.decompress,
    "raw": lambda text: zlib.decompressobj(-15).decompress(text),
}


@pytest.mark.parametrize("encoding", list(PACK))
def test_a_compressed_body_is_compressed_the_same_way_again(encoding: str) -> None:
    named = {"raw": "deflate"}.get(encoding, encoding)
    raw = sip(PACK[encoding](lf(SDP)), "INVITE sip:bob@198.51.100.20 SIP/2.0", *([f"e: {named}"] if named else []))
    head, _, body = told(raw).partition(b"\r\n\r\n")
    assert UNPACK[encoding](body) == translate_session(lf(SDP), OUT)
    assert fields(head)["Content-Length"] == str(len(body))


def test_a_description_in_a_multipart() -> None:
    """RFC 5621: only that part is touched."""
    parts = "--b1\nContent-Type: text/plain\n\n10.1.3.33 says m=audio 49172\n--b1\nContent-Type: application/sdp\n\n"
    raw = lf(parts + SDP + "--b1--\n")
    message = sip(raw).replace(b"application/sdp\r\nContent-L", b"multipart/mixed;boundary=b1\r\nContent-L")
    body = told(message).partition(b"\r\n\r\n")[2]
    assert body == raw.replace(lf(SDP), translate_session(lf(SDP), OUT))


def test_a_datagram_without_content_length_gets_none() -> None:
    raw = sip(lf(SDP)).replace(f"Content-Length: {len(lf(SDP))}\r\n".encode(), b"")
    assert b"ontent-Length" not in told(raw)


def channel(inner: bytes, padded: bool = False) -> bytes:
    """RFC 8656 section 12.4."""
    return b"\x40\x01" + len(inner).to_bytes(2, "big") + inner + (bytes(-len(inner) % 4) if padded else b"")


@pytest.mark.parametrize("padded", [False, True])
def test_channel_data_is_as_long_as_what_it_carries(padded: bool) -> None:
    raw = sip(zlib.compress(lf(SDP)), "INVITE sip:bob@198.51.100.20 SIP/2.0", "e: deflate")
    out = told(channel(raw, padded))
    assert out == channel(told(raw), padded)


def indication(inner: bytes, *more: tuple[int, bytes], method: int = 0x0016) -> bytes:
    """RFC 8656 section 11.4: XOR-PEER-ADDRESS and DATA."""
    pairs = [(0x0012, bytes.fromhex("0001a147e112a643")), (0x0013, inner), *more]
    body = b"".join(k.to_bytes(2, "big") + len(v).to_bytes(2, "big") + v + bytes(-len(v) % 4) for k, v in pairs)
    return method.to_bytes(2, "big") + len(body).to_bytes(2, "big") + b"\x21\x12\xa4\x42" + b"transaction!" + body


@pytest.mark.parametrize(("method", "names"), [(0x0016, OUT), (0x0017, BACK)], ids=["send", "data"])
def test_data_in_an_indication(method: int, names: Table) -> None:
    inner = sip(lf(SDP)) if names is OUT else told(sip(lf(SDP)))
    assert told(indication(inner, method=method), names) == indication(told(inner, names), method=method)


def test_a_fingerprint_is_made_anew() -> None:
    """RFC 8489 section 14.7: CRC-32 of the message up to it, XOR 0x5354554e."""
    out = told(indication(sip(lf(SDP)), (0x8028, b"\0\0\0\0")))
    assert out[-8:-4] == b"\x80\x28\0\x04"
    assert int.from_bytes(out[-4:], "big") == zlib.crc32(out[:-8]) ^ 0x5354554E


def test_what_is_signed_stays() -> None:
    raw = indication(sip(lf(SDP)), (0x0008, bytes(20)))
    assert translate_datagram(raw, OUT) == (raw, "integrity")


UNPARSEABLE = [
    ("two lengths", sip(lf(SDP)).replace(b"Content-Length", b"Content-Length: 3\r\nContent-Length")),
    ("no blank line", b"INVITE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP 10.1.3.33\r\n"),
    ("body shorter", sip(lf(SDP))[:-10]),
    ("not deflated", sip(lf(SDP)[2:], "INVITE sip:b@x SIP/2.0", "e: deflate")),
    ("a bomb", sip(zlib.compress(bytes(INFLATED * 4)), "INVITE sip:b@x SIP/2.0", "e: deflate")),
    ("a thousand media", sip(lf(SDP + "m=audio 49172 RTP/AVP 0\n" * 1000))),
    ("too many headers", sip(b"", "INVITE sip:b@x SIP/2.0", *["X: y"] * 300)),
]


@pytest.mark.parametrize("raw", [raw for _, raw in UNPARSEABLE], ids=[name for name, _ in UNPARSEABLE])
def test_what_cannot_be_parsed_passes_unchanged_and_is_counted(raw: bytes) -> None:
    assert translate_datagram(raw, OUT) == (raw, "unparseable")


def test_what_holds_no_sip_is_none_of_its_business() -> None:
    for raw in (b"", b"\x80" * 40, b"\r\n\r\n", b"hello", indication(b"\x80" * 40), channel(b"\x80" * 40)):
        assert translate_datagram(raw, OUT) is None
    binding = b"\0\x01\0\0\x21\x12\xa4\x42" + bytes(12)
    assert translate_datagram(binding, OUT) is None


def test_sip_in_the_middle_of_something_else_is_not_looked_for() -> None:
    """NAT slipstreaming: the text of a request inside another protocol's payload."""
    for raw in (b"POST / HTTP/1.1\r\n\r\n" + sip(lf(SDP)), b"\0" * 20 + sip(lf(SDP)), b"<" + sip(lf(SDP))):
        found = translate_datagram(raw, OUT)
        assert found is None or found.payload == raw


@given(st.binary(max_size=400), st.integers(0, 600), st.booleans())
@settings(max_examples=300, deadline=None)
def test_damage_never_raises(noise: bytes, where: int, relayed: bool) -> None:
    raw = sip(lf(SDP))
    raw = raw[:where] + noise + raw[where + len(noise) :]
    found = translate_datagram(channel(raw) if relayed else raw, OUT)
    assert found is None or found.payload


# ---- tshark reads it -------------------------------------------------------------------------------------------------


def test_tshark_reads_every_translated_packet_and_finds_the_new_values(tmp_path: Path) -> None:
    phone, peer = End(PHONE, 5060), End(PEER, 5060)
    deflated = sip(zlib.compress(lf(SDP)), "INVITE sip:bob@198.51.100.20 SIP/2.0", "e: deflate")
    originals = [
        sip(lf(SDP)), deflated, channel(sip(lf(SDP))), channel(deflated, padded=True), indication(sip(lf(SDP))),
        indication(deflated, (0x8028, b"\0\0\0\0")),
    ]  # fmt: skip
    place = tmp_path / "translated.pcap"
    writer = Writer(str(place))
    for number, payload in enumerate(originals, 1):
        writer.write(number * 1_000_000_000, replace_payload(udp(phone, peer, payload), told(payload)))
    writer.close()
    wanted = ("sip.Via.sent-by.address", "sip.Via.sent-by.port", "sip.contact.uri", "sdp.owner.address",
              "sdp.connection_info.address", "sdp.media.port", "udp.checksum.status", "ip.checksum.status",
              "stun.att.crc32.status")  # fmt: skip
    found = read(place, wanted, set(range(1, len(originals) + 1)))
    assert sorted(found) == [1, 2, 3, 4, 5, 6]
    for number, values in found.items():
        assert values["malformed"] == [], number
        assert values["udp.checksum.status"] == values["ip.checksum.status"] == ["1"]
        assert values["sip.Via.sent-by.address"] == [GATE], number
        assert values["sip.Via.sent-by.port"] == ["6060"]
        assert values["sip.contact.uri"] == [f"sip:alice@{GATE}:6060"]
        assert values["sdp.owner.address"] == [GATE], number
        assert values["sdp.connection_info.address"] == [GATE, GATE]
        assert values["sdp.media.port"] == ["31000", "51372"]
    assert found[6]["stun.att.crc32.status"] == ["1"]
