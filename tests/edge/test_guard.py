"""A change that undoes itself: the guard outlives the one who applied, and its terminal."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from appid.dataplane.chain import Topology
from appid.dataplane.ruleset import NOTHING
from appid.edge import guard, iptables, turn
from appid.edge.netlink import KernelError
from tests.netns.net import Namespace, sh, until

pytestmark = pytest.mark.kernel
LONG = 30.0


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "run/rules.sock"


def empty(space: Namespace) -> bool:
    return space.call(iptables.read) == NOTHING


@contextlib.contextmanager
def guarded(place: Path, seconds: float) -> Iterator[None]:
    lock = place.with_name("rules.lock")
    with turn.taken(lock, "a test") as held, guard.guarded(iptables.read(), seconds, place, held):
        yield


def change(space: Namespace, place: Path, seconds: float) -> None:
    def work() -> None:
        with guarded(place, seconds):
            iptables.apply(Topology())

    space.call(work)


def test_confirmed_it_stays(space: Namespace, place: Path) -> None:
    change(space, place, LONG)
    assert guard.pending(place)
    with (
        pytest.raises(KernelError, match=r"by process \d+, appid rules apply --confirm, which waits"),
        turn.taken(place.with_name("rules.lock"), "another", patience=0),
    ):
        pass
    waiting = guard.say(place, "wait")
    assert guard.outcome(guard.say(place, "confirm")) == guard.CONFIRMED
    assert guard.outcome(waiting) == guard.CONFIRMED
    assert not guard.pending(place)
    assert not place.exists()
    assert not empty(space)
    with turn.taken(place.with_name("rules.lock"), "the next", patience=2):
        pass
    with pytest.raises(OSError, match=r"No such file|refused"):
        guard.say(place, "confirm")


def test_unconfirmed_it_goes(space: Namespace, place: Path) -> None:
    change(space, place, 0.5)
    assert not empty(space)
    assert guard.outcome(guard.say(place, "wait")) == guard.UNDONE
    assert empty(space)
    assert not place.exists()


def test_who_fails_has_cleaned_up_and_the_guard_goes(space: Namespace, place: Path) -> None:
    def work() -> None:
        with guarded(place, LONG):
            raise KernelError("iptables-restore", "refused")

    with pytest.raises(KernelError, match="refused"):
        space.call(work)
    assert until(lambda: not place.exists())


def test_half_way_through_the_one_who_applies_is_killed(space: Namespace, place: Path) -> None:
    def work() -> int:
        child = os.fork()
        if child:
            return child
        with guarded(place, LONG):
            iptables.apply(Topology())
            os.kill(os.getpid(), signal.SIGKILL)
        os._exit(0)

    os.waitpid(space.call(work), 0)
    assert until(lambda: not place.exists())
    assert empty(space)


def test_told_to_end_it_undoes_first(space: Namespace, place: Path) -> None:
    change(space, place, LONG)
    pids = {int(line) for line in sh("ip", "netns", "pids", space.name).split()}
    (owner,) = pids - {os.getpid()}
    assert os.getsid(owner) != os.getsid(0), "no terminal's end reaches it"
    os.kill(owner, signal.SIGHUP)
    time.sleep(0.1)
    assert guard.pending(place)
    os.kill(owner, signal.SIGTERM)
    assert until(lambda: not place.exists())
    assert empty(space)
