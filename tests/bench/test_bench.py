"""The bench's own parts: the capture it makes, the applications it clones, the road it drives. It asserts no figure."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from appid.edge.capture import Writer, frames
from appid.edge.rule_files import load_applications
from appid.wire import packed
from tests.bench import applications, forwarding
from tests.bench.replicate import ip_packets, moved, replicate


def ipv4(source: str, destination: str) -> bytes:
    """RFC 791 section 3.1: a UDP packet with 20 bytes behind the header."""
    return bytes.fromhex("450000280001000040110000") + packed(source) + packed(destination) + bytes(20)


def test_the_client_moves_in_both_directions_alike() -> None:
    there, back = ipv4("192.168.1.2", "17.1.1.1"), ipv4("17.1.1.1", "192.168.1.2")
    assert moved(there, 1) == ipv4("192.168.1.3", "17.1.1.1")
    assert moved(back, 1) == ipv4("17.1.1.1", "192.168.1.3")
    assert moved(there, 0) == there


def test_repetitions_fill_the_capture(tmp_path: Path) -> None:
    source, target = tmp_path / "source.pcap", tmp_path / "target.pcap"
    with Writer(source) as out:
        out.write(5_000_000_000, ipv4("10.0.0.1", "17.1.1.1"))
        out.write(7_000_000_000, ipv4("17.1.1.1", "10.0.0.1"))
    assert replicate([source], target, 6) == 6
    seen = [(time, bytes(frame[26:30]), bytes(frame[30:34])) for _, time, _, frame in frames(target)]
    assert [source for _, source, _ in seen[::2]] == [packed(f"10.0.0.{host}") for host in (1, 0, 3)]
    assert [destination for _, _, destination in seen[1::2]] == [packed(f"10.0.0.{host}") for host in (1, 0, 3)]
    assert seen[1][0] - seen[0][0] == 2_000_000_000
    assert len(ip_packets(target)) == 6


def test_clones_load_and_there_are_ten_times_as_many(tmp_path: Path) -> None:
    shipped = load_applications()
    assert applications.clone_folder(tmp_path) == 9 * len(shipped)
    assert len(load_applications(tmp_path)) == 10 * len(shipped)


@pytest.mark.kernel
def test_a_decided_flow_is_forwarded_and_nothing_is_left() -> None:
    rows = forwarding.measure(rounds=1, seconds=0.3)
    assert [row.traffic for row in rows] == ["udp", "tcp"]
    for row in rows:
        assert row.plain > 0
        assert row.decided > 0
        assert row.userspace < 0.01, "a decided flow met the queue rule"
    assert (
        f"appid-bench-{os.getpid()}"
        not in subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
    )
