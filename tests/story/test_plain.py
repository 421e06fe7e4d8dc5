"""Story -> JSON lines: who speaks to whom through whom, and times as seconds."""

from __future__ import annotations

import json

from appid.story.plain import described, ends, lane, seconds
from appid.story.step import Party, Tale
from appid.wire import Endpoint, packed
from tests.corpus import sessions
from tests.story import tell

CLIENT, RELAY, PEER = (Endpoint(packed(a), 1) for a in ("172.16.42.187", "17.173.254.35", "71.230.89.52"))
TALE = Tale(
    {}, [Party("client", "client", ()), Party("relay", "relay", ()), Party("peer", "peer", ())],
    lanes={CLIENT.address: 0, RELAY.address: 1, PEER.address: 2},
)  # fmt: skip


def test_the_relay_passes_on() -> None:
    assert ends(TALE, CLIENT, RELAY, None) == ("client", "relay", None)
    assert ends(TALE, CLIENT, RELAY, PEER) == ("client", "peer", "relay")
    assert ends(TALE, RELAY, CLIENT, PEER) == ("peer", "client", "relay")
    assert ends(TALE, None, None, None) == (None, None, None)
    assert lane(TALE, None) is None


def test_lines_are_json_and_times_seconds() -> None:
    lines = tell.told(1)
    assert [json.loads(json.dumps(line)) for line in lines] == list(lines)
    frames = sessions.build(1).capture.frames
    for line in lines:
        if line["type"] == "step":
            assert abs(line["time"] - frames[line["packet"] - 1][0]) < 1e-5
    assert seconds(None) is None
    assert seconds(1_500_000_000) == 1.5
    assert {line["type"] for line in lines} == {
        "capture", "call", "flow", "pinhole", "party", "step", "fold", "stream", "description", "summary"}  # fmt: skip


def test_a_medium_in_words() -> None:
    """Codecs stand at their payload types where there is one for each; else beside all of them."""
    aligned = {"kind": "video", "payload_types": [123, 100], "codecs": ["H264", "HEVC"]}
    assert described(aligned) == "video 123 (H264), 100 (HEVC)"
    some = {"kind": "audio", "payload_types": [0, 104], "codecs": ["PCMU", None]}
    assert described(some) == "audio 0 (PCMU), 104"
    assert described({**some, "codecs": ["PCMU"]}) == "audio 0, 104 (PCMU)"
    assert described({"kind": "audio", "payload_types": [], "codecs": []}) == "audio -"
