"""Lives of a 5-tuple: what one life was decided says nothing of the next."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest

from appid.cli.check import lines
from appid.dataplane.model import Kernel
from appid.edge.policy_file import load_policy
from appid.edge.replay import Replay
from appid.edge.rule_files import load_applications
from appid.engine import Engine, Settings
from appid.policy.evaluate import Judge
from tests.corpus.tls_bytes import client_hello
from tests.corpus.writer import Capture, End, Tcp

CLIENT, SERVER = End("172.16.42.187", 50000), End("198.51.100.7", 80)
WEB_ONLY = """
[zones]
inside = { networks = ["172.16.42.0/24"] }
outside = {}
[defaults]
action = "deny"
[[rule]]
name = "web"
from = ["inside"]
to = ["outside"]
applications = ["web-browsing"]
action = "allow"
"""


def check(capture: Capture, folder: Path, policy: str | None = None) -> list[dict[str, Any]]:
    applications = load_applications()
    settings = Settings(applications)
    if policy is not None:
        (folder / "policy.toml").write_text(policy)
        settings = Settings(applications, Judge(load_policy(folder / "policy.toml", applications), applications))
    path = folder / "lives.pcap"
    capture.save(path)
    kernel = Kernel(settings.marks, "pass" if policy is None else "drop")
    return list(lines(Replay(Engine(settings), kernel).run(path), drops=True))


@pytest.mark.parametrize("gap", [1.0, 6.0])
def test_a_second_life_of_a_5_tuple_is_judged_by_itself(gap: float, tmp_path: Path) -> None:
    """Allowed HTTP ends; the same ports are used for TLS, which the policy refuses."""
    capture = Capture(1425229200.0)
    first = Tcp(capture, CLIENT, SERVER, 1, 2)
    list(first.open())
    first.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", True)
    first.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", False)
    first.fin(True)
    first.fin(False)
    first.ack(True)
    capture.now += gap
    second = Tcp(capture, CLIENT, SERVER, 100001, 2222)
    opening = list(second.open())
    second.send(client_hello(Random(1), "www.example.org"), True)
    for turn in range(4):
        second.send(b"\x17\x03\x03\x00\x10" + bytes(16), turn % 2 == 0)
    told = check(capture, tmp_path, WEB_ONLY)
    flows = [line for line in told if line["type"] == "flow"]
    assert [flow["application"] for flow in flows] == ["web-browsing", "ssl"]
    assert [flow["decision"]["action"] for flow in flows] == ["allow", "deny"]
    assert flows[1]["first_packet"] == opening[0]
    dropped = {line["packet"] for line in told if line["type"] == "drop"}
    assert {opening[-1] + 2, opening[-1] + 3, opening[-1] + 4} <= dropped
    assert not dropped & set(range(1, opening[0]))


def test_the_end_of_a_connection_joined_late_is_one_flow(tmp_path: Path) -> None:
    capture = Capture(1425229200.0)
    tail = Tcp(capture, CLIENT, SERVER, 1, 2)
    tail.fin(True)
    tail.fin(False)
    tail.ack(True)
    flows = [line for line in check(capture, tmp_path) if line["type"] == "flow"]
    assert [(flow["packets"], flow["application"]) for flow in flows] == [(3, "incomplete")]


def test_a_flow_begins_with_its_first_fragment(tmp_path: Path) -> None:
    capture = Capture(1425229200.0)
    capture.udp(CLIENT, End("198.51.100.9", 9), b"before")
    capture.udp_fragments(CLIENT, End("198.51.100.8", 5060), b"OPTIONS sip:a SIP/2.0\r\nCall-ID: 1\r\n" * 90, 1000)
    flow = [line for line in check(capture, tmp_path) if line["type"] == "flow"][1]
    assert (flow["first_packet"], flow["last_packet"], flow["packets"]) == (
        2,
        len(capture.frames),
        len(capture.frames) - 1,
    )
