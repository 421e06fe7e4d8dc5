"""Conversations: the steps of a caller and of a callee that belong together.

In: descriptions. Out: legs. Who is inside is the run's choice, not theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.sip.steps import Party, Stream, done, ignore, pause, play, sdp

Steps = Callable[[Party], list[str]]
Phase = tuple[str, int]
"""Who speaks, and the how manieth time."""

BOTH: tuple[Phase, ...] = (("caller", 1), ("callee", 1))
AGAIN: tuple[Phase, ...] = (*BOTH, ("caller", 2), ("callee", 2))


@dataclass(frozen=True)
class Leg:
    """One call: its parties' steps; the phone that takes part (from 0), and the outside party's port."""

    caller: Steps
    callee: Steps
    phone: int = 0
    port: int = 5060


def _begin(p: Party, body: str | None = None) -> list[str]:
    return [
        p.invite(body),
        ignore(100),
        ignore(180),
        ignore(183),
        p.answered(200),
        p.request("ACK", 1, retransmit=False),
    ]


def _ring(p: Party, body: str = "") -> list[str]:
    return [
        p.asked(),
        p.respond(180, "Ringing"),
        pause(60),
        p.respond(200, "OK", body or sdp(), retransmit=True),
        p.told("ACK"),
    ]


def _bye(p: Party, cseq: int = 9) -> list[str]:
    return [p.request("BYE", cseq), done()]


def _gone(p: Party) -> list[str]:
    return [p.told("BYE"), p.reply()]


def _talk(who: str, phase: int = 1, milliseconds: int = 250) -> list[str]:
    return [play(who, phase), pause(milliseconds)]


def simple(
    offer: str | None = None,
    answer: str = "",
    more_caller: Steps | None = None,
    more_callee: Steps | None = None,
    stay: int = 250,
) -> tuple[Leg, ...]:
    """A call, something within it, BYE by the caller."""

    def caller(p: Party) -> list[str]:
        return [*_begin(p, offer), *_talk("caller", 1, stay), *(more_caller(p) if more_caller else []), *_bye(p)]

    def callee(p: Party) -> list[str]:
        return [*_ring(p, answer), *_talk("callee", 1, 0), *(more_callee(p) if more_callee else []), *_gone(p)]

    return (Leg(caller, callee),)


def bye_by_callee() -> tuple[Leg, ...]:
    return (
        Leg(
            lambda p: [*_begin(p), *_talk("caller"), *_gone(p)],
            lambda p: [*_ring(p), *_talk("callee", 1, 300), *_bye(p, 1)],
        ),
    )


LONG_SILENCE = 9000
"""Milliseconds: longer than the town's conntrack keeps a flow that says nothing."""


def silent(caller_ends: bool) -> tuple[Leg, ...]:
    """Nobody says anything for so long; then one hangs up."""
    quiet = pause(LONG_SILENCE)

    def caller(p: Party) -> list[str]:
        return [*_begin(p), *_talk("caller"), *([quiet, *_bye(p)] if caller_ends else _gone(p))]

    def callee(p: Party) -> list[str]:
        return [*_ring(p), *_talk("callee", 1, 300), *(_gone(p) if caller_ends else [quiet, *_bye(p, 1)])]

    return (Leg(caller, callee),)


def called_late() -> tuple[Leg, ...]:
    """The callee has registered and says nothing; after so long it is called."""
    return (
        Leg(
            lambda p: [pause(LONG_SILENCE), *_begin(p), *_talk("caller"), *_bye(p)],
            lambda p: [*_ring(p), *_talk("callee", 1, 0), *_gone(p)],
        ),
    )


def early() -> tuple[Leg, ...]:
    def caller(p: Party) -> list[str]:
        return [p.invite(), ignore(100), p.answered(183), play("caller", 1), p.answered(200), p.request("ACK", 1),
                play("caller", 2), pause(), *_bye(p)]  # fmt: skip

    def callee(p: Party) -> list[str]:
        return [p.asked(), p.respond(183, "Session Progress", sdp()), play("callee", 1), pause(300),
                p.respond(200, "OK", sdp(), retransmit=True), p.told("ACK"), play("callee", 2), *_gone(p)]  # fmt: skip

    return (Leg(caller, callee),)


