"""Who takes part: roles, order, one lane for each of two clients and relays."""

from __future__ import annotations

from appid.engine.record import DEFAULT_INSIDE, Topology
from appid.story.lanes import Cast
from appid.wire import Endpoint, packed


def end(host: str, port: int = 16402) -> Endpoint:
    return Endpoint(packed(host), port)


def cast() -> Cast:
    return Cast(Topology(DEFAULT_INSIDE).inside)


def test_the_columns_of_session_1() -> None:
    """The peer's local address is a private one too, but it never speaks here: it is the peer's."""
    play = cast()
    client, relay = end("172.16.42.187"), end("17.173.254.35", 3478)
    play.add(client, relay, end("71.230.89.52"))
    play.add(client, end("192.168.42.25"))
    play.add(client, end("17.149.36.124", 5223))
    play.relays[relay] = None
    play.couriers[end("17.149.36.124", 5223)] = None
    parties, lanes = play.parties()
    assert [(party.name, party.addresses) for party in parties] == [
        ("client", ("172.16.42.187",)),
        ("relay", ("17.173.254.35:3478",)),
        ("peer", ("71.230.89.52", "192.168.42.25")),
        ("courier", ("17.149.36.124:5223",)),
    ]
    assert lanes[packed("71.230.89.52")] == lanes[packed("192.168.42.25")] == 2


def test_two_clients_have_a_lane_each_and_the_caller_comes_first() -> None:
    play = cast()
    play.add(end("172.16.42.185"), end("71.15.163.132"))
    play.add(end("172.16.42.187"), end("172.16.42.185"))
    play.mapped[packed("71.15.163.132")] = None
    parties, _ = play.parties(packed("172.16.42.187"))
    assert [(party.name, party.addresses) for party in parties] == [
        ("client", ("172.16.42.187",)), ("client 2", ("172.16.42.185",)), ("router", ("71.15.163.132",))]  # fmt: skip


def test_a_crowd_shares_a_lane() -> None:
    play = cast()
    for number in range(1, 200):
        play.add(end("10.0.0.1"), end(f"198.51.100.{number}"))
    parties, lanes = play.parties()
    assert [party.name for party in parties] == ["client", "peer"]
    assert len(lanes) == 200


def test_between_strangers_the_first_to_speak_is_the_client() -> None:
    play = cast()
    play.add(end("198.51.100.1"), end("203.0.113.9"))
    parties, _ = play.parties()
    assert [(party.name, party.addresses) for party in parties] == [
        ("client", ("198.51.100.1",)), ("peer", ("203.0.113.9",))]  # fmt: skip


def test_a_client_that_complains_is_still_a_client() -> None:
    """Both ends of the call of 2023 are inside; one of them sends an ICMP error."""
    play = cast()
    play.add(end("10.239.19.254"), end("17.249.172.142", 3482))
    play.complaining.add(packed("10.239.19.254"))
    play.complaining.add(packed("10.239.0.1"))
    play.add(end("10.239.0.1", 0), end("10.239.19.254", 0))
    parties, _ = play.parties()
    assert [party.role for party in parties] == ["client", "router", "peer"]
