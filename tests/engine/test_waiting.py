"""A refusal that another worker's call may turn round waits; bounded in time and number."""

from __future__ import annotations

from dataclasses import replace

from appid.dataplane.command import Command, Postpone, Report, SetMark, SetVerdict
from appid.engine.waiting import DATAGRAMS, FORGOTTEN, MAX_FLOWS, STEPS, Waiting
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
    others = [waiting.patience(KEY._replace(sport=port), 1.0) for port in range(MAX_FLOWS)]
    assert [each is None for each in others] == [False] * (MAX_FLOWS - 1) + [True]


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
