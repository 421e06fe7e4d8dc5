"""Each attack through a running gateway, then a scan: open is what honest calls have opened, to their peers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.netns.live import ROOT, rule
from tests.sip.abuse import ABUSES
from tests.sip.attacks import ATTACKS, OPTIONS, PER_GATEWAY, PER_HOST, RANGE, Attack, Victim, honest, made, probes
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


def _played(where: Town, attacks: dict[str, Attack], v6: bool) -> list[tuple[str, Victim, set[int]]]:
    return [(name, *made(where, number, attack, v6)) for number, (name, attack) in enumerate(attacks.items())]


def _both(short: tuple[bool, bool]) -> pytest.MarkDecorator:
    """With NAT and without, both families; all but `short` take their time."""
    every = [(nat, v6) for nat in (True, False) for v6 in (False, True)]
    named = [f"{'nat' if nat else 'routed'}-v{6 if v6 else 4}" for nat, v6 in every]
    marks = [() if each == short else pytest.mark.slow for each in every]
    return pytest.mark.parametrize(
        ("nat", "v6"),
        [pytest.param(*each, id=name, marks=mark) for each, name, mark in zip(every, named, marks, strict=True)],
    )


@pytest.mark.timeout(120)
@_both((True, False))
def test_attacks_open_nothing(tmp_path: Path, nat: bool, v6: bool) -> None:
    _narrow(tmp_path)
    with town("ours", nat, tmp_path, OPTIONS, ALL_OUT + SIP_IN) as (where, gateway):
        assert gateway is not None
        played = _played(where, ATTACKS, v6)
        assert _open(where, played) == []
        pinholes = [p for p in gateway.ask("pinholes") if p["closed_at"] is None]
        assert len(pinholes) == sum(len(may) for _, _, may in played)
        more = [(f"call {n}", *made(where, n, honest, v6)) for n in range(len(ATTACKS), len(ATTACKS) + 20)]
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


@pytest.mark.timeout(120)
@_both((True, True))
def test_abuse_opens_nothing(tmp_path: Path, nat: bool, v6: bool) -> None:
    """And an honest call among them is served as before."""
    _narrow(tmp_path)
    with town("ours", nat, tmp_path, "", ALL_OUT + SIP_IN) as (where, gateway):
        assert gateway is not None
        played = _played(where, {**ABUSES, "an honest call": honest}, v6)
        assert _open(where, played) == []
        told = {(p["inside"], p["port"], p["peer"]) for p in gateway.ask("pinholes") if p["closed_at"] is None}
        assert told == {(v.phone, port, v.place.peer) for _, v, may in played for port in may}
