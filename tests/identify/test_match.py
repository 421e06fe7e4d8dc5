"""The index of signatures against a naive scan over all of them, written here from what each operator means."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appid.edge.rule_files import load_applications
from appid.evidence.ledger import FactSet
from appid.identify.application import Application, Condition, Operator, Scope, Signature
from appid.identify.match import Match, Matcher
from appid.wire import UDP, Endpoint, Fact, FactValue, packed

# ---- the naive reference ---------------------------------------------------------------------------------------------


def same(value: FactValue, wanted: FactValue) -> bool:
    return type(value) is type(wanted) and value == wanted


def holds_of(operator: Operator, wanted: FactValue, value: FactValue) -> bool:
    if operator in ("is", "has"):
        return (operator == "has" and wanted is True) or same(value, wanted)
    if operator == "in":
        assert isinstance(wanted, tuple)
        return any(same(value, one) for one in wanted)
    if operator == "length":
        return isinstance(value, str | bytes | tuple) and len(value) == wanted
    if operator == "prefix":
        return (isinstance(value, str) and isinstance(wanted, str) and value.startswith(wanted)) or (
            isinstance(value, bytes) and isinstance(wanted, bytes) and value.startswith(wanted)
        )
    if operator == "suffix":
        return (isinstance(value, str) and isinstance(wanted, str) and value.endswith(wanted)) or (
            isinstance(value, bytes) and isinstance(wanted, bytes) and value.endswith(wanted)
        )
    assert operator == "within"
    assert isinstance(wanted, tuple)
    low, high = wanted
    if isinstance(low, bytes):
        bits = "".join(f"{byte:08b}" for byte in value) if isinstance(value, bytes) else ""
        return len(bits) == 8 * len(low) and bits.startswith("".join(f"{byte:08b}" for byte in low)[:high])
    return type(value) is int and value in range(low, high + 1)


def scan(applications: list[Application], facts: list[Fact], flow: list[Fact]) -> set[tuple[str, str, bool]]:
    found = set()
    for application in applications:
        for excludes, signatures in ((False, application.signatures), (True, application.excluded_by)):
            for signature in signatures:
                known = facts if signature.scope == "packet" else flow
                if all(condition_holds(condition, known) for condition in signature.conditions):
                    found.add((application.name, signature.name, excludes))
    return found


def condition_holds(condition: Condition, facts: list[Fact]) -> bool:
    values = [value for name, value in facts if name == condition.fact]
    if condition.operator == "lacks":
        return not any(holds_of("has", condition.value, value) for value in values)  # True: not at all
    return any(holds_of(condition.operator, condition.value, value) for value in values)


# ---- random applications and facts -----------------------------------------------------------------------------------

VALUES: dict[str, st.SearchStrategy[FactValue]] = {
    "n.int": st.sampled_from([0, 1, 2, 255, 256, 511, 512, 16384, 16402, 65535, 70000]),
    "n.bool": st.booleans(),
    "n.text": st.sampled_from(["", "a", "ab", "abc", "cab", "b"]),
    "n.bytes": st.sampled_from([b"", b"a", b"ab", b"\0\0", b"cab"]),
    "n.address": st.sampled_from([packed(a) for a in ("17.0.0.1", "17.255.0.1", "18.0.0.1", "2620:149::1", "fe80::")]),
    "n.tuple": st.sampled_from([(), (1,), (1, 2), ((1, 4), (2, 8))]),
    "n.endpoint": st.sampled_from([Endpoint(b"\x11\0\0\1", 3478), Endpoint(b"\x11\0\0\2", 3478)]),
}
FACTS = st.lists(st.sampled_from(sorted(VALUES)).flatmap(lambda n: st.builds(Fact, st.just(n), VALUES[n])), max_size=10)
ANY = st.one_of(list(VALUES.values()))
WITHIN: st.SearchStrategy[FactValue] = st.sampled_from(
    [(0, 1), (255, 257), (3478, 3497), (0, 100000), (packed("17.0.0.0"), 8), (packed("0.0.0.0"), 0),
     (packed("2620:149::"), 32), (packed("17.0.0.1"), 32)]
)  # fmt: skip
AFFIX: st.SearchStrategy[FactValue] = st.sampled_from(["a", "ab", "abc", b"a", b"ab", b"\0"])
CONDITIONS = st.one_of(
    st.builds(Condition, st.sampled_from(sorted(VALUES)), st.sampled_from(["is", "has", "lacks"]),
              ANY | st.just(True)),
    st.builds(Condition, st.sampled_from(sorted(VALUES)), st.just("in"),
              st.lists(ANY, min_size=1, max_size=3).map(tuple)),
    st.builds(Condition, st.sampled_from(sorted(VALUES)), st.sampled_from(["prefix", "suffix"]), AFFIX),
    st.builds(Condition, st.sampled_from(sorted(VALUES)), st.just("length"), st.integers(0, 3)),
    st.builds(Condition, st.sampled_from(sorted(VALUES)), st.just("within"), WITHIN),
)  # fmt: skip


CONJUNCTIONS = (
    st.lists(CONDITIONS, min_size=1, max_size=3).map(tuple).filter(lambda cs: any(c.operator != "lacks" for c in cs))
)
"""A signature that only says what is lacking is refused when it is loaded."""


@st.composite
def applications(draw: st.DrawFn) -> list[Application]:
    made = []
    for number in range(draw(st.integers(1, 5))):
        signatures = [
            Signature(f"s{n}", "strong", draw(st.sampled_from(["packet", "flow"])), draw(CONJUNCTIONS), "", "")
            for n in range(draw(st.integers(1, 4)))
        ]
        split = draw(st.integers(0, len(signatures)))
        made.append(Application(f"a{number}", "", "x", 1, number, tuple(signatures[:split]), tuple(signatures[split:])))
    return made


def names(matches: list[Match]) -> list[tuple[str, str, bool]]:
    return sorted((m.application, m.signature.name, m.excludes) for m in matches)


@settings(max_examples=400, deadline=None)
@given(applications(), FACTS, FACTS)
def test_the_index_finds_what_a_scan_finds(known: list[Application], earlier: list[Fact], facts: list[Fact]) -> None:
    """What a wider signature finds new with this packet; one that earlier packets alone fulfil may be told again."""
    found = names(Matcher(known).match(facts, {"flow": FactSet(earlier + facts)}))
    assert len(found) == len(set(found)), "each at most once"
    everything = scan(known, facts, earlier + facts)
    assert set(found) <= everything
    assert everything - set(found) <= scan(known, [], earlier)


@settings(max_examples=50, deadline=None)
@given(applications(), FACTS)
def test_the_facts_given_as_reasons_are_the_packets_own(known: list[Application], facts: list[Fact]) -> None:
    for match in Matcher(known).match(facts, {"flow": FactSet(facts)}):
        assert set(match.facts) <= set(facts)
        positive = [c.fact for c in match.signature.conditions if c.operator != "lacks"]
        assert [fact.name for fact in match.facts] == positive


# ---- each operator, in words -----------------------------------------------------------------------------------------


def matches(operator: Operator, wanted: FactValue, *values: FactValue, scope: Scope = "packet") -> bool:
    conditions = (Condition("always", "is", 1), Condition("x", operator, wanted))
    one = Application("a", "", "", 1, 1, (Signature("s", "strong", scope, conditions, "", ""),))
    facts = [Fact("always", 1), *(Fact("x", value) for value in values)]
    return bool(Matcher([one]).match(facts, {"flow": FactSet(facts)}))


@pytest.mark.parametrize(
    ("operator", "wanted", "values", "holds"),
    [
        ("has", True, ["anything"], True),
        ("has", True, [0], True),
        ("has", True, [False], True),
        ("has", True, [], False),
        ("is", True, [True], True),
        ("is", True, [False], False),
        ("is", True, [1], False),
        ("is", 1, [True], False),
        ("is", False, [0], False),
        ("is", False, [False], True),
        ("has", 0x22, [0x16, 0x22], True),
        ("in", (1, 2), [True], False),
        ("in", (1, 2), [3, 2], True),
        ("lacks", 0x6, [0x16, 0x22], True),
        ("lacks", 0x6, [0x16, 0x6], False),
        ("lacks", 0x6, [], True),
        ("lacks", True, [0], False),
        ("lacks", 1, [True], True),
        ("prefix", "Viceroy ", ["Viceroy 1.4.1"], True),
        ("prefix", "Viceroy ", ["viceroy 1.4.1"], False),
        ("suffix", "/GK", ["Viceroy 1.7.0/GK"], True),
        ("suffix", ".push.apple.com", ["1-courier.push.apple.com.evil.example"], False),
        ("length", 8, [b"12345678"], True),
        ("length", 8, [8], False),
        ("within", (3478, 3497), [3497], True),
        ("within", (3478, 3497), [3498], False),
        ("within", (0, 5), [True], False),
        ("within", (packed("17.0.0.0"), 8), [packed("17.255.255.255")], True),
        ("within", (packed("17.0.0.0"), 8), [packed("18.0.0.0")], False),
        ("within", (packed("2403:300::"), 32), [packed("17.0.0.1")], False),
        ("within", (0, 2**32), [2**31], True),
    ],
)
def test_operators(operator: Operator, wanted: FactValue, values: list[FactValue], holds: bool) -> None:
    assert matches(operator, wanted, *values) is holds
    assert matches(operator, wanted, *values, scope="flow") is holds


def test_a_flow_signature_holds_with_the_packet_that_completes_it() -> None:
    conditions = (Condition("first", "is", 1), Condition("second", "is", 2))
    matcher = Matcher([Application("a", "", "", 1, 1, (Signature("s", "strong", "flow", conditions, "", ""),))])
    flow = FactSet([Fact("second", 2)])
    assert matcher.match([Fact("second", 2)], {"flow": flow}) == []
    flow.add([Fact("first", 1)])
    assert [m.signature.name for m in matcher.match([Fact("first", 1)], {"flow": flow})] == ["s"]
    assert matcher.match([Fact("first", 1)], {}) == []


ALLOCATE = [
    Fact("flow.proto", UDP), Fact("flow.destination", packed("17.173.254.35")), Fact("flow.destination_port", 3478),
    Fact("stun.method", "allocate"), Fact("stun.class", "request"), Fact("stun.reservation_token", b"12345678"),
    *(Fact("stun.attribute", number) for number in (0x0016, 0x0022, 0x0019)),
]  # fmt: skip
"""Session 1, packet 60 (FaceTime Exposed)."""


def test_the_allocate_request_is_stun_turn_and_facetime() -> None:
    found = {m.application for m in Matcher(load_applications().values()).match(ALLOCATE, {}) if not m.excludes}
    assert found == {"stun", "turn", "facetime"}


def test_ten_times_the_applications_do_not_change_the_answer() -> None:
    """The others ask for the same facts, with values that this packet does not have."""
    shipped = list(load_applications().values())
    others = [
        Application(
            f"other-{n}", "", "", 1, 100 + n,
            (Signature("s", "conclusive", "packet", (Condition("stun.method", "is", f"method-{n}"),), "", ""),
             Signature("t", "strong", "packet",
                       (Condition("stun.attribute", "has", 0x9000 + n), Condition("stun.class", "is", "request")),
                       "", "")),
        )
        for n in range(10 * len(shipped))
    ]  # fmt: skip
    alone, among = Matcher(shipped), Matcher([*others, *shipped, *(replace(o, name=f"{o.name}-b") for o in others)])
    for facts in (ALLOCATE, ALLOCATE[:3], [Fact("tls.sni", "init.push.apple.com"), Fact("flow.proto", 6)]):
        assert names(alone.match(facts, {})) == names(among.match(facts, {}))
