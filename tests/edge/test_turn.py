"""Whose turn it is to change the rule sets."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from appid.edge import turn
from appid.edge.netlink import KernelError


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return turn.beside(tmp_path / "run/control.sock")


def hold(place: Path, seconds: float) -> None:
    with turn.taken(place, "a long change"):
        time.sleep(seconds)


def test_the_second_waits_for_the_first_or_says_who_it_is(place: Path) -> None:
    with (
        turn.taken(place, "appid run"),
        pytest.raises(KernelError, match=f"changed by process {os.getpid()}, appid run"),
        turn.taken(place, "x", 0),
    ):
        pass
    other = multiprocessing.get_context("fork").Process(target=hold, args=(place, 0.3))
    other.start()
    while not place.read_text().endswith("a long change"):
        time.sleep(0.01)
    with turn.taken(place, "the second"):
        assert place.read_text() == f"process {os.getpid()}, the second"
    other.join()


def test_a_process_that_is_killed_gives_its_turn_back(place: Path) -> None:
    other = multiprocessing.get_context("fork").Process(target=hold, args=(place, 60.0))
    other.start()
    while not place.exists() or not place.read_text():
        time.sleep(0.01)
    os.kill(other.pid or 0, signal.SIGKILL)
    with turn.taken(place, "the next", 2):
        pass
    other.join()


def test_a_forked_process_shares_the_turn_and_outlasts_it(place: Path) -> None:
    with turn.taken(place, "a change") as held:
        child = os.fork()
        if not child:
            turn.tell(held, "its guard")
            time.sleep(60)
            os._exit(0)
        while "guard" not in place.read_text():
            time.sleep(0.01)
    with pytest.raises(KernelError, match=f"process {child}, its guard"), turn.taken(place, "x", 0):
        pass
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with turn.taken(place, "the next", 0):
        pass


def test_a_place_that_cannot_be_is_the_hosts_fault(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    place = tmp_path / "file/rules.lock"
    with pytest.raises(KernelError, match=r"Not a directory|File exists"), turn.taken(place, "x"):
        pass


def test_whether_a_gateway_runs(tmp_path: Path) -> None:
    control = tmp_path / "control.sock"
    assert not turn.gateway_runs(control)
    with turn.taken(control.with_suffix(".lock"), "a gateway"):
        assert turn.gateway_runs(control)
    assert not turn.gateway_runs(control)
