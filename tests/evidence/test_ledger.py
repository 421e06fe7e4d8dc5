"""What several packets together show: runs of RTP, RTCP and ChannelData; and that a flow's memory is bounded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from appid.evidence.ledger import MAX_FACTS, MAX_RUNS, SEQUENCE_WINDOW, FactSet, Ledger
from appid.wire import Fact


def rtp(sequence: int, ssrc: int = 7) -> list[Fact]:
    return [Fact("rtp.ssrc", ssrc), Fact("rtp.sequence", sequence)]


def runs(ledger: Ledger, packets: list[list[Fact]], name: str, outward: bool = True) -> list[object]:
    return [fact.value for facts in packets for fact in ledger.add(facts, outward) if fact.name == name]


def test_a_run_of_rtp_grows_with_consecutive_packets() -> None:
    """RFC 3550 appendix A.1: a source is valid after packets in sequence."""
    assert runs(Ledger(), [rtp(n) for n in (65534, 65535, 0, 1)], "rtp.run") == [1, 2, 3, 4]


def test_loss_and_reordering_within_a_window_do_not_break_a_run() -> None:
    assert runs(Ledger(), [rtp(n) for n in (10, 12, 11, 11 + SEQUENCE_WINDOW)], "rtp.run") == [1, 2, 3, 4]


def test_a_jump_begins_anew() -> None:
    assert runs(Ledger(), [rtp(n) for n in (10, 11, 5000, 5001)], "rtp.run") == [1, 2, 1, 2]
    assert runs(Ledger(), [rtp(n) for n in (100, 101, 101)], "rtp.run") == [1, 2, 1], "the same packet again"


def test_each_source_and_direction_runs_on_its_own() -> None:
    ledger = Ledger()
    assert runs(ledger, [rtp(1), rtp(1, ssrc=8), rtp(2), rtp(2, ssrc=8)], "rtp.run") == [1, 1, 2, 2]
    assert runs(ledger, [rtp(3)], "rtp.run", outward=False) == [1]
    assert runs(ledger, [rtp(3)], "rtp.run") == [3]


def test_channel_data_runs_per_channel_and_only_if_exact() -> None:
    def channel(number: int, exact: bool) -> list[Fact]:
        return [Fact("turn.channel", number), Fact("turn.exact", exact)]

    packets = [channel(0x4000, True), channel(0x4001, True), channel(0x4000, False), channel(0x4000, True)]
    assert runs(Ledger(), packets, "turn.run") == [1, 1, 2]


def test_derived_facts_come_after_the_packets_own() -> None:
    facts = rtp(5)
    assert Ledger().add(facts, True) == [*facts, Fact("rtp.run", 1)]
    assert Ledger().add([Fact("tls.sni", "a")], True) == [Fact("tls.sni", "a")]


def test_sources_beyond_the_bound_never_form_a_run() -> None:
    ledger = Ledger()
    for ssrc in range(10 * MAX_RUNS):
        ledger.add(rtp(1, ssrc), True)
    assert len(ledger.runs) <= MAX_RUNS
    assert runs(ledger, [rtp(n, ssrc=10**6) for n in range(5)], "rtp.run") == [1] * 5


def test_a_flow_keeps_what_is_asked_for_and_no_more() -> None:
    ledger = Ledger(frozenset({"stun.attribute"}))
    ledger.add([Fact("stun.attribute", 1), Fact("tls.sni", "a")], True)
    ledger.add([Fact("stun.attribute", 2)], False)
    assert ledger.flow.get("stun.attribute") == [1, 2]
    assert ledger.flow.get("tls.sni") is None


@given(st.lists(st.lists(st.integers(0, 5000), max_size=300), max_size=8))
def test_a_flows_facts_are_bounded_and_distinct(packets: list[list[int]]) -> None:
    ledger = Ledger(frozenset({"x"}))
    for values in packets:
        ledger.add([Fact("x", value) for value in values], True)
    kept = ledger.flow.get("x") or []
    assert len(kept) == len(set(kept)) == ledger.flow.size
    assert len(kept) < MAX_FACTS + 300
    seen = {value for values in packets for value in values}
    assert set(kept) <= seen
    assert set(kept) == seen or len(kept) >= MAX_FACTS


def test_a_set_of_facts_keeps_order_and_the_first() -> None:
    facts = FactSet([Fact("a", 3), Fact("a", 1), Fact("a", 3), Fact("b", "x")])
    assert facts.get("a") == [3, 1]
    assert facts.first("a") == 3
    assert facts.first("c") is None
    assert facts.size == 3


def short_header(first: int, identity: bytes = b"8 bytes.") -> list[Fact]:
    return [Fact("quic.short_header", bytes([first]) + identity)]


def test_short_headers_run_while_the_id_stays_and_the_first_byte_changes() -> None:
    """RFC 9000 sections 5.1 and 17.3.1."""
    assert runs(Ledger(), [short_header(b) for b in (0x41, 0x43, 0x43, 0x5A)], "quic.run") == [1, 2, 2, 3]
    assert runs(Ledger(), [short_header(0x40)] * 5, "quic.run") == [1] * 5, "a constant, no protected byte"
    assert runs(Ledger(), [short_header(0x40 + n, b"%08d" % n) for n in range(5)], "quic.run") == [1] * 5


def test_short_headers_run_in_each_direction_on_their_own() -> None:
    ledger = Ledger()
    assert runs(ledger, [short_header(0x41)], "quic.run") == [1]
    assert runs(ledger, [short_header(0x42)], "quic.run", outward=False) == [1]
    assert runs(ledger, [short_header(0x43)], "quic.run") == [2]
