"""Holders: the biggest is known whatever came and went."""

from __future__ import annotations

from random import Random

from appid.flow.holders import Holders


def test_the_biggest_holder_is_the_one_with_most() -> None:
    holders, count, random = Holders(), {bytes([n]): set[int]() for n in range(5)}, Random(1)
    for _ in range(2000):
        host, number = bytes([random.randrange(5)]), random.randrange(30)
        if random.random() < 0.5:
            holders.add(host, number)
            count[host].add(number)
        else:
            holders.drop(host, number)
            count[host].discard(number)
        most = holders.most()
        assert (len(count[most]) if most else 0) == max(map(len, count.values()))
    assert {host: set(numbers) for host, numbers in holders.of.items()} == {h: n for h, n in count.items() if n}
