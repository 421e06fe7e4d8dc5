"""Real user agents through the gateway: each case holds; in full with NAT, and beside the kernel's helper."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sip import oracle
from tests.sip.cases import CASES
from tests.sip.table import OUTSIDE, faults, markdown, measure, play
from tests.sip.town import town

pytestmark = pytest.mark.kernel
KERNEL_FAILS = {
    "CANCEL, 487",
    "declined after early media (603)",
    "nothing passes after BYE",
    "a=rtcp at another port (RFC 3605)",
    "TCP: a message in many segments",
}
"""Whatever the network: CANCEL has no handler, an established media flow is not cut, RTCP is port + 1, a message must
lie in one segment (nf_conntrack_sip.c)."""


@pytest.mark.timeout(120)
@pytest.mark.parametrize("v6", [False, True], ids=["v4", "v6"])
def test_cases_under_nat(tmp_path: Path, v6: bool) -> None:
    """By the phone, to it, between two behind it; every other case, the rest in the other family. tshark reads what
    left."""
    half = [case for case in CASES.values() if not case.long][v6::2]
    with town("ours", True, tmp_path) as (where, _):
        found = play(where, "ours", tmp_path, v6, ("out", "in", "behind"), half)
        capture = where.witnesses[where.peer].write(tmp_path / "outside.pcap")
    assert faults(found) == []
    assert oracle.faults(capture, *OUTSIDE[v6]) == []


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("nat", [False, True], ids=["routed", "nat"])
@pytest.mark.parametrize("v6", [False, True], ids=["v4", "v6"])
def test_both_ends_of_two_workers(tmp_path: Path, v6: bool, nat: bool) -> None:
    """Calls between hosts behind one gateway, whichever worker has the one and the other."""
    with town("ours", nat, tmp_path, workers=2) as (where, _):
        found = play(where, "ours", tmp_path, v6, ("within", "behind"))
    assert faults(found) == [], markdown(found)


@pytest.mark.timeout(120)
def test_a_router_alone_fails_the_oracle(tmp_path: Path) -> None:
    """The witnesses can tell: under NAT without anybody's help, what is told outside is of no use there."""
    with town("plain", True, tmp_path) as (where, _):
        (result,) = play(where, "plain", tmp_path, False, ("out",), [CASES["call, BYE by the callee"]])
        capture = where.witnesses[where.peer].write(tmp_path / "outside.pcap")
    assert any(fault.startswith("outside is told Via") for fault in result.faults)
    assert "media of callee 1 is never sent" in result.faults, "there is no way to where it was told to go"
    assert any("sdp.connection_info.address 10.77." in fault for fault in oracle.faults(capture, *OUTSIDE[False]))


@pytest.mark.timeout(120)
def test_what_fails_without_a_firewall_would_be_the_cases_fault(tmp_path: Path) -> None:
    some = [CASES[name] for name in ("early media (183)", "glare (491)", "TCP: several messages a segment")]
    with town("plain", False, tmp_path) as (where, _):
        found = play(where, "plain", tmp_path, False, ("out", "in"), some)
    assert faults(found) == []


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_all_cases_beside_the_kernels_helper(tmp_path: Path) -> None:
    results = measure(("ours", "kernel"), tmp_path)
    assert faults([result for result in results if result.kind == "ours"]) == [], markdown(results)
    kernel = [result for result in results if result.kind == "kernel"]
    assert {r.case for r in kernel} - {r.case for r in kernel if not r.faults} >= KERNEL_FAILS, markdown(results)