def prack() -> tuple[Leg, ...]:
    def caller(p: Party) -> list[str]:
        return [p.invite(more=(("Supported", "100rel"),)), ignore(100), p.answered(183),
                p.request("PRACK", 2, more=(("RAck", "1 1 INVITE"),)), done(), play("caller", 1), p.answered(200),
                p.request("ACK", 1), play("caller", 2), pause(), *_bye(p)]  # fmt: skip

    def callee(p: Party) -> list[str]:
        return [p.asked(), p.respond(183, "Session Progress", sdp(), (("Require", "100rel"), ("RSeq", "1"))),
                p.told("PRACK"), p.reply(), play("callee", 1), pause(300), p.respond(200, "OK", retransmit=True),
                p.told("ACK"), play("callee", 2), *_gone(p)]  # fmt: skip

    return (Leg(caller, callee),)


def prack_answers() -> tuple[Leg, ...]:
    """The offer comes in a reliable 183, the answer in PRACK (RFC 3262 section 5)."""

    def caller(p: Party) -> list[str]:
        return [p.request("INVITE", 1, "", p.target, f"<{p.target}>", more=(("Supported", "100rel"),)), ignore(100),
                p.answered(183), p.request("PRACK", 2, sdp(), more=(("RAck", "1 1 INVITE"),)), done(),
                play("caller", 1), p.answered(200), p.request("ACK", 1), pause(), *_bye(p)]  # fmt: skip

    def callee(p: Party) -> list[str]:
        return [p.asked(), p.respond(183, "Session Progress", sdp(), (("Require", "100rel"), ("RSeq", "1"))),
                p.told("PRACK"), p.reply(), play("callee", 1), pause(300), p.respond(200, "OK", retransmit=True),
                p.told("ACK"), *_gone(p)]  # fmt: skip

    return (Leg(caller, callee),)


MOVED = Stream(offset=4)


def again(method: str, offer: str, answer: str, phase: int = 2, speak: str = "both") -> tuple[Steps, Steps]:
    """Within the call: another offer, its answer, then media."""

    def caller(p: Party) -> list[str]:
        ack = [p.request("ACK", phase)] if method == "INVITE" else []
        return [p.request(method, phase, offer), ignore(100), p.answered(200), *ack,
                *(_talk("caller", phase) if speak in ("both", "caller") else [pause()])]  # fmt: skip

    def callee(p: Party) -> list[str]:
        ack = [p.told("ACK")] if method == "INVITE" else []
        return [p.told(method), p.reply(200, "OK", answer, method == "INVITE"), *ack,
                *([play("callee", phase)] if speak in ("both", "callee") else [])]  # fmt: skip

    return caller, callee


def _joined(*parts: tuple[Steps, Steps]) -> tuple[Steps, Steps]:
    return (
        lambda p: [step for caller, _ in parts for step in caller(p)],
        lambda p: [step for _, callee in parts for step in callee(p)],
    )


def changed(*parts: tuple[Steps, Steps]) -> tuple[Leg, ...]:
    caller, callee = _joined(*parts)
    return simple(more_caller=caller, more_callee=callee)


def refused_again() -> tuple[Steps, Steps]:
    def caller(p: Party) -> list[str]:
        branch = "z9hG4bK-[pid]-[call_number]-again"
        return [p.request("INVITE", 2, sdp(*VIDEO, version=2), branch=branch), ignore(100), p.answered(488),
                p.request("ACK", 2, branch=branch), *_talk("caller", 2)]  # fmt: skip

    def callee(p: Party) -> list[str]:
        return [p.told("INVITE"), p.reply(488, "Not Acceptable Here"), p.told("ACK"), play("callee", 2)]

    return caller, callee


