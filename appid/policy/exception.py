"""What to do when blind: which causes let traffic pass, which stop it. Data only; whoever applies it counts each use.

In: the operator's choice per cause. Out: "open" or "closed".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

Cause = Literal["engine-down", "queue-full", "table-full", "mid-stream", "undecodable", "internal-error"]
"""engine-down   no process listens on the queue           queue-full   the kernel's queue has no room
table-full    no room for another flow                  mid-stream   the flow's beginning was not seen
undecodable   a protocol was recognised and breaks its own format
internal-error   the engine failed on the packet"""
Failure = Literal["open", "closed"]
CAUSES: Final[tuple[Cause, ...]] = get_args(Cause)

DEFAULTS: Final[Mapping[Cause, Failure]] = {
    "engine-down": "closed",
    "queue-full": "closed",
    "table-full": "closed",
    # A push connection lives for hours; what cannot be parsed may still be legal. Both are judged by what is visible.
    "mid-stream": "open",
    "undecodable": "open",
    # A fault of ours costs the packet its identification, not its sender's connection.
    "internal-error": "open",
}


@dataclass(frozen=True, slots=True)
class ExceptionPolicy:
    """One failure mode per cause; what is not given is as in DEFAULTS."""

    given: Mapping[Cause, Failure] = field(default_factory=dict)

    def failure(self, cause: Cause) -> Failure:
        return self.given.get(cause, DEFAULTS[cause])

    def opens(self, cause: Cause) -> bool:
        return self.failure(cause) == "open"
