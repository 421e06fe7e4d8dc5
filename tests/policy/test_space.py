"""Where rules hold, on random policies, against looking at single places."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from appid.policy.mask import rows_of
from appid.policy.rule import Policy, PolicyRule, holds
from appid.policy.space import PATIENCE, Remainder, Space, Spaces
from appid.wire import packed
from tests.policy.random_policies import V4, V6, ZONE, policies

PLACE = st.tuples(ZONE | st.none(), ZONE | st.none())


def within(rule: PolicyRule, zones: tuple[str | None, str | None], source: bytes, destination: bytes) -> bool:
    return (
        (not rule.from_ or zones[0] in rule.from_)
        and (not rule.to or zones[1] in rule.to)
        and (not rule.source or any(holds(network, source) for network in rule.source))
        and (not rule.destination or any(holds(network, destination) for network in rule.destination))
    )


@settings(max_examples=200, deadline=None)
@given(policies(), PLACE, st.sampled_from([V4, V6]), st.data())
def test_what_meets_covers_and_is_left(
    policy: Policy, zones: tuple[str | None, str | None], family: st.SearchStrategy[bytes], data: st.DataObject
) -> None:
    source, destination = data.draw(family), data.draw(family)
    spaces = Spaces(policy.rules)
    held = {row for row, rule in enumerate(policy.rules) if within(rule, zones, source, destination)}
    every = (1 << len(policy.rules)) - 1
    for row in held:
        space = Space(spaces, row)
        assert held <= set(rows_of(space.meeting & every))
        assert set(rows_of(space.covering & every)) <= held
        rest, taken = Remainder(spaces.boxes, row), {other for other in range(len(policy.rules)) if other != row}
        for other in sorted(taken):
            rest.take(other)
        if not rest.given_up and not rest.pieces:
            assert held & taken, "nothing is left only where another rule holds"
    for row in range(len(policy.rules)):
        for place in Space(spaces, row).witnesses():
            assert place >> row & 1, "a witness lies within the rule's own space"


def test_what_takes_too_long_is_given_up() -> None:
    hosts = tuple((packed(f"10.0.{i >> 8}.{i & 255}"), 32) for i in range(0, 2 * PATIENCE, 2))
    wide = PolicyRule("wide", "allow", source=((packed("10.0.0.0"), 8),))
    spaces = Spaces((PolicyRule("hosts", "allow", source=hosts), wide))
    rest = Remainder(spaces.boxes, 1)
    assert rest.take(0)
    assert rest.given_up
    assert Remainder(spaces.boxes, 0).given_up, "too many pieces to begin with"
