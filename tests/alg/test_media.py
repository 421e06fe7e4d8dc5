"""Which ports an offer and its answer open, after RFC 3264, 3605, 5761 and 8866; and what a hostile one opens."""

from __future__ import annotations

from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appid.alg.media import MAX_PORTS, agreed, described
from appid.decode import sdp
from appid.decode.sdp import Description
from appid.wire import DecodeError, packed

PEER = packed("203.0.113.201")


def session(*lines: str, address: str = "192.0.2.101") -> Description:
    version = 6 if ":" in address else 4
    head = ["v=0", f"o=- 1 1 IN IP{version} {address}", "s=-", f"c=IN IP{version} {address}", "t=0 0"]
    layer = sdp.decode(memoryview("\r\n".join([*(head if address else head[:3]), *lines, ""]).encode()))
    assert layer is not None
    return cast(Description, layer.message)


def ports(*ours: str, theirs: tuple[str, ...] = ("m=audio 3456 RTP/AVP 0",), mine: str = "192.0.2.101") -> list[int]:
    found = agreed(session(*ours, address=mine), session(*theirs, address="203.0.113.201"))
    assert {place.peer for place in found} <= {PEER}
    return [place.port for place in found]


def test_rtcp_is_one_port_higher_where_nothing_else_is_said() -> None:
    """RFC 3550 section 11."""
    assert ports("m=audio 49170 RTP/AVP 0") == [49170, 49171]


def test_a_rtcp_names_the_port() -> None:
    """RFC 3605 section 2.1, its own example: m=audio 49170, a=rtcp:53020."""
    assert ports("m=audio 49170 RTP/AVP 0", "a=rtcp:53020") == [49170, 53020]
    assert ports("m=audio 49170 RTP/AVP 0", "a=rtcp:53020 IN IP4 126.16.64.4") == [49170, 53020]


def test_facetimes_media_share_one_port() -> None:
    """Session 1, packets 169 and 172: both m= lines and a=rtcp name 16402."""
    ours = ("m=audio 16402 RTP/AVP 104 105", "a=rtcp:16402", "m=video 16402 RTP/AVP 126 123", "a=rtcp:16402")
    assert ports(*ours, theirs=ours) == [16402]


MUXED = ("m=audio 3456 RTP/AVP 0", "a=rtcp-mux")


def test_rtcp_mux_needs_both_sides() -> None:
    """RFC 5761 section 5.1.1: if the answer does not have a=rtcp-mux, RTCP goes to its own port."""
    assert ports("m=audio 49170 RTP/AVP 0", "a=rtcp-mux", theirs=MUXED) == [49170]
    assert ports("m=audio 49170 RTP/AVP 0", "a=rtcp-mux") == [49170, 49171]
    assert ports("m=audio 49170 RTP/AVP 0", theirs=MUXED) == [49170, 49171]
    assert ports("m=audio 49170 RTP/AVP 0", "a=rtcp-mux", "a=rtcp:53020") == [49170, 53020]


def test_refused_media_open_nothing() -> None:
    """RFC 3264 section 6: port zero refuses."""
    two = ("m=audio 3456 RTP/AVP 0", "m=video 0 RTP/AVP 31")
    assert ports("m=audio 49170 RTP/AVP 0", "m=video 51372 RTP/AVP 31", theirs=two) == [49170, 49171]
    assert ports("m=audio 0 RTP/AVP 0") == []


def test_media_on_hold_by_the_old_way_open_nothing() -> None:
    """RFC 3264 section 8.4: c=0.0.0.0, from either side."""
    held = session("m=audio 3456 RTP/AVP 0", address="0.0.0.0")
    talking = session("m=audio 49170 RTP/AVP 0")
    assert agreed(talking, held) == ()
    assert agreed(held, talking) == ()


def test_the_medias_own_address_counts_before_the_sessions() -> None:
    """RFC 8866 section 5.7."""
    theirs = session("m=audio 3456 RTP/AVP 0", "c=IN IP4 198.51.100.7", "m=video 3458 RTP/AVP 31")
    found = agreed(session("m=audio 4000 RTP/AVP 0", "m=video 5000 RTP/AVP 31"), theirs)
    assert (found[0].port, found[0].peer, found[0].peer_port) == (4000, packed("198.51.100.7"), 3456)
    assert (found[-1].port, found[-1].peer) == (5001, packed("192.0.2.101"))


def test_ipv6() -> None:
    theirs = session("m=audio 3456 RTP/AVP 0", address="2001:db8::7")
    assert agreed(session("m=audio 4000 RTP/AVP 0", address="2001:db8::1"), theirs)[0].peer == packed("2001:db8::7")


