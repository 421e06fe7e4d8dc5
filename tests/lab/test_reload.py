"""Another policy in the middle of a call: it loses no packet where it stays allowed, and ends where it is denied."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from tests.lab.call import Actors, Call, Outcome
from tests.lab.gateway import Gateway, all_but_facetime, only_facetime
from tests.lab.net import Lab
from tests.lab.scenario import Scenario

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120)]
VARIANTS = ["nft", "legacy"]
FAMILIES = pytest.mark.parametrize("v6", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["v4", "v6"])
PING = '\n[[rule]]\nname = "ping"\napplications = ["icmp"]\naction = "allow"\n'


async def _reloaded(variant: str, folder: Path, policies: list[str], scenario: Scenario) -> tuple[Outcome, list[float]]:
    """A call under the first policy; the others are loaded one after the other once media is direct. Out: the call,
    and when each was in force."""
    loaded: list[float] = []
    with Lab(scenario) as lab:
        async with Actors(lab, [scenario]), Gateway(lab, folder, policies[0], variant) as gateway:
            call = Call(lab, scenario)
            running = asyncio.create_task(call.run(seconds=7))
            await asyncio.wait_for(call.journal.reached("direct"), 30)
            await asyncio.sleep(1)
            for index, policy in enumerate(policies[1:]):
                place = folder / f"{index}.toml"
                place.write_text(policy)
                arguments = ("policy", "load", str(place), "-c", str(gateway.config))
                status, output = await lab.ask("gw", *gateway.command("stats")[:3], *arguments)
                assert status == 0, output
                loaded.append(time.monotonic())
                await asyncio.sleep(1)
            outcome = await running
            assert "Traceback" not in gateway.text(), gateway.text()
    return outcome, loaded


@FAMILIES
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_call_that_stays_allowed_loses_no_packet(variant: str, tmp_path: Path, v6: bool) -> None:
    scenario = Scenario.with_v6(nat=False) if v6 else Scenario()
    policy = only_facetime(scenario, implicit=True)
    outcome, loaded = asyncio.run(_reloaded(variant, tmp_path, [policy, policy + PING, policy], scenario))
    assert outcome.failure is None
    assert len(loaded) == 2
    assert outcome.lost_outward == []
    assert outcome.lost_inward == []
    assert outcome.outward.by_path("direct") > 200


@FAMILIES
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_call_that_is_denied_is_cut_within_a_second(variant: str, tmp_path: Path, v6: bool) -> None:
    scenario = Scenario.with_v6(nat=False) if v6 else Scenario()
    policies = [only_facetime(scenario, implicit=True), all_but_facetime(scenario)]
    outcome, (loaded,) = asyncio.run(_reloaded(variant, tmp_path, policies, scenario))
    for ledger in (outcome.outward, outcome.inward):
        arrived = [ledger.sent[key][0] for key in ledger.arrived]
        assert len([at for at in arrived if at < loaded - 1]) > 100
        assert [at for at in arrived if at > loaded + 1] == [], "also the media that a pinhole let through"
