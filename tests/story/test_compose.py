"""The story's numbers are those of `appid check --json`: packets, bytes, times, where calls begin and end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from appid.cli.main import main
from tests.corpus import sessions
from tests.story import tell


@pytest.mark.parametrize("number", [1, 4])
def test_every_line_of_check_is_told_alike(number: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "session.pcap"
    sessions.build(number).capture.save(path)
    lines = []
    for command in ("check", "explain"):
        assert main([command, "--json", str(path)]) == 0
        lines.append([json.loads(line) for line in capsys.readouterr().out.splitlines()])
    checked, explained = lines
    assert len(explained) > len(checked)
    for line in checked:
        assert line in explained


@pytest.mark.parametrize("number", range(1, 6))
def test_messages_and_folds_of_a_flow_add_up_to_its_packets(number: int) -> None:
    """UDP flows of calls: each packet is a step or in a fold, and none is told twice."""
    story = tell.session(number)
    lines = tell.told(number)
    for tale in story.tales:
        for flow in (flow for flow in tale.flows if flow["proto"] == "udp"):
            steps = [line for line in lines if line["type"] == "step" and line["flow"] == flow["id"]]
            steps = [line for line in steps if "ICMP" not in line["what"]]
            folds = [
                one for line in lines if line["type"] == "fold" for one in line["lines"] if one["flow"] == flow["id"]
            ]
            assert len(steps) + sum(one["packets"] for one in folds) == flow["packets"], flow["id"]
            assert sum(line["bytes"] for line in steps + folds) == flow["bytes"], flow["id"]


def test_streams_add_up_to_the_media() -> None:
    """Session 1: 343 bytes or whatever each: RTP of folds and steps is the RTP of streams."""
    lines = tell.told(1)
    streams = sum(line["packets"] for line in lines if line["type"] == "stream")
    steps = sum(line["type"] == "step" and line["protocol"] == "rtp" for line in lines)
    folds = sum(o["packets"] for line in lines if line["type"] == "fold" for o in line["lines"] if o["what"] == "RTP")
    assert streams == steps + folds


def test_spans_are_the_frames_times() -> None:
    frames = sessions.build(1).capture.frames
    story = tell.session(1)
    for flow in story.tales[0].flows:
        first, last = story.spans[flow["id"]]
        assert first / 1e9 == pytest.approx(frames[flow["first_packet"] - 1][0], abs=1e-5)
        assert last / 1e9 == pytest.approx(frames[flow["last_packet"] - 1][0], abs=1e-5)


def test_one_call_or_one_flow_alone(tmp_path: Path) -> None:
    path = tmp_path / "session5.pcap"
    sessions.build(5).capture.save(path)
    assert [tale.told["id"] for tale in tell.of_file(path, call=2).tales] == [2]
    (tale,) = tell.of_file(path, flow=2).tales
    assert (tale.told["type"], tale.told["id"], tale.told["application"]) == ("flow", 2, "dns")
    assert tale.items
    assert tell.of_file(path, call=9).tales == []
