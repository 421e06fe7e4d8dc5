"""Commands against a kernel: order, what is refused, what is cut."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from appid.alg.expectation import Expectation
from appid.dataplane.command import (
    BindNat,
    ClosePinhole,
    OpenPinhole,
    Postpone,
    ReplaceChains,
    Report,
    RewritePayload,
    SetMark,
    SetVerdict,
    UnbindNat,
)
from appid.dataplane.marks import Marks
from appid.edge.execute import Executor
from appid.flow.key import FlowKey
from appid.packet import parse
from appid.wire import ICMP, UDP, packed
from tests.netns.net import CLIENT4, PEER4, PUBLIC4, Net

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(60)]
INSIDE, PEER, PUBLIC = packed(CLIENT4), packed(PEER4), packed(PUBLIC4)
FLOW = FlowKey(UDP, INSIDE, 16402, PEER, 40000)
WANTED = Expectation(UDP, INSIDE, 16402, PEER, None, PUBLIC, 16404, "x", 1, "sdp-answer", 1, 60.0)
BIND = BindNat(UDP, INSIDE, 16402, PUBLIC, 16404, PEER, 60)
DATAGRAM = bytes.fromhex("4500001f00004000401100000a4d0102c6336402 4012 9c40 000b 0000") + b"old"


@dataclass
class Waiting:
    """Stands for nfqueue.Held, whose answers are tried on a kernel in test_nfqueue."""

    data: bytes = DATAGRAM
    mark: int = 0xAB000000
    answered: bool = False
    told: list[object] = field(default_factory=list)

    def replace(self, data: bytes) -> None:
        self.data = data

    def repeat(self, mark: int) -> None:
        self.told.append(mark)
        self.answered = True

    def wait(self) -> None:
        self.answered = True

    def drop(self) -> None:
        self.told.append("drop")
        self.answered = True


@pytest.fixture
def executor(ruled: Net) -> Iterator[Executor]:
    made = ruled.gateway.call(lambda: Executor(Marks()))
    yield made
    made.close()


@pytest.fixture
def inside(ruled: Net, executor: Executor) -> Callable[..., list[str]]:
    """Runs commands in the gateway's namespace; gives the reasons of those that failed."""

    def steps(*commands: object, held: Waiting | None = None) -> list[str]:
        failed = ruled.gateway.call(lambda: executor.run(commands, 0.0, held, 1))  # type: ignore[arg-type]
        return [f"{type(each.command).__name__}: {each.reason}" for each in failed]

    return steps


def test_a_verdict_keeps_the_marks_of_others(inside: Callable[..., list[str]]) -> None:
    held = Waiting()
    assert inside(SetVerdict(1, "repeat", 0x701), held=held) == []
    assert held.told == [0xAB000701]
    held = Waiting()
    inside(SetVerdict(1, "drop", 0), held=held)
    assert held.told == ["drop"]


def test_what_is_put_off_is_answered_by_the_chains_later(ruled: Net) -> None:
    """Without a mark of ours; those of others stay."""
    later: list[tuple[float, Callable[[], None]]] = []
    made = ruled.gateway.call(lambda: Executor(Marks(), later=lambda *each: later.append(each)))
    held = Waiting(mark=0xAB000701)
    assert made.run([Postpone(1, 0.005)], 0.0, held, 1) == []  # type: ignore[arg-type]
    assert (held.answered, held.told, [seconds for seconds, _ in later]) == (True, [], [0.005])
    later[0][1]()
    assert held.told == [0xAB000000]
    made.close()


def test_a_verdict_for_another_packet_or_a_second_one_fails(inside: Callable[..., list[str]]) -> None:
    held = Waiting()
    assert inside(SetVerdict(2, "repeat", 8), held=held) == ["SetVerdict: packet 2 is not in the queue"]
    assert not held.answered
    again = inside(SetVerdict(1, "repeat", 8), SetVerdict(1, "drop", 0), held=held)
    assert (len(again), len(held.told)) == (1, 1)


def test_a_rewritten_payload_stands_in_the_packet_that_is_released(inside: Callable[..., list[str]]) -> None:
    held = Waiting()
    assert inside(RewritePayload(1, b"quite new"), SetVerdict(1, "repeat", 8), held=held) == []
    seen = parse(memoryview(held.data))
    assert seen is not None
    assert bytes(seen.payload) == b"quite new"


