"""Lines of a running gateway -> the tale that they were: addresses, relays, effects, folds."""

from __future__ import annotations

from appid.story import plain
from appid.story.retell import end, retold
from appid.story.step import Tale
from appid.wire import Endpoint, packed
from tests.story.test_live import INSIDE, lived, remembered


def test_lines_become_the_same_tale_again() -> None:
    """plain.told and retold are each other's opposite, addresses of both families and relayed messages included."""
    for session, v6 in ((1, False), (4, True), (5, False)):
        first = remembered(lived(session, v6))
        again = retold({"type": "call", "id": 1}, first, [], [], INSIDE)
        assert [line for line in plain.told(again) if line["type"] != "stream"] == [
            line for line in first if line["type"] != "stream"
        ]


def test_one_flow_of_a_call_alone() -> None:
    lines = remembered(lived(1))
    flow = next(line["flow"] for line in lines if line["type"] == "step" and line["packet"] == 64)
    alone = retold({"type": "flow", "id": flow}, lines, [], [], INSIDE, flow)
    assert [item.frame for item in alone.items] == [64, 66]
    assert [party.role for party in alone.parties] == ["client", "web"]


def test_ends() -> None:
    assert end("192.0.2.1:5") == Endpoint(packed("192.0.2.1"), 5)
    assert end("[2001:db8::1]:65535") == Endpoint(packed("2001:db8::1"), 65535)
    assert end("192.0.2.1:0") == Endpoint(packed("192.0.2.1"), 0)
    assert end(None) is None


def test_an_empty_answer_is_an_empty_tale() -> None:
    assert isinstance(retold({"type": "call", "id": 1}, [], [], [], INSIDE), Tale)
