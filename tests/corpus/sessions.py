"""The five sessions of the 2015 report by number."""

from __future__ import annotations

from collections.abc import Callable

from tests.corpus import session1
from tests.corpus.expected import Case
from tests.corpus.variation import Variation

BUILDERS: dict[int, Callable[[Variation], Case]] = {1: session1.build}


def build(session: int, variation: Variation | None = None) -> Case:
    return BUILDERS[session](variation or Variation())