def taken_back() -> tuple[Steps, Steps]:
    """A re-INVITE that a 183 answered, then refused: what was agreed before holds again (RFC 6141 section 3.4)."""
    branch = "z9hG4bK-[pid]-[call_number]-again"
    offer = sdp(*VIDEO, version=2)

    def caller(p: Party) -> list[str]:
        return [p.request("INVITE", 2, offer, branch=branch), ignore(100), p.answered(183), *_talk("caller", 2, 100),
                p.answered(488), p.request("ACK", 2, branch=branch), *_talk("caller", 3)]  # fmt: skip

    def callee(p: Party) -> list[str]:
        return [p.told("INVITE"), p.reply(183, "Session Progress", sdp(*VIDEO, version=2)), *_talk("callee", 2, 300),
                p.reply(488, "Not Acceptable Here"), p.told("ACK"), play("callee", 3)]  # fmt: skip

    return caller, callee


def early_branch_left() -> tuple[Leg, ...]:
    """A proxy outside forked the INVITE, both branches ring with media; the caller gives one of them up by BYE (RFC
    3261 section 15), the other answers."""

    def caller(p: Party) -> list[str]:
        first, second = (f"<{p.target}>;tag=branch-{letter}" for letter in "ab")
        return [p.invite(), ignore(100), p.answered(183), *_talk("caller", 1, 0), p.answered(183),
                p.request("BYE", 2, other=second), done(), p.answered(200), p.request("ACK", 1, other=first),
                *_talk("caller", 2), p.request("BYE", 3, other=first), done()]  # fmt: skip

    def callee(p: Party) -> list[str]:
        ringing = [p.respond(183, "Session Progress", sdp(), tag=f"branch-{letter}") for letter in "ab"]
        return [p.asked(), ringing[0], play("callee", 1), pause(200), ringing[1], p.told("BYE"), p.reply(), pause(150),
                p.respond(200, "OK", sdp(), tag="branch-a", retransmit=True), p.told("ACK"), play("callee", 2),
                *_gone(p)]  # fmt: skip

    return (Leg(caller, callee),)


def glare() -> tuple[Steps, Steps]:
    """Two offers cross, both are refused by 491 (RFC 3261 section 14.1); the caller asks again and moves."""
    branch = "z9hG4bK-[pid]-[call_number]-glare"
    crossing, repeated = sdp(Stream(offset=8), version=2), again("INVITE", sdp(MOVED, version=3), sdp(version=3))

    def caller(p: Party) -> list[str]:
        return [p.asked(), p.request("INVITE", 5, crossing, branch=branch, retransmit=False), p.answered(491),
                p.respond(491, "Request Pending", tag=""), p.told("ACK"), p.request("ACK", 5, branch=branch),
                p.request("INVITE", 6, sdp(MOVED, version=3)), p.answered(200), p.request("ACK", 6),
                *_talk("caller", 2)]  # fmt: skip

    def callee(p: Party) -> list[str]:
        return [pause(300), p.request("INVITE", 1, crossing, branch=branch, retransmit=False), p.told("INVITE"),
                p.reply(491, "Request Pending"), done(491), p.request("ACK", 1, branch=branch), p.told("ACK"),
                *repeated[1](p)]  # fmt: skip

    return caller, callee


def cancel(with_487: bool = True) -> tuple[Leg, ...]:
    def caller(p: Party) -> list[str]:
        end = [p.answered(487), p.refused_ack()] if with_487 else [pause(100)]
        return [p.invite(), ignore(100), p.answered(183), *_talk("caller"), p.cancel(), done(), *end]

    def callee(p: Party) -> list[str]:
        end = [p.respond(487, "Request Terminated", retransmit=True), p.told("ACK")] if with_487 else []
        return [
            p.asked(),
            p.respond(183, "Session Progress", sdp()),
            play("callee", 1),
            p.told("CANCEL"),
            p.reply(),
            *end,
        ]

    return (Leg(caller, callee),)


def declined() -> tuple[Leg, ...]:
    def caller(p: Party) -> list[str]:
        return [p.invite(), ignore(100), p.answered(183), *_talk("caller"), p.answered(603), p.refused_ack()]

    def callee(p: Party) -> list[str]:
        return [p.asked(), p.respond(183, "Session Progress", sdp()), play("callee", 1), pause(600),
                p.respond(603, "Decline", retransmit=True), p.told("ACK")]  # fmt: skip

    return (Leg(caller, callee),)


