"""SDP: the example of RFC 8866 section 5, the report's own violations, ICE lines, caps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appid.decode import sdp
from appid.wire import DecodeError, packed

RFC8866 = """v=0
o=jdoe 3724394400 3724394405 IN IP4 198.51.100.1
s=Call to John Smith
i=SDP Offer #1
u=http://www.jdoe.example.com/home.html
e=Jane Doe <jane@jdoe.example.com>
p=+1 617 555-6011
c=IN IP4 198.51.100.1
t=0 0
m=audio 49170 RTP/AVP 0
m=audio 49180 RTP/AVP 0
m=video 51372 RTP/AVP 99
c=IN IP6 2001:db8::2
a=rtpmap:99 h263-1998/90000
"""
ANSWER_2015 = """v=0
o=GKVoiceChatService 0 0 IN IP4 71.230.89.52
s=mobile
c=IN IP4 71.230.89.52
b=AS:2000:2000
t=0 0
a=FLS;VRA:0;RVRA:1;AS:2
a=DMBR
m=audio 16402 RTP/AVP 104 106 121 122 119
a=rtcp:16402
a=fmtp:AAC SamplesPerBlock 480
a=rtpID:1261706994
m=video 16402 RTP/AVP 123 100
a=rtcp:16402
a=rtpmap:123 H264/90000
a=rtpmap:100 HEVC/90000
a=X_FLS:123 FLS;MS:-1
a=imageattr:123 send [x=320,y=240,fps=30] recv [x=640]
"""


def read(text: str) -> sdp.Description:
    layer = sdp.decode(memoryview(text.replace("\n", "\r\n").encode()))
    assert layer is not None
    assert isinstance(layer.message, sdp.Description)
    return layer.message


def test_example_of_rfc8866() -> None:
    found = read(RFC8866)
    assert found.origin_user == "jdoe"
    assert found.origin_address == packed("198.51.100.1")
    assert found.session_name == "Call to John Smith"
    assert [(m.kind, m.port, m.formats, m.codecs) for m in found.media] == [
        ("audio", 49170, (0,), ((0, "PCMU"),)),
        ("audio", 49180, (0,), ((0, "PCMU"),)),
        ("video", 51372, (99,), ((99, "h263-1998"),)),
    ]
    assert [m.connection for m in found.media] == [
        packed("198.51.100.1"), packed("198.51.100.1"), packed("2001:db8::2")
    ]  # fmt: skip


def test_violations_of_facetime_2015() -> None:
    found = read(ANSWER_2015)
    assert found.origin_user == "GKVoiceChatService"
    assert ("FLS;VRA", "0;RVRA:1;AS:2") in found.attributes
    audio, video = found.media
    assert (audio.port, audio.rtcp_port, video.port, video.rtcp_port) == (16402, 16402, 16402, 16402)
    assert audio.formats == (104, 106, 121, 122, 119)
    assert audio.attributes[1] == ("fmtp", "AAC SamplesPerBlock 480")
    assert video.codecs == ((123, "H264"), (100, "HEVC"))


def test_facts() -> None:
    layer = sdp.decode(memoryview(ANSWER_2015.encode()))
    assert layer is not None
    pairs = [(fact.name, fact.value) for fact in layer.facts]
    assert ("sdp.origin_user", "GKVoiceChatService") in pairs
    spaced = sdp.decode(memoryview(b"v=0\r\no= GKVoiceChatService 0 0 IN IP4 71.230.89.52\r\n"))
    assert spaced is not None
    assert spaced.message.origin_user == ""  # type: ignore[attr-defined]
    assert spaced.message.origin_address == packed("71.230.89.52")  # type: ignore[attr-defined]
    assert ("sdp.origin", "GKVoiceChatService 0 0 IN IP4 71.230.89.52") in pairs
    assert ("sdp.connection", packed("71.230.89.52")) in pairs
    assert [value for name, value in pairs if name == "sdp.media"] == [("audio", 16402), ("video", 16402)]
    assert [value for name, value in pairs if name == "sdp.attribute_name"] == [
        "FLS", "DMBR", "rtcp", "fmtp", "rtpID", "rtpmap", "X_FLS", "imageattr"
    ]  # fmt: skip


def test_rtcp_lines() -> None:
    # RFC 3605 section 2.1, and iChat's session-wide form
    head = "v=0\nc=IN IP4 192.0.2.1\n"
    (media,) = read(head + "m=audio 49170 RTP/AVP 0\na=rtcp:53020 IN IP4 126.16.64.4\n").media
    assert (media.rtcp_port, media.rtcp_address) == (53020, packed("126.16.64.4"))
    (media,) = read(head + "m=audio 49170 RTP/AVP 0\na=rtcp-mux\n").media
    assert (media.rtcp_port, media.rtcp_mux) == (None, True)
    ichat = head + "a=RTCP:AUDIO 16402 VIDEO 16404\nm=audio 16402 RTP/AVP 105\nm=video 16402 RTP/AVP 126\n"
    assert [m.rtcp_port for m in read(ichat).media] == [16402, 16404]


def test_ice_and_direction() -> None:
    # RFC 8839 section 5.1's example, and an mDNS name as browsers send it
    text = (
        "v=0\na=sendonly\nm=audio 45664/2 RTP/SAVPF 0 webrtc-datachannel\n"
        "a=candidate:1 1 UDP 2130706431 203.0.113.141 8998 typ host\n"
        "a=candidate:2 1 UDP 1694498815 2001:db8::2 45664 typ srflx raddr 203.0.113.141 rport 8998\n"
        "a=candidate:3 1 udp 1 5f.local 4 typ host\nm=video 9 RTP/AVP\na=inactive\n"
    )
    audio, video = read(text).media
    assert audio.candidates == (
        sdp.Candidate(1, "udp", packed("203.0.113.141"), 8998, "host"),
        sdp.Candidate(1, "udp", packed("2001:db8::2"), 45664, "srflx"),
    )
    assert (audio.port, audio.formats, audio.direction, video.direction) == (
        45664, (0, "webrtc-datachannel"), "sendonly", "inactive"
    )  # fmt: skip
    assert audio.connection is None


def test_refused() -> None:
    many = ("m=a 1 b\n" * 65, "s=" + "x" * 70_000, "m=a 1 b\n" + "a=candidate:1 1 udp 1 192.0.2.1 4 typ host\n" * 129)
    for text in ("m=audio x RTP/AVP 0\n", "m=audio 65536 RTP/AVP 0\n", "m=audio\n", *many):
        with pytest.raises(DecodeError):
            read("v=0\n" + text)
    assert sdp.decode(memoryview(b"hello")) is None


@given(st.text("vocsbtma=: 0123456789.\n\rIP4/;AUDIrtpcndxy", max_size=300), st.binary(max_size=60))
def test_any_bytes(text: str, tail: bytes) -> None:
    payload = b"v=0\n" + text.encode() + tail
    try:
        layer = sdp.decode(memoryview(payload))
    except DecodeError:
        return
    assert layer is not None
    assert layer.consumed == len(payload)
