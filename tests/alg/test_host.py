"""The kernel of a capture knows nothing: what is asked of it changes nothing. The running one's: tests/edge."""

from __future__ import annotations

from appid.alg.host import NOBODY
from appid.wire import UDP, FlowKey
from tests.alg.natted import at


def test_nobody_answers() -> None:
    inside, outside, peer = at("10.0.0.2", 5060), at("203.0.113.7", 5060), at("198.51.100.2", 5060)
    assert NOBODY.mapped(FlowKey(UDP, *inside, *peer)) is None
    assert NOBODY.behind(UDP, outside, peer) is None
    assert not NOBODY.signals(inside.address, peer)
    assert NOBODY.taken(UDP, outside.address, peer.address) == {}
