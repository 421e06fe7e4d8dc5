"""ICMPv6 Packet Too Big, as a sender's kernel takes it."""

from __future__ import annotations

import pytest

from appid.edge.too_big import SMALL, TooBig
from appid.wire import packed
from tests.netns.net import CLIENT4, CLIENT6, PEER4, PEER6, Net, until

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(60)]


def _datagram(size: int) -> bytes:
    """A UDP packet of `size` bytes (RFC 8200 section 3) from a socket that the test has."""
    udp = (5060).to_bytes(2, "big") * 2 + (size - 40).to_bytes(2, "big") + bytes(2)
    head = b"\x60\0\0\0" + (size - 40).to_bytes(2, "big") + b"\x11\x40" + packed(CLIENT6) + packed(PEER6)
    return (head + udp).ljust(size, b"x")


def test_the_sender_splits_from_then_on(bare: Net) -> None:
    told = bare.gateway.call(TooBig)
    sender = bare.client.udp(CLIENT6, 5060)
    assert told.tell(_datagram(1500), 1510, 1.0)
    route = ("ip", "-6", "route", "get", PEER6, "from", CLIENT6)
    assert until(lambda: f"mtu {SMALL}" in bare.client.run(*route)), bare.client.run(*route)
    sender.close()
    told.close()


@pytest.mark.parametrize(
    ("packet", "length"),
    [
        (_datagram(1500), 1500),  # as long as it was
        (_datagram(1500), 1490),
        (_datagram(1280), 1300),  # a sender may send that much whatever he is told
        (b"\x45" + bytes(8) + b"\x11" + bytes(2) + packed(CLIENT4) + packed(PEER4) + bytes(1480), 1510),  # IPv4
        (_datagram(1500)[:6] + b"\x06" + _datagram(1500)[7:], 1510),  # TCP
    ],
)
def test_nobody_else_is_told(bare: Net, packet: bytes, length: int) -> None:
    told = bare.gateway.call(TooBig)
    assert not told.tell(packet, length, 1.0)
    told.close()


def test_not_more_than_ten_a_second(bare: Net) -> None:
    """RFC 4443 section 2.4(f)."""
    told = bare.gateway.call(TooBig)
    assert sum(told.tell(_datagram(1500), 1510, 1.0 + n / 100) for n in range(100)) == 10
    told.close()
