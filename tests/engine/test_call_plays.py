"""Calls at random: several parties, few Call-IDs and tags, tight limits. What holds after each word and at the end."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from appid.engine.limits import Limits
from appid.wire import packed, text
from tests.engine.phones import PROVIDER, gateway
from tests.engine.play import Play
from tests.engine.test_call_ids import ALICE, BOB, STRANGER, Way

METHODS = ["INVITE", "INVITE", "ACK", "BYE", "CANCEL", "UPDATE", "PRACK"]
ANSWERS = ["183 Progress", "200 OK", "200 OK", "487 Terminated", "401 Unauthorized", "199 Over", "603 Decline"]
OWNERS = [(f"c{number}", packed(phone.host)) for number in range(3) for phone in (ALICE, BOB)]
LIMITS = Limits(calls=12, calls_per_host=8, calls_per_remote=5)


def parties(play: Play, dice: random.Random) -> list[Way]:
    hosts, far = [ALICE, BOB], [PROVIDER, STRANGER]
    return [
        Way(play, dice.choice(hosts), dice.choice(far), f"c{dice.randrange(3)}", f"t{dice.randrange(3)}",
            f"e{dice.randrange(3)}", dice.random() < 0.5, dice.choice([16402, 18000]))
        for _ in range(14)
    ]  # fmt: skip


def word(play: Play, way: Way, dice: random.Random) -> None:
    kind = dice.random()
    if kind < 0.35:
        way.asks(dice.choice(METHODS), dice.randrange(1, 4))
    elif kind < 0.8:
        way.says(dice.choice(ANSWERS), f"{dice.randrange(1, 4)} {dice.choice(['INVITE', 'INVITE', 'BYE', 'UPDATE'])}")
    else:
        play.tick(play.now + dice.choice([0.1, 5, 33, 61]))
        for owner in OWNERS:
            assert play.engine.calls.dialogs.at(*owner) or not play.engine.calls.nat.mappings.held(owner)


def sound(play: Play) -> None:
    """Each opening has a call, each call a dialog, each dialog a call or its sleep."""
    keeper = play.engine.calls
    peers = {PROVIDER.host, STRANGER.host}
    assert all(e.call in keeper.calls.open and text(e.peer) in peers for e in keeper.book.open.values())
    for call in keeper.calls.open.values():
        assert call.call_id is None or call.ending or keeper.dialogs.living(call.call_id, call.id)
    for dialog in keeper.dialogs.known.values():
        assert dialog.ended or not dialog.call or dialog.call in keeper.calls.open or dialog.asleep


def nothing_left(play: Play) -> None:
    keeper = play.engine.calls
    assert (len(keeper.calls.open), len(keeper.book.open), len(keeper.asleep)) == (0, 0, 0)
    assert all(dialog.ended for dialog in keeper.dialogs.known.values())
    assert not any(keeper.nat.mappings.held(owner) for owner in OWNERS)
    for dialog in keeper.dialogs.known.values():
        assert not any(keeper.dialogs.carries(flow) for flow in dialog.carriers)
    play.tick(play.now + 60)
    assert keeper.paths.next() is None


@pytest.mark.parametrize("seed", [*range(10), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(10, 200))])
def test_whatever_is_said_nothing_is_left_of_it(seed: int) -> None:
    dice = random.Random(seed)
    play = Play(replace(gateway().settings, limits=LIMITS))
    ways = parties(play, dice)
    for _ in range(300):
        word(play, dice.choice(ways), dice)
        sound(play)
    for _ in range(300):
        play.tick(play.now + 60)
    nothing_left(play)
