"""How strengths add up and how names shift, with lineages that are small enough to read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appid.identify.application import Application, Signature
from appid.identify.identification import STRENGTHS, Confidence
from appid.identify.match import Match
from appid.identify.naming import Lineage, Naming
from appid.wire import Fact


def application(name: str, *may_become: str) -> Application:
    return Application(name, "", "", 1, 1, may_become=may_become)


LINEAGE = Lineage(
    {
        a.name: a
        for a in (
            application("stun", "turn", "webrtc"), application("turn", "facetime"), application("webrtc"),
            application("facetime"), application("sip", "ichat-av"), application("ichat-av", "facetime"),
            application("ping", "pong"), application("pong", "ping"), application("odd", "no such name"),
        )
    }
)  # fmt: skip


def match(name: str, strength: Confidence = "conclusive", signature: str = "s", excludes: bool = False) -> Match:
    return Match(name, Signature(signature, strength, "packet", (), "", ""), (Fact("x", 1),), excludes)


def test_the_allocate_request_takes_the_whole_path_at_its_packet() -> None:
    """The interface's own example: packet 60 is stun, turn and facetime; the shifts are what came after the first."""
    naming = Naming()
    assert naming.add([match("facetime"), match("stun"), match("turn")], 60, LINEAGE)
    told = naming.identification("unknown-udp")
    assert told.application == "facetime"
    assert told.confidence == "conclusive"
    assert told.path == ("stun", "turn", "facetime")
    assert told.shifts == ((60, "turn"), (60, "facetime"))
    assert naming.identified_at == 60
    assert {reason.packet for reason in told.because} == {60}


def test_identified_at_is_the_packet_of_the_last_name() -> None:
    naming = Naming()
    naming.add([match("stun")], 5, LINEAGE)
    assert (naming.name, naming.identified_at, naming.shifts) == ("stun", 5, [])
    assert not naming.add([match("stun")], 6, LINEAGE)
    assert naming.identified_at == 5
    assert naming.add([match("facetime")], 9, LINEAGE), "directly, over turn"
    assert (naming.path, naming.identified_at, naming.shifts) == (["stun", "facetime"], 9, [(9, "facetime")])


def test_a_name_never_goes_back_to_a_more_general_one() -> None:
    naming = Naming()
    naming.add([match("facetime", "strong")], 1, LINEAGE)
    for packet in range(2, 9):
        assert not naming.add([match("stun"), match("turn")], packet, LINEAGE)
    assert naming.path == ["facetime"]


def test_names_that_lead_to_one_another_do_not_alternate() -> None:
    naming = Naming()
    for packet in range(1, 100):
        naming.add([match(("ping", "pong")[packet % 2])], packet, LINEAGE)
    assert len(naming.path) <= 2
    assert len(naming.because) <= 4


@pytest.mark.parametrize(
    ("first", "then", "stays"),
    [("strong", "conclusive", False), ("strong", "strong", True), ("conclusive", "strong", True)],
)
def test_of_two_strangers_the_stronger_stays_and_the_earlier_if_equal(
    first: Confidence, then: Confidence, stays: bool
) -> None:
    naming = Naming()
    naming.add([match("webrtc", first)], 1, LINEAGE)
    naming.add([match("sip", then)], 2, LINEAGE)
    assert naming.name == ("webrtc" if stays else "sip")


def test_one_supporting_signature_names_nothing_however_often() -> None:
    naming = Naming()
    for packet in range(1, 20):
        assert not naming.add([match("facetime", "supporting")], packet, LINEAGE)
    assert naming.identification("insufficient-data").application == "insufficient-data"
    assert naming.identification("insufficient-data").confidence is None
    assert naming.identified_at is None


def test_two_different_supporting_signatures_name_with_that_confidence() -> None:
    naming = Naming()
    naming.add([match("facetime", "supporting", "to-apples-relay")], 1, LINEAGE)
    naming.add([match("webrtc", "supporting", "something")], 2, LINEAGE)
    assert naming.name is None, "of the same application"
    naming.add([match("facetime", "supporting", "media-types")], 7, LINEAGE)
    told = naming.identification("")
    assert (told.application, told.confidence, naming.identified_at) == ("facetime", "supporting", 7)
    reasons = [(reason.packet, reason.signature) for reason in told.because]
    assert reasons == [(1, "to-apples-relay"), (7, "media-types")]


