"""Many calls at once, in short and in full; and what a scan finds open while they are up."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.netns.net import PUBLIC4
from tests.sip.load import calls_up, left
from tests.sip.scan import scan
from tests.sip.town import Place, town

pytestmark = pytest.mark.kernel
ALL_PORTS, SOME_PORTS = range(1, 65536), range(16380, 20600)
STRANGER = Place.numbered(0, False).stranger


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "nat", [pytest.param(False, marks=pytest.mark.slow, id="routed"), pytest.param(True, id="nat")]
)
def test_fifty_calls(tmp_path: Path, nat: bool) -> None:
    """Under NAT half of the phones cannot keep their ports. A scan meanwhile, and nothing left when all is over."""
    with town("ours", nat, tmp_path) as (where, gateway):
        assert gateway is not None
        with calls_up(where, 50, 50) as made:
            assert [call for call in made.calls if not call.whole] == [], str(made.load)
            peer = made.calls[0].peer[0]
            told = [call.told["peer"] for call in made.calls if call.peer[0] == peer]
            target = PUBLIC4 if nat else made.calls[0].phone[0]
            wanted = {port for pair in told for host, port in pair if host == target}
            assert len(wanted) == (4 if nat else 2)
            assert scan(where, peer, target, SOME_PORTS) == wanted
            assert scan(where, STRANGER, target, SOME_PORTS) == set()
        assert [call for call in made.calls if not call.over] == []
        assert left(where, gateway) == []


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("nat", [False, True], ids=["routed", "nat"])
def test_scan_of_all_ports_during_a_hundred_calls(tmp_path: Path, nat: bool) -> None:
    """Routed, the engine meets each packet that no call foresaw."""
    with town("ours", nat, tmp_path) as (where, _), calls_up(where, 100, 50) as made:
        call = made.calls[0]
        target = PUBLIC4 if nat else call.phone[0]
        told = [c.told["peer"] for c in made.calls if c.peer[0] == call.peer[0]]
        wanted = {port for pair in told for host, port in pair if host == target}
        found = [scan(where, scanner, target, ALL_PORTS) for scanner in (call.peer[0], STRANGER)]
        print(f"of all ports a peer finds {len(found[0])} open (expected {len(wanted)}), others {len(found[1])}")
        assert found == [wanted, set()]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_thousand_calls_under_nat(tmp_path: Path) -> None:
    """At 100 a second, which the generator alone reaches too; cost does not grow with the calls that there are."""
    with town("ours", True, tmp_path) as (where, gateway):
        assert gateway is not None
        with calls_up(where, 1000, 100, gateway.process.pid) as made:
            assert [call for call in made.calls if not call.whole] == [], str(made.load)
            for nat_peer in {call.peer[0] for call in made.calls[:100]}:
                told = {port for call in made.calls if call.peer[0] == nat_peer for _, port in call.told["peer"]}
                assert len(told) == 2 * sum(call.peer[0] == nat_peer for call in made.calls), "no port is given twice"
        print(made.load)
        assert [call for call in made.calls if not call.over] == []
        assert left(where, gateway) == []
        assert made.load.seconds < 12
        assert made.load.growth < 1.3
