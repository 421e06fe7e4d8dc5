"""`appid policy test`: the report's first session under policies, alone and against each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from appid.cli import trial
from appid.cli.main import main
from tests.corpus import sessions
from tests.corpus.variation import Variation

ZONES = '[zones]\ninside = { networks = ["172.16.42.0/24"] }\noutside = {}\n'
NO_CALLS = '[[rule]]\nname = "no calls"\napplications = ["facetime"]\naction = "deny"\n'
ALL = '[[rule]]\nname = "all"\nservice = "any"\naction = "allow"\n'
RELAY, BETWEEN, PUSH = ("172.16.42.187", 16402, "17.173.254.35", 3478), 16402, 5223


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("session") / "1.pcap"
    sessions.build(1, Variation.from_seed(0)).capture.save(path)
    return str(path)


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    """A policy that allows all, and one that refuses facetime first."""
    old, new = tmp_path / "old.toml", tmp_path / "new.toml"
    old.write_text(ZONES + ALL)
    new.write_text(ZONES + NO_CALLS + ALL)
    return str(old), str(new)


def told(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_each_flow_is_told_with_its_decision_and_what_it_loses(
    capture: str, files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["policy", "test", files[1], capture, "--json"]) == 0
    *flows, summary = told(capsys)
    assert summary["type"] == "summary"
    assert summary["flows"] == len(flows)
    relayed = [flow for flow in flows if (flow["src"], flow["sport"], flow["dst"], flow["dport"]) == RELAY]
    assert [(flow["decision"], flow["dropped"] > 0) for flow in relayed] == [
        ({"action": "deny", "rule": "no calls"}, True)
    ]
    (push,) = (flow for flow in flows if flow["dport"] == PUSH)
    assert push["decision"] == {"action": "allow", "rule": "all"}
    assert push["dropped"] == 0
    assert summary["dropped"] == sum(flow["dropped"] for flow in flows)


def test_a_refusal_of_what_begins_inside_cuts_all_flows_of_the_call_and_no_other(
    capture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Point 6: also the direct one, which the peer's check began."""
    policy = tmp_path / "policy.toml"
    outward = 'from = ["inside"]\nto = ["outside"]\n'
    policy.write_text(ZONES + '[defaults]\naction = "allow"\n' + NO_CALLS + outward)
    assert main(["policy", "test", str(policy), capture, "--json"]) == 0
    *flows, _ = told(capsys)
    assert any(flow["dst"] == RELAY[0] for flow in flows if flow["application"] == "facetime"), "or this shows nothing"
    for flow in flows:
        refused = flow["application"] == "facetime"
        rule = {"action": "deny", "rule": "no calls"} if refused else {"action": "allow", "rule": "defaults"}
        assert (flow["decision"], flow["dropped"] > 0) == (rule, refused)
        if refused and flow["proto"] == "udp":
            assert flow["dropped"] == flow["packets"]


def test_against_another_policy_the_differences_and_a_status(
    capture: str, files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["policy", "test", files[1], capture, "--against", files[0], "--json"]) == 1
    *lines, summary = told(capsys)
    assert summary["differences"] == len(lines) > 0
    assert {line["type"] for line in lines} == {"difference"}
    assert {line["was"]["decision"]["rule"] for line in lines} == {"all"}
    assert {line["decision"]["action"] for line in lines} == {"deny"}
    assert PUSH not in {line["dport"] for line in lines}
    assert main(["policy", "test", files[0], capture, "--against", files[0], "--json"]) == 0
    assert told(capsys)[-1]["differences"] == 0


def test_for_people(capture: str, files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "test", files[0], capture]) == 0
    assert "packets dropped" in capsys.readouterr().out
    assert main(["policy", "test", files[1], capture, "--against", files[0]]) == 1
    assert "flows differ" in capsys.readouterr().out


def test_what_cannot_be_used_is_status_2(
    capture: str, files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text(ZONES + '[[rule]]\nname = "x"\naction = "alow"\nfrom = ["nowhere"]\n')
    for more in ([str(broken), capture], [files[0], capture, "--against", str(broken)]):
        assert main(["policy", "test", *more]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 2, "every fault, one line each"
    assert main(["policy", "test", files[0], str(tmp_path / "none.pcap")]) == 2
    capsys.readouterr()
    other = tmp_path / "other.toml"
    other.write_text("colour = 1\n")
    assert main(["policy", "test", str(broken), capture, "--against", str(other)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 3, "the faults of both"


CALLS = '[[rule]]\nname = "calls"\napplications = ["facetime"]\nservice = "any"\naction = "allow"\n'


@pytest.mark.parametrize(
    ("more", "column", "becomes"), [('dscp = "ef"\n', "dscp", 46), ('mark = "0x10/0xf0"\n', "mark", "0x10/0xf0")]
)
def test_what_packets_are_given_is_a_difference(
    capture: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: str,
    column: str,
    becomes: object,
) -> None:
    old, new = tmp_path / "old.toml", tmp_path / "new.toml"
    old.write_text(ZONES + CALLS + ALL)
    new.write_text(ZONES + CALLS + more + ALL)
    assert main(["policy", "test", str(new), capture, "--against", str(old), "--json"]) == 1
    *lines, _ = told(capsys)
    assert {(line["was"][column], line[column]) for line in lines} == {(None, becomes)}
    assert {line["application"] for line in lines} == {"facetime"}
    assert {line["decision"]["rule"] for line in lines} == {"calls"}, "the decision is the same"
    assert main(["policy", "test", str(new), capture, "--against", str(old)]) == 1
    assert column in capsys.readouterr().out


def test_packets_lost_on_the_way_to_the_same_decision_are_a_difference(
    capture: str, files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["policy", "test", files[1], capture, "--json"]) == 0
    *flows, _ = told(capsys)
    more = [{**flow, "dropped": flow["dropped"] + 1} for flow in flows[:1]] + flows[1:]
    (line,) = trial.differences(flows, more)
    assert (line["dropped"], line["was"]["dropped"]) == (flows[0]["dropped"] + 1, flows[0]["dropped"])
    assert list(trial.differences(flows, flows)) == []


def test_a_policy_of_interfaces_alone_is_tried_where_it_says_which_is_outside(
    capture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "wired.toml"
    zones = '[zones]\nlan = { interfaces = ["lan0"] }\nwan = { interfaces = ["wan0"], outside = true }\n'
    file.write_text(zones + '[[rule]]\nname = "out"\nfrom = "lan"\nto = "wan"\nservice = "any"\naction = "allow"\n')
    assert main(["policy", "test", str(file), capture, "--json", "--inside", "172.16.42.0/24"]) == 0
    *flows, _ = told(capsys)
    ours = [tuple(flow[end].startswith("172.16.42.") for end in ("src", "dst")) for flow in flows]
    out = [f["decision"]["rule"] for f, at in zip(flows, ours, strict=True) if at == (True, False) and f["decision"]]
    assert out
    assert set(out) == {"out"}