def challenged() -> tuple[Leg, ...]:
    def caller(p: Party) -> list[str]:
        credentials = (("", "[authentication username=caller password=secret]"),)
        return [p.invite(), ignore(100), p.answered(401), p.refused_ack(), p.invite(cseq=2, more=credentials),
                ignore(100), ignore(180), p.answered(200), p.request("ACK", 2), *_talk("caller"), *_bye(p)]  # fmt: skip

    def callee(p: Party) -> list[str]:
        challenge = (("WWW-Authenticate", 'Digest realm="lab", nonce="47364c23432d2e131a5fb210812c", algorithm=MD5'),)
        return [p.asked(), p.respond(401, "Unauthorized", "", challenge, True), p.told("ACK"), *_ring(p),
                *_talk("callee", 1, 0), *_gone(p)]  # fmt: skip

    return (Leg(caller, callee),)


def two_answers() -> tuple[Leg, ...]:
    """A proxy outside forked the INVITE, two of its branches answer; the first is kept (RFC 3261 section 13.2.2.4)."""

    def caller(p: Party) -> list[str]:
        first, second = (f"<{p.target}>;tag=branch-{letter}" for letter in "ab")
        return [p.invite(), ignore(100), ignore(180), p.answered(200), p.request("ACK", 1, other=first),
                p.answered(200), p.request("ACK", 1, other=second), p.request("BYE", 2, other=second), done(),
                *_talk("caller"), p.request("BYE", 3, other=first), done()]  # fmt: skip

    def callee(p: Party) -> list[str]:
        return [p.asked(), p.respond(180, "Ringing", tag="branch-a"), p.respond(180, "Ringing", tag="branch-b"),
                p.respond(200, "OK", sdp(), tag="branch-a"), p.told("ACK"),
                p.respond(200, "OK", sdp(), tag="branch-b"), p.told("ACK"), p.told("BYE"), p.reply(),
                play("callee", 1), *_gone(p)]  # fmt: skip

    return (Leg(caller, callee),)


def two_phones_ring() -> tuple[Leg, ...]:
    """The same INVITE to two phones inside; one answers, the other's branch is cancelled."""
    answering = simple()[0]

    def loser_caller(p: Party) -> list[str]:
        return [
            p.invite(),
            ignore(100),
            p.answered(180),
            pause(400),
            p.cancel(),
            done(),
            p.answered(487),
            p.refused_ack(),
        ]

    def loser(p: Party) -> list[str]:
        return [p.asked(), p.respond(180, "Ringing"), p.told("CANCEL"), p.reply(),
                p.respond(487, "Request Terminated", retransmit=True), p.told("ACK")]  # fmt: skip

    return (
        Leg(lambda p: [pause(150), *answering.caller(p)], answering.callee, 0, 5060),
        Leg(loser_caller, loser, 1, 5062),
    )


def retransmissions() -> tuple[Leg, ...]:
    """Whoever has to answer waits until the other has sent again: INVITE twice, 200 once, BYE once."""

    def caller(p: Party) -> list[str]:
        return [p.invite(), ignore(100), ignore(180), p.answered(200), pause(700), p.request("ACK", 1),
                *_talk("caller"), *_bye(p)]  # fmt: skip

    def callee(p: Party) -> list[str]:
        return [p.asked(), pause(700), *_ring(p)[1:], play("callee", 1), p.told("BYE"), pause(700), p.reply()]

    return (Leg(caller, callee),)


def late_offer() -> tuple[Leg, ...]:
    """No description in the INVITE: the offer is in 200, the answer in ACK (RFC 3261 section 13.2.1)."""

    def caller(p: Party) -> list[str]:
        return [p.request("INVITE", 1, "", p.target, f"<{p.target}>"), ignore(100), ignore(180), p.answered(200),
                p.request("ACK", 1, sdp()), *_talk("caller"), *_bye(p)]  # fmt: skip

    return (Leg(caller, simple()[0].callee),)


