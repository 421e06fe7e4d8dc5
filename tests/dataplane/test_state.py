"""Desired state: what is shared, what is tried again, what has run out."""

from __future__ import annotations

from appid.alg.expectation import Expectation
from appid.dataplane.command import BindNat, ClosePinhole, OpenPinhole, Report, UnbindNat
from appid.dataplane.state import Desired
from appid.wire import UDP, packed

INSIDE, PEER, PUBLIC = packed("10.1.1.2"), packed("71.230.89.52"), packed("71.15.163.132")
WANTED = Expectation(UDP, INSIDE, 16402, PEER, None, PUBLIC, 16402, "x", 1, "sdp-answer", 1, 60.0)
BIND = BindNat(UDP, INSIDE, 16402, PUBLIC, 16402, PEER, 60)
UNBIND = UnbindNat(UDP, INSIDE, 16402, PUBLIC, 16402, PEER)


def opened(*numbers: int) -> Desired:
    desired = Desired()
    for number in numbers:
        desired.note(OpenPinhole(number, WANTED, 1, 60), 0.0)
    return desired


def test_an_element_is_shared_while_another_pinhole_needs_it() -> None:
    desired = opened(1, 2)
    assert desired.shared(ClosePinhole(1, WANTED), 1.0)
    desired.note(ClosePinhole(1, WANTED), 1.0)
    assert not desired.shared(ClosePinhole(2, WANTED), 1.0)
    assert not opened(1, 2).shared(ClosePinhole(1, WANTED), 61.0), "the other one's timeout is over"


def test_an_element_that_was_handed_over_is_shut_with_its_last_owner() -> None:
    """A phone's next call takes the place of one that is ending: nobody closes the first number."""
    assert not opened(1, 2).shared(ClosePinhole(2, WANTED), 1.0)


def test_bindings_are_found_by_the_pinholes_ends() -> None:
    desired = Desired()
    assert desired.binding(WANTED) is None
    desired.note(BIND, 0.0)
    assert desired.binding(WANTED) == BIND
    desired.note(UNBIND, 1.0)
    assert desired.binding(WANTED) is None


def test_what_was_refused_is_handed_out_once_bindings_first() -> None:
    desired = opened(1)
    desired.note(BIND, 0.0)
    desired.failed(OpenPinhole(1, WANTED, 1, 60))
    desired.failed(BIND)
    desired.failed(Report("config", None))
    assert desired.retry(1.0) == [BIND, OpenPinhole(1, WANTED, 1, 60)]
    assert desired.retry(1.0) == []


def test_what_is_no_longer_wanted_is_not_tried_again() -> None:
    desired = opened(1)
    desired.failed(OpenPinhole(1, WANTED, 1, 60))
    desired.note(ClosePinhole(1, WANTED), 1.0)
    assert desired.retry(1.0) == []
    desired = opened(1)
    desired.failed(OpenPinhole(1, WANTED, 1, 60))
    assert desired.retry(61.0) == []


def test_what_has_run_out_is_forgotten() -> None:
    desired = opened(1)
    desired.note(BIND, 0.0)
    desired.expire(59.0)
    assert [pinhole.id for pinhole, _ in desired.pinholes()] == [1]
    assert [until for _, until in desired.bindings()] == [60.0]
    desired.expire(60.0)
    assert (list(desired.pinholes()), list(desired.bindings())) == ([], [])
