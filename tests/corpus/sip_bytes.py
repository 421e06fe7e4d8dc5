"""SIP with compact header names and the GKVoiceChatService SDP, as the 2015 report lists them
(RFC 3261 7.3.3, RFC 8866).

In: a Dialog and how its bodies are encoded. Out: messages as bytes.
"""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from typing import Literal

Encoding = Literal["zlib", "raw", "gzip", "identity"]


@dataclass(frozen=True)
class Party:
    """One side of a dialog: its address as the SDP names it (outside the NAT), its ports, its name and its tag."""

    host: str
    port: int
    rtcp: int
    user: str
    tag: str

    @property
    def uri(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"sip:{self.user}@{host}:{self.port}"


@dataclass(frozen=True)
class Dialog:
    offerer: Party
    answerer: Party
    call_id: str
    branch: str
    cseq: int
    rtp_id: int
    encoding: Encoding
    encoding_header: bool
    user_agent: str | None

    def invite(self) -> bytes:
        return self._request("INVITE", self.offerer, self.answerer, self.cseq, self.branch, "", self._offer())

    def response(self, status: int, reason: str, to_tag: bool = True, answer: bool = False) -> bytes:
        head = [f"SIP/2.0 {status} {reason}", self._via(self.offerer, self.branch)]
        head += [*self._ends(self.offerer, self.answerer, to_tag), f"CSeq: {self.cseq} INVITE"]
        if status >= 180:
            head.append(f"m: <{self.answerer.uri}>")
        return self._close(head, self._answer() if answer else None)

    def ack(self) -> bytes:
        return self._request("ACK", self.offerer, self.answerer, self.cseq, self.branch + "a", self.answerer.tag, None)

    def bye(self, by_offerer: bool = True) -> bytes:
        a, b = (self.offerer, self.answerer) if by_offerer else (self.answerer, self.offerer)
        return self._request("BYE", a, b, self.cseq + 1, self.branch + "b", b.tag, None)

    def bye_answer(self, by_offerer: bool = True) -> bytes:
        a, b = (self.offerer, self.answerer) if by_offerer else (self.answerer, self.offerer)
        head = ["SIP/2.0 200 OK", self._via(a, self.branch + "b"), *self._ends(a, b, True)]
        return self._close([*head, f"CSeq: {self.cseq + 1} BYE"], None)

    def _request(
        self, method: str, a: Party, b: Party, cseq: int, branch: str, to_tag: str, body: bytes | None
    ) -> bytes:
        head = [f"{method} {b.uri} SIP/2.0", self._via(a, branch), "Max-Forwards: 70"]
        head += [*self._ends(a, b, bool(to_tag)), f"CSeq: {cseq} {method}"]
        if method == "INVITE":
            head.append(f"m: <{a.uri}>;isfocus")
        return self._close(head, body)

    @staticmethod
    def _via(a: Party, branch: str) -> str:
        return f"v: SIP/2.0/UDP {a.uri.rpartition('@')[2]};branch=z9hG4bK{branch}"

    def _ends(self, a: Party, b: Party, to_tag: bool) -> list[str]:
        tag = f";tag={b.tag}" if to_tag else ""
        return [f'f: "{a.user}" <{a.uri}>;tag={a.tag}', f"t: <{b.uri}>{tag}", f"i: {self.call_id}"]

    def _close(self, head: list[str], body: bytes | None) -> bytes:
        if self.user_agent is not None:
            head.append(f"User-Agent: {self.user_agent}")
        if body is not None:
            head.append("c: application/sdp")
            if self.encoding_header and self.encoding != "identity":
                head.append("e: gzip" if self.encoding == "gzip" else "e: deflate")
        packed = b"" if body is None else encode(body, self.encoding)
        return "\r\n".join([*head, f"l: {len(packed)}", "", ""]).encode() + packed

    def _offer(self) -> bytes:
        return sdp(self.offerer, self.rtp_id, "AS:2000", OFFER_AUDIO, OFFER_VIDEO)

    def _answer(self) -> bytes:
        return sdp(self.answerer, self.rtp_id ^ 0x5A5A, "AS:2000:2000", ANSWER_AUDIO, ANSWER_VIDEO)


FMTP = {
    104: "sbr;block 480",
    105: "sbr;block 480",
    106: "sbr;block 480",
    119: "octet-align",
    121: "block 480",
    122: "block 480",
}
VIDEO_NAMES = {126: "X-H264", 123: "H264", 100: "HEVC"}
OFFER_AUDIO, OFFER_VIDEO = (104, 105, 106, 9, 0, 124, 122, 121, 119), (126, 123, 100)
ANSWER_AUDIO, ANSWER_VIDEO = (104, 106, 121, 122, 119), (123, 100)


def sdp(party: Party, rtp_id: int, bandwidth: str, audio: tuple[int, ...], video: tuple[int, ...]) -> bytes:
    """Offer or answer: both m= lines on one port, `a=rtcp:` beside it, and lines no grammar knows."""
    where = f"IN IP{6 if ':' in party.host else 4} {party.host}"
    lines = ["v=0", f"o=GKVoiceChatService 0 0 {where}", "s=mobile", f"c={where}", f"b={bandwidth}", "t=0 0"]
    lines += [
        "a=FLS;VRA:0;MVRA:0;RVRA1:1;AS:2;MS:-1;LTR;CABAC",
        "a=X_FLS:123 FLS;VRA:0;LTR;CABAC;FEC",
        "a=DMBR",
        "a=CAP",
    ]
    lines += [f"m=audio {party.port} RTP/AVP {' '.join(map(str, audio))}", f"a=rtcp:{party.rtcp}"]
    if audio == ANSWER_AUDIO:
        lines.append("a=fmtp:AAC SamplesPerBlock 480")
    lines += [f"a=fmtp:{pt} {FMTP[pt]}" for pt in audio if pt in FMTP]
    lines += [f"a=rtpID:{rtp_id}", "a=au:65792", f"m=video {party.port} RTP/AVP {' '.join(map(str, video))}"]
    lines += [f"a=rtcp:{party.rtcp}"]
    for pt in video:
        lines += [f"a=rtpmap:{pt} {VIDEO_NAMES[pt]}/90000", f"a=fmtp:{pt} imagesize 0 rules 15:320:240:320:240:15"]
        lines.append(f"a=imageattr:{pt} send [x=320,y=240,fps=15] [x=480,y=368,fps=15] recv [x=480,y=368,fps=15]")
    return "\r\n".join([*lines, f"a=rtpID:{rtp_id + 1}", ""]).encode()


def encode(body: bytes, encoding: Encoding) -> bytes:
    """zlib: RFC 1950, as RFC 9110 8.4.1.2 means `deflate`; raw: RFC 1951, as many send it."""
    if encoding == "gzip":
        return gzip.compress(body, mtime=0)
    if encoding == "identity":
        return body
    packer = zlib.compressobj(9, zlib.DEFLATED, 15 if encoding == "zlib" else -15)
    return packer.compress(body) + packer.flush()
