"""Many calls at once, in short and in full; and what a scan finds open while they are up."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.netns.net import PUBLIC4, PUBLIC6
from tests.sip.load import Ends, Generator, bound, calls_up, left
from tests.sip.scan import scan
from tests.sip.town import PLACES, Place, Town, town

pytestmark = pytest.mark.kernel
ALL_PORTS, SOME_PORTS = range(1, 65536), range(16380, 20600)


FAMILIES = pytest.mark.parametrize("v6", [False, True], ids=["v4", "v6"])
MANY = "[limits]\nmax_pinholes_per_host = 4096\n"


def told(made: Generator, where: Town) -> tuple[str, str, set[int]]:
    """A peer, an address that it calls, and the ports that it was told there."""
    call = made.calls[0]
    target = (PUBLIC6 if ":" in call.phone[0] else PUBLIC4) if where.nat else call.phone[0]
    ends = [end for c in made.calls if c.peer[0] == call.peer[0] for end in c.told["peer"]]
    return call.peer[0], target, {port for host, port in ends if host == target}


def _agreed(made: Generator) -> set[tuple[Ends, str, Ends]]:
    """What the kernel should hold for them: as each peer was told, towards it alone; RTP at an even port, RTCP next."""
    found = set()
    for call in made.calls:
        rtp, rtcp = call.told["peer"]
        assert (rtp[1] % 2, rtcp[1]) == (0, rtp[1] + 1)
        found |= {(rtp, call.peer[0], (call.phone[0], call.port)), (rtcp, call.peer[0], (call.phone[0], call.port + 1))}
    return found


def stranger(v6: bool) -> str:
    return Place.numbered(0, v6).stranger


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("nat", "v6"),
    [
        pytest.param(False, False, marks=pytest.mark.slow, id="routed-v4"),
        pytest.param(False, True, marks=pytest.mark.slow, id="routed-v6"),
        pytest.param(True, False, marks=pytest.mark.slow, id="nat-v4"),
        pytest.param(True, True, id="nat-v6"),
    ],
)
def test_fifty_calls(tmp_path: Path, nat: bool, v6: bool) -> None:
    """Under NAT half of the phones cannot keep their ports. A scan meanwhile, and nothing left when all is over."""
    with town("ours", nat, tmp_path) as (where, gateway):
        assert gateway is not None
        with calls_up(where, 50, 50, v6=v6) as made:
            assert [call for call in made.calls if not call.whole] == [], str(made.load)
            peer, target, wanted = told(made, where)
            assert len(wanted) == (4 if nat else 2)
            assert bound(where, v6) == (_agreed(made) if nat else set())
            assert scan(where, peer, target, SOME_PORTS) == wanted
            assert scan(where, stranger(v6), target, SOME_PORTS) == set()
        assert [call for call in made.calls if not call.over] == []
        assert left(where, gateway) == []


@pytest.mark.slow
@pytest.mark.timeout(600)
@FAMILIES
@pytest.mark.parametrize("nat", [False, True], ids=["routed", "nat"])
def test_scan_of_all_ports_during_a_hundred_calls(tmp_path: Path, nat: bool, v6: bool) -> None:
    """Routed, the engine meets each packet that no call foresaw."""
    with town("ours", nat, tmp_path) as (where, _), calls_up(where, 100, 50, v6=v6) as made:
        peer, target, wanted = told(made, where)
        found = [scan(where, scanner, target, ALL_PORTS) for scanner in (peer, stranger(v6))]
        print(f"of all ports a peer finds {len(found[0])} open (expected {len(wanted)}), others {len(found[1])}")
        assert found == [wanted, set()]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_thousand_calls_under_nat(tmp_path: Path) -> None:
    """At 100 a second, which the generator alone reaches too; cost does not grow with the calls that there are, nor
    with those that the same host has."""
    loads = {}
    for phones in (PLACES, 1):
        with town("ours", True, tmp_path / str(phones), MANY) as (where, gateway):
            assert gateway is not None
            with calls_up(where, 1000, 100, gateway.process.pid, phones=phones) as made:
                assert [call for call in made.calls if not call.whole] == [], str(made.load)
                for nat_peer in {call.peer[0] for call in made.calls[:100]}:
                    ports = {port for call in made.calls if call.peer[0] == nat_peer for _, port in call.told["peer"]}
                    assert len(ports) == 2 * sum(call.peer[0] == nat_peer for call in made.calls), (
                        "no port is given twice"
                    )
            loads[phones] = made.load
            print(f"{phones} phones: {made.load}")
            assert [call for call in made.calls if not call.over] == []
            assert left(where, gateway) == []
            assert made.load.seconds < 12
            assert made.load.growth < 1.3
    ratio = loads[1].each / loads[PLACES].each
    print(f"a call of a host with all of them costs {ratio:.2f} of what one of many hosts costs")
    assert ratio < 1.3
