"""What of a stream goes on at once, and what waits for how many bytes."""

from __future__ import annotations

import pytest

from appid.alg.framing import LONGEST, Framed, frame, frame_relayed
from tests.alg.natted import OUT, PHONE, SDP, lf, sip

INVITE = sip(lf(SDP))


def long(kind: str, size: int, content: bytes = b"") -> bytes:
    """A message's head, and what there is of its body."""
    head = sip(b"", "MESSAGE sip:bob@198.51.100.20 SIP/2.0")
    return head.replace(b"Content-Length: 0", f"{kind}\r\nContent-Length: {size}".encode()) + content


def begins(data: bytes) -> Framed:
    found = frame(memoryview(data), OUT)
    assert isinstance(found, Framed)
    return found


def test_it_waits_for_the_line_the_head_and_the_description() -> None:
    for size in (3, 20, 100):
        assert frame(memoryview(INVITE[:size]), OUT) == size + 1
    assert frame(memoryview(INVITE[:-1]), OUT) == len(INVITE), "looked at again when it is whole"
    whole = begins(INVITE + b"more")
    assert (whole.size, whole.result, whole.rest) == (len(INVITE), "translated", 0)
    assert begins(b"\r\n") == Framed(2, b"\r\n")


@pytest.mark.parametrize("kind", ["Content-Type: image/jpeg", "c: message/cpim", "Content-Type: application/pidf+xml"])
@pytest.mark.parametrize("size", [10, LONGEST, 1_000_000])
def test_a_head_whose_body_stays_goes_on_alone(kind: str, size: int) -> None:
    head = long(kind, size)
    found = begins(head + b"abc")
    assert (found.size, found.rest, found.result) == (len(head), size, "translated")
    assert PHONE.encode() not in found.out.replace(b'"sip:x@10.1.3.33"', b"")
    assert f"Content-Length: {size}\r\n".encode() in found.out


@pytest.mark.parametrize("kind", ["Content-Type: application/sdp", "Content-Type: multipart/mixed;boundary=b", "X: y"])
def test_what_may_hold_a_description_waits_up_to_a_bound(kind: str) -> None:
    head = long(kind, 5000)
    assert frame(memoryview(head + b"v=0"), OUT) == len(head) + 5000
    longer = begins(long(kind, LONGEST) + b"v=0")
    assert (longer.rest, longer.result) == (LONGEST, "too-long")
    assert begins(INVITE[: INVITE.index(b"X") if b"X" in INVITE else 0] + INVITE).result == "translated"


def test_a_head_that_breaks_its_format_goes_on_as_it_is() -> None:
    head = long("no colon\r\nContent-Type: text/plain", 50)
    assert begins(head) == Framed(len(head), head, "unparseable", rest=50)
    assert begins(long("Content-Length: 7", 50)).over, "two lengths frame it differently for its reader"


def channel(inner: bytes, number: int = 0x4000) -> bytes:
    return number.to_bytes(2, "big") + len(inner).to_bytes(2, "big") + inner


def test_of_a_relays_stream_only_what_may_be_sip_waits() -> None:
    media, sip_ = channel(b"\x80" + bytes(1199)), channel(INVITE)
    assert frame_relayed(memoryview(media[:4]), OUT) == 5
    assert frame_relayed(memoryview(media[:700]), OUT) == Framed(700, media[:700], rest=len(media) - 700)
    assert frame_relayed(memoryview(sip_[:700]), OUT) == len(sip_) + -len(sip_) % 4
    big = channel(b"a" * (LONGEST + 1000))
    assert frame_relayed(memoryview(big[:700]), OUT) == Framed(700, big[:700], "too-long", rest=len(big) - 700)
