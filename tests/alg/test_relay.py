"""What a TURN flow teaches (RFC 8656): channels from the client's own requests, mapped addresses from answers."""

from __future__ import annotations

import pytest

from appid.alg.relay import MAX_CHANNELS, Relay
from appid.wire import Endpoint, Fact, FactValue, packed

PEER = Endpoint(packed("71.230.89.52"), 16402)
MAPPED = Endpoint(packed("71.15.163.132"), 16402)


def stun(method: str, kind: str, *facts: tuple[str, FactValue]) -> tuple[Fact, ...]:
    return (Fact("stun.method", method), Fact("stun.class", kind), *(Fact(f"stun.{n}", v) for n, v in facts))


def bind(channel: int = 0x4000, peer: Endpoint = PEER, kind: str = "request") -> tuple[Fact, ...]:
    return stun("channel-bind", kind, ("channel_number", channel), ("peer_address", peer))


def test_a_channel_counts_from_the_clients_request_on() -> None:
    """Session 1: ChannelBind in packet 121, ChannelData in 122, the answer in 158."""
    relay = Relay()
    assert relay.learn(bind(), outward=True) == PEER
    assert relay.channels == {0x4000: PEER}


@pytest.mark.parametrize(
    ("facts", "outward"),
    [
        (bind(), False),
        (bind(kind="success"), False),
        (bind(kind="indication"), True),
        (stun("channel-bind", "request", ("channel_number", 0x4000)), True),
        (stun("channel-bind", "request", ("peer_address", PEER)), True),
        (stun("create-permission", "request", ("peer_address", PEER)), True),
        ((), True),
    ],
)
def test_nothing_else_binds_a_channel(facts: tuple[Fact, ...], outward: bool) -> None:
    relay = Relay()
    assert relay.learn(facts, outward) is None
    assert relay.channels == {}


@pytest.mark.parametrize("method", ["allocate", "binding"])
def test_the_mapped_address_is_the_servers_word(method: str) -> None:
    relay = Relay()
    answer = stun(method, "success", ("mapped_address", MAPPED))
    relay.learn(answer, outward=True)
    assert relay.mapped is None, "the client cannot answer itself"
    relay.learn(answer, outward=False)
    assert relay.mapped == MAPPED


def test_channels_are_bounded_and_known_ones_are_still_renewed() -> None:
    relay = Relay()
    for number in range(1000):
        relay.learn(bind(0x4000 + number), outward=True)
    assert len(relay.channels) == MAX_CHANNELS
    relay.learn(bind(0x4000), outward=True)
    assert relay.channels[0x4000] == PEER
