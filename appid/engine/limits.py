"""How much of everything one engine keeps.

Beyond it: of flows, one that is neither watched nor of a call and was heard of longest ago gives way (the exception
policy for table-full decides it); of calls, one that only rings, of the host that has
most of those, else one of the host that has most calls; of pinholes, the new one is not opened.
"""

from __future__ import annotations

from dataclasses import dataclass

from appid.alg.book import PER_GATEWAY, PER_HOST
from appid.alg.shares import PER_REMOTE
from appid.flow.call import MAX_CALLS
from appid.flow.call import PER_HOST as CALLS_PER_HOST

MAX_FLOWS = 65536


@dataclass(frozen=True, slots=True)
class Limits:
    """flows: undecided or watched; calls, pinholes: of all hosts, and of one; calls that one address outside began."""

    flows: int = MAX_FLOWS
    calls: int = MAX_CALLS
    calls_per_host: int = CALLS_PER_HOST
    calls_per_remote: int = PER_REMOTE
    pinholes: int = PER_GATEWAY
    pinholes_per_host: int = PER_HOST
