"""The service without a kernel: what it makes of its files, what it remembers, what it answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from appid.dataplane.command import Report
from appid.edge import service
from appid.edge.config import Config
from appid.edge.errors import RuleErrors
from appid.edge.service import Service, Told
from appid.engine import CallReport, DecisionReport, Engine, FlowReport, PinholeReport
from appid.flow.key import FlowKey
from appid.identify.identification import Identification
from appid.packet import id_of
from appid.policy import Decision
from appid.policy.exception import ExceptionPolicy
from appid.policy.rule import Network, Qos
from appid.wire import UDP, packed
from tests.corpus.writer import End
from tests.edge.test_events import REPORTS
from tests.engine.play import udp

SHIPPED = Path(__file__).parents[2] / "rules/policy/facetime.toml"
NETWORKS: tuple[Network, ...] = ((packed("172.16.42.0"), 24), (packed("fd00:42::"), 64))


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(policy=SHIPPED, rules=tmp_path / "none", control=tmp_path / "control.sock", events=None,
                  nat_outside=("71.15.163.132",))  # fmt: skip


def test_the_engine_is_told_what_the_files_say(config: Config) -> None:
    made = Service(config, monitor=True)
    settings = made._settings()
    assert settings.inside == NETWORKS
    assert settings.outside == {packed("71.15.163.132")}
    assert settings.monitor
    assert settings.judge is not None
    assert settings.judge.policy.rules[0].name == "facetime for everyone inside"


def test_the_chains_are_told_what_the_files_say(config: Config) -> None:
    topology = Service(config)._topology()
    assert topology.outside == ("wan0",)
    assert topology.inside == ("172.16.42.0/24", "fd00:42::/64")
    assert topology.blind == "DROP", "never seen by the engine: closed, unless the operator says otherwise"
    assert topology.media == (16384, 16402), "FaceTime's media range (policy.md)"
    assert Service(config, monitor=True)._topology().blind == "ACCEPT", "monitor mode lets everything pass"


def test_the_exception_policy_reaches_the_queue(config: Config) -> None:
    closed = replace(config, exceptions=ExceptionPolicy({"internal-error": "closed", "queue-full": "open"}))
    assert Service(config)._options().on_error == "pass"
    assert not Service(config)._options().fail_open
    assert Service(closed)._options().on_error == "drop"
    assert Service(closed)._options().fail_open
    assert Service(closed, monitor=True)._options().on_error == "pass", "monitor mode lets everything pass"


def test_the_policys_warnings_are_kept_to_be_told(config: Config, tmp_path: Path) -> None:
    assert Service(config).warnings == []
    bare = tmp_path / "policy.toml"
    bare.write_text('[zones]\ninside = {}\n[[rule]]\nname = "calls"\napplications = ["facetime"]\naction = "allow"\n')
    (warning,) = Service(replace(config, policy=bare)).warnings
    assert {"sip", "stun", "ssl", "jabber", "ichat-av"} <= set(warning.others)


def test_a_bad_policy_is_the_operators_error(config: Config, tmp_path: Path) -> None:
    with pytest.raises(RuleErrors):
        Service(replace(config, policy=tmp_path / "none.toml"))


def test_calls_and_pinholes_are_answered_from_what_was_reported(config: Config) -> None:
    made = Service(config)
    for report in REPORTS.values():
        made.told.report(report)
    (call,) = made.answer({"ask": "calls"})
    (pinhole,) = made.answer({"ask": "pinholes"})
    assert (call["type"], call["caller"], call["end"]) == ("call", "172.16.42.187", "open")
    assert (pinhole["type"], pinhole["peer"], pinhole["closed_at"]) == ("pinhole", "71.230.89.52", None)


@pytest.mark.parametrize("request_", [{}, {"ask": "passwords"}, {"ask": ["flows"]}, {"ask": None}])
def test_what_nobody_can_answer_is_an_error(config: Config, request_: dict[str, object]) -> None:
    (told,) = Service(config).answer(request_)
    assert told["type"] == "error"


# ---- what is remembered ----------------------------------------------------------------------------------------------


def flow(number: int) -> FlowReport:
    key = FlowKey(UDP, packed("172.16.42.187"), number, packed("17.173.254.35"), 3478)
    return FlowReport(number, key, Identification("stun"), None, None, None, False, 1, 1)


def test_the_last_report_of_each_counts_and_all_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "REMEMBERED", 5)
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


def test_packets_of_both_directions_are_counted_with_their_flow() -> None:
    told = Told()
    client, relay = End("172.16.42.187", 16402), End("17.173.254.35", 3478)
    for data in (udp(client, relay, b"a"), udp(relay, client, b"b"), udp(client, relay, b"c"), b"\x45 no packet"):
        told.saw(data)
    assert list(told.userspace.values()) == [3]


def test_qos_classes_need_room_in_the_marks(config: Config, tmp_path: Path) -> None:
    place = tmp_path / "policy.toml"
    rules = (f'[[rule]]\nname = "{i}"\naction = "allow"\ndscp = {i}\n' for i in range(1, 17))
    place.write_text("".join(rules))
    with pytest.raises(RuleErrors, match=r"policy.toml: rule: dscp: 16 different dscp and mark values.*room for 15"):
        Service(replace(config, policy=place))
    place.write_text('[[rule]]\nname = "x"\naction = "allow"\ndscp = "ef"\n')
    with pytest.raises(RuleErrors, match="room for 0"):
        Service(replace(config, policy=place, qos_mask=0))
    topology = Service(replace(config, policy=place))._topology()
    assert topology.qos == (Qos(46),)
    assert topology.marks.classes == 15
    assert Service(config)._topology().qos is None, "no chain where no rule wants one"


def test_a_rule_decides_what_is_logged_and_captured(config: Config, tmp_path: Path) -> None:
    place = tmp_path / "policy.toml"
    place.write_text(
        "[defaults]\nlog = false\ncapture_unknown = false\n"
        '[[rule]]\nname = "told"\napplications = ["dns"]\naction = "allow"\n'
        '[[rule]]\nname = "quiet"\napplications = ["ssl"]\naction = "allow"\nlog = false\ncapture_unknown = false\n'
    )
    made = Service(replace(config, policy=place))
    made.engine = Engine(made._settings())

    def report(rule: str | None) -> DecisionReport:
        return DecisionReport(KEY, "x", Decision("allow", rule) if rule else None, True)

    assert [made._logged(report(rule)) for rule in ("told", "quiet", "defaults", None)] == [True, False, False, True]
    assert [made._wanted(Decision("allow", rule)) for rule in ("told", "quiet", "defaults")] == [True, False, False]


KEY = FlowKey(UDP, packed("172.16.42.9"), 5000, packed("192.0.2.53"), 53)


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
