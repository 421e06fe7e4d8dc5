"""Bytes of session 1: SIP with compact names (RFC 3261 7.3.3), deflated SDP (RFC 8866), RTP and RTCP (RFC 3550).

In: a Scenario and what the call has learned (endpoints). Out: messages.
The SDP violates its grammar where the report's did.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from tests.lab.scenario import Identity, Scenario
from tests.lab.wire_facetime import Address

AGENT = "Viceroy 1.4.1"
AUDIO, VIDEO = 104, 123
_SIZES = "[x=320,y=240,fps=15] [x=640,y=480,fps=30]"


def offer(own: Address) -> bytes:
    """The report's offer: audio, video and RTCP share one port; o= and c= name the address outside the NAT."""
    (address, port), ip = own, _ip(own)
    lines = [
        "v=0", f"o=GKVoiceChatService 0 0 IN {ip} {address}", "s=mobile", f"c=IN {ip} {address}", "b=AS:2000", "t=0 0",
        "a=FLS;VRA:0;MVRA:0;RVRA1:1;AS:2;MS:-1", "a=X_FLS:123 FLS;VRA:0;MVRA:0;RVRA1:1;AS:2;MS:-1", "a=DMBR", "a=CAP",
        f"m=audio {port} RTP/AVP 104 105 106 9 0 124 122 121 119", f"a=rtcp:{port}",
        "a=fmtp:104 sbr;block 480", "a=fmtp:105 sbr;block 480", "a=fmtp:106 sbr;block 480", "a=fmtp:119 sbr;block 480",
        "a=fmtp:121 sbr;block 480", "a=fmtp:122 sbr;block 480", "a=rtpID:1", "a=au:65792",
        f"m=video {port} RTP/AVP 126 123 100", f"a=rtcp:{port}",
        "a=rtpmap:126 X-H264/90000", "a=rtpmap:123 H264/90000", "a=rtpmap:100 HEVC/90000",
        "a=fmtp:126 imagesize 0 rules 15:320:240:320:240:15", "a=fmtp:123 imagesize 0 rules 15:320:240:320:240:15",
        f"a=imageattr:123 send {_SIZES} recv {_SIZES}", "a=rtpID:2",
    ]  # fmt: skip
    return ("\r\n".join(lines) + "\r\n").encode()


def answer(own: Address) -> bytes:
    """The report's answer: fewer codecs, an `a=fmtp:AAC` without payload type, two numbers in b=."""
    (address, port), ip = own, _ip(own)
    lines = [
        "v=0", f"o=GKVoiceChatService 0 0 IN {ip} {address}", "s=mobile", f"c=IN {ip} {address}", "b=AS:2000:2000",
        "t=0 0", "a=FLS;VRA:0;MVRA:0;RVRA1:1;AS:2;MS:-1", "a=DMBR", "a=CAP",
        f"m=audio {port} RTP/AVP 104 106 121 122 119", f"a=rtcp:{port}", "a=fmtp:AAC SamplesPerBlock 480",
        "a=rtpID:1", "a=au:65792",
        f"m=video {port} RTP/AVP 123 100", f"a=rtcp:{port}", "a=rtpmap:123 H264/90000", "a=rtpmap:100 HEVC/90000",
        "a=fmtp:123 imagesize 0 rules 15:320:240:320:240:15", f"a=imageattr:123 send {_SIZES} recv {_SIZES}",
        "a=rtpID:2",
    ]  # fmt: skip
    return ("\r\n".join(lines) + "\r\n").encode()


def _ip(own: Address) -> str:
    return "IP6" if ":" in own[0] else "IP4"


def _host_port(address: Address) -> str:
    return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"


