"""The generator itself: deterministic, plausible on a wire, one set of frame numbers, truths that fit."""

from __future__ import annotations

import pytest

from tests.corpus import sessions
from tests.corpus.expected import Case
from tests.corpus.variation import Variation

ALL = sorted(sessions.BUILDERS)
OTHERS = [(session, seed, v6) for session in ALL for seed in (1, 2, 3) for v6 in (False, True)]
PLAIN = {session: sessions.build(session) for session in ALL}


@pytest.mark.parametrize("session", ALL)
def test_same_variation_same_bytes(session: int) -> None:
    v = Variation.from_seed(4)
    assert sessions.build(session, v).capture.pcap() == sessions.build(session, v).capture.pcap()


@pytest.mark.parametrize(("session", "seed", "v6"), OTHERS)
def test_variations_differ_in_bytes_never_in_frame_numbers(session: int, seed: int, v6: bool) -> None:
    case, plain = sessions.build(session, Variation.from_seed(seed, v6=v6)), PLAIN[session]
    assert case.capture.pcap() != plain.capture.pcap()
    assert len(case.capture.frames) == len(plain.capture.frames)
    assert [c.started_at for c in case.expected.calls] == [c.started_at for c in plain.expected.calls]
    assert [c.ended_at for c in case.expected.calls] == [c.ended_at for c in plain.expected.calls]
    times = [when for when, _ in case.capture.frames]
    assert times == sorted(times)
    assert max(len(data) for _, data in case.capture.frames) <= 1514
    check_truths(case)


def check_truths(case: Case) -> None:
    """Every frame number lies in the capture, every TCP or UDP packet belongs to one flow, calls have flows."""
    count, expected = len(case.capture.frames), case.expected
    frames = [n for flow in expected.flows for n in flow.frames]
    assert len(frames) == len(set(frames))
    assert all(1 <= n <= count for n in frames)
    for flow in expected.flows:
        assert flow.applications
        if flow.applications == ("facetime",):
            assert flow.identified_by in flow.frames
    for at, call in enumerate(expected.calls):
        assert call.started_at[0] < (call.answered_at or 0) < call.ended_at[0] <= count
        assert any(flow.call == at for flow in expected.flows)
    for pinhole in expected.pinholes:
        assert pinhole.opens_from <= pinhole.opens_by < pinhole.closes_from <= pinhole.closes_by <= count


def test_the_report_s_own_call_has_the_report_s_numbers() -> None:
    case = PLAIN[1]
    call, pinhole = case.expected.calls[0], case.expected.pinholes[0]
    assert (call.started_at[0], call.answered_at, call.ended_at[0]) == (169, 172, 5790)
    assert (pinhole.inside, pinhole.port, pinhole.peer) == ("172.16.42.187", 16402, "71.230.89.52")
    relay = next(f for f in case.expected.flows if f.flow.dst.port == 3478)
    assert (relay.first_packet, relay.identified_by, relay.last_packet) == (60, 60, 5792)


def test_no_pinhole_is_due_inside_one_network() -> None:
    assert PLAIN[3].expected.pinholes == ()


def test_separate_rtcp_port_gets_a_pinhole_of_its_own() -> None:
    case = sessions.build(1, Variation(rtcp_port=16399))
    assert [p.port for p in case.expected.pinholes] == [16402, 16399]
    assert any(f.flow.src.port == f.flow.dst.port == 16399 for f in case.expected.flows)


def test_a_capture_begun_later_is_renumbered() -> None:
    """From frame 290 the direct flow's first packet is the client's answer's successor, 299 the reply to its check."""
    whole = PLAIN[1]
    cut = whole.from_frame(290)
    assert len(cut.capture.frames) == len(whole.capture.frames) - 289
    assert cut.expected.calls == ()
    assert cut.expected.pinholes == ()
    direct = next(
        f for f in cut.expected.flows if {f.flow.src.host, f.flow.dst.host} == {"172.16.42.187", "71.230.89.52"}
    )
    assert direct.first_packet == 299 - 289
    assert direct.flow.src.host == "71.230.89.52"


def test_fragments_end_at_the_invite_s_frame() -> None:
    """Frame 168 has more to come (RFC 791: MF), 169 the rest."""
    frames = sessions.build(1, Variation(invite_fragments=True)).capture.frames
    words = [int.from_bytes(frames[n - 1][1][20:22], "big") for n in (168, 169)]
    assert words[0] == 0x2000
    assert words[1] & 0x2000 == 0
    assert words[1] & 0x1FFF > 0
