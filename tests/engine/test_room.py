"""Bounds and exceptions: who gives way, what becomes of it, and that each use of the exception policy is told."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from appid.dataplane.command import SetMark, SetVerdict
from appid.engine import ExceptionReport, FlowReport, Settings, Tick
from appid.engine.limits import Limits
from appid.policy import Decision
from appid.policy.exception import Cause, ExceptionPolicy, Failure
from appid.policy.rule import PolicyRule
from tests.corpus.writer import ACK, PSH, SYN, End
from tests.engine.play import CLIENT, PEER, Play, bodies, of, settings, tcp, udp, verdict

ALLOW = PolicyRule("all", "allow", ("inside",), ("outside",), service="any")
WEB = End("192.0.2.1", 80)


def exceptions(play: Play) -> Counter[tuple[Cause, Failure]]:
    return Counter((each.cause, each.failure) for each in bodies(play.commands, ExceptionReport))


def with_policy(limit: int = 65536, monitor: bool = False, **given: Failure) -> Settings:
    policy = ExceptionPolicy({cause.replace("_", "-"): failure for cause, failure in given.items()})  # type: ignore[misc]
    return replace(settings(ALLOW, monitor=monitor), limits=Limits(flows=limit), exceptions=policy)


def flood(play: Play, flows: int, first: int = 0) -> None:
    """Datagrams that say nothing, each from another host and port."""
    for number in range(first, first + flows):
        host = End(f"172.16.42.{number % 200 + 1}", 1025 + number)
        play.queue(udp(host, End("198.51.100.9", 7777), b"\xff\xfe noise"))


@pytest.mark.parametrize("failure", ["open", "closed"])
def test_a_full_table_decides_the_flow_that_gives_way(failure: Failure) -> None:
    play = Play(with_policy(10, table_full=failure))
    flood(play, 15)
    assert len(play.engine.flows) == 10
    marks = [play.engine.settings.marks.decode(command.mark).action for command in of(play.commands, SetMark)]
    assert marks == ["allow" if failure == "open" else "deny"] * 5, "not provisional for ever"
    assert [command.key.sport for command in of(play.commands, SetMark)] == [1025, 1026, 1027, 1028, 1029], "the oldest"
    assert exceptions(play) == {("table-full", failure): 5}


def test_a_flood_takes_the_place_of_the_flood_and_not_of_calls() -> None:
    play = Play(with_policy(50))
    call = play.call()
    call.connect()
    flood(play, 5000)
    assert len(play.engine.flows) == 50
    assert len(play.engine.calls.calls.open) == 1
    (record,) = (record for record in play.engine.flows.values() if record.call is not None)
    assert record.naming.name == "facetime"
    call.bye()
    call.bye_answer()
    assert play.engine.calls.calls.open == {}, "its BYE was read"


def test_where_all_are_protected_the_new_flow_finds_no_room() -> None:
    play = Play(with_policy(3))
    for number in range(3):
        play.call(End(f"172.16.42.{number + 1}", 16402), call_id=f"call-{number}").connect()
    followed = list(play.engine.flows)
    flood(play, 2)
    assert set(play.engine.flows) == set(followed)
    assert exceptions(play) == {("table-full", "closed"): 2}
    assert play.engine.settings.marks.decode(of(play.commands, SetVerdict)[-1].mark).action == "deny"


def test_memory_that_is_short_costs_undecided_flows_alone() -> None:
    play = Play(with_policy())
    play.call().connect()
    flood(play, 999)
    play.commands.clear()
    before = len(play.engine.flows)
    play.commands += play.engine.handle(Tick(play.number, short=True), 1.0)
    left = len(play.engine.flows)
    assert before - left == before // 16
    assert len(play.engine.calls.calls.open) == 1
    assert exceptions(play) == {("table-full", "closed"): before - left}
    flood(play, 1200)
    assert len(play.engine.flows) == left, "one for one, while it is short"
    play.engine.handle(Tick(play.number, short=False), 2.0)
    flood(play, 1300)
    assert len(play.engine.flows) == left
    play.engine.handle(Tick(play.number), 3.0)
    flood(play, 1400)
    assert len(play.engine.flows) > left, "there is room again"


@pytest.mark.parametrize("failure", ["open", "closed"])
def test_a_connection_whose_beginning_was_not_seen(failure: Failure) -> None:
    play = Play(with_policy(mid_stream=failure))
    play.queue(tcp(CLIENT, WEB, 1000, PSH | ACK, b"GET / HTTP/1.1\r\nHost: example.net\r\n\r\n"))
    play.queue(tcp(CLIENT, WEB, 1036, ACK, b"more"))
    action = play.engine.settings.marks.decode(of(play.commands, SetVerdict)[0].mark).action
    reports = bodies(play.commands, FlowReport)
    if failure == "closed":
        assert action == "deny"
        assert reports[0].decision == Decision("deny", "exceptions: mid-stream")
        assert play.engine.flows == {}
    else:
        assert reports[-1].identification.application == "web-browsing", "judged by what is visible"
    assert exceptions(play) == {("mid-stream", failure): 1}, "once a flow"


def test_a_connection_that_begins_and_a_datagram_are_not_midstream() -> None:
    play = Play(with_policy(mid_stream="closed"))
    play.queue(tcp(CLIENT, WEB, 1000, SYN))
    play.queue(tcp(CLIENT, WEB, 1001, PSH | ACK, b"GET / HTTP/1.1\r\nHost: example.net\r\n\r\n"))
    play.queue(udp(CLIENT, PEER, b"\xff noise"))
    assert exceptions(play) == {}


BROKEN_STUN = b"\0\1\0\x40\x21\x12\xa4\x42" + bytes(12) + b"\0\x06\0\xff" + bytes(60)
BROKEN_IP = bytes.fromhex("4f00001400000000401100000a000001c0000201")


@pytest.mark.parametrize("failure", ["open", "closed"])
@pytest.mark.parametrize("data", [udp(CLIENT, PEER, BROKEN_STUN), BROKEN_IP], ids=["stun", "ip"])
def test_what_breaks_its_own_format(data: bytes, failure: Failure) -> None:
    play = Play(with_policy(undecodable=failure))
    given = verdict(play.queue(data))
    assert given.verdict == ("repeat" if failure == "open" else "drop")
    assert exceptions(play) == {("undecodable", failure): 1}
    play.commands.clear()
    play.queue(udp(CLIENT, PEER, b"\xff what no decoder knows is no fault"))
    assert exceptions(play) == {}


def test_monitor_mode_lets_everything_pass() -> None:
    causes: dict[str, Failure] = {"undecodable": "closed", "mid_stream": "closed", "table_full": "closed"}
    play = Play(with_policy(2, monitor=True, **causes))
    play.queue(udp(CLIENT, PEER, BROKEN_STUN))
    play.queue(tcp(CLIENT, WEB, 1000, PSH | ACK, b"more"))
    flood(play, 5)
    assert {failure for _, failure in exceptions(play)} == {"open"}
    actions = {play.engine.settings.marks.decode(each.mark).action for each in of(play.commands, SetMark)}
    assert actions <= {"allow", None}
    assert all(each.verdict == "repeat" for each in of(play.commands, SetVerdict))


def test_decided_flows_leave_nothing_behind() -> None:
    play = Play(settings(PolicyRule("lookups", "allow", ("inside",), ("outside",), applications=frozenset({"dns"}))))
    query = bytes.fromhex("123401000001000000000000076578616d706c65036e65740000010001")
    for number in range(20_000):
        play.commands.clear()
        play.queue(udp(End(f"172.16.42.{number % 200 + 1}", 1025 + number), End("192.0.2.53", 53), query))
    assert play.engine.flows == {}
    play.engine.handle(Tick(play.number), 10.0)
    assert len(play.engine.stamps) == 0