def routed() -> tuple[Leg, ...]:
    """A proxy at the outside party's address stays in the path: Record-Route, then Route (RFC 3261 section 16.12)."""

    def callee(p: Party) -> list[str]:
        own = (("Record-Route", "<sip:[own];lr>"),)
        return [p.asked(), p.respond(200, "OK", sdp(), own, True), p.told("ACK"), play("callee", 1), *_gone(p)]

    def caller(p: Party) -> list[str]:
        return [p.invite(), ignore(100), p.answered(200), p.request("ACK", 1, more=(("", "[routes]"),)),
                *_talk("caller"), p.request("BYE", 2, more=(("", "[routes]"),)), done()]  # fmt: skip

    return (Leg(caller, callee),)


def hurried() -> tuple[Leg, ...]:
    """Messages sent at once, one after the other, which TCP puts into one segment."""

    def caller(p: Party) -> list[str]:
        return [p.invite(), ignore(100), ignore(180), ignore(183), p.answered(200), p.request("ACK", 1),
                p.request("UPDATE", 2, sdp(version=2)), done(), *_talk("caller"), *_bye(p)]  # fmt: skip

    def callee(p: Party) -> list[str]:
        return [p.asked(), p.respond(180, "Ringing"), p.respond(183, "Session Progress", sdp()),
                p.respond(200, "OK", sdp()), p.told("ACK"), p.told("UPDATE"), p.reply(200, "OK", sdp(version=2)),
                *_talk("callee", 1, 0), *_gone(p)]  # fmt: skip

    return (Leg(caller, callee),)


SAME_PORT = (Stream(more=("rtcp:{port+0}",)), Stream("video", 0, 34, ("rtcp:{port+0}",)))
VIDEO = (Stream(), Stream("video", 2, 34))
AT_MEDIA = sdp(Stream(connection=True), connection="")
LONG = tuple(f"a=long:{n} " + "x" * 60 for n in range(24))


def with_video() -> tuple[Leg, ...]:
    def speak(who: str) -> list[str]:
        return [*_talk(who, 1, 150), play(who, 2, "video")]

    return (
        Leg(
            lambda p: [*_begin(p, sdp(*VIDEO)), *speak("caller"), pause(), *_bye(p)],
            lambda p: [*_ring(p, sdp(*VIDEO)), *speak("callee"), *_gone(p)],
        ),
    )


def video_closed() -> tuple[Leg, ...]:
    without = sdp(Stream(), Stream("video", None, 34), version=2)
    caller, callee = again("INVITE", without, without)
    return simple(sdp(*VIDEO), sdp(*VIDEO), caller, callee)


def hold(connection: str = "[media_ip]", direction: str = "") -> tuple[Leg, ...]:
    more = (f"a={direction}",) if direction else ()
    answer = "a=recvonly" if direction == "sendonly" else "a=inactive"
    held = again(
        "INVITE", sdp(connection=connection, version=2, more=more), sdp(version=2, more=(answer,)), 2,
        "caller" if direction == "sendonly" else "nobody",
    )  # fmt: skip
    return changed(held, again("INVITE", sdp(version=3), sdp(version=3), 3))


HELD: tuple[Phase, ...] = (*BOTH, ("caller", 3), ("callee", 3))


def moved(method: str) -> tuple[Leg, ...]:
    """Media goes to another port: the caller's after a re-INVITE, the callee's after UPDATE, as sipp sends media to
    what it reads in INVITE and 200 only."""
    offer, answer = sdp(MOVED, version=2), sdp(version=2)
    return changed(again(method, offer, answer) if method == "INVITE" else again(method, answer, offer))


def attributed(*attributes: str) -> tuple[Leg, ...]:
    """Both say this of their audio; the call stays long enough for RTCP to be tried."""
    told = sdp(Stream(more=attributes))
    return simple(told, told, stay=900)


def two_phones() -> tuple[Leg, ...]:
    """Both on the same ports, calling, or called by, one party outside."""
    (leg,) = simple()
    return tuple(Leg(leg.caller, leg.callee, phone) for phone in (0, 1))
