"""`appid check`: its exit status, its JSON lines (docs/reference/json.md), its table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from appid.cli.main import main
from appid.edge.capture import Writer
from tests.corpus import sessions
from tests.corpus.variation import Variation
from tests.corpus.writer import Capture, End

KEYS = {
    "capture": {"file", "packets", "linktype", "first", "last"},
    "flow": {"id", "proto", "src", "sport", "dst", "dport", "packets", "bytes", "first_packet", "last_packet",
             "application", "confidence", "identified_at", "path", "shifts", "because", "userspace_packets", "call",
             "community_id", "decision"},
    "call": {"id", "application", "call_id", "caller", "callee", "started_at", "answered_at", "ended_at", "end",
             "flows", "media"},
    "pinhole": {"id", "proto", "inside", "port", "peer", "peer_port", "reason", "opened_at", "closed_at", "call"},
    "drop": {"packet", "flow", "rule"},
    "anomaly": {"packet", "flow", "protocol", "reason"},
    "summary": {"flows", "calls", "pinholes", "anomalies", "packets", "userspace_packets"},
}  # fmt: skip
"""The interface's keys; more may be added, none may go."""
DENY = """
[zones]
inside = { networks = ["172.16.42.0/24"] }
outside = {}
[defaults]
action = "allow"
[[rule]]
name = "no calls [/at all]"
applications = ["facetime"]
action = "deny"
"""


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("check") / "session1.pcap"
    sessions.build(1, Variation.from_seed(0)).capture.save(path)
    return path


