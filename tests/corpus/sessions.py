"""The five sessions of the 2015 report by number."""

from __future__ import annotations

from collections.abc import Callable

from tests.corpus import session1, session2, session3, session4, session5
from tests.corpus.expected import Case
from tests.corpus.variation import Variation

BUILDERS: dict[int, Callable[[Variation], Case]] = {
    1: session1.build,
    2: session2.build,
    3: session3.build,
    4: session4.build,
    5: session5.build,
}


def build(session: int, variation: Variation | None = None) -> Case:
    return BUILDERS[session](variation or Variation())