def test_a_refused_command_does_not_keep_the_verdict_from_being_given(
    inside: Callable[..., list[str]], ruled: Net
) -> None:
    ruled.gateway.run("nft", "delete", "table", "inet", "appid-nat")
    held = Waiting()
    failed = inside(BIND, OpenPinhole(1, WANTED, 0x701, 60), SetVerdict(1, "repeat", 8), held=held)
    assert [each.split(":")[0] for each in failed] == ["BindNat"]
    assert held.answered
    assert CLIENT4 in ruled.gateway.run("ipset", "list", "appid-pinholes4")


def test_a_pinholes_mark_holds_no_pass(inside: Callable[..., list[str]], ruled: Net) -> None:
    inside(OpenPinhole(1, WANTED, 0x70D, 60))
    assert "skbmark 0x705/0xffff0f" in ruled.gateway.run("ipset", "list", "appid-pinholes4")


def test_closing_takes_element_binding_and_entries_but_no_others(
    inside: Callable[..., list[str]], ruled: Net, executor: Executor
) -> None:
    other = FlowKey(UDP, INSIDE, 16403, PEER, 40000)
    arriving = FlowKey(UDP, PEER, 40001, INSIDE, 16402)
    marks = [SetMark(key, 0x701, create=True) for key in (FLOW, other, arriving)]
    assert inside(BIND, OpenPinhole(1, WANTED, 0x701, 60), *marks) == []
    assert inside(ClosePinhole(1, WANTED)) == []
    assert CLIENT4 not in ruled.gateway.run("ipset", "list", "appid-pinholes4")
    assert CLIENT4 not in ruled.gateway.run("nft", "list", "table", "inet", "appid-nat")
    assert executor.sweep() == 2, "both ways, in one walk for all that were closed"
    assert executor.sweep() == 0
    entries = ruled.entries()
    assert "sport=16403" in entries
    assert "sport=16402" not in entries.replace("sport=16403", "")
    assert inside(UnbindNat(UDP, INSIDE, 16402, PUBLIC, 16404, PEER), ClosePinhole(1, WANTED)) == []


def test_flows_that_were_seen_moving_go_with_their_pinhole_at_once(
    inside: Callable[..., list[str]], ruled: Net, executor: Executor
) -> None:
    inside(OpenPinhole(1, WANTED, 0x701, 60), SetMark(FLOW, 0x701, create=True))
    executor.saw(list(executor.conntrack.entries()))
    inside(ClosePinhole(1, WANTED))
    assert "sport=16402" not in ruled.entries()


def test_a_pinhole_opened_again_at_once_keeps_its_new_flows(
    inside: Callable[..., list[str]], ruled: Net, executor: Executor
) -> None:
    inside(OpenPinhole(1, WANTED, 0x701, 60), SetMark(FLOW, 0x701, create=True), ClosePinhole(1, WANTED))
    inside(OpenPinhole(2, WANTED, 0x701, 60))
    assert "sport=16402" not in ruled.entries(), "what the first one left is gone before the second is there"
    inside(SetMark(FLOW, 0x701, create=True))
    executor.sweep()
    assert "sport=16402" in ruled.entries()


def test_a_pinhole_for_one_peer_port_cuts_that_flow_alone(
    inside: Callable[..., list[str]], ruled: Net, executor: Executor
) -> None:
    narrow = Expectation(UDP, INSIDE, 16402, PEER, 40000, None, 16402, "x", 1, "channel-bind", 1, 60.0)
    beside = FlowKey(UDP, INSIDE, 16402, PEER, 40002)
    inside(OpenPinhole(1, narrow, 0x701, 60), *(SetMark(key, 0x701, create=True) for key in (FLOW, beside)))
    inside(ClosePinhole(1, narrow))
    executor.sweep()
    entries = ruled.entries()
    assert "dport=40002" in entries
    assert "dport=40000" not in entries


def test_a_mark_without_entry_fails_and_an_error_of_icmp_is_passed_over(
    inside: Callable[..., list[str]], ruled: Net
) -> None:
    assert inside(SetMark(FLOW, 0x701, create=False))[0].startswith("SetMark: conntrack mark 0x701: No such file")
    assert inside(SetMark(FlowKey(ICMP, INSIDE, 0, PEER, 0), 0x702, create=True)) == []


def test_reports_and_replacements_go_where_they_were_asked_for(ruled: Net) -> None:
    reports: list[Report] = []
    replaced: list[bool] = []

    def steps() -> None:
        executor = Executor(Marks(), reports.append, lambda: replaced.append(True))
        assert executor.run([Report("config", 1), ReplaceChains()], 0.0) == []
        executor.close()

    ruled.gateway.call(steps)
    assert [report.body for report in reports] == [1]
    assert replaced == [True]
