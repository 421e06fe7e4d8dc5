"""Which message answers which, what is sent again, whose USERNAME it is, where a channel leads."""

from __future__ import annotations

from appid.decode import peel
from appid.story.exchange import MAX_KNOWN, Exchange
from appid.wire import Endpoint, packed
from tests.corpus import stun_bytes as stun

CLIENT, RELAY = packed("172.16.42.187"), packed("17.173.254.35")
SECOND = 1_000_000_000
NAME = bytes(range(1, 21))


def transaction(number: int) -> stun.Transaction:
    return stun.Transaction(stun.COOKIE, number.to_bytes(12, "big"))


def hear(exchange: Exchange, frame: int, payload: bytes, sender: bytes = CLIENT, seconds: float = 0.0) -> list[str]:
    return list(exchange.details(1, frame, int(seconds * SECOND), sender, peel(memoryview(payload), "udp").layers))


def bind(number: int = 1) -> bytes:
    peer = stun.xor_address(stun.XOR_PEER_ADDRESS, "71.230.89.52", 16402, transaction(number))
    return stun.message(stun.CHANNEL_BIND, stun.REQUEST, transaction(number), [stun.channel_number(0x4000), peer])


def check(number: int, name: bytes, kind: int = stun.REQUEST) -> bytes:
    return stun.message(stun.BINDING, kind, transaction(number), [(stun.USERNAME, name)])


def test_a_channel_used_before_its_bind_is_answered() -> None:
    """Session 1, packets 121, 122, 158."""
    exchange = Exchange()
    assert hear(exchange, 121, bind()) == []
    early = stun.channel_data(0x4000, check(2, NAME))
    assert "before ChannelBind 121 is answered" in hear(exchange, 122, early)
    assert exchange.peer(1, peel(memoryview(early), "udp").layers) == Endpoint(packed("71.230.89.52"), 16402)
    assert hear(exchange, 156, bind(), seconds=1) == ["sent again, same transaction as 121"]
    answer = stun.message(stun.CHANNEL_BIND, stun.SUCCESS, transaction(1), [])
    assert hear(exchange, 158, answer, RELAY, 1.2) == ["answers 121 after 1.2 s"]
    assert hear(exchange, 159, stun.channel_data(0x4000, check(3, NAME))) == []


def test_a_username_comes_back_reversed() -> None:
    """Session 1, packets 122, 160, 161."""
    exchange = Exchange()
    hear(exchange, 122, check(1, NAME))
    assert hear(exchange, 160, check(1, NAME[10:] + NAME[:10], stun.SUCCESS), RELAY) == [
        "answers 122", "USERNAME of 122, halves swapped"]  # fmt: skip
    assert hear(exchange, 161, check(2, bytes(20))) == ["another USERNAME than before"]
    hear(exchange, 162, check(3, NAME))
    assert "USERNAME of 162, bytes reversed" in hear(exchange, 163, check(3, NAME[::-1], stun.SUCCESS), RELAY)


def test_the_next_leg_is_not_sending_again() -> None:
    """Session 4: what one client sends, the other's relay delivers: another sender."""
    exchange = Exchange()
    hear(exchange, 517, check(1, NAME))
    assert hear(exchange, 518, check(1, NAME), RELAY) == ["same transaction as 517"]


def test_sip_answers_its_own_request() -> None:
    exchange = Exchange()
    head = b"v: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\ni: one\r\n"
    assert hear(exchange, 169, b"INVITE sip:a@192.0.2.2 SIP/2.0\r\n" + head + b"CSeq: 1 INVITE\r\n\r\n") == []
    assert hear(exchange, 172, b"SIP/2.0 200 OK\r\n" + head + b"CSeq: 1 INVITE\r\n\r\n", RELAY) == ["answers 169"]
    assert hear(exchange, 173, b"SIP/2.0 200 OK\r\n" + head + b"CSeq: 2 BYE\r\n\r\n", RELAY) == []


def test_it_is_bounded() -> None:
    exchange = Exchange()
    for number in range(MAX_KNOWN + 50):
        hear(exchange, number + 1, check(number, number.to_bytes(20, "big")))
    assert len(exchange.asked) == len(exchange.usernames) == MAX_KNOWN
