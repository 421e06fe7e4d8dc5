"""The cases: a conversation, and what must come of it.

In: nothing. Out: CASES, by name.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.sip.conversations import (
    AGAIN,
    AT_MEDIA,
    BOTH,
    HELD,
    LONG,
    SAME_PORT,
    Leg,
    Phase,
    attributed,
    bye_by_callee,
    called_late,
    cancel,
    challenged,
    changed,
    declined,
    early,
    early_branch_left,
    glare,
    hold,
    hurried,
    late_offer,
    moved,
    prack,
    prack_answers,
    refused_again,
    retransmissions,
    routed,
    silent,
    simple,
    taken_back,
    two_answers,
    two_phones,
    two_phones_ring,
    video_closed,
    with_video,
)
from tests.sip.steps import sdp


@dataclass(frozen=True)
class Case:
    """`media` must arrive whole at the other side. `rtcp`: the control port as an offset from the media port, tried
    both ways while the call is up. `cut`: after the end nothing more passes. `tcp`; `pieces`: bytes a segment of
    either side, 0: messages that follow each other share one. `long`: it takes its time. `ways`: who is inside: the
    caller (out), the callee (in), both (within), both with a proxy outside between them (behind)."""

    name: str
    legs: tuple[Leg, ...]
    media: tuple[Phase, ...] = BOTH
    rtcp: int | None = None
    cut: bool = False
    tcp: bool = False
    pieces: int | None = None
    compact: bool = False
    long: bool = False
    ways: tuple[str, ...] = ("out", "in")


ALL = ("out", "in", "within", "behind")
PROXIED = ("out", "in", "behind")

CASES = {
    case.name: case
    for case in (
        Case("call, BYE by the caller", simple(stay=900), rtcp=1, ways=ALL),
        Case("call, BYE by the callee", bye_by_callee(), ways=PROXIED),
        Case("long silence, BYE by the callee", silent(False), cut=True, ways=("out", "behind"), long=True),
        Case("long silence, BYE by the caller", silent(True), cut=True, ways=("in", "behind"), long=True),
        Case("called long after it registered", called_late(), ways=("in", "behind"), long=True),
        Case("early media (183)", early(), AGAIN, ways=ALL),
        Case("PRACK (RFC 3262), early media", prack(), AGAIN, ways=PROXIED),
        Case("offer in 183, answer in PRACK", prack_answers()),
        Case("offer in 200, answer in ACK", late_offer(), ways=PROXIED),
        Case("UPDATE moves the port (RFC 3311)", moved("UPDATE"), AGAIN, ways=PROXIED),
        Case("re-INVITE moves the port", moved("INVITE"), AGAIN, ways=ALL),
        Case("re-INVITE refused (488)", changed(refused_again()), AGAIN, ways=PROXIED),
        Case(
            "re-INVITE refused after its 183 (RFC 6141)",
            changed(taken_back()),
            (*AGAIN, ("caller", 3), ("callee", 3)),
            ways=PROXIED,
        ),
        Case("hold by sendonly, resumed", hold(direction="sendonly"), (*HELD, ("caller", 2))),
        Case("hold by inactive, resumed", hold(direction="inactive"), HELD),
        Case("hold by 0.0.0.0, resumed", hold(connection="[held_ip]"), HELD, ways=ALL),
        Case("video closed by port 0", video_closed(), AGAIN),
        Case("CANCEL, 487", cancel(), cut=True, ways=ALL),
        Case("CANCEL, never a 487", cancel(with_487=False), ways=PROXIED),
        Case("declined after early media (603)", declined(), cut=True, ways=PROXIED),
        Case("forked outside: two answers", two_answers()),
        Case("forked outside: BYE to one that rings", early_branch_left(), AGAIN),
        Case("two phones ring, one answers", two_phones_ring(), ways=("in",)),
        Case("retransmissions of all", retransmissions()),
        Case("glare (491)", changed(glare()), AGAIN),
        Case("challenged (401)", challenged()),
        Case("compact headers", simple(), compact=True),
        Case("Record-Route and Route", routed()),
        Case("audio and video", with_video(), AGAIN, ways=PROXIED),
        Case(
            "audio, video, RTCP on one port", simple(sdp(*SAME_PORT), sdp(*SAME_PORT), stay=900), rtcp=0, ways=PROXIED
        ),
        Case("a=rtcp at another port (RFC 3605)", attributed("rtcp:{port+7}"), rtcp=7, ways=PROXIED),
        Case("RTCP on the media port (RFC 5761)", attributed("rtcp-mux"), rtcp=0),
        Case("c= at the media only", simple(AT_MEDIA, AT_MEDIA)),
        Case("INVITE longer than a packet", simple(sdp(more=LONG), sdp(more=LONG))),
        Case("nothing passes after BYE", simple(), cut=True),
        Case("two phones, the same ports", two_phones()),
        Case("TCP", simple(stay=900), rtcp=1, tcp=True, ways=ALL),
        Case("TCP: early media", early(), AGAIN, tcp=True),
        Case("TCP: re-INVITE moves the port", moved("INVITE"), AGAIN, tcp=True),
        Case("TCP: a message in many segments", simple(), tcp=True, pieces=90),
        Case("TCP: several messages a segment", hurried(), tcp=True, pieces=0),
        Case("TCP: two phones, the same ports", two_phones(), tcp=True),
    )
}