def test_addresses_and_ports_alone_name_nothing() -> None:
    """From and to Apple's network at once is one circumstance."""
    naming = Naming()
    for name, fact in (("to", "flow.destination"), ("from", "flow.source"), ("port", "flow.source_port")):
        signature = Signature(name, "supporting", "packet", (), "", "")
        assert not naming.add([Match("facetime", signature, (Fact(fact, 1),), False)], 1, LINEAGE)
    assert naming.add([match("facetime", "supporting", "content")], 2, LINEAGE)
    assert naming.confidence == "supporting"


def test_what_rules_out_counts_at_once_against_what_only_supports() -> None:
    naming = Naming()
    naming.add([match("facetime", "supporting", "port")], 1, LINEAGE)
    naming.add([match("facetime", "supporting", "records"), match("facetime", excludes=True)], 2, LINEAGE)
    assert naming.name is None


def test_confidence_only_grows() -> None:
    naming = Naming()
    naming.add([match("facetime", "strong", "agent")], 1, LINEAGE)
    naming.add([match("facetime", "conclusive", "origin")], 2, LINEAGE)
    naming.add([match("facetime", "strong", "agent")], 3, LINEAGE)
    assert naming.confidence == "conclusive"
    assert [reason.signature for reason in naming.because] == ["agent", "origin"]
    assert naming.identified_at == 1


def test_what_is_excluded_is_not_taken_from_the_next_packet_on() -> None:
    naming = Naming()
    naming.add([match("turn"), match("facetime", excludes=True)], 1, LINEAGE)
    assert naming.name == "turn"
    naming.add([match("facetime")], 2, LINEAGE)
    assert naming.name == "turn"
    assert naming.still_possible(LINEAGE) == frozenset()


def test_what_a_packet_shows_of_a_name_counts_more_than_what_it_excludes() -> None:
    """A ClientHello whose ALPN names the push service is not ruled out by being whole."""
    naming = Naming()
    naming.add([match("turn"), match("facetime"), match("facetime", excludes=True)], 1, LINEAGE)
    assert naming.name == "facetime"


def test_what_is_still_possible() -> None:
    naming = Naming()
    assert naming.still_possible(LINEAGE) is None
    naming.add([match("stun")], 1, LINEAGE)
    assert naming.still_possible(LINEAGE) == frozenset({"turn", "webrtc", "facetime"})
    naming.add([match("turn"), match("webrtc", excludes=True)], 2, LINEAGE)
    assert naming.still_possible(LINEAGE) == frozenset({"facetime"})


def test_a_name_that_no_application_has_is_no_descendant() -> None:
    assert LINEAGE.descendants["odd"] == frozenset()


MATCHES = st.builds(
    match, st.sampled_from(sorted(LINEAGE.descendants)), st.sampled_from(STRENGTHS), st.sampled_from("abc"),
    st.sampled_from([False, False, False, True]),
)  # fmt: skip


@given(st.lists(st.lists(MATCHES, max_size=4), max_size=12))
def test_paths_are_consistent_whatever_comes(packets: list[list[Match]]) -> None:
    naming = Naming()
    for number, matches in enumerate(packets, 1):
        before = naming.name
        assert naming.add(matches, number, LINEAGE) is (naming.name != before)
    told = naming.identification("unknown-udp")
    assert len(set(told.path)) == len(told.path)
    assert [name for _, name in told.shifts] == list(told.path[1:])
    assert [packet for packet, _ in told.shifts] == sorted(packet for packet, _ in told.shifts)
    if told.path:
        assert told.application == told.path[-1]
        assert naming.identified_at in range(1, len(packets) + 1)
        if told.shifts:
            assert naming.identified_at == told.shifts[-1][0]


@given(st.permutations([match("stun"), match("turn"), match("facetime"), match("sip", "strong")]))
def test_the_order_of_one_packets_matches_does_not_matter(matches: list[Match]) -> None:
    naming = Naming()
    naming.add(matches, 1, LINEAGE)
    assert naming.name == "facetime"
    assert naming.path[-3:] == ["stun", "turn", "facetime"]


def test_a_flow_is_watchable_by_what_named_it() -> None:
    def shown(watch: bool) -> Match:
        return Match("facetime", Signature("s", "conclusive", "packet", (), "", "", watch=watch), (), False)

    naming = Naming()
    naming.add([match("stun"), shown(False)], 1, LINEAGE)
    assert naming.name == "facetime"
    assert not naming.watchable, "stun's own signature does not speak for facetime"
    naming.add([shown(True)], 2, LINEAGE)
    assert naming.watchable
    foreseen = Naming()
    foreseen.take("facetime", "conclusive", [], 1)
    assert foreseen.watchable
