"""What a running gateway remembers, told as a capture is: from the JSON lines alone."""

from __future__ import annotations

from typing import Any

from appid.cli.ladder import left_out
from appid.cli.page import page
from appid.engine.record import DEFAULT_INSIDE, Topology
from appid.story.plain import lines
from appid.story.recall import recall
from appid.story.step import Step, Story
from tests.story import tell

INSIDE = Topology(DEFAULT_INSIDE).inside


def remembered(**asked: Any) -> Story:
    told = tell.told(1)
    kinds = {kind: [line for line in told if line["type"] == kind] for kind in ("flow", "call", "pinhole")}
    return recall(kinds["flow"], kinds["call"], kinds["pinhole"], INSIDE, **asked)


def test_the_reasons_and_what_they_changed() -> None:
    (tale,) = remembered().tales
    steps = {item.frame: item for item in tale.items if isinstance(item, Step)}
    assert [party.name for party in tale.parties] == ["client", "relay", "peer", "web"]
    assert steps[60].what == "TURN Allocate request"
    assert steps[60].effects[0].text == "facetime, conclusive"
    assert "stun.relayed_address 17.173.254.35:3489, stun.reservation_token" in steps[60].effects[0].reasons[-1][1]
    assert [effect.text for effect in steps[172].effects] == [
        "call 1 answered", "pinhole 1 opened: 172.16.42.187 port 16402 from 71.230.89.52 (sdp-answer)"]  # fmt: skip
    assert steps[5790].effects[0].text == "call 1 ends: bye"


def test_its_lines_are_the_gateway_s() -> None:
    told = list(lines(remembered()))
    flows: list[dict[str, Any]] = [line for line in told if line["type"] == "flow"]
    assert sorted(flow["id"] for flow in flows) == list(range(1, 11))
    assert all(line["time"] is None for line in told if line["type"] == "step")


def test_one_flow_or_one_call() -> None:
    assert [tale.told["id"] for tale in remembered(flow=3).tales] == [3]
    assert remembered(flow=3).others == []
    assert remembered(call=7).tales == []


def test_each_worker_s_packet_numbers_have_their_own_times() -> None:
    """Two calls of two workers: both had a packet 60, and a 169; an hour lies between them."""
    told = tell.told(1)
    kinds: dict[str, list[dict[str, Any]]] = {"flow": [], "call": [], "pinhole": []}
    for number, begin in ((1, 1_000.0), (2, 4_600.0)):
        for line in (line for line in told if line["type"] in kinds and line.get("call", 1) is not None):
            name = "id" if line["type"] == "call" else "call"
            frames = [60, 64, 161, 162, 169, 172, 280, 5786, 5790]
            moments = [[frame, begin + frame / 100] for frame in frames]
            ended = {"id": line["id"] + 100 * number} if line["type"] == "flow" else {}
            kinds[line["type"]].append({**line, **ended, name: number, "times": moments, "seconds": None})
    story = recall(kinds["flow"], kinds["call"], kinds["pinhole"], INSIDE)
    begins = {(tale.told["id"], item.frame): item.time for tale in story.tales for item in tale.items
              if isinstance(item, Step)}  # fmt: skip
    assert begins[1, 60] == 1_000_600_000_000
    assert begins[2, 60] == 4_600_600_000_000
    assert begins[2, 172] == 4_601_720_000_000
    markup = "".join(page(story))
    assert "from the first packet" in markup, "and there are bars"
    first, second = (story.spans[flow["id"]] for flow in (story.tales[0].flows[0], story.tales[1].flows[0]))
    assert second[0] - first[0] == 3_600_000_000_000


def test_packets_that_nobody_read_are_counted() -> None:
    """By the gateway's two counts; a 5-tuple's new life may have been seen more often than the kernel remembers."""
    (flow,) = (line for line in tell.told(1) if line["type"] == "flow" and line["id"] == 10)
    (call,) = (line for line in tell.told(1) if line["type"] == "call")
    counted = [{**flow, "packets": 5463, "userspace_packets": 3}, {**flow, "packets": 2, "userspace_packets": 3}]
    (tale,) = recall(counted, [call], [], INSIDE).tales
    assert tale.unseen == 5460
    assert "5,460 packets went through the kernel alone" in "".join(left_out(tale))