@dataclass(frozen=True)
class Dialog:
    """The SIP dialog as both sides write it: From is the caller, To gets its tag with the first answer."""

    scenario: Scenario
    caller: Address
    callee: Address

    def invite(self) -> bytes:
        return self._request("INVITE", 1, offer(self.caller))

    def ack(self) -> bytes:
        return self._request("ACK", 1)

    def bye(self) -> bytes:
        return self._request("BYE", 2)

    def trying(self) -> bytes:
        return self._response("100 Trying", 1, "INVITE", tagged=False)

    def ringing(self) -> bytes:
        return self._response("180 Ringing", 1, "INVITE")

    def accepted(self) -> bytes:
        return self._response("200 OK", 1, "INVITE", answer(self.callee))

    def bye_accepted(self) -> bytes:
        return self._response("200 OK", 2, "BYE")

    def _uri(self, identity: Identity, address: Address) -> str:
        return f"sip:{identity.user}@{_host_port(address)}"

    def _request(self, method: str, cseq: int, body: bytes = b"") -> bytes:
        callee = self._uri(self.scenario.callee, self.callee)
        start = f"{method} {callee} SIP/2.0"
        return self._message(start, cseq, method, self.caller, body, tagged=method != "INVITE")

    def _response(self, status: str, cseq: int, method: str, body: bytes = b"", tagged: bool = True) -> bytes:
        return self._message(f"SIP/2.0 {status}", cseq, method, self.callee, body, tagged)

    def _message(self, start: str, cseq: int, method: str, sender: Address, body: bytes, tagged: bool) -> bytes:
        s = self.scenario
        packed = zlib.compress(body) if body else b""
        identity = s.caller if sender == self.caller else s.callee
        tag = f";tag={s.callee.tag}" if tagged else ""
        lines = [
            start,
            f"v: SIP/2.0/UDP {_host_port(self.caller)};branch={s.branch}{cseq}{method[0]}",
            f"f: <{self._uri(s.caller, self.caller)}>;tag={s.caller.tag}",
            f"t: <{self._uri(s.callee, self.callee)}>{tag}",
            f"i: {s.call_id}",
            f"CSeq: {cseq} {method}",
            f"m: <{self._uri(identity, sender)}>;isfocus",
            f"User-Agent: {AGENT}",
            *(["Max-Forwards: 70"] if not start.startswith("SIP/2.0") else []),
            *(["c: application/sdp", "e: deflate"] if body else []),
            f"l: {len(packed)}",
        ]
        return ("\r\n".join(lines) + "\r\n\r\n").encode() + packed


def rtp(payload_type: int, sequence: int, timestamp: int, ssrc: int, payload: bytes, marker: bool = False) -> bytes:
    """RFC 3550 5.1."""
    second = payload_type | (0x80 if marker else 0)
    return struct.pack(">BBHII", 0x80, second, sequence & 0xFFFF, timestamp & 0xFFFFFFFF, ssrc) + payload


def sender_report(ssrc: int, now: float, timestamp: int, packets: int, octets: int, name: str) -> bytes:
    """SR and SDES in one compound (RFC 3550 6.4.1, 6.5), as the report's packet 777."""
    seconds = int(now) + 2208988800
    ntp = (seconds & 0xFFFFFFFF, int((now % 1) * (1 << 32)))
    report = struct.pack(">BBHIIIIII", 0x80, 200, 6, ssrc, *ntp, timestamp & 0xFFFFFFFF, packets, octets & 0xFFFFFFFF)
    item = bytes([1, len(name)]) + name.encode() + b"\0"
    chunk = struct.pack(">I", ssrc) + item + bytes(-len(item) % 4)
    return report + struct.pack(">BBH", 0x81, 202, len(chunk) // 4) + chunk


def kind(data: bytes) -> str:
    """What a side finds inside: stun, sip, rtp, rtcp or other (RFC 7983, with SIP told by its text)."""
    if data[:4] in (b"INVI", b"SIP/", b"ACK ", b"BYE "):
        return "sip"
    if data and data[0] < 4:
        return "stun"
    if len(data) >= 8 and data[0] >> 6 == 2:
        return "rtcp" if 200 <= data[1] <= 204 else "rtp"
    return "other"
