"""Policy: rules over applications, what they say of a flow, what they need to work (docs/reference/policy.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Action = Literal["allow", "deny", "drop"]


@dataclass(frozen=True, slots=True)
class Decision:
    """What policy says of a flow. `rule` is the policy rule's name, "defaults", or "implicit: NAME"."""

    action: Action
    rule: str