def test_a_peer_that_is_a_name_opens_nothing() -> None:
    theirs = session("c=IN IP4 media.example.com", "m=audio 3456 RTP/AVP 0", address="")
    assert agreed(session("m=audio 4000 RTP/AVP 0"), theirs) == ()


@pytest.mark.parametrize("port", [1, 22, 53, 443, 1023])
def test_low_ports_never_open(port: int) -> None:
    assert all(found >= 1024 for found in ports(f"m=audio {port} RTP/AVP 0"))
    assert ports("m=audio 5000 RTP/AVP 0", f"a=rtcp:{port}") == [5000]


def test_the_last_port_has_no_successor() -> None:
    assert ports("m=audio 65535 RTP/AVP 0") == [65535]


def test_media_that_is_no_rtp_has_no_rtcp() -> None:
    assert ports("m=image 49170 udptl t38", theirs=("m=image 3456 udptl t38",)) == [49170]


@pytest.mark.parametrize("line", ["message 2855 TCP/MSRP *", "image 2900 TCP t38", "application 2950 TCP/TLS/BFCP *"])
def test_media_over_tcp_open_no_port_for_datagrams(line: str) -> None:
    """RFC 4975 section 8.1, RFC 4145 section 4, RFC 8856 section 5.1."""
    both = ("m=audio 5000 RTP/AVP 0", "a=rtcp-mux", f"m={line}")
    assert ports(*both, theirs=both) == [5000]


def test_many_media_open_few_ports() -> None:
    many = tuple(f"m=audio {2000 + 2 * n} RTP/AVP 0" for n in range(60))
    assert len(ports(*many, theirs=many)) == MAX_PORTS


def test_thousands_of_media_are_refused() -> None:
    with pytest.raises(DecodeError, match=r"too (many|large)"):
        session(*(f"m=audio {2000 + n} RTP/AVP 0" for n in range(1000)))


def test_what_was_answered_is_described() -> None:
    """Each payload type with its codec: the answer's word, else the offer's (RFC 3264 section 6.1), else nobody's."""
    offer = session(
        "m=audio 5000 RTP/AVP 97 104 0 98", "a=rtpmap:97 X/8000", "a=rtpmap:98 opus/48000", "m=video 7 RTP/AVP 31"
    )
    answer = session("m=audio 3456 RTP/AVP 104 97 0 98", "a=rtpmap:97 iLBC/8000", "m=video 0 RTP/AVP 31")
    audio, video = described(offer, answer)
    assert (audio.kind, audio.payload_types) == ("audio", (104, 97, 0, 98))
    assert audio.codecs == (None, "iLBC", "PCMU", "opus")
    assert (video.payload_types, video.codecs) == ((31,), ("H261",))


PORTS = st.integers(0, 65535)
MEDIA = st.builds(
    lambda port, rtcp, mux, proto: [f"m=audio {port} {proto} 0", *rtcp, *mux], PORTS,
    st.one_of(st.just([]), PORTS.map(lambda port: [f"a=rtcp:{port}"])), st.sampled_from([[], ["a=rtcp-mux"]]),
    st.sampled_from(["RTP/AVP", "UDP/TLS/RTP/SAVPF", "udptl"]),
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(st.lists(MEDIA, max_size=12), st.lists(MEDIA, max_size=12))
def test_whatever_is_agreed_is_in_bounds(ours: list[list[str]], theirs: list[list[str]]) -> None:
    mine = session(*(line for lines in ours for line in lines))
    found = agreed(mine, session(*(line for lines in theirs for line in lines), address="203.0.113.201"))
    assert len(found) == len(set(found)) <= MAX_PORTS
    said = {m.port for m in mine.media} | {m.port + 1 for m in mine.media} | {m.rtcp_port for m in mine.media}
    assert all(1024 <= place.port <= 65535 and place.port in said and place.peer == PEER for place in found)


def test_what_another_host_would_receive_opens_nothing_for_this_one() -> None:
    """a=rtcp with an address (RFC 3605 section 2.1), and host candidates of which only the host's own count."""
    own, other = "192.0.2.10", "192.0.2.11"
    mine = session("m=audio 4000 RTP/AVP 0", f"a=rtcp:4009 IN IP4 {other}",
                   f"a=candidate:1 1 UDP 1 {own} 4020 typ host", f"a=candidate:2 1 UDP 1 {other} 4030 typ host",
                   address=own)  # fmt: skip
    found = agreed(mine, session("m=audio 5000 RTP/AVP 0", address="203.0.113.201"), packed(own))
    assert [(place.port, place.address) for place in found] == [
        (4000, packed(own)), (4009, packed(other)), (4020, packed(own)),
    ]  # fmt: skip
