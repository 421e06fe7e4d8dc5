"""What has no owner goes from the kernel, what has one stays; whose it is decides who looks after it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from appid.alg.expectation import Expectation
from appid.dataplane.bytecode import queue_of
from appid.dataplane.command import BindNat, OpenPinhole, SetMark
from appid.dataplane.marks import Marks
from appid.dataplane.share import Share
from appid.edge.execute import Executor
from appid.edge.reconcile import Closed, reconcile
from appid.flow.key import FlowKey
from appid.wire import UDP, packed
from tests.netns.net import CLIENT4, CLIENT6, PEER4, PEER6, PUBLIC4, PUBLIC6, Net

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(60)]
INSIDE = frozenset((packed(CLIENT4), packed(CLIENT6)))
ALONE = Share(0, 1, INSIDE.__contains__)
OTHERS = Share(
    *next((index, 64) for index in range(64) if not any(queue_of(host, 64) == index for host in INSIDE)),
    INSIDE.__contains__,
)
ENDS = {4: (packed(CLIENT4), packed(PEER4), packed(PUBLIC4)), 6: (packed(CLIENT6), packed(PEER6), packed(PUBLIC6))}


def hole(number: int, family: int, port: int) -> tuple[BindNat, OpenPinhole, SetMark]:
    inside, peer, outside = ENDS[family]
    wanted = Expectation(UDP, inside, port, peer, None, outside, port + 100, "x", number, "sdp-answer", 1, 60.0)
    binding = BindNat(UDP, inside, port, outside, port + 100, peer, 60)
    return binding, OpenPinhole(number, wanted, 0x701, 60), SetMark(FlowKey(UDP, inside, port, peer, 4000), 0x701, True)


@pytest.fixture
def executors(ruled: Net) -> Iterator[tuple[Executor, Executor]]:
    """The one before, and the one that begins."""
    made = ruled.gateway.call(lambda: (Executor(Marks()), Executor(Marks())))
    yield made
    for each in made:
        each.close()


def test_orphans_go_and_what_is_known_stays(ruled: Net, executors: tuple[Executor, Executor]) -> None:
    before, after = executors
    for number, (family, port) in enumerate(((4, 16402), (4, 16404), (6, 16402), (6, 16404)), 1):
        assert before.run(hole(number, family, port)[:2], 0.0) == []
    assert after.run([*hole(1, 4, 16402)[:2], *hole(3, 6, 16402)[:2]], 0.0) == [], "what its calls hold is put again"
    assert before.run([hole(0, family, port)[2] for family in (4, 6) for port in (16402, 16404)], 0.0) == []
    assert len(after.pinholes.elements()) == len(after.bindings.listed()) == 4
    assert reconcile(after, OTHERS) == Closed(0, 0, 0), "hosts of other workers"
    assert reconcile(after, ALONE) == Closed(2, 2, 2)
    assert set(after.pinholes.elements()) == after.desired.elements()
    assert {each.port for each in after.bindings.listed()} == {16402}
    entries = ruled.entries()
    for client, peer in ((CLIENT4, PEER4), (CLIENT6, PEER6)):
        assert f"src={client} dst={peer} sport=16402" in entries
    assert "sport=16404" not in entries
    assert reconcile(after, ALONE) == Closed(0, 0, 0)


def test_a_kernel_without_our_sets_and_maps_holds_nothing(bare: Net) -> None:
    executor = bare.gateway.call(lambda: Executor(Marks()))
    assert bare.gateway.call(lambda: reconcile(executor, ALONE)) == Closed(0, 0, 0)
    executor.close()
