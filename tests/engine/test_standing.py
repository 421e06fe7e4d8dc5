"""What the kernel holds of NAT bindings: told once, renewed in time, taken out once."""

from __future__ import annotations

from appid.dataplane.command import BindNat, UnbindNat
from appid.engine.standing import MAX_FLOWS_OF_PORT, REFRESH, Standing
from appid.wire import UDP, Endpoint, FlowKey, packed

INSIDE, OUTSIDE, PEER = Endpoint(packed("10.0.0.2"), 5004), Endpoint(packed("203.0.113.7"), 5004), packed("192.0.2.1")


def test_a_binding_is_told_once_renewed_and_taken_out_once() -> None:
    kept = Standing()
    (made,) = kept.bind(UDP, INSIDE, OUTSIDE, PEER, 0.0)
    assert list(kept.bind(UDP, INSIDE, OUTSIDE, PEER, 1.0)) == []
    assert list(kept.renew(REFRESH - 1)) == []
    assert list(kept.renew(REFRESH)) == [made]
    (moved,) = kept.bind(UDP, INSIDE, OUTSIDE._replace(port=16384), PEER, 101.0)
    assert list(kept.unbind(UDP, INSIDE, PEER)) == [UnbindNat(UDP, *INSIDE, OUTSIDE.address, 16384, PEER)], (
        "as it was told last"
    )
    assert moved != made
    assert list(kept.unbind(UDP, INSIDE, PEER)) == list(kept.renew(1000.0)) == []


def test_flows_that_stand_are_named_by_the_binding_until_they_end() -> None:
    kept = Standing()
    flows = [FlowKey(UDP, *INSIDE, PEER, 30000 + number) for number in range(MAX_FLOWS_OF_PORT + 3)]
    for flow in flows:
        kept.saw(flow)
    kept.gone(flows[1])
    (made,) = kept.bind(UDP, INSIDE, OUTSIDE, PEER, 0.0, (40000,))
    assert isinstance(made, BindNat)
    assert made.peer_ports == (40000, 30000, *range(30002, 30000 + MAX_FLOWS_OF_PORT))
