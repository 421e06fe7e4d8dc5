"""What is remembered of reports: the last of each, and all of it bounded."""

from __future__ import annotations

from dataclasses import replace

import pytest

from appid.dataplane.command import Report
from appid.edge import told as room
from appid.edge.told import Told, Totals
from appid.engine import CallReport, DecisionReport, FlowEnded, FlowReport, PinholeReport
from appid.flow.key import FlowKey
from appid.identify.identification import Identification
from appid.packet import id_of
from appid.policy import Decision
from appid.wire import UDP, packed
from tests.corpus.writer import End
from tests.edge.test_events import REPORTS
from tests.engine.play import udp

KEY = FlowKey(UDP, packed("172.16.42.9"), 5000, packed("192.0.2.53"), 53)


def flow(number: int) -> FlowReport:
    key = FlowKey(UDP, packed("172.16.42.187"), number, packed("17.173.254.35"), 3478)
    return FlowReport(number, key, Identification("stun"), None, None, None, False, 1, 1)


def test_the_last_report_of_each_counts_and_all_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "REMEMBERED", 5)
    told = Told()
    for number in range(20):
        told.report(Report("flow", flow(number)))
    told.report(Report("flow", flow(15)._replace(packet=9)))
    told.report(Report("flow", flow(20)))
    assert [report.flow for report in told.flows.values()] == [17, 18, 19, 15, 20]
    assert told.flows[id_of(flow(15).key)].packet == 9
    assert told.counts["flow"] == 22
    for report in REPORTS.values():
        told.report(report)
    assert isinstance(told.calls[1], CallReport)
    assert isinstance(told.pinholes[1], PinholeReport)


def test_what_ended_flows_carried_is_added_up_by_application_and_call() -> None:
    """The kernel's counters: userspace saw the first packets of the first flow, and none of the second."""
    told = Told()
    told.report(Report("flow", flow(1)._replace(call=1)))
    told.report(REPORTS["pinhole"])
    wanted = REPORTS["pinhole"].body.expectation
    media = FlowKey(UDP, wanted.peer, 40000, wanted.inside, wanted.port)
    told.end(FlowEnded(flow(1).key, 0, (10, 5), (1000, 500), 2.5), "facetime")
    told.end(FlowEnded(media, 0, (100, 90), (90_000, 80_000), 60.0), "facetime")
    told.end(FlowEnded(KEY, 0, (1, 1), (60, 160), 0.1), "dns")
    assert told.totals == {"facetime": Totals(2, 205, 171_500, 62.5), "dns": Totals(1, 2, 220, 0.1)}
    assert told.of_call == {wanted.call: Totals(2, 205, 171_500, 62.5)}
    assert told.medium(media) == told.medium(media.reversed()) == (wanted.application, wanted.kind)
    told.report(Report("call", replace(REPORTS["call"].body, call=wanted.call, application="sip")))
    assert told.medium(media) == ("sip", wanted.kind), "the call's, whatever its media is called"
    assert told.medium(KEY) is None


def test_packets_of_both_directions_are_counted_with_their_flow() -> None:
    told = Told()
    client, relay = End("172.16.42.187", 16402), End("17.173.254.35", 3478)
    for data in (udp(client, relay, b"a"), udp(relay, client, b"b"), udp(client, relay, b"c"), b"\x45 no packet"):
        told.saw(data)
    assert list(told.userspace.values()) == [3]


def test_a_decision_judged_again_replaces_the_flows_and_is_news_once() -> None:
    told = Told()
    told.report(Report("flow", FlowReport(7, KEY, Identification("dns"), 1, Decision("allow", "a"), None, False, 1, 1)))
    refused = DecisionReport(KEY.reversed(), "dns", Decision("deny", "b"), True)
    assert told.judged(refused)
    assert told.flows[id_of(KEY)].decision == Decision("deny", "b")
    assert told.flows[id_of(KEY)].identification.application == "dns"
    assert told.judged(replace(refused, changed=False)) is False
    stranger = DecisionReport(KEY._replace(sport=1), "dns", Decision("allow", "a"), False)
    assert told.judged(stranger) is False, "nothing is known of it, and nothing changes"


def test_a_call_that_is_anothers_other_end_is_told_of_no_more() -> None:
    """Its flows and what they carried are the other's."""
    told = Told()
    call = REPORTS["call"].body
    told.report(Report("call", replace(call, call=7)))
    told.report(Report("call", replace(call, call=8)))
    for number in (1, 2):
        told.report(Report("flow", flow(number)._replace(call=6 + number)))
        told.end(FlowEnded(flow(number).key, 0, (1, 1), (60, 60), 1.0), "facetime")
    told.report(Report("call", replace(call, call=8, end="joined", into=7)))
    assert list(told.calls) == [7]
    assert {report.call for report in told.flows.values()} == {7}
    assert told.of_call == {7: Totals(2, 4, 240, 2.0)}


def test_another_life_of_a_5_tuple_does_not_inherit_counts() -> None:
    """The relay's flow of a long call: the kernel forgot it while media went directly, and the BYE begins it anew."""
    told = Told()
    first = flow(7)
    data = udp(End("172.16.42.187", 7), End("17.173.254.35", 3478), b"x")
    for _ in range(25):
        told.saw(data)
    told.report(Report("flow", first._replace(userspace_packets=25)))
    told.end(FlowEnded(first.key, 0, (100, 90), (9000, 8000), 2.5), "facetime")
    told.report(Report("flow", first._replace(flow=9, userspace_packets=1)))
    told.saw(data)
    assert told.userspace[id_of(first.key)] == 1
    assert told.ended == {}
    assert told.of(first.key.reversed()) is not None


def test_moments_of_packets_that_changed_something() -> None:
    told = Told()
    told.changed(60, 100.5)
    told.changed(60, 130.0)  # a timer, before another packet came
    told.changed(172, 101.0)
    assert told.moments(60, None, 172, 60, 999) == [(60, 100.5), (172, 101.0)]
