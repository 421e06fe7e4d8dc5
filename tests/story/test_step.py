"""Values of a story that are computed: folds over their lines, rates of streams, the start of a tale."""

from __future__ import annotations

from appid.story.step import Fold, FoldLine, Step, Tale
from appid.wire import Endpoint
from tests.story import tell

A, B = Endpoint(b"\x0a\0\0\2", 1), Endpoint(b"\x0a\0\0\3", 2)


def test_a_fold_spans_its_lines() -> None:
    fold = Fold({(1,): FoldLine(1, A, B, None, "RTP", 10, 50, 100, 500, 3, 300),
                 (2,): FoldLine(1, B, A, None, "RTP", 5, 40, 50, 400, 4, 700)})  # fmt: skip
    assert (fold.frame, fold.last, fold.time, fold.last_time, fold.count, fold.bytes) == (5, 50, 50, 500, 7, 1000)
    tale = Tale({}, items=[Step(1, 40, 1, A, B, None, "", ""), fold])
    assert tale.start == 40
    assert Tale({}).start == 0


def test_a_stream_s_rate_is_its_bytes_over_its_time() -> None:
    stream = next(s for s in tell.session(1).tales[0].streams if s.packets > 1000)
    assert stream.bits_per_second is not None
    assert abs(stream.bits_per_second * stream.seconds / 8 - stream.bytes) < 1e-3
