"""Session descriptions: addresses follow their ports, and lines that name nothing of ours stay byte for byte."""

from __future__ import annotations

from appid.alg.session import translate_session
from tests.alg.natted import GATE, OUT, OUT6, SDP, Table, lf


def test_a_description_going_out() -> None:
    out = translate_session(lf(SDP), OUT).decode().split("\r\n")
    assert out == [
        "v=0", f"o=jdoe 2890844526 2890842807 IN IP4 {GATE}", "s=SDP Seminar", f"c=IN IP4 {GATE}",
        "t=2873397496 2873404696", "a=recvonly", "m=audio 31000 RTP/AVP 0", "a=rtcp:53000", "m=video 51372 RTP/AVP 99",
        f"c=IN IP4 {GATE}", "a=rtpmap:99 h263-1998/90000", "",
    ]  # fmt: skip


def described(*lines: str, names: Table = OUT) -> list[str]:
    return translate_session(lf("\n".join(lines) + "\n"), names).decode().split("\r\n")[:-1]


def test_rtcp_names_its_own_address_or_goes_by_its_medium() -> None:
    """RFC 3605 section 2.1, and iChat's way of saying it."""
    assert described("c=IN IP4 10.1.3.33", "m=audio 49172 RTP/AVP 0", "a=rtcp:49173 IN IP4 10.1.3.33") == [
        f"c=IN IP4 {GATE}", "m=audio 31000 RTP/AVP 0", f"a=rtcp:31001 IN IP4 {GATE}",
    ]  # fmt: skip
    assert described("m=audio 49172 RTP/AVP 0", "c=IN IP4 10.1.3.33", "a=RTCP:AUDIO 49173 VIDEO 49172")[2] == (
        "a=RTCP:AUDIO 31001 VIDEO 31000"
    )


def test_candidates_keep_all_but_their_endpoints() -> None:
    """RFC 8839 section 5.1's example lines."""
    lines = [
        "c=IN IP4 10.1.3.33", "m=audio 49172 RTP/AVP 0",
        "a=candidate:1 1 UDP 2130706431 10.1.3.33 49172 typ host",
        "a=candidate:2 1 UDP 1694498815 192.0.2.3 45664 typ srflx raddr 10.1.3.33 rport 49172",
        "a=candidate:3 1 TCP 1694498815 relay.example 45664 typ relay",
    ]  # fmt: skip
    assert described(*lines)[2:] == [
        f"a=candidate:1 1 UDP 2130706431 {GATE} 31000 typ host",
        f"a=candidate:2 1 UDP 1694498815 192.0.2.3 45664 typ srflx raddr {GATE} rport 31000",
        lines[4],
    ]


def test_what_is_on_hold_or_refused_or_not_ours_stays() -> None:
    """RFC 3264 sections 6 and 8.4."""
    for lines in (
        ("c=IN IP4 0.0.0.0", "m=audio 49172 RTP/AVP 0"),
        ("c=IN IP4 192.0.2.9", "m=audio 49172 RTP/AVP 0", "a=rtcp:49173"),
        ("c=IN IP4 phone.example", "m=audio 49172 RTP/AVP 0"),
        ("m=audio 49172 RTP/AVP 0",),
    ):
        assert described(*lines) == list(lines)
    assert described("c=IN IP4 10.1.3.33", "m=audio 0 RTP/AVP 0") == [f"c=IN IP4 {GATE}", "m=audio 0 RTP/AVP 0"]


def test_a_public_address_of_our_own_keeps_it_and_may_get_another_port() -> None:
    """A client that learned its address by STUN, and a port that another client has already."""
    lines = ("c=IN IP4 203.0.113.77", "m=audio 16402 RTP/AVP 104", "a=rtcp:16402", "m=video 16402 RTP/AVP 123")
    assert described(*lines) == ["c=IN IP4 203.0.113.77", "m=audio 16404 RTP/AVP 104", "a=rtcp:16404",
                                 "m=video 16404 RTP/AVP 123"]  # fmt: skip


def test_port_counts_and_line_ends_stay() -> None:
    assert translate_session(b"c=IN IP4 10.1.3.33/127\nm=audio 49172/2 RTP/AVP 31", OUT) == (
        b"c=IN IP4 203.0.113.77/127\nm=audio 31000/2 RTP/AVP 31"
    )


def test_the_other_family() -> None:
    lines = ("o=- 1 1 IN IP6 fd00::5", "c=IN IP6 FD00:0:0::5", "m=audio 49172 RTP/AVP 0")
    assert described(*lines, names=OUT6) == [
        "o=- 1 1 IN IP6 2001:db8::7", "c=IN IP6 2001:db8::7", "m=audio 49172 RTP/AVP 0",
    ]  # fmt: skip


def test_a_long_line_costs_no_more_than_its_length() -> None:
    for unit in (b" ", b"IN IP4 ", b"a", b" raddr", b"AUDIO 1 "):
        for line in (b"o=", b"c=", b"m=", b"a=rtcp:", b"a=candidate:"):
            raw = line + unit * (60_000 // len(unit)) + b"\r\n"
            assert translate_session(raw, OUT) == raw


def test_a_medium_whose_port_has_no_name_over_there_keeps_its_address() -> None:
    """Else it would name a port of the gateway that may be somebody else's. TCP media bind none (RFC 4145)."""
    lost = ["c=IN IP4 10.1.3.33", "m=audio 20000 RTP/AVP 0"]
    assert described(*lost) == lost
    both = described("c=IN IP4 10.1.3.33", "m=audio 49172 RTP/AVP 0", "m=video 20000 RTP/AVP 31")
    assert both[0] != "c=IN IP4 10.1.3.33", "one of them has a name"
    assert described(lost[0], "m=message 9 TCP/MSRP *")[0] != lost[0]
