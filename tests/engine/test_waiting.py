"""A refusal that another worker's call may turn round waits; bounded in time and number."""

from __future__ import annotations

from dataclasses import replace

from appid.dataplane.command import Command, Postpone, Report, SetMark, SetVerdict
from appid.engine.waiting import (
    DATAGRAMS,
    FLOWS_PER_HOST,
    FORGOTTEN,
    HELD_PER_HOST,
    MAX_FLOWS,
    MAX_HELD,
    STEPS,
    Waiting,
)
from appid.flow.key import FlowKey
from appid.identify.application import PortRange
from appid.policy.rule import PolicyRule
from appid.wire import UDP, packed
from tests.corpus.writer import End
from tests.engine.phones import Phone, gateway
from tests.engine.play import Play, of, udp

KEY = FlowKey(UDP, packed("10.0.0.2"), 17000, packed("10.0.0.3"), 16402)
ALICE, BOB = End("172.16.42.187", 16402), End("172.16.42.185", 17000)
SIP = PolicyRule("sip", "allow", applications=frozenset({"sip"}), service=(PortRange(UDP, 5060, 5060),))
RTP = bytes((0x80, 0, 0, 1)) + bytes(160)


def test_all_of_a_flow_goes_on_at_the_same_instants() -> None:
    waiting = Waiting()
    for after in (0.0, 0.004, 0.005, 0.03, 0.0799, 0.1):
        patience = waiting.patience(KEY, 50.0 + after)
        assert patience is not None
        assert min(abs(after + patience - step) for step in STEPS) < 1e-6
        assert patience > 0
    assert waiting.patience(KEY, 50.0 + STEPS[-1]) is None
    assert waiting.patience(KEY, 50.0 + FORGOTTEN) is not None, "another life of it"


def test_neither_many_datagrams_nor_many_flows_may_wait() -> None:
    waiting = Waiting()
    given = [waiting.patience(KEY, 1.0) for _ in range(DATAGRAMS + 1)]
    assert given.count(None) == 1
    others = [waiting.patience(each, 1.0) for each in flows(MAX_FLOWS)]
    assert [each is None for each in others] == [False] * (MAX_FLOWS - 1) + [True]
    assert waiting.patience(KEY._replace(sport=1), 1.0 + FORGOTTEN) is not None, "what is over takes no room"


def flows(number: int, each: int = FLOWS_PER_HOST) -> list[FlowKey]:
    """Of as many hosts as it takes."""
    hosts = [packed(f"10.1.0.{i // each}") for i in range(number)]
    return [KEY._replace(src=host, sport=i % each + 1) for i, host in enumerate(hosts)]


def test_no_host_takes_the_flows_of_others() -> None:
    waiting = Waiting()
    mine = [waiting.patience(KEY._replace(sport=port), 1.0) for port in range(MAX_FLOWS)]
    assert [each is None for each in mine] == [False] * FLOWS_PER_HOST + [True] * (MAX_FLOWS - FLOWS_PER_HOST)
    assert waiting.patience(KEY.reversed(), 1.0) is not None
    again = [waiting.patience(KEY._replace(sport=port), 1.0 + FORGOTTEN) for port in range(100, 120)]
    assert len(again) - again.count(None) == FLOWS_PER_HOST


def test_what_waits_at_once_is_bounded_by_host_and_in_all() -> None:
    """Many a datagram of many a flow for 0.32 s; and once they are gone, others have room."""
    waiting, of_all = Waiting(), flows(MAX_FLOWS)
    for key in of_all:
        waiting.patience(key, 1.0)
    held = [key.src for _ in range(DATAGRAMS - 1) for key in of_all if waiting.patience(key, 1.33) is not None]
    assert len(held) == MAX_HELD
    assert max(map(held.count, held)) <= HELD_PER_HOST
    assert waiting.patience(KEY._replace(sport=9), 1.63) is None
    assert waiting.patience(KEY._replace(sport=9), 1.65 + FORGOTTEN) is not None
    alone = Waiting()
    for key in flows(FLOWS_PER_HOST):
        alone.patience(key, 1.0)
    mine = [alone.patience(key, 1.33) for _ in range(DATAGRAMS - 1) for key in flows(FLOWS_PER_HOST)]
    assert len(mine) - mine.count(None) == HELD_PER_HOST


def rang(workers: int) -> Play:
    """Alice's worker, after her INVITE to a provider outside."""
    play = gateway(SIP)
    play = Play(replace(play.settings, share=(0, workers)))
    Phone(play, End(ALICE.host, 5060)).invite()
    return play


def answer(commands: list[Command]) -> list[type]:
    return [type(each) for each in commands if not isinstance(each, Report)]


def test_what_is_refused_between_two_inside_hosts_waits_for_the_other_worker() -> None:
    play = rang(2)
    first = play.queue(udp(BOB, ALICE, RTP))
    assert [type(each) for each in first] == [Postpone], "and nobody is told that it was refused"
    assert of(first, Postpone)[0].seconds == STEPS[0]
    play.now += STEPS[-1]
    assert SetMark in answer(play.queue(udp(BOB, ALICE, RTP))), "the refusal stands"


def test_one_host_does_not_end_the_patience_with_another() -> None:
    play = rang(2)
    for port in range(20000, 20000 + MAX_FLOWS):
        play.queue(udp(ALICE._replace(port=port), BOB, RTP))
    assert [type(each) for each in play.queue(udp(BOB, ALICE, RTP))] == [Postpone]


def test_only_what_a_call_may_come_to_foresee_waits() -> None:
    assert SetVerdict in answer(rang(1).queue(udp(BOB, ALICE, RTP))), "one worker has heard all"
    play, stranger = rang(2), End("172.16.42.50", 17000)
    for src, dst in (
        (BOB, stranger),
        (stranger, BOB),
        (End("203.0.113.9", 4000), ALICE),
        (ALICE, End("203.0.113.9", 1)),
    ):
        assert Postpone not in answer(play.queue(udp(src, dst, RTP)))
