"""Who of ours the outside speaks of: by this process's mappings, by another peer's, by the kernel's word; and back."""

from __future__ import annotations

from appid.alg.host import NOBODY, Host
from appid.alg.mappings import Mappings
from appid.alg.neighbours import MAX_ASKED, Asking, Neighbours
from appid.wire import UDP, Endpoint, packed
from tests.alg.natted import at

ALICE, BOB, GATE = at("10.0.0.2", 16402), at("10.0.0.3", 16402), at("203.0.113.7", 16402)
HERE, THERE = at("198.51.100.2", 5060), at("198.51.100.3", 5060)


class Kernel(Host):
    def __init__(self) -> None:
        self.asked = 0

    def behind(self, proto: int, outside: Endpoint, peer: Endpoint) -> Endpoint | None:
        self.asked += 1
        return BOB if outside.port in (17000, 18000) else None

    def bound(self, proto: int, outside: Endpoint, peer: Endpoint) -> Endpoint | None:
        self.asked += 1
        return BOB if outside.port == 17000 else None


def known() -> Neighbours:
    return Neighbours(Mappings(), {GATE.address})


def test_a_mapping_of_this_peers_comes_first() -> None:
    book = known()
    book.mappings.note(UDP, ALICE, GATE, HERE.address, 1)
    book.mappings.note(UDP, BOB, GATE, THERE.address, 2)
    assert book.inside_of(UDP, GATE, HERE, "", Asking(NOBODY)) == ALICE
    assert book.inside_of(UDP, GATE, THERE, "", Asking(NOBODY)) == BOB


def test_one_that_another_peer_knows_if_it_is_one_hosts_alone() -> None:
    book, third = known(), at("198.51.100.4", 5060)
    book.mappings.note(UDP, ALICE, GATE, HERE.address, ("call", ALICE.address))
    assert book.inside_of(UDP, GATE, third, "", Asking(NOBODY)) == ALICE
    assert book.outside_of(UDP, ALICE, third.address) == GATE, "and back, towards him who was told"
    assert book.outside_of(UDP, ALICE, THERE.address) is None
    book.mappings.note(UDP, BOB, GATE, THERE.address, ("other", BOB.address))
    assert book.inside_of(UDP, GATE, third, "", Asking(NOBODY)) is None, "whose it is may not be guessed"
    assert book.inside_of(UDP, GATE, third, "other", Asking(NOBODY)) == BOB
    book.mappings.release(("other", BOB.address))
    assert book.inside_of(UDP, GATE, third, "", Asking(NOBODY)) == ALICE


def test_another_peers_word_counts_for_media_only_if_each_end_is_told_of_the_other() -> None:
    """ALICE's call: to whom its far end has sent her, if it has; BOB is to send to her now."""
    book, third = known(), at("198.51.100.4", 5060)
    owner = ("call", ALICE.address)
    book.mappings.note(UDP, ALICE, GATE, HERE.address, owner)

    def told(call_id: str = "another") -> Endpoint | None:
        return book.inside_of(UDP, GATE, third, call_id, Asking(NOBODY), BOB.address)

    assert told() == ALICE, "nobody has named anybody to her"
    book.heard(owner, [packed("192.0.2.9")])
    assert told() is None
    assert told("call") == ALICE, "their proxies leave the call its name"
    assert book.inside_of(UDP, GATE, HERE, "", Asking(NOBODY), BOB.address) == ALICE, "her own far end may name her"
    book.heard(owner, [BOB.address])
    assert told() == ALICE
    book.heard(owner, [packed(f"192.0.2.{n}") for n in range(100)])
    assert told() == ALICE, "what is too much is forgotten"
    book.heard(owner, [packed("192.0.2.9")])
    book.forget(owner)
    assert told() == ALICE


def test_the_kernel_knows_those_of_other_processes() -> None:
    book, kernel = known(), Kernel()
    taken = at("203.0.113.7", 17000)
    assert not book.faces(BOB, HERE.address)
    assert book.inside_of(UDP, taken, HERE, "", Asking(kernel)) == BOB
    assert book.outside_of(UDP, BOB, HERE.address) == taken
    assert not book.faces(BOB, HERE.address), "a name for signalling is none for media"
    assert book.inside_of(UDP, at("203.0.113.7", 18000), HERE, "", Asking(kernel), ALICE.address) is None, "a flow's"
    assert not book.faces(BOB, HERE.address)
    assert book.inside_of(UDP, taken, HERE, "", Asking(kernel), ALICE.address) == BOB
    assert book.faces(BOB, HERE.address)
    assert not book.faces(Endpoint(BOB.address, 22222), HERE.address)
    assert book.faces(Endpoint(BOB.address, 16403), HERE.address), "its RTCP"
    assert not book.faces(BOB, THERE.address)


def test_it_is_asked_for_our_own_addresses_alone_and_not_without_end() -> None:
    book, kernel = known(), Kernel()
    asking = Asking(kernel)
    assert book.inside_of(UDP, at("198.51.100.99", 17000), HERE, "", asking) is None
    assert kernel.asked == 0
    for port in range(20000, 20100):
        book.inside_of(UDP, Endpoint(packed("203.0.113.7"), port), HERE, "", asking)
    assert kernel.asked == MAX_ASKED
