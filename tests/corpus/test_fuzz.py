"""A few thousand of the packets of `python -m tests.corpus.fuzz`; all of them among what `make acceptance` runs."""

from __future__ import annotations

from random import Random

import pytest

from tests.corpus.fuzz import changed, fuzz, seeds
from tests.engine import play


@pytest.fixture(scope="module")
def begin(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    return seeds(tmp_path_factory.mktemp("seeds"))


def test_no_packet_is_a_fault_or_takes_long(begin: list[bytes]) -> None:
    told = fuzz(5_000, 7, begin)
    assert (told.packets, told.faults) == (5_000, {})
    assert told.held, str(told)


def test_a_fault_would_be_seen(begin: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise IndexError("past the end")

    monkeypatch.setattr(play.Play, "queue", broken)
    told = fuzz(10, 7, begin)
    assert not told.held
    (fault,) = told.faults
    assert "past the end" in fault


def test_changes_are_the_seeds_and_keep_the_network_header(begin: list[bytes]) -> None:
    data, other = begin[0], begin[-1]
    assert changed(data, other, Random(3)) == changed(data, other, Random(3))
    assert all(changed(data, other, Random(n))[12:20] == data[12:20] for n in range(50)), "who speaks with whom"
    assert len({changed(data, other, Random(n)) for n in range(50)}) > 40
