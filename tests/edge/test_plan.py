"""What the files say, as the engine, the chains and the queue are told it."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from appid.edge.config import Config
from appid.edge.errors import RuleErrors
from appid.edge.plan import load_plan
from appid.engine import DecisionReport
from appid.flow.key import FlowKey
from appid.policy import Decision
from appid.policy.exception import ExceptionPolicy
from appid.policy.rule import Network, Qos
from appid.wire import UDP, packed

SHIPPED = Path(__file__).parents[2] / "rules/policy/facetime.toml"
NETWORKS: tuple[Network, ...] = ((packed("172.16.42.0"), 24), (packed("fd00:42::"), 64))
KEY = FlowKey(UDP, packed("172.16.42.9"), 5000, packed("192.0.2.53"), 53)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(policy=SHIPPED, rules=tmp_path / "none", control=tmp_path / "control.sock", events=None,
                  nat_outside=("71.15.163.132",))  # fmt: skip


def test_the_engine_is_told_what_the_files_say(config: Config) -> None:
    settings = load_plan(config, monitor=True).settings()
    assert settings.inside == NETWORKS
    assert settings.outside == {packed("71.15.163.132")}
    assert settings.monitor
    assert settings.judge is not None
    assert settings.judge.policy.rules[0].name == "facetime for everyone inside"


def test_the_chains_are_told_what_the_files_say(config: Config) -> None:
    topology = load_plan(config).topology()
    assert topology.outside == ("wan0",)
    assert topology.inside == ("172.16.42.0/24", "fd00:42::/64")
    assert topology.blind == "DROP", "never seen by the engine: closed, unless the operator says otherwise"
    assert topology.media == (16384, 16402), "FaceTime's media range (policy.md)"
    assert load_plan(config, monitor=True).topology().blind == "ACCEPT", "monitor mode lets everything pass"


def test_the_exception_policy_reaches_the_queue(config: Config) -> None:
    closed = replace(config, exceptions=ExceptionPolicy({"internal-error": "closed", "queue-full": "open"}))
    assert load_plan(config).options().on_error == "pass"
    assert not load_plan(config).options().fail_open
    assert load_plan(closed).options().on_error == "drop"
    assert load_plan(closed).options().fail_open
    assert load_plan(closed, monitor=True).options().on_error == "pass", "monitor mode lets everything pass"


def test_the_policys_warnings_are_kept_to_be_told(config: Config, tmp_path: Path) -> None:
    assert load_plan(config).warnings == ()
    bare = tmp_path / "policy.toml"
    bare.write_text('[zones]\ninside = {}\n[[rule]]\nname = "calls"\napplications = ["facetime"]\naction = "allow"\n')
    (warning,) = load_plan(replace(config, policy=bare)).warnings
    assert {"sip", "stun", "ssl", "jabber", "ichat-av"} <= set(warning.others)


def test_a_bad_policy_is_the_operators_error(config: Config, tmp_path: Path) -> None:
    with pytest.raises(RuleErrors):
        load_plan(replace(config, policy=tmp_path / "none.toml"))


def test_qos_classes_need_room_in_the_marks(config: Config, tmp_path: Path) -> None:
    place = tmp_path / "policy.toml"
    rules = (f'[[rule]]\nname = "{i}"\naction = "allow"\ndscp = {i}\n' for i in range(1, 17))
    place.write_text("".join(rules))
    with pytest.raises(RuleErrors, match=r"policy.toml: rule\[16\]: dscp: the 16th different value.*room for 15"):
        load_plan(replace(config, policy=place))
    place.write_text('[[rule]]\nname = "x"\naction = "allow"\ndscp = "ef"\n')
    with pytest.raises(RuleErrors, match="room for 0"):
        load_plan(replace(config, policy=place, qos_mask=0))
    topology = load_plan(replace(config, policy=place)).topology()
    assert topology.qos == (Qos(46),)
    assert topology.marks.classes == 15
    assert load_plan(config).topology().qos is None, "no chain where no rule wants one"
    assert load_plan(config).topology(topology).qos == (), "an empty one where one was"


def test_a_rule_decides_what_is_logged_and_captured(config: Config, tmp_path: Path) -> None:
    place = tmp_path / "policy.toml"
    place.write_text(
        "[defaults]\nlog = false\ncapture_unknown = false\n"
        '[[rule]]\nname = "told"\napplications = ["dns"]\naction = "allow"\n'
        '[[rule]]\nname = "quiet"\napplications = ["ssl"]\naction = "allow"\nlog = false\ncapture_unknown = false\n'
    )
    made = load_plan(replace(config, policy=place))

    def report(rule: str | None) -> DecisionReport:
        return DecisionReport(KEY, "x", Decision("allow", rule) if rule else None, True)

    assert [made.logged(report(rule)) for rule in ("told", "quiet", "defaults", None)] == [True, False, False, True]
    assert [made.wanted(Decision("allow", rule)) for rule in ("told", "quiet", "defaults")] == [True, False, False]


def test_it_travels_to_another_process(config: Config) -> None:
    made = load_plan(config)
    there = pickle.loads(pickle.dumps(made))
    assert (there.policy, there.applications, there.warnings) == (made.policy, made.applications, made.warnings)
    assert there.topology() == made.topology()


def test_workers_get_it_compiled_and_without_the_warnings(config: Config, tmp_path: Path) -> None:
    place = tmp_path / "policy.toml"
    place.write_text('[[rule]]\nname = "calls"\napplications = ["facetime"]\naction = "allow"\n')
    plan = load_plan(config, place=place)
    plan.settings()
    arrived = pickle.loads(plan.parcel())
    assert "judge" in vars(arrived)
    assert (arrived.policy, arrived.judge.policy) == (plan.policy, plan.policy)
    assert (len(plan.warnings), arrived.warnings) == (1, ())
