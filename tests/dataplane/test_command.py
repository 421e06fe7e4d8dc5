"""A verdict is a value: equal by its fields, taken apart by position, the same after a pipe between processes."""

from __future__ import annotations

import pickle

from appid.dataplane.command import SetVerdict


def test_a_verdict_is_what_it_says() -> None:
    assert SetVerdict(1, "repeat", 8) == SetVerdict(1, "repeat", 8)
    assert SetVerdict(1, "repeat", 8) != SetVerdict(1, "drop", 8)
    assert SetVerdict(1, "repeat", 8) != (1, "repeat", 8)
    assert len({SetVerdict(1, "repeat", 8), SetVerdict(1, "repeat", 8)}) == 1
    assert pickle.loads(pickle.dumps(SetVerdict(1, "repeat", 8))) == SetVerdict(1, "repeat", 8)
    match SetVerdict(1, "repeat", 8):
        case SetVerdict(packet, verdict, mark):
            assert (packet, verdict, mark) == (1, "repeat", 8)
