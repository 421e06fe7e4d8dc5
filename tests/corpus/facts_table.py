"""The 2015 report's facts, row by row, as what tshark must show at the report's frame number.

A check is (field, relation, value): `has` this value among the field's, `lacks` it, `all`: exactly these. Values are
templates over `h` (hosts), `v` (variation) and `private` (Apple's attributes); addresses name hosts of the variation.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Check = tuple[str, Literal["has", "lacks", "all"], str]


class Row(NamedTuple):
    """`src` and `dst` are fields of Hosts; `sdp`: needs a body that the SIP headers explain."""

    session: int
    frame: int
    src: str
    dst: str
    what: str
    checks: tuple[Check, ...]
    sdp: bool = False


TYPE, ATTRIBUTE, PORT, RTP = "stun.type", "stun.att.type", "stun.att.port", "rtp.p_type"
ALLOCATE, ALLOCATED, REFRESH, BIND, BOUND, BIND_ERROR = "0x0003", "0x0103", "0x0004", "0x0009", "0x0109", "0x0119"
CHECK, ANSWER = "0x0001", "0x0101"


def stun(kind: str, *more: Check) -> tuple[Check, ...]:
    return ((TYPE, "all", kind), *more)


def attributes(*numbers: str) -> tuple[Check, ...]:
    """Numbers that tshark has no name for it shows as an expert message only."""
    return tuple(
        ("_ws.expert.message", "has", f"Unknown attribute {number}")
        if number in ("0x8005", "0x8009")
        else (ATTRIBUTE, "has", number)
        for number in numbers
    )


def lifetime(seconds: int) -> Check:
    return ("stun.att.lifetime", "all", str(seconds))


IN_CHANNEL: Check = ("stun.channel", "all", "{channel}")
DIRECT: Check = ("stun.channel", "lacks", "{channel}")
CONTROLLING: Check = (ATTRIBUTE, "has", "0x802a")
CONTROLLED: Check = (ATTRIBUTE, "has", "0x8029")
NOMINATES: Check = (ATTRIBUTE, "has", "0x0025")
UNKNOWN = attributes("0x0006", "0x8001", "0x8002", "0x8003", "0x8009")
ANSWERS = attributes("0x0006", "0x0001", "0x8001", "0x8003", "0x8004", "0x8005", "0x8009")
TOKEN = (*attributes("0x0016", "0x0022"), (ATTRIBUTE, "lacks", "0x0006"), lifetime(60))
MAPPED: tuple[Check, ...] = (*attributes("0x0016", "0x0020"), (PORT, "has", "{v.media_port}"))
TO_PEER: tuple[Check, ...] = ((PORT, "all", "{v.peer_port}"), ("stun.att.addr", "all", "{h.peer_public}"))
PUSH: tuple[Check, ...] = (("tls.record.content_type", "has", "23"),)
MEDIA_TYPES = ("104", "119", "123")


def method(name: str) -> tuple[Check, ...]:
    return (("sip.Method", "all", name),)


def status(code: int, of: str = "INVITE") -> tuple[Check, ...]:
    return (("sip.Status-Code", "all", str(code)), ("sip.CSeq.method", "all", of))


OFFER: tuple[Check, ...] = (
    ("sdp.owner", "all", "GKVoiceChatService 0 0 IN {ip} {h.own_public}"),
    ("sdp.session_name", "all", "mobile"),
    ("sdp.connection_info", "all", "IN {ip} {h.own_public}"),
    ("sdp.media", "has", "audio {v.media_port} RTP/AVP 104 105 106 9 0 124 122 121 119"),
    ("sdp.media", "has", "video {v.media_port} RTP/AVP 126 123 100"),
    ("sdp.media_attr", "has", "rtcp:{rtcp}"),
    ("sdp.media_attr", "has", "au:65792"),
)
REPLY: tuple[Check, ...] = (
    ("sdp.bandwidth", "all", "AS:2000:2000"),
    ("sdp.media", "has", "audio {v.peer_port} RTP/AVP 104 106 121 122 119"),
    ("sdp.media", "has", "video {v.peer_port} RTP/AVP 123 100"),
    ("sdp.media_attr", "has", "fmtp:AAC SamplesPerBlock 480"),
)
HTTP_GET: tuple[Check, ...] = (
    ("http.request.method", "all", "GET"),
    ("http.request.uri", "all", "/connectivity.txt"),
    ("http.host", "all", "static.ess.apple.com:80"),
)
HTTP_OK: tuple[Check, ...] = (
    ("http.response.code", "all", "200"),
    ("http.server", "all", "Apache"),
    ("http.content_length_header", "all", "13"),
)

SESSION_1 = (
    Row(1, 60, "client", "relay", "Allocate request", stun(ALLOCATE, *TOKEN)),
    Row(1, 64, "client", "web_probe", "GET /connectivity.txt", HTTP_GET),
    Row(1, 66, "web_probe", "client", "its answer", HTTP_OK),
    Row(1, 82, "relay", "client", "Allocate success", stun(ALLOCATED, *MAPPED)),
    Row(1, 110, "client", "courier", "signalling", PUSH),
    Row(1, 120, "courier", "client", "signalling", PUSH),
    Row(1, 121, "client", "relay", "ChannelBind", stun(BIND, *TO_PEER)),
    Row(1, 122, "client", "relay", "check in ChannelData", stun(CHECK, IN_CHANNEL, *UNKNOWN, CONTROLLING)),
    Row(1, 132, "client", "relay", "another", stun(CHECK, IN_CHANNEL)),
    Row(1, 142, "client", "relay", "another", stun(CHECK, IN_CHANNEL)),
    Row(1, 156, "client", "relay", "ChannelBind repeated", stun(BIND, *TO_PEER)),
    Row(1, 158, "relay", "client", "and answered", stun(BOUND)),
    Row(1, 160, "relay", "client", "response", stun(ANSWER, IN_CHANNEL, *ANSWERS, (PORT, "all", "{v.turn_port}"))),
    Row(1, 161, "client", "peer_local", "check to the local address", stun(CHECK, DIRECT, *UNKNOWN)),
    Row(1, 162, "relay", "client", "the peer's check", stun(CHECK, IN_CHANNEL, CONTROLLED)),
    Row(1, 164, "client", "relay", "USE-CANDIDATE", stun(CHECK, IN_CHANNEL, NOMINATES, CONTROLLING)),
    Row(1, 169, "client", "relay", "INVITE", method("INVITE")),
    Row(1, 169, "client", "relay", "SDP offer", OFFER, sdp=True),
    Row(1, 170, "relay", "client", "100", status(100)),
    Row(1, 171, "relay", "client", "180", status(180)),
    Row(1, 172, "relay", "client", "200", status(200)),
    Row(1, 172, "relay", "client", "SDP answer", REPLY, sdp=True),
    Row(1, 173, "client", "relay", "ACK", method("ACK")),
    Row(1, 280, "peer_public", "client", "direct check", stun(CHECK, DIRECT, *UNKNOWN, CONTROLLED)),
    Row(1, 281, "client", "peer_public", "answer", stun(ANSWER, DIRECT, *ANSWERS)),
    Row(1, 283, "client", "peer_public", "direct USE-CANDIDATE", stun(CHECK, DIRECT, NOMINATES)),
    Row(1, 299, "peer_public", "client", "reply", stun(ANSWER, DIRECT)),
    Row(1, 777, "client", "peer_public", "SR and SDES", (("rtcp.pt", "has", "200"), ("rtcp.pt", "has", "202"))),
    Row(1, 5786, "client", "{bye}", "BYE", method("BYE")),
    Row(1, 5790, "{bye}", "client", "its answer", status(200, "BYE")),
    Row(1, 5791, "client", "relay", "Refresh 0", stun(REFRESH, lifetime(0))),
    *(
        Row(1, n, "", "", "relayed RTP", (("udp.port", "has", "{v.relay_port}"), (RTP, "has", "media")))
        for n in range(175, 280)
    ),
    *(
        Row(1, n, "", "", "direct RTP", (("udp.port", "has", "{v.peer_port}"), (RTP, "has", "media")))
        for n in (300, 301, 302)
    ),
)
SESSION_2 = (
    Row(2, 72, "client", "relay", "Allocate request", stun(ALLOCATE, *TOKEN)),
    Row(2, 102, "client", "relay", "callee controls", stun(CHECK, IN_CHANNEL, CONTROLLING, *UNKNOWN)),
    Row(2, 121, "client", "peer_local", "check to the caller's local address", stun(CHECK, DIRECT, CONTROLLING)),
    Row(2, 140, "client", "relay", "the offer is still ours", method("INVITE")),
    Row(2, 140, "client", "relay", "SDP offer", OFFER, sdp=True),
    Row(2, 143, "relay", "client", "200", status(200)),
    Row(2, 3400, "{bye}", "client", "BYE", method("BYE")),
    Row(2, 3404, "client", "{bye}", "its answer", status(200, "BYE")),
    Row(2, 3405, "client", "relay", "Refresh 0", stun(REFRESH, lifetime(0))),
)
ROUTER_PORT: Check = (PORT, "all", "{v.nat_port}")
SESSION_3 = (
    Row(3, 71, "client2", "own_public", "check to the public address", stun(CHECK, CONTROLLED, *UNKNOWN)),
    Row(3, 82, "client", "client2", "check to the local address", stun(CHECK, *UNKNOWN)),
    Row(3, 101, "client2", "client", "check to the local address", stun(CHECK, *UNKNOWN)),
    Row(3, 135, "client", "relay", "first allocation", stun(ALLOCATE, *TOKEN)),
    Row(3, 138, "relay", "client", "its success", stun(ALLOCATED)),
    Row(3, 169, "client2", "client", "answer to 82", stun(ANSWER, ("stun.response-to", "all", "82"))),
    Row(3, 171, "client", "client2", "answer to 101", stun(ANSWER, ("stun.response-to", "all", "101"))),
    Row(3, 178, "client2", "relay2", "second allocation", stun(ALLOCATE, *TOKEN)),
    Row(3, 182, "client", "client2", "USE-CANDIDATE", stun(CHECK, NOMINATES)),
    Row(3, 192, "client", "client2", "INVITE on the direct path", method("INVITE")),
    Row(3, 229, "client", "relay", "channel freed", stun(BIND, lifetime(0))),
    Row(3, 252, "client2", "relay2", "ChannelBind to port 1024", stun(BIND, ROUTER_PORT)),
    Row(3, 256, "relay2", "client2", "437", stun(BIND_ERROR, ("stun.att.error", "all", "37"))),
    Row(3, 257, "client2", "relay2", "Refresh 0", stun(REFRESH, lifetime(0))),
)
SESSION_4 = (
    Row(4, 357, "client", "client2", "check to the local address", stun(CHECK, *UNKNOWN)),
    Row(4, 364, "client", "own_public", "check to the public address", stun(CHECK, *UNKNOWN)),
    Row(4, 366, "router", "client", "ICMP destination unreachable", (("icmp.unreachable", "all", "{unreachable}"),)),
    Row(4, 417, "client", "relay", "first allocation", stun(ALLOCATE, *TOKEN)),
    Row(4, 418, "relay", "client", "its success", stun(ALLOCATED, *MAPPED)),
    Row(4, 439, "client2", "relay2", "second allocation", stun(ALLOCATE, *TOKEN)),
    Row(4, 448, "relay2", "client2", "its success", stun(ALLOCATED, *MAPPED)),
    Row(4, 475, "client", "relay", "ChannelBind", stun(BIND)),
    Row(4, 508, "client2", "relay2", "ChannelBind, lost", stun(BIND)),
    Row(4, 509, "client2", "relay2", "channel used before", stun(CHECK, ("stun.channel", "all", "{channel2}"))),
    Row(4, 540, "client", "relay", "INVITE", method("INVITE")),
    Row(4, 556, "client", "own_public", "the hole", stun(CHECK, DIRECT)),
    Row(4, 557, "own_public", "client2", "after the NAT", stun(CHECK, DIRECT)),
    Row(4, 578, "client2", "relay2", "ChannelBind repeated", stun(BIND, ("stun.id", "all", "as in 508"))),
    Row(4, 585, "client", "relay", "channel released", stun(BIND, lifetime(0))),
    Row(4, 589, "relay2", "client2", "late answer", stun(BOUND, ("stun.id", "all", "as in 508"))),
)
SESSION_5 = (
    Row(5, 92, "client", "relay", "channel created", stun(BIND, *TO_PEER)),
    Row(5, 120, "client", "relay", "INVITE", method("INVITE")),
    Row(5, 150, "client", "relay", "channel released", stun(BIND, lifetime(0))),
    Row(5, 6216, "peer_public", "client", "the last direct packet", ((RTP, "has", "media"),)),
    Row(5, 6892, "client", "peer_public", "direct copy", ((RTP, "has", "media"), ("rtp.seq", "all", "51593"))),
    Row(5, 6893, "client", "relay", "relayed copy", ((RTP, "has", "media"), ("rtp.seq", "all", "51593"))),
    Row(5, 9252, "client", "courier", "signalling", PUSH),
    Row(5, 9598, "client", "relay", "BYE", method("BYE")),
    Row(5, 9600, "client", "relay2", "a new allocation", stun(ALLOCATE, *TOKEN)),
    Row(5, 9605, "client", "relay", "BYE again", method("BYE")),
    Row(5, 9623, "client", "relay", "BYE again", method("BYE")),
    Row(5, 9633, "client", "relay", "BYE again", method("BYE")),
    Row(5, 9690, "client", "relay2", "the call starts over", method("INVITE")),
)
ROWS = (*SESSION_1, *SESSION_2, *SESSION_3, *SESSION_4, *SESSION_5)