def check(capsys: pytest.CaptureFixture[str], *arguments: object, status: int = 0) -> list[dict[str, Any]]:
    assert main(["check", *map(str, arguments), "--json"]) == status
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_the_lines_have_the_interfaces_keys(capture: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text(DENY)
    told = check(capsys, capture) + check(capsys, capture, "--policy", policy, "--drops")
    assert {line["type"] for line in told} >= KEYS.keys() - {"anomaly"}
    for line in told:
        assert line.keys() >= KEYS[line["type"]] | {"type"}, line["type"]


def test_the_lines_stand_in_order_and_agree(capture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = check(capsys, capture)
    assert told[0]["type"] == "capture"
    assert told[-1]["type"] == "summary"
    flows = [line for line in told if line["type"] == "flow"]
    assert [flow["id"] for flow in flows] == list(range(1, len(flows) + 1))
    assert told[-1]["flows"] == len(flows)
    assert told[-1]["packets"] == told[0]["packets"]
    assert told[-1]["userspace_packets"] == sum(flow["userspace_packets"] for flow in flows)
    for call in (line for line in told if line["type"] == "call"):
        assert sorted(call["flows"]) == sorted(flow["id"] for flow in flows if flow["call"] == call["id"])
    for flow in flows:
        assert 1 <= flow["first_packet"] <= flow["last_packet"] <= told[0]["packets"]
        assert flow["decision"] is None or flow["decision"]["action"] == "allow"
        assert all(reason["packet"] >= 1 and reason["signature"] for reason in flow["because"])


def test_the_relay_flow_is_told_as_the_interface_says(capture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (flow,) = [f for f in check(capsys, capture) if f["type"] == "flow" and f["first_packet"] == 60]
    assert (flow["proto"], flow["src"], flow["dst"], flow["dport"]) == ("udp", "172.16.42.187", "17.173.254.35", 3478)
    assert (flow["application"], flow["confidence"], flow["identified_at"]) == ("facetime", "conclusive", 60)
    assert flow["path"] == ["stun", "turn", "facetime"]
    assert flow["shifts"] == [[60, "turn"], [60, "facetime"]]
    assert flow["because"][-1]["packet"] == 60
    assert flow["community_id"].startswith("1:")


def test_two_runs_print_the_same_bytes(capture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for json_lines in ([], ["--json"]):
        main(["check", str(capture), *json_lines])
        first = capsys.readouterr().out
        main(["check", str(capture), *json_lines])
        assert capsys.readouterr().out == first


def test_drops_name_packet_flow_and_rule(capture: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text(DENY)
    told = check(capsys, capture, "--policy", policy, "--drops")
    dropped = [line for line in told if line["type"] == "drop"]
    flows = {line["id"]: line for line in told if line["type"] == "flow"}
    assert dropped
    assert {line["rule"] for line in dropped} == {"no calls [/at all]"}
    assert {flows[line["flow"]]["application"] for line in dropped} == {"facetime"}
    assert 60 in {line["packet"] for line in dropped}
    assert not [line for line in check(capsys, capture, "--policy", policy) if line["type"] == "drop"]


def test_inside_may_be_said(capsys: pytest.CaptureFixture[str], tmp_path: Path, capture: Path) -> None:
    told = check(capsys, capture, "--inside", "71.230.89.0/24", "--inside", "fd00::/8")
    holes = [line["inside"] for line in told if line["type"] == "pinhole"]
    assert "172.16.42.187" not in holes
    assert main(["check", str(capture), "--inside", "172.16.42.0/99"]) == 2
    assert "--inside" in capsys.readouterr().err


@pytest.mark.parametrize("columns", ["20", "80", "300"])
def test_the_table_holds_whatever_the_width(
    capture: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    policy = tmp_path / "[red].toml"
    policy.write_text(DENY)
    assert main(["check", str(capture), "--policy", str(policy), "--drops"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    if columns == "300":
        assert "172.16.42.187:16402/udp" in out
        assert "deny (no calls [/at all])" in out
    assert "facetime" in out.replace("\n", "") or columns == "20"


def test_names_and_addresses_are_printed_as_they_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Brackets are no markup, and the groups of an IPv6 address no names of emoji."""
    monkeypatch.setenv("COLUMNS", "200")
    written = Capture(1.0)
    written.udp(End("fd00:ab:b:1::2", 5000), End("2001:db8:a:b::1", 7777), b"\0\1\2\3")
    path = tmp_path / "[red].pcap"
    written.save(path)
    assert main(["check", str(path)]) == 0
    out = capsys.readouterr().out
    assert "[red].pcap" in out.replace("\n", "")
    assert "fd00:ab:b:1::2" in out
    assert "2001:db8:a:b::1" in out


# ---- what cannot be read ---------------------------------------------------------------------------------------------


def test_a_capture_cut_short_is_told_as_far_as_it_goes(
    capture: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    cut = tmp_path / "cut.pcap"
    cut.write_bytes(capture.read_bytes()[:20000])
    assert main(["check", str(cut), "--json"]) == 2
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert line.startswith("appid: ")
    assert "cut.pcap" in line
    told = [json.loads(each) for each in out.splitlines()]
    assert told[-1]["type"] == "summary"
    assert told[-1]["packets"] > 10
    assert any(each["type"] == "flow" for each in told)


@pytest.mark.parametrize(
    "content", [b"", b"no capture at all, only text\n", b"\xd4\xc3\xb2\xa1\x02\0\x04\0"], ids=["empty", "text", "head"]
)
def test_what_is_no_capture(content: bytes, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "odd.pcap"
    path.write_bytes(content)
    assert main(["check", str(path), "--json"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_missing_file_does_not_keep_the_others_from_being_read(
    capture: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["check", str(tmp_path / "none.pcap"), str(capture), "--json"]) == 2
    out, err = capsys.readouterr()
    assert len(err.splitlines()) == 1
    assert any(json.loads(line)["type"] == "call" for line in out.splitlines())


def test_a_bad_policy_is_told_fault_by_fault(capture: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    rules = '[[rule]]\nname = "a"\naction = "perhaps"\n[[rule]]\nname = "b"\ncolour = 1\n'
    policy.write_text(f"[zones]\ninside = {{}}\n{rules}")
    assert main(["check", str(capture), "--policy", str(policy)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) >= 2
    assert all("policy.toml" in line for line in err.splitlines())


def test_frames_of_an_unknown_link_layer_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """LINKTYPE_USB_LINUX (189) carries no IP: read to its end, so status 0, but not in silence."""
    path = tmp_path / "usb.pcap"
    with Writer(path, 189) as writer:
        writer.write(1, bytes(64))
        writer.write(2, bytes(64))
    assert main(["check", "--json", str(path)]) == 0
    assert capsys.readouterr().err.splitlines() == [f"appid: {path}: 2 frames of link type 189 cannot be read"]
