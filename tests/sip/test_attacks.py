"""Each attack through a running gateway, then a scan: open is what honest calls have opened, to their peers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.netns.live import ROOT, rule
from tests.sip.attacks import ATTACKS, OPTIONS, PER_GATEWAY, PER_HOST, RANGE, Victim, made, probes
from tests.sip.scan import arrived
from tests.sip.town import ALL_OUT, Town, town

pytestmark = pytest.mark.kernel
SIP_IN = rule("in", "allow", "sip", from_='["outside"]', service='["udp/5060-5062"]')
"""Anybody may signal, so that a forged message is stopped by the dialog alone."""
TOLD = ("which is not the peer", "which is another host", "outside the range of sip", "media lines", "inflates",
        f"a host has {PER_HOST} ports", f"the gateway has {PER_GATEWAY} ports")  # fmt: skip
"""What the operator reads of it."""


def _narrow(folder: Path) -> None:
    """The operator's own sip.toml, with a media range."""
    text = (ROOT / "rules/apps/sip.toml").read_text()
    (folder / "rules").mkdir()
    narrowed = re.sub(r"media_ports = .*", f'media_ports = ["udp/{RANGE[0]}-{RANGE[1]}"]', text)
    assert narrowed != text
    (folder / "rules" / "sip.toml").write_text(narrowed)


def _open(where: Town, played: list[tuple[str, Victim, set[int]]]) -> list[str]:
    """What is open and must not be, and the other way round."""
    asked = {probe: (name, victim, may) for name, victim, may in played for probe in probes(victim, may)}
    came, faults = arrived(where, list(asked)), []
    for probe, (name, victim, may) in asked.items():
        allowed = probe.port in may and probe.scanner == victim.place.peer and probe.target == victim.target
        if allowed != (probe in came):
            faults.append(f"{name}: {probe.scanner} -> {probe.target}:{probe.port} {'lost' if allowed else 'passes'}")
    return faults


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("nat", "v6"),
    [
        pytest.param(True, False, id="nat-v4"),
        pytest.param(True, True, id="nat-v6", marks=pytest.mark.slow),
        pytest.param(False, False, id="routed-v4", marks=pytest.mark.slow),
        pytest.param(False, True, id="routed-v6", marks=pytest.mark.slow),
    ],
)
def test_attacks_open_nothing(tmp_path: Path, nat: bool, v6: bool) -> None:
    _narrow(tmp_path)
    with town("ours", nat, tmp_path, OPTIONS, ALL_OUT + SIP_IN) as (where, gateway):
        assert gateway is not None
        played = [(name, *made(where, number, name, v6)) for number, name in enumerate(ATTACKS)]
        assert _open(where, played) == []
        pinholes = [p for p in gateway.ask("pinholes") if p["closed_at"] is None]
        assert len(pinholes) == sum(len(may) for _, _, may in played)
        more = [(f"call {n}", *made(where, n, "an honest call", v6)) for n in range(len(ATTACKS), len(ATTACKS) + 20)]
        asked = [
            probe
            for _, victim, may in more
            for probe in probes(victim, may, 2)
            if probe.scanner == victim.place.peer and probe.target == victim.target
        ]
        assert len(arrived(where, asked)) == PER_GATEWAY - len(pinholes)
        reasons = " ".join(event["anomaly"]["reason"] for event in gateway.events("anomaly"))
    for told in TOLD:
        assert told in reasons
