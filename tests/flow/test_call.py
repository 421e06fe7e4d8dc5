"""Calls: which one a flow serves, when one is lost, and that neither calls nor what they hold grow without bound."""

from __future__ import annotations

import pytest

from appid.flow import call as flow
from appid.flow.call import MAX_CALL_FLOWS, MAX_HOSTS, MAX_PEERS, SILENCE, Call, Calls
from appid.wire import packed

ALICE, BOB, RELAY, PEER = (packed(a) for a in ("172.16.42.187", "172.16.42.185", "17.173.254.35", "71.230.89.52"))


def test_a_flow_serves_the_call_of_its_peer_else_the_last_one_active() -> None:
    calls = Calls()
    first, second = calls.start("facetime", [ALICE], 1.0, 60), calls.start("facetime", [ALICE], 2.0, 200)
    first.add_peer(PEER)
    assert calls.find("facetime", [ALICE], PEER) is first
    assert calls.find("facetime", [ALICE], RELAY) is second
    first.touch(9.0, 300)
    assert calls.find("facetime", [ALICE], RELAY) is first


def test_other_hosts_and_applications_have_other_calls() -> None:
    calls = Calls()
    calls.start("facetime", [ALICE], 1.0, 60)
    assert calls.find("facetime", [BOB], RELAY) is None
    assert calls.find("webrtc", [ALICE], RELAY) is None


def test_an_ending_call_takes_no_new_flow() -> None:
    calls = Calls()
    call = calls.start("facetime", [ALICE], 1.0, 60)
    call.ending = True
    assert calls.find("facetime", [ALICE], RELAY) is None


def test_a_call_of_two_inside_hosts_is_found_by_both_and_leaves_nothing_behind() -> None:
    calls = Calls()
    call = calls.start("facetime", [ALICE, BOB], 1.0, 60)
    assert calls.find("facetime", [BOB], RELAY) is call
    calls.remove(call)
    calls.remove(call)
    assert calls.find("facetime", [ALICE], RELAY) is None
    assert not calls.open
    assert not calls._by_host


def test_a_call_is_lost_after_60_seconds_of_silence() -> None:
    assert SILENCE == 60.0
    calls = Calls()
    call = calls.start("facetime", [ALICE], 10.0, 60)
    call.touch(20.0, 61)
    assert calls.next_deadline() == 80.0
    assert calls.silent(79.9) == []
    assert calls.silent(80.0) == [call]
    assert Calls().next_deadline() is None


def test_time_and_packets_never_run_backwards() -> None:
    call = Calls().start("facetime", [ALICE], 10.0, 60)
    call.touch(5.0, 40)
    assert (call.last_seen, call.last_packet) == (10.0, 60)


def test_too_many_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "MAX_CALLS", 3)
    calls = Calls()
    made = [calls.start("facetime", [ALICE], float(n), n) for n in range(4)]
    made[0].touch(99.0, 99)
    assert calls.overflow() is made[1]
    calls.remove(made[1])
    assert calls.overflow() is None


def test_one_call_is_bounded() -> None:
    calls = Calls()
    call = calls.start("facetime", [ALICE], 1.0, 60)
    for number in range(5000):
        call.add_flow(number)
        call.add_peer(number.to_bytes(4, "big"))
        calls.join(call, number.to_bytes(4, "big"))
    assert len(call.flows) == MAX_CALL_FLOWS
    assert len(call.peers) == MAX_PEERS
    assert len(call.hosts) == MAX_HOSTS == len(calls._by_host)


def test_an_invite_is_not_looked_for_among_calls_that_had_theirs() -> None:
    class Counted(Call):
        """Asked for its application by whoever looks at it."""

        looks = 0

        def __getattribute__(self, name: str) -> object:
            if name == "application":
                Counted.looks += 1
            return super().__getattribute__(name)

    calls = Calls()
    for number in range(500):
        call = Counted(number + 1, "sip", number, float(number), number)
        calls.put(call, [ALICE])
        calls.signalled(call, f"call-{number}", "tag")
    waits = calls.start("sip", [ALICE], 0.0, 501)
    assert calls.waiting("sip", [ALICE], PEER) is waits
    assert Counted.looks == 0
    assert calls.find("sip", [ALICE], PEER) is calls.open[500]
